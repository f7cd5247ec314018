"""Inputs that studies look at: grids, a generated set, scikit-learn's bundled sets, UCI folders,
tables of measurements in space and time.

A UCI folder is one of the files ``data.txt``, ``index_features.txt``, ``index_train_<k>.txt`` as
the literature on Bayesian networks shares them; the folder that holds them is named by the study or
by the environment variable ``MOEBIUS_UCI``. The folder of space-time tables is named in the same
way, by ``MOEBIUS_AIR``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import UserError

if TYPE_CHECKING:
    import pandas as pd

VARIABLE = "MOEBIUS_UCI"
AIR_VARIABLE = "MOEBIUS_AIR"

BUNDLED = ("breast_cancer", "diabetes", "digits", "iris", "wine")
"""Data sets that come with scikit-learn."""


class DataError(UserError, ValueError):
    """Data that are not there or not what they should be; the message names the cure."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """Training inputs of a data set.

    Attributes
    ----------
    X : ndarray
        (N, D) float64, every column with mean 0 and standard deviation 1; constant ones are 0.
    sha256 : str
        First 16 hexadecimal digits of the hash of the inputs before that, row by row.
    """

    X: np.ndarray
    sha256: str

    @classmethod
    def of(cls, raw: np.ndarray) -> Inputs:
        """Standardise raw inputs (N, D)."""
        raw = np.ascontiguousarray(raw, dtype=np.float64)
        digest = hashlib.sha256(f"{raw.shape}".encode() + raw.tobytes()).hexdigest()[:16]
        spread = raw.std(0)
        return cls((raw - raw.mean(0)) / np.where(spread > 0, spread, 1.0), digest)


def uci(name: str, split: int = 0, folder: str | Path | None = None) -> Inputs:
    """Training inputs of a split of a UCI data set.

    Parameters
    ----------
    name : str
        Of the folder: "boston", "yacht", ...
    split : int
    folder : path, optional
        What holds the data sets' folders; by default what ``MOEBIUS_UCI`` names.

    Raises
    ------
    DataError
        If there is no such folder or file, or a file is not a table of numbers.
    """
    home = folder if folder is not None else os.environ.get(VARIABLE)
    if not home:
        raise DataError(
            f"the data set {name!r} is not part of the project: set the environment variable "
            f"{VARIABLE} to the folder that holds the folder {name!r} (data.txt, "
            f"index_features.txt, index_train_{split}.txt)"
        )
    place = Path(home) / name
    rows = numbers(place / f"index_train_{split}.txt", int).ravel()
    columns = numbers(place / "index_features.txt", int).ravel()
    data = numbers(place / "data.txt")
    if rows.max() >= data.shape[0] or columns.max() >= data.shape[1]:
        raise DataError(
            f"{place}: the indices must lie in the {data.shape[0]} rows and {data.shape[1]} "
            f"columns of data.txt; got row {rows.max()} and column {columns.max()}"
        )
    return Inputs.of(data[rows][:, columns])


def bundled(name: str) -> Inputs:
    """Inputs of a data set of `BUNDLED`.

    Examples
    --------
    >>> bundled("diabetes").X.shape
    (442, 10)
    """
    from sklearn import datasets

    if name not in BUNDLED:
        raise DataError(f"scikit-learn bundles {', '.join(BUNDLED)}; got {name!r}")
    return Inputs.of(getattr(datasets, f"load_{name}")().data)


def banana(n: int, noise: float, seed: int) -> Inputs:
    """Inputs of two interleaved crescents, n points in the plane.

    Examples
    --------
    >>> banana(100, 0.2, 0).X.shape
    (100, 2)
    """
    from sklearn.datasets import make_moons

    return Inputs.of(make_moons(n, noise=noise, random_state=seed)[0])


def read_table(path: str | Path, text: Sequence[str] = ()) -> pd.DataFrame:
    """A table in a CSV file, compressed or not, or in a Parquet file.

    Parameters
    ----------
    path : path
        Ending in .parquet if it is one.
    text : sequence of str
        Columns of a CSV file that are text even where they look like numbers, such as names.

    Raises
    ------
    DataError
        If there is no such file, or it is no such table.
    """
    import pandas as pd

    if Path(path).is_dir():
        raise DataError(f"{path} is a folder; a table is one file")
    try:
        if Path(path).suffix == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, dtype=dict.fromkeys(text, "str"))
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from None


def air_folder(folder: str | None = None) -> Path | None:
    """The folder of space-time tables: the given one, else what ``MOEBIUS_AIR`` names, if any."""
    home = folder if folder is not None else os.environ.get(AIR_VARIABLE)
    return Path(home) if home else None


def numbers(path: Path, kind: type = float) -> Any:
    """A text file of numbers, as a matrix."""
    try:
        return np.loadtxt(path, dtype=kind, ndmin=2)
    except FileNotFoundError:
        raise DataError(
            f"there is no {path}; {VARIABLE} or the study's 'folder' must name the folder that "
            f"holds {path.parent.name!r}"
        ) from None
    except ValueError as error:
        raise DataError(f"{path} is not a table of numbers: {error}") from None

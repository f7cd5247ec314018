"""Data sets with a training and a test part, for posteriors: UCI splits, digits, a toy function.

A UCI folder holds ``data.txt``, ``index_features.txt``, ``index_target.txt``,
``index_train_<k>.txt`` and ``index_test_<k>.txt``; the folder of such folders is named by the study
or by the environment variable ``MOEBIUS_UCI``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .datasets import VARIABLE, DataError, numbers


@dataclass(frozen=True, eq=False)
class Split:
    """Training and test rows, standardised by the training rows' mean and standard deviation.

    Attributes
    ----------
    X, X_test : ndarray
        (N, D) float64.
    y, y_test : ndarray
        (N,) standardised responses, or labels.
    scale : float
        The standard deviation of the training responses, 1 for labels.
    """

    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    scale: float = 1.0


def uci_split(name: str, split: int, folder: str | Path | None = None) -> Split:
    """A split of a UCI regression set.

    Raises
    ------
    DataError
        If there is no such folder or file.
    """
    home = folder if folder is not None else os.environ.get(VARIABLE)
    if not home:
        raise DataError(
            f"the data set {name!r} is not part of the project: set the environment variable "
            f"{VARIABLE}, or the study's 'folder', to the folder that holds the folder {name!r} "
            f"(data.txt, index_features.txt, index_target.txt, index_train_{split}.txt, "
            f"index_test_{split}.txt)"
        )
    place = Path(home) / name
    data = numbers(place / "data.txt")
    features = numbers(place / "index_features.txt").astype(int).ravel()
    target = int(numbers(place / "index_target.txt").ravel()[0])
    train = numbers(place / f"index_train_{split}.txt").astype(int).ravel()
    test = numbers(place / f"index_test_{split}.txt").astype(int).ravel()
    y, y_test = data[train, target], data[test, target]
    centre, scale = float(y.mean()), float(y.std())
    X, X_test = _standardised(data[train][:, features], data[test][:, features])
    return Split(X, (y - centre) / scale, X_test, (y_test - centre) / scale, scale)


def digits_split(n_train: int, seed: int) -> Split:
    """Handwritten digits of 8 x 8 pixels in [0, 1], as scikit-learn bundles them.

    Examples
    --------
    >>> split = digits_split(100, 0)
    >>> split.X.shape, split.X_test.shape, sorted(set(split.y.tolist())) == list(range(10))
    ((100, 64), (1697, 64), True)
    """
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(X))
    train, test = order[:n_train], order[n_train:]
    return Split(X[train] / 16, y[train], X[test] / 16, y[test])


def _standardised(X: np.ndarray, X_test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    centre, spread = X.mean(0), X.std(0)
    spread = np.where(spread > 0, spread, 1.0)
    return (X - centre) / spread, (X_test - centre) / spread

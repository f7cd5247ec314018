"""Distances between priors and their target: means with intervals, and whether bounds are kept.

Intervals are Student's 95% ones: over replicates where there are several, each with a fit and
measurement sets of its own, over the measurement sets of the only fit otherwise. The floor is the
same distance between the target and itself. A profile may bound the energy distance of an arm, by a
number or by half that of another arm:

============ ====================================================
verdict      rule
============ ====================================================
at most ...  the interval ends below the bound
above ...    the interval begins above it
inconclusive the interval straddles it
============ ====================================================
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

TARGET = "gp"
DISTANCES = {
    "energy_distance": "energy distance",
    "sliced_w1": "sliced $W_1$",
    "bures_w2": "Bures-$W_2$ a point",
    "class_energy_distance": "energy distance of\nclass probabilities",
}
"""Those that a study has, by their column."""
STATISTICS = ("marginal_variance", "excess_kurtosis", "correlation_length")
LABELS = {
    TARGET: "GP",
    "fg": "FG",
    "fh": "FH",
    "gpi-g-moments": "GPi-G by moments",
    "gpi-g": "GPi-G",
    "gpi-h": "GPi-H",
    "gpi-nf": "GPi-NF",
    "published-critic": "published critic",
}
"""Arms as the figures write them; others by their own name."""


def named(table: pd.DataFrame, arms: list[str]) -> pd.DataFrame:
    """Rows with their arm's name without the data set's, ``label``, in the order of the study."""
    labels = [
        arm.removeprefix(f"{data}-") for arm, data in zip(table["arm"], table["data"], strict=True)
    ]
    order = pd.Categorical(labels, [TARGET, *arms], ordered=True)
    keys = ["data", "label", "n", "replicate"]
    return table.assign(label=order).sort_values(keys, ignore_index=True)


def summarised(table: pd.DataFrame, n_repeats: int) -> pd.DataFrame:
    """Distances and statistics of every arm at every number of steps.

    Parameters
    ----------
    table : DataFrame
        As `named` returns it.
    n_repeats : int
        Measurement sets behind a row's errors.

    Returns
    -------
    DataFrame
        Columns data, label, n, replicates, seconds; for each distance its mean with the standard
        error and the 95% interval (``_low``, ``_high``), and the same of its floor
        (``_floor``, ``_floor_high``); each statistic beside the target's.
    """
    rows = []
    for (data, label, n), group in table.groupby(["data", "label", "n"], observed=True):
        row: dict[str, Any] = {
            "data": data,
            "label": label,
            "n": n,
            "replicates": len(group),
            "seconds": group["seconds"].mean(),
        }
        for name in measured(table):
            mean, error, reach = _interval(group[name], group[f"{name}_error"], n_repeats)
            row |= {name: mean, f"{name}_error": error}
            row |= {f"{name}_low": mean - reach, f"{name}_high": mean + reach}
            floor, _, above = _interval(
                group[f"{name}_target"], group[f"{name}_target_error"], n_repeats
            )
            row |= {f"{name}_floor": floor, f"{name}_floor_high": floor + above}
        for name in STATISTICS:
            row |= {column: _mean(group, column) for column in (name, f"{name}_target")}
        rows.append(row)
    order = pd.CategoricalDtype(table["label"].cat.categories, ordered=True)
    return pd.DataFrame(rows).astype({"label": order})


def measured(table: pd.DataFrame) -> dict[str, str]:
    """The part of `DISTANCES` that a table has."""
    return {name: words for name, words in DISTANCES.items() if name in table}


def verdicts(
    distances: pd.DataFrame, at_most: dict[str, float], at_most_half_of: dict[str, tuple[str, ...]]
) -> list[str]:
    """What to say of the energy distance of each row of `summarised`; "" where nothing bounds it.

    Half of another arm's distance is subtracted with its error, as if both were independent.
    """
    rows = distances.to_dict("records")
    last = {(row["data"], row["label"]): row for row in rows}  # of the most steps
    words = []
    for row in rows:
        told = []
        distance, high = row["energy_distance"], row["energy_distance_high"]
        if row["label"] in at_most:
            bound = at_most[row["label"]]
            told.append(judge(row["energy_distance_low"] - bound, high - bound, f"{bound:.3g}"))
        for name in at_most_half_of.get(row["label"], ()):
            if (other := last.get((row["data"], name))) is None:
                continue
            gap = distance - other["energy_distance"] / 2
            wide = (other["energy_distance_high"] - other["energy_distance"]) / 2
            reach = math.hypot(high - distance, wide)
            told.append(judge(gap - reach, gap + reach, f"half of {label_of(other['label'])}"))
        words.append("; ".join(told))
    return words


def judge(low: float, high: float, bound: str) -> str:
    """The verdict on the interval of a difference from a bound; see the module's docstring.

    Examples
    --------
    >>> judge(-0.02, -0.01, "0.08"), judge(0.01, 0.02, "0.08"), judge(-0.01, 0.01, "0.08")
    ('at most 0.08', 'above 0.08', 'inconclusive (0.08)')
    """
    if high <= 0:
        return f"at most {bound}"
    return f"above {bound}" if low > 0 else f"inconclusive ({bound})"


def label_of(name: Any) -> str:
    """An arm as the figures write it."""
    return LABELS.get(str(name), str(name))


def _interval(values: pd.Series, errors: pd.Series, n_repeats: int) -> tuple[float, float, float]:
    """Mean, standard error and half the width of the 95% interval."""
    from scipy.stats import t

    n = len(values)
    error = float(errors.iloc[0] if n == 1 else values.std() / math.sqrt(n))
    draws = n_repeats if n == 1 else n
    return float(values.mean()), error, error * float(t.ppf(0.975, draws - 1))


def _mean(group: pd.DataFrame, column: str) -> float:
    """Infinite if it is in any replicate: stored as missing."""
    missing = column not in group or bool(group[column].isna().any())
    return math.inf if missing else float(group[column].mean())

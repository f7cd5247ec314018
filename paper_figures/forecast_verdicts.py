r"""Scores of forecasters with intervals, and what they say of a claim.

A score is a mean over hidden rows, known as its sums :math:`s_b` over blocks b of three days (two
weeks where values are daily) with :math:`n_b` rows; rows of one block are dependent. With
:math:`\bar s = \sum s_b / \sum n_b`, its standard error is that of a ratio over B blocks,

.. math:: \frac{1}{\sum n_b} \sqrt{\frac{B}{B - 1} \sum_b (s_b - \bar s\, n_b)^2},

and its 95% interval Student's with B - 1 degrees of freedom: of a difference as it stands, of a
score on the scale of logarithms, so that it stays above 0. That of a coverage is Wilson's with as
many independent rows as its standard error stands for, so that it stays within [0, 1]; the error
itself is at least that of as many independent rows (Agresti and Coull's). Cities of different
replicates are different blocks; replicates on one table hide the same days, which are one block in
all of them.
The difference of two arms is taken row by row within blocks, so that what is common to both drops
out. Intervals are of the days and masks, not of the training seed, unless replicates vary it.

============== =================================================================================
verdict        rule
============== =================================================================================
consistent     the interval of a 95% coverage lies within the bounds; that of a difference to the
               first arm is above 0, so that the first is better
inconsistent   it lies outside of the bounds; below 0
inconclusive   anything else, and whatever rests on less than five blocks
============== =================================================================================

References
----------
Agresti, Coull (1998), Approximate is better than "exact" for interval estimation of proportions.
Cochran (1977), Sampling Techniques, section 6.4.
Korn, Graubard (1998), Confidence intervals for proportions with small expected number of positive
counts estimated from survey data.
Wilson (1927), Probable inference, the law of succession, and statistical inference.
"""

from __future__ import annotations

import json
import math
from typing import Any, Literal

import numpy as np
import pandas as pd

Kind = Literal["real", "positive", "share"]

BLOCK_DAYS, BLOCK_DAYS_OF_DAILY = 3, 14
MIN_BLOCKS = 5
CITY = "city"
SCORES = {"mae": "mae", "crps": "crps", "coverage95": "covered95"}
SCORES |= {"interval_score95": "interval_score95"}
"""Scores by their column of sums."""

BOUNDS = (0.93, 0.97)
"""Of the coverage of nominal 95% intervals, where a profile names no others."""


def block_sums(table: pd.DataFrame) -> pd.DataFrame:
    """Sums over blocks, a row a block of each cell.

    Parameters
    ----------
    table : DataFrame
        Rows of the store with ``data``, ``task``, ``model``, ``replicate``, ``step`` and ``days``.

    Returns
    -------
    DataFrame
        Columns task, model, block (text), replicate, n and the sums of `SCORES`.
    """
    parts = []
    for row in table.to_dict("records"):
        days = pd.DataFrame(json.loads(row["days"]))
        own = f"{row['replicate']} " if row["data"] == CITY else ""
        length = BLOCK_DAYS if row["step"] < 24 else BLOCK_DAYS_OF_DAILY
        block = [f"{own}{day // length}" for day in days["day"]]
        sums = days.drop(columns="day").groupby(block).sum().rename_axis("block").reset_index()
        parts.append(sums.assign(**{k: row[k] for k in ("task", "model", "replicate")}))
    return pd.concat(parts, ignore_index=True)


def scores(sums: pd.DataFrame) -> pd.DataFrame:
    """Scores of each task and model with standard errors and intervals.

    Returns
    -------
    DataFrame
        Columns task, model, blocks and for each of `SCORES` its mean, ``_se``, ``_low``, ``_high``.
    """
    rows = []
    for (task, model), part in sums.groupby(["task", "model"], sort=False):
        row: dict[str, Any] = {"task": task, "model": model, "n": int(part["n"].sum())}
        by_block = part.groupby("block")[["n", *SCORES.values()]].sum()
        row["blocks"] = len(by_block)
        counts = by_block["n"].to_numpy()
        for name, column in SCORES.items():
            kind: Kind = "share" if name == "coverage95" else "positive"
            found = ratio(by_block[column].to_numpy(), counts, kind)
            row |= _named(name, found)
        rows.append(row)
    return pd.DataFrame(rows)


def differences(sums: pd.DataFrame, reference: str) -> pd.DataFrame:
    """How far the scores of the other models are above the reference's, paired by block.

    Returns
    -------
    DataFrame
        Columns task, model, blocks and for ``crps``, ``mae`` and ``interval_score95`` the
        difference, ``_se``, ``_low``, ``_high``, ``_percent`` of the reference's score, and
        ``_verdict``.
    """
    rows = []
    keys = ["replicate", "block"]
    for task, part in sums.groupby("task", sort=False):
        first = part[part["model"] == reference]
        if first.empty:
            continue
        for model, other in part[part["model"] != reference].groupby("model", sort=False):
            both = other.merge(first, on=keys, suffixes=("", "_first"))
            row: dict[str, Any] = {"task": task, "model": model}
            for name in ("crps", "mae", "interval_score95"):
                both["gap"] = both[name] - both[f"{name}_first"]
                summed = both.groupby("block")[["gap", "n", f"{name}_first"]].sum()
                found = ratio(summed["gap"].to_numpy(), summed["n"].to_numpy())
                base = summed[f"{name}_first"].sum() / summed["n"].sum()
                row |= {"blocks": len(summed)} | _named(name, found)
                row[f"{name}_percent"] = 100 * found[0] / base
                row[f"{name}_percent_se"] = 100 * found[1] / base
                row[f"{name}_verdict"] = verdict_of_difference(*found[2:], len(summed))
            rows.append(row)
    return pd.DataFrame(rows)


def ratio(
    sums: np.ndarray, counts: np.ndarray, kind: Kind = "real"
) -> tuple[float, float, float, float]:
    """Mean, standard error and both ends of its 95% interval; see the module's docstring.

    Parameters
    ----------
    sums, counts : ndarray (B,)
    kind : {"real", "positive", "share"}
        What the mean can be: any number, one above 0, or the share of rows that the sums count.

    Examples
    --------
    >>> [round(value, 3) for value in ratio(np.array([2.0, 4.0, 6.0]), np.array([1, 1, 1]))]
    [4.0, 1.155, -0.968, 8.968]
    """
    from scipy.stats import t

    n_blocks, total = len(sums), float(counts.sum())
    mean = float(sums.sum()) / total
    if n_blocks < 2:
        return mean, math.nan, math.nan, math.nan
    spread = float(((sums - mean * counts) ** 2).sum()) * n_blocks / (n_blocks - 1)
    error, quantile = math.sqrt(spread) / total, float(t.ppf(0.975, n_blocks - 1))
    if kind == "share":
        error = share_error(mean, error, total)
        return mean, error, *share_interval(mean, error, total, quantile)
    if kind == "positive":
        return mean, error, *positive_interval(mean, error, quantile)
    return mean, error, mean - quantile * error, mean + quantile * error


def positive_interval(mean: float, error: float, quantile: float) -> tuple[float, float]:
    """Ends of an interval of a positive mean, symmetric on the scale of logarithms.

    Examples
    --------
    >>> [round(end, 3) for end in positive_interval(10.0, 5.0, 2.0)]
    [3.679, 27.183]
    """
    factor = math.exp(quantile * error / mean) if mean > 0 else 1.0
    return mean / factor, mean * factor


def share_error(share: float, error: float, n_rows: float) -> float:
    """The standard error of a share, not below that of as many independent rows."""
    pulled = _pulled(share, n_rows)
    return max(error, math.sqrt(pulled * (1 - pulled) / (n_rows + 4)))


def share_interval(
    share: float, error: float, n_rows: float, quantile: float
) -> tuple[float, float]:
    """Ends of Wilson's interval of a share, with as many rows as its standard error stands for.

    Examples
    --------
    >>> [round(end, 3) for end in share_interval(1.0, share_error(1.0, 0.0, 46), 46, 2.0)]
    [0.926, 1.0]
    """
    pulled = _pulled(share, n_rows)
    effective = pulled * (1 - pulled) / error**2
    pull = quantile**2 / effective
    middle = (share + pull / 2) / (1 + pull)
    reach = math.sqrt(pull * share * (1 - share) + pull**2 / 4) / (1 + pull)
    return min(middle - reach, share), max(middle + reach, share)  # but for rounding at 0 and 1


def verdict_of_difference(low: float, high: float, n_blocks: int) -> str:
    """Whether the first arm is better, by the interval of the other's score above its own.

    Examples
    --------
    >>> [verdict_of_difference(*i, 9) for i in ((0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1))]
    ['consistent', 'inconsistent', 'inconclusive']
    """
    if n_blocks < MIN_BLOCKS or low <= 0 <= high:
        return "inconclusive"
    return "consistent" if low > 0 else "inconsistent"


def verdict_of_coverage(low: float, high: float, n_blocks: int, bounds: tuple[float, float]) -> str:
    """Whether a coverage lies within bounds, by its interval.

    Examples
    --------
    >>> intervals = ((0.94, 0.96), (0.8, 0.9), (0.9, 0.95))
    >>> [verdict_of_coverage(*i, 9, (0.93, 0.97)) for i in intervals]
    ['consistent', 'inconsistent', 'inconclusive']
    """
    if n_blocks < MIN_BLOCKS:
        return "inconclusive"
    if bounds[0] <= low and high <= bounds[1]:
        return "consistent"
    return "inconsistent" if high < bounds[0] or low > bounds[1] else "inconclusive"


def _pulled(share: float, n_rows: float) -> float:
    return (share * n_rows + 2) / (n_rows + 4)


def _named(name: str, found: tuple[float, ...]) -> dict[str, float]:
    return dict(zip((name, f"{name}_se", f"{name}_low", f"{name}_high"), found, strict=True))

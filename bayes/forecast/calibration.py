r"""Conformal recalibration of predictive quantiles, and tables that show calibration.

A forecast of observation i is a row of quantiles :math:`q_{i1} \le \dots \le q_{iL}` at levels
:math:`\alpha_1 < \dots < \alpha_L`. With :math:`w_{il}` its width on the side of level l (from the
median to the outermost quantile; both sides for the median itself) the scores of n observations not
used in training are

.. math:: s_{il} = (y_i - q_{il}) / w_{il},

and the new quantile of a row with forecast q is :math:`\hat q_l = q_l + k_l w_l`, where :math:`k_l`
is the r-th smallest score, :math:`r = \lfloor \alpha_l (n + 1) \rfloor` below the median and
:math:`\lceil \alpha_l (n + 1) \rceil` above. Quantiles that cross are then moved outwards and those
below a lower bound of y onto it. If calibration and new observations are exchangeable within a
group, then for any model (Vovk et al. 2005, proposition 2.3; Romano et al. 2019, theorem 1)

.. math:: P(y < \hat q_l) \le \alpha_l \;\; (\alpha_l < 1/2), \qquad
          P(y \le \hat q_l) \ge \alpha_l \;\; (\alpha_l > 1/2),

so that the interval between levels a/2 and 1 - a/2 covers with probability at least 1 - a, and, if
scores have no ties and nothing crosses, at most 1 - a + 2/(n + 1). It is a statement on the average
over calibration sets and new rows, not on each row. Neighbouring hours are alike, which leaves the
average right and makes one calibration set less telling; a drift breaks it. Against drift,
`Conformal.update` moves :math:`k_l` with each batch of new observations,

.. math:: k_l \leftarrow k_l + \eta\,(\alpha_l - \text{fraction of the batch with } s_l \le k_l),

after which the fraction of y below quantile l, averaged over T batches, differs from
:math:`\alpha_l` by at most :math:`(b + \eta)/(\eta T)`, whatever the data, for scores and
shifts within a range b (Angelopoulos, Candès and Tibshirani 2023, proposition 1).

References
----------
Vovk, Gammerman, Shafer (2005), Algorithmic Learning in a Random World.
Romano, Patterson, Candès (2019), Conformalized quantile regression.
Angelopoulos, Candès, Tibshirani (2023), Conformal PID control for time series prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from kernels.checks import check_int, check_real

NARROW = 0.01  # of the mean width: rows narrower than that are shifted as if they had this width


@dataclass(frozen=True)
class Conformal:
    """Shifts that recalibrate quantiles, per group and pooled.

    Attributes
    ----------
    levels : ndarray (L,)
    groups : ndarray (G,) of int64
        Those with observations enough for shifts of their own.
    shifts : ndarray (G + 1, L)
        k in the module's formula; the last row is pooled over all calibration rows and serves every
        other group.
    units : ndarray (2,)
        Mean widths below and above the median; 1 where all widths are zero, so that a point
        forecast is shifted in units of y.
    lower : float
        Lower bound of y, -inf if there is none.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y, levels = rng.normal(size=5000), np.array([0.05, 0.5, 0.95])
    >>> narrow = np.tile([-0.5, 0.0, 0.5], (5000, 1))
    >>> conformal = Conformal.fit(y[:2500], narrow[:2500], levels)
    >>> new = conformal.apply(narrow[2500:])
    >>> np.mean(y[2500:, None] <= new, axis=0).round(2)
    array([0.05, 0.49, 0.95])
    """

    levels: np.ndarray
    groups: np.ndarray
    shifts: np.ndarray
    units: np.ndarray
    lower: float = -np.inf

    @classmethod
    def fit(
        cls,
        y: Any,
        quantiles: Any,
        levels: Any,
        groups: Any = None,
        *,
        min_count: int = 200,
        lower: float = -np.inf,
    ) -> Conformal:
        """Shifts from observations that the model was not trained on.

        Parameters
        ----------
        y : array (N,)
        quantiles : array (N, L)
        levels : array (L,)
            Increasing, in (0, 1), with some on either side of 1/2 or at it.
        groups : array (N,) of int, optional
            Such as bins of horizon or gap length.
        min_count : int
            A group with fewer rows takes the pooled shifts.
        lower : float
            Lower bound of y.

        Raises
        ------
        ValueError
            If there are too few rows for the outermost level: n >= 1/a - 1 for level a or 1 - a.
        """
        levels = check_levels(levels)
        y, quantiles = _check_forecasts(y, quantiles, levels)
        group = _check_groups(groups, len(y))
        check_int("min_count", min_count, 1)
        rarest = float(min(levels[0], 1 - levels[-1]))
        needed = int(np.ceil(1 / rarest - 1 - 1e-9))
        if len(y) < needed:
            raise ValueError(
                f"The calibration rows must be at least {needed} for levels {levels[0]:g} to "
                f"{levels[-1]:g}; got {len(y)}."
            )
        units = _sides(quantiles, levels).mean(axis=0)
        units[units == 0] = 1.0
        scores = (y[:, None] - quantiles) / _widths(quantiles, levels, units)
        labels, counts = np.unique(group, return_counts=True)
        labels = labels[counts >= max(min_count, needed)] if groups is not None else labels[:0]
        members = [scores[group == label] for label in labels]
        shifts = np.stack([_ranked(own, levels) for own in [*members, scores]])
        return cls(levels, labels, shifts, units, float(lower))

    def apply(self, quantiles: Any, groups: Any = None) -> np.ndarray:
        """Recalibrated quantiles (N, L), increasing along each row and above the lower bound.

        The columns are the fitted levels; interpolate the result for others.
        """
        quantiles = np.asarray(quantiles, np.float64)
        _check_shape(quantiles, self.levels)
        row = self._rows(_check_groups(groups, len(quantiles)))
        moved = quantiles + self.shifts[row] * _widths(quantiles, self.levels, self.units)
        return np.maximum(outwards(moved, self.levels), self.lower)

    def update(
        self, y: Any, quantiles: Any, groups: Any = None, *, rate: float = 0.05
    ) -> Conformal:
        """Shifts after a batch of new observations of the *uncalibrated* ``quantiles``.

        ``rate`` is eta of the module's formula, in widths. A group without shifts of its own moves
        the pooled ones.
        """
        check_real("rate", rate, low=0, strict=True)
        y, quantiles = _check_forecasts(y, quantiles, self.levels)
        row = self._rows(_check_groups(groups, len(y)))
        scores = (y[:, None] - quantiles) / _widths(quantiles, self.levels, self.units)
        shifts = self.shifts.copy()
        for r in np.unique(row):
            shifts[r] += rate * (self.levels - np.mean(scores[row == r] <= shifts[r], axis=0))
        return replace(self, shifts=shifts)

    def roll(
        self,
        y: Any,
        quantiles: Any,
        hours: Any,
        groups: Any = None,
        *,
        rate: float = 0.05,
        delay: float = 0.0,
    ) -> np.ndarray:
        """Recalibrate forecasts one time after the other, learning from each once it is observed.

        Parameters
        ----------
        y : array (N,)
            NaN where never observed.
        quantiles : array (N, L)
        hours : array (N,)
            Times the forecasts are for.
        groups : array (N,) of int, optional
        rate : float
        delay : float
            Hours from the issue of a forecast to its time, such as the horizon: a row is adjusted
            by observations more than that before it.

        Returns
        -------
        ndarray (N, L)
        """
        y, hours = np.asarray(y, np.float64), np.asarray(hours, np.float64)
        quantiles, group = np.asarray(quantiles, np.float64), _check_groups(groups, len(y))
        check_real("delay", delay, low=0)
        order = np.argsort(hours, kind="stable")
        batches = np.split(order, np.flatnonzero(np.diff(hours[order])) + 1)
        conformal, n_learned = self, 0
        out = np.empty_like(quantiles)
        for batch in batches:
            while hours[batches[n_learned][0]] < hours[batch[0]] - delay:
                seen = batches[n_learned][~np.isnan(y[batches[n_learned]])]
                if len(seen):
                    conformal = conformal.update(y[seen], quantiles[seen], group[seen], rate=rate)
                n_learned += 1
            out[batch] = conformal.apply(quantiles[batch], group[batch])
        return out

    def _rows(self, group: np.ndarray) -> np.ndarray:
        own = pd.Index(self.groups).get_indexer(group)
        return np.where(own < 0, len(self.groups), own)


def pit_histogram(y: Any, quantiles: Any, levels: Any, blocks: Any = None) -> pd.DataFrame:
    """How often y falls between consecutive quantiles.

    Returns
    -------
    DataFrame
        A row for each of the L + 1 bins: ``low`` and ``high`` levels, ``expected`` probability,
        ``observed`` fraction, ``standard_error`` of it. An ideal forecast has expected = observed;
        too narrow a one fills the outer bins.

    Notes
    -----
    Standard errors are by rows, or by ``blocks`` (N,) of dependent rows, such as days.

    Examples
    --------
    >>> pit_histogram([0.0, 1.0, 2.0, 3.0], [[0.5, 1.5]] * 4, [0.25, 0.5]).observed.tolist()
    [0.25, 0.25, 0.5]
    """
    levels = check_levels(levels, straddle=False)
    y, quantiles = _check_forecasts(y, quantiles, levels)
    cell = np.sum(y[:, None] > quantiles, axis=1)
    edges = np.concatenate([[0.0], levels, [1.0]])
    inside = cell[:, None] == np.arange(len(edges) - 1)
    return pd.DataFrame(
        {"low": edges[:-1], "high": edges[1:], "expected": np.diff(edges)}
        | {"observed": inside.mean(axis=0), "standard_error": _standard_error(inside, blocks)}
    )


def reliability(y: Any, quantiles: Any, levels: Any, blocks: Any = None) -> pd.DataFrame:
    """Fraction of y at or below each quantile: ``level``, ``observed``, ``standard_error``.

    Examples
    --------
    >>> reliability([0.0, 1.0, 2.0, 3.0], [[0.5, 1.5]] * 4, [0.25, 0.5]).observed.tolist()
    [0.25, 0.5]
    """
    levels = check_levels(levels, straddle=False)
    y, quantiles = _check_forecasts(y, quantiles, levels)
    below = y[:, None] <= quantiles
    return pd.DataFrame(
        {"level": levels, "observed": below.mean(axis=0)}
        | {"standard_error": _standard_error(below, blocks)}
    )


def outwards(quantiles: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Quantiles (N, L) made increasing by moving those that cross away from the median.

    Levels above 1/2 only rise and levels below only fall, so that no interval loses coverage.

    Examples
    --------
    >>> outwards(np.array([[2.0, 1.0, 1.5, 1.2]]), np.array([0.1, 0.5, 0.8, 0.9]))
    array([[1. , 1. , 1.5, 1.5]])
    """
    centre = int(np.searchsorted(levels, 0.5))
    centre = min(centre, len(levels) - 1)
    out = np.empty_like(quantiles)
    out[:, centre:] = np.maximum.accumulate(quantiles[:, centre:], axis=1)
    out[:, centre::-1] = np.minimum.accumulate(quantiles[:, centre::-1], axis=1)
    return out


def central_levels(coverage: Sequence[float]) -> list[float]:
    """Levels of the ends of central intervals, two for each coverage.

    Rounded, so that the ends of 95% are those of `scores.LEVELS`.

    Raises
    ------
    ValueError
        If a coverage is not in (0, 1).

    Examples
    --------
    >>> central_levels([0.9, 0.5])
    [0.05, 0.95, 0.25, 0.75]
    """
    wrong = [c for c in coverage if not (isinstance(c, float | np.floating) and 0 < c < 1)]
    if wrong:
        raise ValueError(f"The 'coverage' parameter must hold numbers in (0, 1); got {wrong[0]!r}.")
    return [round(side, 12) for c in coverage for side in ((1 - c) / 2, (1 + c) / 2)]


def check_levels(levels: Any, *, straddle: bool = True) -> np.ndarray:
    """Levels (L,), increasing in (0, 1), on both sides of 1/2 or at it if they must straddle it."""
    array = np.asarray(levels, np.float64)
    valid = array.ndim == 1 and len(array) > 0 and array.min() > 0 and array.max() < 1
    if not valid or (np.diff(array) <= 0).any():
        raise ValueError(
            f"The 'levels' parameter must be increasing numbers in (0, 1); got {levels!r}."
        )
    if straddle and not array[0] <= 0.5 <= array[-1]:
        raise ValueError(f"The 'levels' parameter must have 1/2 within its range; got {levels!r}.")
    return array


def _ranked(scores: np.ndarray, levels: np.ndarray) -> np.ndarray:
    exact = levels * (len(scores) + 1)
    rank = np.where(levels < 0.5, np.floor(exact + 1e-9), np.ceil(exact - 1e-9)).astype(int)
    return np.take_along_axis(np.sort(scores, axis=0), rank[None] - 1, axis=0)[0]


def _sides(quantiles: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Widths (N, 2) below and above the median."""
    right = min(int(np.searchsorted(levels, 0.5)), len(levels) - 1)
    left = max(right - 1, 0) if levels[right] > 0.5 else right
    weight = 0.0 if left == right else (0.5 - levels[left]) / (levels[right] - levels[left])
    median = (1 - weight) * quantiles[:, left] + weight * quantiles[:, right]
    return np.stack([median - quantiles[:, 0], quantiles[:, -1] - median], axis=1).clip(0)


def _widths(quantiles: np.ndarray, levels: np.ndarray, units: np.ndarray) -> np.ndarray:
    """w of the module's formula (N, L)."""
    sides = np.maximum(_sides(quantiles, levels), NARROW * units)
    below, above = sides[:, :1], sides[:, 1:]
    return np.where(levels < 0.5, below, np.where(levels > 0.5, above, below + above))


def _standard_error(hits: np.ndarray, blocks: Any) -> np.ndarray:
    """Of the column means of hits (N, L), rows within a block being dependent."""
    centred = hits - hits.mean(axis=0)
    block = np.arange(len(hits)) if blocks is None else pd.factorize(np.asarray(blocks))[0]
    sums = np.zeros((block.max() + 1, hits.shape[1]))
    np.add.at(sums, block, centred)
    return np.sqrt((sums**2).sum(axis=0)) / len(hits)


def _check_forecasts(y: Any, quantiles: Any, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y, quantiles = np.asarray(y, np.float64), np.asarray(quantiles, np.float64)
    _check_shape(quantiles, levels)
    if y.shape != quantiles.shape[:1] or len(y) == 0:
        raise ValueError(
            f"The 'y' parameter must have shape ({len(quantiles)},), one value a forecast, and "
            f"some values; got shape {y.shape}."
        )
    for name, array in (("y", y), ("quantiles", quantiles)):
        if not np.isfinite(array).all():
            raise ValueError(
                f"The {name!r} parameter must be finite; "
                f"got {(~np.isfinite(array)).sum()} NaN or infinite values."
            )
    return y, quantiles


def _check_shape(quantiles: np.ndarray, levels: np.ndarray) -> None:
    if quantiles.ndim != 2 or quantiles.shape[1] != len(levels):
        raise ValueError(
            f"The 'quantiles' parameter must have shape (N, {len(levels)}), one column a level; "
            f"got {quantiles.shape}."
        )


def _check_groups(groups: Any, n_rows: int) -> np.ndarray:
    if groups is None:
        return np.zeros(n_rows, np.int64)
    array = np.asarray(groups)
    if array.shape != (n_rows,) or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"The 'groups' parameter must be ints of shape ({n_rows},); "
            f"got {array.dtype} of shape {array.shape}."
        )
    return array.astype(np.int64)

r"""Recalibrated probabilities: a monotone map of the model's own, per group of alike queries.

Let :math:`u_i = F_i(y_i)` be the model's probabilities of values it was not trained on. If they
were uniform, the a-quantile of y would be where F = a. In a group whose a-quantile of u is
:math:`u_a`, it is where :math:`F = \Phi(\Phi^{-1}(a) + d_a)`, with

.. math:: d_a = w\,\bigl(\Phi^{-1}(u_a) - \Phi^{-1}(a)\bigr) + (1 - w)\,\bar d_a, \qquad
          w = \frac{n}{n + n_0},

:math:`\bar d` being that of all groups together (shrunk likewise towards 0), n the independent
blocks (stretches of time, or sensors) in the group, and :math:`u_a` the conformal rank of
`calibration.Conformal`. As n grows, with blocks of one row, this becomes distributional conformal
prediction, whose coverage is exact for any model.

`calibration.Conformal` does the same for any forecaster that gives quantiles, row by row and with
the guarantee for finite samples; it follows drifts. Here whole distributions are wanted, and small
groups of dependent rows are the rule.

References
----------
Chernozhukov, Wüthrich, Zhu (2021), Distributional conformal prediction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

LEVELS = np.array([0.01, 0.025, *np.arange(1, 20) / 20, 0.975, 0.99])
PRIOR_BLOCKS = 5.0  # n_0
_EDGE = 1e-9


@dataclass(frozen=True)
class Recalibration:
    """Shifts d on the probit scale.

    Attributes
    ----------
    shifts : ndarray (G, L)
        For each group, at `LEVELS`.

    Examples
    --------
    >>> u = np.random.default_rng(0).uniform(0.3, 0.7, 20_000)  # far too wide a forecast
    >>> group = np.zeros(20_000, np.int64)
    >>> fitted = Recalibration.fit(u, group, np.arange(20_000), n_groups=1)
    >>> fitted.levels(np.array([0.25, 0.5, 0.75])).round(1)
    array([[0.4, 0.5, 0.6]])
    """

    shifts: np.ndarray

    @classmethod
    def identity(cls, n_groups: int) -> Recalibration:
        return cls(np.zeros((n_groups, len(LEVELS))))

    @classmethod
    def fit(
        cls, u: np.ndarray, group: np.ndarray, block: np.ndarray, n_groups: int
    ) -> Recalibration:
        """From probabilities (N,), groups (N,) in [0, G) and blocks of time (N,)."""
        pooled = _shrunken(u, block, np.zeros(len(LEVELS)))
        shifts = np.tile(pooled, (n_groups, 1))
        for g in np.unique(group):
            rows = group == g
            shifts[g] = _shrunken(u[rows], block[rows], pooled)
        return cls(shifts)

    def levels(self, alpha: np.ndarray) -> np.ndarray:
        """The model's levels (G, L') for wanted ones (L',)."""
        known = ndtri(LEVELS)
        wanted = ndtri(np.clip(alpha, _EDGE, 1 - _EDGE))
        knots = np.maximum.accumulate(known + self.shifts, axis=1)
        moved = [
            np.interp(wanted, known, row)
            + np.minimum(wanted - known[0], 0)
            + np.maximum(wanted - known[-1], 0)
            for row in knots
        ]
        return ndtr(np.array(moved))

    def probabilities(self, u: np.ndarray, group: np.ndarray) -> np.ndarray:
        """Recalibrated probabilities of the model's own (N,): the inverse of `levels`."""
        known = ndtri(LEVELS)
        asked = ndtri(np.clip(u, _EDGE, 1 - _EDGE))
        out = np.empty_like(asked)
        for g in np.unique(group):
            rows = group == g
            knots = np.maximum.accumulate(known + self.shifts[g])
            x = asked[rows]
            out[rows] = (
                np.interp(x, knots, known)
                + np.minimum(x - knots[0], 0)
                + np.maximum(x - knots[-1], 0)
            )
        return ndtr(out)


def _shrunken(u: np.ndarray, block: np.ndarray, towards: np.ndarray) -> np.ndarray:
    n_rows, n_blocks = len(u), len(np.unique(block))
    exact = LEVELS * (n_rows + 1)
    rank = np.where(LEVELS < 0.5, np.floor(exact), np.ceil(exact)).astype(int)
    ranked = np.sort(u)[np.clip(rank, 1, n_rows) - 1]
    found = ndtri(np.clip(ranked, _EDGE, 1 - _EDGE)) - ndtri(LEVELS)
    weight = n_blocks / (n_blocks + PRIOR_BLOCKS)
    return weight * found + (1 - weight) * towards

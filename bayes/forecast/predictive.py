r"""Predictive distributions: mixtures of the ensemble's members, recalibrated.

.. math:: F(y) = R_g\Bigl(\frac{1}{M} \sum_m F_m(z(y))\Bigr)

with z the working scale, :math:`F_m` the likelihood under member m and :math:`R_g` the
recalibration of the query's group. The mixture's quantile lies between the least and the greatest
of its members', where a bracketing root finder (Illinois) takes it up.

References
----------
Dowell, Jarratt (1971), A modified regula falsi method for computing the root of an equation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .likelihoods import Law, Likelihood
from .recalibration import Recalibration
from .scale import TargetScale

_N_ROOT = 20
_TOLERANCE = 1e-6  # of a probability
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)
_NODES, _WEIGHTS = 0.5 + 0.5 * _NODES, 0.5 * _WEIGHTS


@dataclass(frozen=True)
class Predictive:
    """Predictive distributions of N rows.

    Attributes
    ----------
    law : Law
        Location (M, N), scale (M, N) and tail (M, 1) of the members, on the working scale.
    group : ndarray (N,)
    likelihood, target_scale, recalibration
    """

    law: Law
    group: np.ndarray
    likelihood: Likelihood
    target_scale: TargetScale
    recalibration: Recalibration

    def quantile(self, alpha: np.ndarray) -> np.ndarray:
        """Quantiles (N, L) of the target at levels (L,)."""
        levels = self.recalibration.levels(np.asarray(alpha, np.float64))
        out = np.empty((len(self.group), len(alpha)))
        for g in np.unique(self.group):
            rows = self.group == g
            solve = self._count_quantile if self.likelihood.discrete else self._mixture_quantile
            out[rows] = solve(rows, levels[g]).T
        if not self.likelihood.discrete:  # counts are exact integers already
            out = self.likelihood.from_working(out, self.target_scale)
        order = np.argsort(alpha, kind="stable")
        out[:, order] = np.maximum.accumulate(out[:, order], axis=1)
        return out

    def cdf(self, y: np.ndarray) -> np.ndarray:
        """Probabilities (N,) that the target is at most y (N,)."""
        u = self.recalibration.probabilities(self.probabilities(y), self.group)
        return np.where(y < self.target_scale.low, 0.0, u)

    def probabilities(self, y: np.ndarray) -> np.ndarray:
        """`cdf` before recalibration."""
        z = self.likelihood.to_working(y, self.target_scale)
        u = self.likelihood.cdf(z, self.law, self.target_scale).mean(0)
        return np.where(y < self.target_scale.low, 0.0, u)

    def mean(self) -> np.ndarray:
        """Means (N,), by Gauss-Legendre quadrature of the quantile function."""
        return self.quantile(_NODES) @ _WEIGHTS

    def variances(self) -> tuple[np.ndarray, np.ndarray]:
        """Epistemic and aleatoric variance of the target (N,): the variance over members of their
        means, and the mean over members of their variances, before recalibration."""
        parts = [
            self.likelihood.from_working(
                self.likelihood.quantile(np.asarray(p), self.law, self.target_scale),
                self.target_scale,
            )
            for p in _NODES
        ]
        mean = sum(w * y for w, y in zip(_WEIGHTS, parts, strict=True))
        square = sum(w * np.square(y - mean) for w, y in zip(_WEIGHTS, parts, strict=True))
        return np.var(mean, axis=0), np.mean(square, axis=0)

    def _bracket(self, rows: np.ndarray, levels: np.ndarray) -> tuple[Law, np.ndarray, np.ndarray]:
        """The law of some rows (M, 1, rows), and members' extreme quantiles (L, rows)."""
        location, scale, tail = self.law
        law = Law(location[:, None, rows], scale[:, None, rows], tail[:, :, None])
        ends = self.likelihood.quantile(levels, law, self.target_scale)
        return law, ends.min(0), ends.max(0)

    def _count_quantile(self, rows: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """The least counts whose probability reaches the levels (L, rows), by bisection."""
        levels = levels[:, None]
        law, *ends = self._bracket(rows, levels)
        low, high = (self.likelihood.from_working(z, self.target_scale) for z in ends)
        low = low - 1
        while np.any(high - low > 1):
            middle = np.floor(0.5 * (low + high))
            z = self.likelihood.to_working(middle, self.target_scale)
            reached = self.likelihood.cdf(z, law, self.target_scale).mean(0) >= levels
            reached &= middle >= 0
            low, high = np.where(reached, low, middle), np.where(reached, middle, high)
        return high

    def _mixture_quantile(self, rows: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """On the working scale (L, rows)."""
        law, low, high = self._bracket(rows, levels[:, None])
        if len(law.location) == 1:
            return low
        shape = low.shape
        level, row = (part.ravel() for part in np.indices(shape))
        wanted, column = levels[level], np.arange(len(law.location))[:, None]

        def excess(z: np.ndarray, kept: np.ndarray) -> np.ndarray:
            """Of the mixture's probability at some of the unknowns, those ``kept``."""
            at = row[kept]
            own = Law(law.location[column, 0, at], law.scale[column, 0, at], law.tail[:, :, 0])
            return self.likelihood.cdf(z, own, self.target_scale).mean(0) - wanted[kept]

        low, high = low.ravel(), high.ravel()
        root = np.empty_like(low)
        kept = np.arange(len(root))
        below, above = excess(low, kept), excess(high, kept)
        side = np.zeros(len(root))
        for _ in range(_N_ROOT):
            root[kept] = middle = _secant(low, high, below, above)
            value = excess(middle, kept)
            open_ = np.abs(value) >= _TOLERANCE
            if not open_.any():
                break
            left = value < 0
            above = np.where(left, np.where(side > 0, 0.5 * above, above), value)
            below = np.where(left, value, np.where(side < 0, 0.5 * below, below))
            low, high = np.where(left, middle, low), np.where(left, high, middle)
            side = np.where(left, 1.0, -1.0)
            kept, low, high, below, above, side = (
                part[open_] for part in (kept, low, high, below, above, side)
            )
        return root.reshape(shape)


def _secant(low: np.ndarray, high: np.ndarray, below: np.ndarray, above: np.ndarray) -> np.ndarray:
    span = above - below
    share = np.where(span > 0, -below / np.where(span > 0, span, 1.0), 0.5)
    return low + np.clip(share, 0.0, 1.0) * (high - low)

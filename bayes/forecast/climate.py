r"""The climate of a record, and how much of it each forecast takes.

Far from every observation nothing is known but the climate: seasons h(t) of the record and a
constant scale about them, on the working scale. Member m, which is trained without a fold of the
targets, has its own, from ridge regression on the targets that it is trained on,

.. math:: c_m(t) = \beta_{m0} + \beta_m^\top h(t), \qquad s_m^2 = \operatorname{mean} (z - c_m)^2.

Its law, of location mu and scale sigma, moves towards that by a share w of the group of isolation,

.. math::
    \mu \leftarrow (1 - w)\, \mu + w\, c_m(t), \qquad
    \sigma \leftarrow (1 - w)\, \sigma + w\, s_m,

which for a family of location and scale averages quantiles. The share is the one of
{0, .1, ..., 1} with the least mean CRPS of the values held out, times n / (n + n_0) as in
`recalibration`. A group never met takes that of the next younger one.

References
----------
Lichtendahl, Grushka-Cockayne, Winkler (2013), Is it better to average probabilities or quantiles?
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .likelihoods import Law, Likelihood
from .recalibration import PRIOR_BLOCKS
from .scale import TargetScale
from .scores import CRPS_LEVELS, crps_quantiles

SHARES = np.linspace(0, 1, 11)
RIDGE = 0.02  # of the number of targets
MAX_ROWS = 600  # of a group: more say little, as they come from the same blocks


@dataclass(frozen=True)
class Climate:
    """Climates of M members and the shares of G groups.

    Attributes
    ----------
    coefficients : ndarray (M, 1 + S)
        beta, the constant first.
    scale : ndarray (M, 1)
    share : ndarray (G,)
    """

    coefficients: np.ndarray
    scale: np.ndarray
    share: np.ndarray

    @classmethod
    def none(cls, n_members: int, n_season: int, n_groups: int) -> Climate:
        """No share of it anywhere."""
        return cls(np.zeros((n_members, 1 + n_season)), np.ones((n_members, 1)), np.zeros(n_groups))

    @classmethod
    def fit(
        cls,
        z: np.ndarray,
        law: Law,
        outside: np.ndarray,
        season: np.ndarray,
        group: np.ndarray,
        block: np.ndarray,
        likelihood: Likelihood,
        target_scale: TargetScale,
        n_groups: tuple[int, int],
    ) -> Climate:
        """From R targets.

        Parameters
        ----------
        z : ndarray (R,)
        law : Law
            Of the members, (M, R).
        outside : ndarray (M, R) of bool
            Which targets each member is not trained on.
        season : ndarray (R, S)
        group, block : ndarray (R,)
        likelihood, target_scale
        n_groups : (int, int)
            Kinds of company, and ages of each: a group is the age plus their number times the kind.
        """
        X = _design(season)
        coefficients = np.stack([_ridge(X[~own], z[~own]) for own in outside])
        residual = np.where(outside, 0.0, z - coefficients @ X.T)
        variance = np.square(residual).sum(1) / (~outside).sum(1)
        scale = likelihood.scale_of(np.sqrt(variance)[:, None], law.tail)
        climate = cls(coefficients, scale, np.ones(n_groups[0] * n_groups[1]))
        count = outside.sum(0)
        judged = np.flatnonzero(count)

        def held_out(one: Law) -> np.ndarray:
            """Location and scale (2, R) averaged over the members that held a target out."""
            parts = [np.where(outside, part, 0.0).sum(0) for part in (one.location, one.scale)]
            return np.stack(parts) / np.maximum(count, 1)

        own, far = held_out(law), held_out(climate.pool(law, season, group))
        y = likelihood.from_working(z, target_scale)

        def score(rows: np.ndarray, w: float) -> float:
            location, spread = (1 - w) * own[:, rows, None] + w * far[:, rows, None]
            pooled = Law(location, spread, law.tail.mean())
            quantiles = likelihood.quantile(CRPS_LEVELS, pooled, target_scale)
            quantiles = likelihood.from_working(quantiles, target_scale)
            return float(crps_quantiles(y[rows], quantiles, CRPS_LEVELS).mean())

        share = np.full(n_groups, np.nan)
        for g in np.unique(group[judged]):
            rows = judged[group[judged] == g]
            n_blocks = len(np.unique(block[rows]))
            rows = rows[:: len(rows) // MAX_ROWS + 1]
            best = SHARES[int(np.argmin([score(rows, w) for w in SHARES]))]
            share[divmod(g, n_groups[1])] = best * n_blocks / (n_blocks + PRIOR_BLOCKS)
        return cls(coefficients, scale, _filled(share).ravel())

    def pool(self, law: Law, season: np.ndarray, group: np.ndarray) -> Law:
        """Laws (M, N) with the climate's share, at seasons (N, S) and of groups (N,)."""
        share = self.share[group]
        climate = self.coefficients @ _design(season).T
        return Law(
            (1 - share) * law.location + share * climate,
            (1 - share) * law.scale + share * self.scale,
            law.tail,
        )


def _design(season: np.ndarray) -> np.ndarray:
    return np.column_stack([np.ones(len(season)), season])


def _ridge(X: np.ndarray, z: np.ndarray) -> np.ndarray:
    penalty = RIDGE * np.eye(X.shape[1])
    penalty[0, 0] = 0.0
    return np.linalg.solve(X.T @ X / len(X) + penalty, X.T @ z / len(X))


def _filled(share: np.ndarray) -> np.ndarray:
    """Shares (K, A) with those unknown taken from the age before, 0 without one."""
    out = share.copy()
    out[:, 0] = np.nan_to_num(out[:, 0])
    for age in range(1, out.shape[1]):
        out[:, age] = np.where(np.isnan(out[:, age]), out[:, age - 1], out[:, age])
    return out

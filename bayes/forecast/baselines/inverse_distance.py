r"""Inverse distance weighting of what other sensors show at the same time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from ..records import Records
from .base import Baseline, View

POWERS = (0.5, 1.0, 1.5, 2.0, 3.0)
N_NEIGHBOURS = 12


class InverseDistance(Baseline):
    r"""Weights :math:`d^{-p}` on the twelve nearest simultaneous observations.

    The power p is the one of {0.5, 1, 1.5, 2, 3} with the least mean absolute error on hidden
    sensors and gaps. Distances below 1% of the extent of the network count as that. Where nobody
    measures, the estimates of the last time before and the first after are interpolated in time.
    """

    def _learn(self, views: list[View]) -> None:
        found = [Neighbours(view.context).find(view.hidden) for view in views]
        target = np.concatenate([view.hidden.target for view in views])
        errors = [
            np.abs(np.concatenate([one.estimate(power) for one in found]) - target).mean()
            for power in POWERS
        ]
        self.power_ = POWERS[int(np.argmin(errors))]

    def _guess(self, context: Records, queries: Records) -> tuple[np.ndarray, np.ndarray]:
        point = Neighbours(context).find(queries).estimate(self.power_)
        return point, np.ones(len(queries))


class Neighbours:
    """Observed rows of a context, found by place among those of one time."""

    def __init__(self, context: Records) -> None:
        seen = context.observed
        self.position, self.sensor = context.position[seen], context.sensor[seen]
        self.target = context.target[seen]
        self.times, self.code = np.unique(context.hours[seen], return_inverse=True)
        self.extent = max(float(np.linalg.norm(np.ptp(context.position, axis=0))), 1e-9)
        self.tree = cKDTree(self._points(self.position, self.code))

    def find(self, queries: Records) -> Found:
        """Neighbours at the time of each query; where nobody measures, before and after it."""
        right = np.minimum(np.searchsorted(self.times, queries.hours), len(self.times) - 1)
        left = np.maximum(right - 1, 0)
        value, distance = self._at(queries, right)
        alone = (self.times[right] != queries.hours) | np.isinf(distance).all(axis=1)
        earlier = self._at(queries.take(alone), left[alone])
        span = self.times[right] - self.times[left]
        weight = (queries.hours - self.times[left]) / np.where(span > 0, span, 1)
        return Found(
            value, distance, *earlier, alone, np.clip(weight[alone], 0, 1), self.target.mean()
        )

    def _at(self, queries: Records, code: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values (N, k) at times ``code`` and their distances, inf where there is none.

        Rows of the query's own sensor at its own time are no neighbours. Distances below 1% of the
        extent count as that.
        """
        k = min(N_NEIGHBOURS + 1, len(self.target))
        points = self._points(queries.position, code)
        distance, row = self.tree.query(points, k=np.arange(1, k + 1))
        own = (self.sensor[row] == queries.sensor[:, None]) & (queries.sensor[:, None] >= 0)
        own &= (self.times[code] == queries.hours)[:, None]
        wrong = own | (self.code[row] != code[:, None])
        near = np.maximum(distance, 0.01 * self.extent)
        return self.target[row], np.where(wrong, np.inf, near)

    def _points(self, position: np.ndarray, code: np.ndarray) -> np.ndarray:
        """Places with time as a further coordinate, in which other times are out of reach."""
        return np.column_stack([position, code * 1e3 * self.extent])


@dataclass(frozen=True)
class Found:
    """Values and distances (N, k) of neighbours, and of those before for the A rows ``alone``.

    Attributes
    ----------
    weight : ndarray (A,)
        Of the neighbours after, in the interpolation with those before.
    otherwise : float
        The estimate where there is no neighbour at all.
    """

    value: np.ndarray
    distance: np.ndarray
    earlier_value: np.ndarray
    earlier_distance: np.ndarray
    alone: np.ndarray
    weight: np.ndarray
    otherwise: float

    def estimate(self, power: float) -> np.ndarray:
        """Weighted means (N,)."""
        mean = _weighted(self.value, self.distance, power)
        after, before = (
            mean[self.alone],
            _weighted(self.earlier_value, self.earlier_distance, power),
        )
        weight = np.where(np.isnan(after), 0, np.where(np.isnan(before), 1, self.weight))
        mean[self.alone] = np.nan_to_num(before) * (1 - weight) + np.nan_to_num(after) * weight
        nobody = np.isnan(after) & np.isnan(before)
        mean[self.alone] = np.where(nobody, self.otherwise, mean[self.alone])
        return mean


def _weighted(value: np.ndarray, distance: np.ndarray, power: float) -> np.ndarray:
    weight = distance**-power
    with np.errstate(invalid="ignore"):
        return (weight * value).sum(axis=1) / weight.sum(axis=1)

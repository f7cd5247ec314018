"""Persistence: what the sensor last showed, or next, or a day before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..records import Records
from . import series
from .base import Baseline

DAY = 24.0
MOMENT = 1e-6  # hours; a bracket is strict, and the value at that very hour is wanted


class Persistence(Baseline):
    """The value nearest in time of the same sensor; far from any, the one at the same hour.

    Where the nearest is more than half a day away, the values whole days away, rounded up, stand
    for it: the last day known before, or the first known after. A sensor without observations
    takes the average of all sensors, interpolated.
    """

    def _guess(self, context: Records, queries: Records) -> tuple[np.ndarray, np.ndarray]:
        close = series.own(context, queries)
        age = np.minimum(close.since, close.until)
        back = close.since <= close.until
        days = np.where(np.isfinite(age), np.ceil(np.where(np.isfinite(age), age, 0) / DAY), 0)
        shifted = queries.hours + np.where(back, -1, 1) * days * DAY
        shifted = np.where(age > DAY / 2, shifted, queries.hours)
        seasonal = _nearest(series.own(context, replace(queries, hours=shifted + MOMENT)))
        point = np.where(age > DAY / 2, seasonal, _nearest(close))
        point = np.where(np.isnan(point), series.network(context, queries.hours), point)
        return point, np.ones(len(queries))


def _nearest(bracket: series.Bracket) -> np.ndarray:
    return np.where(bracket.since <= bracket.until, bracket.before, bracket.after)

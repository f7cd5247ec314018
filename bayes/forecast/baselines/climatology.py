"""Climatology: the average at an hour of the day, by season, plus the sensor's offset."""

from __future__ import annotations

import numpy as np

from ..records import Records
from .base import Baseline

YEAR = 365.25 * 24
PRIOR_ROWS = 24.0


class Climatology(Baseline):
    """Mean of the hour of the day, of the month if the records span a year, and of the sensor.

    A month's mean at an hour is shrunk towards the hour's by 24 rows, a sensor's offset towards
    none by the same; a sensor never seen has none.
    """

    def _guess(self, context: Records, queries: Records) -> tuple[np.ndarray, np.ndarray]:
        return climate(context, queries), np.ones(len(queries))


def climate(context: Records, queries: Records) -> np.ndarray:
    """The climatology of a context at some rows (N,)."""
    seen = context.observed
    sensor, y = context.sensor[seen] + 1, context.target[seen]  # 0 is a sensor never seen
    seasons = np.ptp(context.hours) > YEAR
    hour, cell = _cells(context.hours[seen], seasons)
    hour_at, cell_at = _cells(queries.hours, seasons)
    mean = y.mean()
    by_hour = _means(hour, y - mean, 24, prior=1.0)
    by_cell = _means(cell, y - mean - by_hour[hour], 12 * 24)
    rest = y - mean - by_hour[hour] - by_cell[cell]
    offset = _means(sensor, np.where(sensor > 0, rest, 0.0), context.n_sensors + 1)
    return mean + by_hour[hour_at] + by_cell[cell_at] + offset[queries.sensor + 1]


def _cells(hours: np.ndarray, seasons: bool) -> tuple[np.ndarray, np.ndarray]:
    """Hour of the day, and that within the twelfth of the year."""
    hour = np.floor(hours % 24).astype(np.int64)
    month = np.floor(hours % YEAR / YEAR * 12).astype(np.int64)
    return hour, hour + 24 * month * seasons


def _means(code: np.ndarray, y: np.ndarray, n_codes: int, prior: float = PRIOR_ROWS) -> np.ndarray:
    """Means by code (n_codes,), shrunk towards 0 by ``prior`` rows."""
    counts = np.bincount(code, minlength=n_codes)
    return np.bincount(code, weights=y, minlength=n_codes) / (counts + prior)

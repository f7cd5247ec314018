"""How far a place and time is from what was observed: the age of its neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .records import Records

STEPS = np.array([1.5, 3.5, 6.5, 12.5, 24.5, 48.5, 96.5, 192.5])  # edges of age bins


@dataclass(frozen=True)
class Isolation:
    """Hours between N rows and the nearest observations.

    Attributes
    ----------
    since, until : ndarray (N,)
        To the last observation of the same sensor before a row and the first after it; inf where
        there is none, as for a sensor never seen.
    horizon : ndarray (N,)
        Since the last observation of any sensor, 0 if one is at the same time, inf if none is
        earlier.
    simultaneous : ndarray (N,) of bool
        Whether another sensor was observed at the same time.
    step : float
        Sampling step in hours.
    """

    since: np.ndarray
    until: np.ndarray
    horizon: np.ndarray
    simultaneous: np.ndarray
    step: float

    @property
    def gap(self) -> np.ndarray:
        """Length in hours of the hole in its sensor's record that a row lies in (N,)."""
        return self.since + self.until

    @property
    def group(self) -> np.ndarray:
        """A code (N,) for rows alike in age (bins of `STEPS`), side and simultaneous company."""
        age = np.searchsorted(STEPS * self.step, np.minimum(self.since, self.until))
        inside = np.isfinite(self.since) & np.isfinite(self.until)
        return age + 10 * inside + 20 * self.simultaneous


def nearest_group(group: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Groups (N,) with those not in ``known`` replaced by the next younger one that is, if any.

    Examples
    --------
    >>> nearest_group(np.array([8, 13, 21]), np.array([5, 13]))
    array([ 5, 13, 20])
    """
    group = group.copy()
    for _ in STEPS:
        group -= ~np.isin(group, known) & (group % 10 > 0)
    return group


def isolation(context: Records, queries: Records) -> Isolation:
    """Isolation of the rows of ``queries`` among the observed rows of ``context``.

    A query never counts as its own neighbour: observations at its time and sensor are left out.
    """
    before, after = around(context, queries)
    hours = context.hours
    since = np.where(before >= 0, queries.hours - hours[before], np.inf)
    until = np.where(after >= 0, hours[after] - queries.hours, np.inf)
    times, counts = np.unique(hours[context.observed], return_counts=True)
    times, counts = np.append(times, -np.inf), np.append(counts, 0)  # the last stands for none
    last = np.searchsorted(times[:-1], queries.hours, side="right") - 1
    same = times[last] == queries.hours
    company = same & (counts[last] > _own(context, queries))
    earlier = np.where(same & ~company, times[np.maximum(last - 1, -1)], times[last])
    step = context.reference.step
    return Isolation(since, until, queries.hours - earlier, company, step)


def around(context: Records, queries: Records) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ``context`` with the last observation before each query and the first after it.

    Of the same sensor and strictly; -1 where there is none.
    """
    rows = np.flatnonzero(context.observed & (context.sensor >= 0))
    hours = np.concatenate([context.hours[rows], queries.hours])
    span = np.ptp(hours) + 1
    sensor = np.concatenate([context.sensor[rows], queries.sensor])
    key = sensor * 2 * span + (hours - hours.min())  # sensors are apart by more than a span
    order = np.argsort(key[: len(rows)], kind="stable")
    known, asked = key[: len(rows)][order], key[len(rows) :]
    rows = np.append(rows[order], -1)
    known = np.append(known, np.inf)
    left = np.searchsorted(known, asked, side="left") - 1  # -1 is the entry for none
    right = np.searchsorted(known, asked, side="right")
    before = np.where(asked - known[left] < span, rows[left], -1)
    after = np.where(known[right] - asked < span, rows[right], -1)
    alone = queries.sensor < 0
    return np.where(alone | (left < 0), -1, before), np.where(alone, -1, after)


def _own(context: Records, queries: Records) -> np.ndarray:
    """Whether the context holds an observation at the time and sensor of each query (N,)."""
    seen = context.observed & (context.sensor >= 0)
    code = np.unique(np.append(context.hours[seen], queries.hours), return_inverse=True)[1]
    key = code * (context.n_sensors + 1)
    known = key[: seen.sum()] + context.sensor[seen]
    return np.isin(key[seen.sum() :] + queries.sensor, known) & (queries.sensor >= 0)

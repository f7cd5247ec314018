"""The record of a sensor around a time: the values before and after, with their ages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..gaps import around
from ..records import Records


@dataclass(frozen=True)
class Bracket:
    """Values (N,) before and after, NaN where there is none, and their ages in hours, inf there."""

    before: np.ndarray
    after: np.ndarray
    since: np.ndarray
    until: np.ndarray

    def interpolate(self) -> np.ndarray:
        """Linear in time between both, the one there is at an end, NaN without any."""
        with np.errstate(invalid="ignore"):
            weight = self.since / (self.since + self.until)
        inside = self.before * (1 - weight) + self.after * weight
        end = np.where(np.isnan(self.before), self.after, self.before)
        return np.where(np.isnan(self.before) | np.isnan(self.after), end, inside)


def own(context: Records, queries: Records) -> Bracket:
    """The bracket of each query in the record of its sensor."""
    before, after = around(context, queries)
    hours, y = context.hours, context.target
    return Bracket(
        np.where(before >= 0, y[before], np.nan),
        np.where(after >= 0, y[after], np.nan),
        np.where(before >= 0, queries.hours - hours[before], np.inf),
        np.where(after >= 0, hours[after] - queries.hours, np.inf),
    )


def network(context: Records, hours: np.ndarray) -> np.ndarray:
    """Mean of all sensors at some times (N,), interpolated linearly where nobody measures."""
    seen = context.observed
    times, code = np.unique(context.hours[seen], return_inverse=True)
    means = np.bincount(code, weights=context.target[seen]) / np.bincount(code)
    return np.interp(hours, times, means)

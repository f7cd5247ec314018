"""Which seasons a record can show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

HALF_DAY, DAY, WEEK, YEAR = 12.0, 24.0, 168.0, 8766.0  # hours
_COUNTS = {DAY: 4, WEEK: 3, YEAR: 3}
_SEEN = 2.0  # periods that a record must span


def find_seasons(step: float, span: float) -> list[float]:
    """Periods in hours, among day, week and year, that a record spans twice.

    At least four sampling steps long. The shortest of them, or a day, is the phase by which
    neighbours are found.

    Examples
    --------
    >>> find_seasons(step=1.0, span=61 * 24.0), find_seasons(step=24.0, span=400 * 24.0)
    ([24.0, 168.0], [168.0])
    """
    return [p for p in (DAY, WEEK, YEAR) if p >= 4 * step and span >= _SEEN * p]


def check_seasons(seasonality: Any, step: float, span: float) -> list[float]:
    """Periods in hours from ``"auto"``, None or a sequence of hours."""
    if isinstance(seasonality, str) and seasonality == "auto":
        return find_seasons(step, span)
    periods = [] if seasonality is None else seasonality
    if not isinstance(periods, Sequence) or isinstance(periods, str):
        raise ValueError(
            "The 'seasonality' parameter must be 'auto', None or a sequence of periods in hours; "
            f"got {seasonality!r}."
        )
    wrong = [p for p in periods if not (isinstance(p, int | float) and p >= 2 * step)]
    if wrong:
        raise ValueError(
            "The 'seasonality' parameter must hold periods in hours of two sampling steps "
            f"({2 * step:g}) at least; got {wrong[0]!r}."
        )
    return sorted(float(p) for p in periods)


def harmonic_counts(periods: Sequence[float], step: float) -> list[int]:
    """How many harmonics each period gets: at most four, and none beyond two samples a cycle."""
    return [int(min(_COUNTS.get(p, 3), np.floor(p / (2 * step)))) for p in periods]

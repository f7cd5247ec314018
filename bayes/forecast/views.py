r"""What is hidden from each training target, so that training meets what prediction will meet.

A target is drawn with one of five patterns. L is a length drawn log-uniformly:

==========  ========================================================  =================
pattern     hidden                                                     L, steps
==========  ========================================================  =================
point       the row itself and L steps around it, at its sensor        1 to 3
block       L steps around it, at its sensor                           2 to longest
sensor      its sensor, always                                         all
outage      L steps around it, at all sensors                          1 to longest / 4
forecast    all that follows its time less L, at all sensors           1 to longest
==========  ========================================================  =================

The rows that a target does see are as dense as those that predictions see: nothing is thinned.
"""

from __future__ import annotations

import numpy as np

from .neighbours import Query

SHARES = {"point": 0.2, "block": 0.25, "sensor": 0.2, "outage": 0.15, "forecast": 0.2}
"""What part of the targets each pattern gets."""


def draw_views(
    time: np.ndarray,
    position: np.ndarray,
    sensor: np.ndarray,
    n_targets: int,
    longest: float,
    rng: np.random.Generator,
) -> tuple[Query, np.ndarray]:
    """Targets under all patterns in their `SHARES`, and the observations (Q,) they are of.

    Only observations of a sensor are drawn for the pattern that hides it.
    """
    queries, rows = [], []
    everything, known = np.arange(len(time)), np.flatnonzero(sensor >= 0)
    for pattern, share in SHARES.items():
        count = max(round(share * n_targets), 1)
        pool = known if pattern == "sensor" and len(known) else everything
        chosen = rng.choice(pool, count, replace=count > len(pool))
        queries.append(
            draw_view(pattern, time[chosen], position[chosen], sensor[chosen], longest, rng)
        )
        rows.append(chosen)
    return Query.join(queries), np.concatenate(rows)


def draw_view(
    pattern: str,
    time: np.ndarray,
    position: np.ndarray,
    sensor: np.ndarray,
    longest: float,
    rng: np.random.Generator,
) -> Query:
    """Hide from each of Q targets what a pattern says.

    Parameters
    ----------
    pattern : {"point", "block", "sensor", "outage", "forecast"}
    time, position, sensor : ndarray (Q,), (Q, C), (Q,)
        Of the targets, times in steps.
    longest : float
        The longest hidden stretch, in steps.
    rng : Generator

    Returns
    -------
    Query
    """
    n = len(time)
    own = np.stack([time, time], axis=1)
    network = np.tile([np.inf, -np.inf], (n, 1))
    if pattern == "point":
        own = _around(time, _lengths(1, 3, n, rng), rng)
    elif pattern == "block":
        own = _around(time, _lengths(2, longest, n, rng), rng)
    elif pattern == "sensor":
        own = np.tile([-np.inf, np.inf], (n, 1))
    elif pattern == "outage":
        own = network = _around(time, _lengths(1, max(longest / 4, 1), n, rng), rng)
    else:
        origin = time - _lengths(1, longest, n, rng) + 1
        own = network = np.stack([origin, np.full(n, np.inf)], axis=1)
    return Query(time, position, sensor, own, network)


def _lengths(low: float, high: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """Whole numbers in [low, high], log-uniform."""
    top = np.log(max(high, low) + 1)
    return np.floor(np.exp(rng.uniform(np.log(low), top, n)))


def _around(time: np.ndarray, length: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Intervals of ``length`` steps that hold ``time`` at a uniform place."""
    before = np.floor(rng.random(len(time)) * length)
    return np.stack([time - before, time + length - 1 - before], axis=1)

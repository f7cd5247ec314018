"""Masks that any program can draw again: one seed of NumPy, rows in the order of sensor and time.

`bayes.forecast.make_mask` hides known targets and meets its rate. These hide rows, known or not,
and stop at the first stretch that reaches the rate, as one writes it down in a few lines elsewhere,
so that scores on one mask can be compared between programs.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

GAPS = {"block": (24, 72), "outage": (6, 18)}
"""Shortest and longest stretch, in sampling steps."""


def redrawable_mask(
    frame: pd.DataFrame, pattern: str, rate: float, seed: int, *, sensor: str, time: str
) -> np.ndarray:
    """Rows (N,) to hide.

    Parameters
    ----------
    frame : DataFrame
        A row a step of each sensor.
    pattern : {"point", "block", "outage"}
        Rows at random; stretches of each sensor, in the order of their names; of all sensors.
    rate : float
        Of points, the probability; else the least share of rows, or of times, that is hidden.
    seed : int
    sensor, time : str
        Columns.

    Examples
    --------
    >>> times = pd.date_range("2024-01-01", periods=200, freq="h")
    >>> frame = pd.DataFrame({"t": times, "s": "a"})
    >>> hidden = redrawable_mask(frame, "outage", 0.2, 0, sensor="s", time="t")
    >>> int(hidden.sum())
    43
    """
    rng = np.random.default_rng(seed)
    order = np.lexsort((frame[time], frame[sensor]))
    if pattern == "point":
        hidden = rng.random(len(frame)) < rate
    elif pattern == "block":
        counts = frame.groupby(sensor, sort=True).size()
        parts = [_stretches(n, rate, GAPS[pattern], rng) for n in counts]
        hidden = np.concatenate(parts)
    else:
        times, step = np.unique(frame[time].to_numpy()[order], return_inverse=True)
        hidden = _stretches(len(times), rate, GAPS[pattern], rng)[step]
    out = np.empty(len(frame), bool)
    out[order] = hidden
    return out


def _stretches(
    n: int, rate: float, length: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    hidden = np.zeros(n, bool)
    while hidden.mean() < rate:
        n_steps = rng.integers(length[0], length[1] + 1)
        first = rng.integers(0, n - n_steps)
        hidden[first : first + n_steps] = True
    return hidden

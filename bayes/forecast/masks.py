"""Patterns of missing data, to train under and to evaluate with.

A mask says which rows to hide. Five patterns:

- ``"point"``: rows at random;
- ``"block"``: each sensor has gaps of random length;
- ``"sensor"``: whole sensors;
- ``"outage"``: all sensors for stretches of time;
- ``"trajectory"``: all but what vehicles would see that drive from place to place, within the
  radius that gives the rate.

The rate is the share of rows with a known target that is hidden. It is met to one row by points and
trajectories, to one row a sensor by blocks, to the rows of one time by outages and to half the rows
of the largest sensor by sensors. Rows whose target is missing are never marked. Rows without a
sensor, as of vehicles without a name, count as one sensor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from kernels.checks import check_choice, check_int, check_real

from .records import Records, Schema, read_records

GAPS = {"block": (24, 72), "outage": (6, 18)}  # shortest and longest, in sampling steps


def make_mask(
    df: pd.DataFrame,
    pattern: str,
    rate: float,
    random_state: Any = None,
    *,
    schema: Schema,
    gap: tuple[int, int] | None = None,
    n_vehicles: int = 3,
) -> pd.Series:
    """Rows of a table to hide.

    Parameters
    ----------
    df : DataFrame
    pattern : {"point", "block", "sensor", "outage", "trajectory"}
    rate : float
        Share of the known targets to hide, in (0, 1).
    random_state : int, Generator or None
        With an int, the mask depends on the set of rows and on nothing else: not on their order.
    schema : Schema
    gap : (int, int), optional
        Shortest and longest gap in sampling steps, for blocks (24 to 72 if not given) and outages
        (6 to 18).
    n_vehicles : int
        For trajectories.

    Returns
    -------
    Series of bool
        True where hidden, with the index of the table.

    Examples
    --------
    >>> times = pd.date_range("2024-01-01", periods=50, freq="h")
    >>> df = pd.DataFrame({"time": times, "x": 0.0, "pm25": np.arange(50.0)})
    >>> hidden = make_mask(df, "point", 0.3, 0, schema=Schema("time", ["x"], "pm25"))
    >>> int(hidden.sum())
    15
    """
    records = read_records(df, schema)
    hidden = mask_records(records, pattern, rate, random_state, gap=gap, n_vehicles=n_vehicles)
    return pd.Series(records.restore(hidden), index=df.index, name="hidden")


def mask_records(
    records: Records,
    pattern: str,
    rate: float,
    random_state: Any = None,
    *,
    gap: tuple[int, int] | None = None,
    n_vehicles: int = 3,
) -> np.ndarray:
    """`make_mask` of records: which of their rows (N,) to hide."""
    check_choice("pattern", pattern, tuple(PATTERNS))
    check_real("rate", rate, low=0, high=1, strict=True)
    check_int("n_vehicles", n_vehicles, 1)
    if gap is not None:
        check_int("gap", gap[0], 1)
        check_int("gap", gap[1], gap[0])
    rng = np.random.default_rng(random_state)
    hidden = np.zeros(len(records), bool)
    known = np.flatnonzero(records.observed)
    if len(known):
        plan = _plan(records, known, rate, gap or GAPS.get(pattern, (1, 1)), n_vehicles)
        hidden[known] = PATTERNS[pattern](plan, rng)
    return hidden


@dataclass(frozen=True)
class _Plan:
    """The rows that can be hidden, M of them, and how."""

    step: np.ndarray  # (M,) of n_steps
    sensor: np.ndarray  # (M,)
    position: np.ndarray  # (M, C)
    n_steps: int
    rate: float
    gap: tuple[int, int]
    n_vehicles: int

    @property
    def count(self) -> float:
        return self.rate * len(self.step)


def _plan(
    records: Records, rows: np.ndarray, rate: float, gap: tuple[int, int], n_vehicles: int
) -> _Plan:
    hours = records.hours[rows]
    step = np.floor((hours - hours.min()) / records.reference.step + 0.5).astype(np.int64)
    n_steps = int(step.max()) + 1
    sensor, position = records.sensor[rows], records.position[rows]
    return _Plan(step, sensor, position, n_steps, rate, gap, n_vehicles)


def _point(plan: _Plan, rng: np.random.Generator) -> np.ndarray:
    return _first(rng.random(len(plan.step)), plan.count)


def _block(plan: _Plan, rng: np.random.Generator) -> np.ndarray:
    hidden = np.zeros(len(plan.step), bool)
    for code in np.unique(plan.sensor):
        rows = np.flatnonzero(plan.sensor == code)
        step = plan.step[rows] - plan.step[rows].min()
        covered = _gaps(int(step.max()) + 1, plan, rng)[step]
        hidden[rows] = _first(covered, plan.rate * len(rows))
    return hidden


def _sensor(plan: _Plan, rng: np.random.Generator) -> np.ndarray:
    codes, which = np.unique(plan.sensor, return_inverse=True)
    if len(codes) < 2:
        raise ValueError(
            f"The pattern 'sensor' must have two sensors at least to hide one; got {len(codes)}."
        )
    return _whole(rng.permutation(len(codes))[which], plan.count)


def _outage(plan: _Plan, rng: np.random.Generator) -> np.ndarray:
    if plan.n_steps < 2:
        raise ValueError("The pattern 'outage' must have two times at least to hide one; got 1.")
    first = _gaps(plan.n_steps, plan, rng)
    rank = np.argsort(np.argsort(first, kind="stable"))
    return _whole(np.unique(rank[plan.step], return_inverse=True)[1], plan.count)


def _trajectory(plan: _Plan, rng: np.random.Generator) -> np.ndarray:
    places = np.unique(plan.position, axis=0)
    if len(places) < 2:
        raise ValueError("The pattern 'trajectory' must have two places at least; got 1.")
    distance = np.full(len(plan.step), np.inf)
    for _ in range(plan.n_vehicles):
        path = _drive(places, plan.n_steps, rng)[plan.step]
        distance = np.minimum(distance, np.linalg.norm(plan.position - path, axis=1))
    return ~_first(distance, len(plan.step) - plan.count)


PATTERNS: dict[str, Callable[..., np.ndarray]] = {
    "point": _point,
    "block": _block,
    "sensor": _sensor,
    "outage": _outage,
    "trajectory": _trajectory,
}


def _first(order: np.ndarray, count: float) -> np.ndarray:
    """The ``count`` rows (rounded) of least order, ties in the sequence of the rows."""
    chosen = np.zeros(len(order), bool)
    chosen[np.argsort(order, kind="stable")[: round(count)]] = True
    return chosen


def _whole(unit: np.ndarray, count: float) -> np.ndarray:
    """Rows of units 0, 1, ..., as many as come nearest to ``count`` rows, but not all."""
    totals = np.cumsum(np.bincount(unit))
    return unit <= np.abs(totals[:-1] - count).argmin()


def _gaps(n_steps: int, plan: _Plan, rng: np.random.Generator) -> np.ndarray:
    """The number of the first gap that covers each step (n_steps,), gaps enough for the rate.

    Gaps may begin before the first step, so that no step is favoured.
    """
    never = np.iinfo(np.int64).max
    first = np.full(n_steps, never)
    low, high = (min(length, n_steps) for length in plan.gap)
    number = 0
    while (first == never).mean() > max(0.9 - plan.rate, 0):
        length = int(rng.integers(low, high + 1))
        start = int(rng.integers(1 - length, n_steps))
        covered = first[max(start, 0) : start + length]
        np.minimum(covered, number, out=covered)
        number += 1
    return first


def _drive(places: np.ndarray, n_steps: int, rng: np.random.Generator) -> np.ndarray:
    """Positions (n_steps, C) on straight lines between places drawn at random.

    At a speed that crosses the field in 12 steps, and with a stop of a step at least.
    """
    speed = np.linalg.norm(np.ptp(places, axis=0)) / 12
    stops, clock = [places[rng.integers(len(places))]], [0.0]
    while clock[-1] < n_steps:
        stops.append(places[rng.integers(len(places))])
        leg = float(np.linalg.norm(stops[-1] - stops[-2]) / speed)
        clock.append(clock[-1] + max(leg, 1.0))
    path = np.array(stops)
    at = np.arange(n_steps)
    return np.stack([np.interp(at, clock, path[:, c]) for c in range(path.shape[1])], axis=1)

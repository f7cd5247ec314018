r"""A synthetic city: air pollution with known truth, to try forecasters on.

The concentration at place s and time t is :math:`C = b(t) + m(s, t) / h(t)`: a regional background
b, a log-normal process with episodes of days; a depth h of the mixed layer, shallow by night; and a
mass m carried by a wind u(t), spread, deposited and emitted by a few sources,

.. math:: \partial_t m = -u(t) \cdot \nabla m + D \nabla^2 m - \lambda m
          + \sum_j e_j(t)\, g(s - s_j),

where g is a Gaussian bump and e follows the traffic, with its rush hours and quiet weekends. On a
torus wider than the city each Fourier mode solves an ordinary differential equation, integrated
exactly over each hour with wind and emissions constant. A sensor reads C times a log-normal error,
of which a part stays with the instrument.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from kernels.checks import check_int, check_real

from .columns import COMPASS
from .masks import make_mask
from .places import EARTH_RADIUS
from .records import Schema

CITY = 30.0  # km across
TORUS = 90.0  # km across, so that what leaves on one side is gone before it comes back
N_MODES = 12  # wave numbers -12, ..., 12 on each axis
N_SOURCES = 5
SOURCE_WIDTH = 3.0  # km
DIFFUSION = 4.0  # km^2 per hour
DEPOSITION = 0.15  # per hour
ORIGIN = (48.0, 11.0)  # latitude, longitude
INSTRUMENT_BIAS, NOISE = 0.05, 0.08  # standard deviations on the log scale

SCHEMA = Schema(
    "time",
    ("latitude", "longitude"),
    "pm25",
    ("temperature", "wind_speed", "wind_direction", "traffic"),
    "sensor",
    "h",
)


def synthetic_city(
    n_sensors: int = 20,
    days: int = 60,
    random_state: Any = None,
    *,
    n_vehicles: int = 2,
    missing: float = 0.15,
) -> pd.DataFrame:
    """Hourly records of fixed sensors and of vehicles that drive by day.

    Parameters
    ----------
    n_sensors : int
        Fixed sensors, at random places.
    days : int
    random_state : int, Generator or None
    n_vehicles : int
        Each drives at 20 km/h between random places, from 5 to 23 h.
    missing : float
        Share of the readings of fixed sensors that is lost, two thirds of it in gaps of 6 to 48
        hours.

    Returns
    -------
    DataFrame
        Columns of `SCHEMA` (the target ``pm25`` in ug/m3 is NaN where lost; degrees Celsius, m/s,
        16-point direction the wind comes from, traffic between 0 and 1), ``kind`` ("fixed" or
        "vehicle"), and ``truth``, the concentration without errors of the instrument. Given the
        truth, log pm25 is normal about log truth with variance
        ``INSTRUMENT_BIAS**2 + NOISE**2``.

    Examples
    --------
    >>> city = synthetic_city(n_sensors=4, days=2, random_state=0, n_vehicles=1)
    >>> city.groupby("kind").size().to_dict()
    {'fixed': 192, 'vehicle': 36}
    """
    check_int("n_sensors", n_sensors, 1)
    check_int("days", days, 1)
    check_int("n_vehicles", n_vehicles, 0)
    check_real("missing", missing, low=0, high=0.9)
    rng = np.random.default_rng(random_state)
    weather = _weather(24 * days, rng)
    modes = _mass(weather, rng)

    hour = np.repeat(np.arange(24 * days), n_sensors)
    site = np.tile(np.arange(n_sensors), 24 * days)
    place = rng.uniform(-CITY / 2, CITY / 2, (n_sensors, 2))[site]
    names = [f"S{i:02d}" for i in range(n_sensors)]
    fixed = _readings(weather, modes, hour, place, np.array(names)[site], "fixed", rng)
    if missing:
        for pattern, rate in (("block", missing * 2 / 3), ("point", missing / (3 - 2 * missing))):
            gap = (6, 48) if pattern == "block" else None
            lost = make_mask(fixed, pattern, rate, rng, schema=SCHEMA, gap=gap)
            fixed["pm25"] = fixed["pm25"].mask(lost)

    parts = [fixed]
    for v in range(n_vehicles):
        path = _drive(24 * days, rng)
        driving = np.flatnonzero(
            (np.arange(24 * days) % 24 >= 5) & (np.arange(24 * days) % 24 < 23)
        )
        name = np.full(len(driving), f"V{v:02d}")
        parts.append(_readings(weather, modes, driving, path[driving], name, "vehicle", rng))
    city = pd.concat(parts, ignore_index=True)
    return city.sort_values(["time", "sensor"], ignore_index=True)


def _weather(n_hours: int, rng: np.random.Generator) -> pd.DataFrame:
    """Hourly weather, traffic and background."""
    t = np.arange(n_hours)
    hour, weekday = t % 24, t // 24 % 7
    rush = np.exp(-((hour - 8) ** 2) / 6) + np.exp(-((hour - 18) ** 2) / 8)
    traffic = (0.15 + 0.75 * rush + 0.2 * ((hour > 6) & (hour < 22))) * (1 - 0.4 * (weekday > 4))
    sun = np.clip(np.sin(2 * np.pi * (hour - 7) / 24), 0, None)
    synoptic = _memory(n_hours, 72, rng)
    wind = np.stack([_memory(n_hours, 24, rng), _memory(n_hours, 24, rng)], axis=1)
    wind = 8 * (wind + np.array([0.5, 0.2])) * (1 + 0.3 * synoptic.clip(-2, 2))[:, None]  # km/h
    return pd.DataFrame(
        {
            "traffic": traffic.clip(0, 1),
            "east": wind[:, 0],
            "north": wind[:, 1],
            "temperature": 8 + 4 * synoptic + 5 * np.sin(2 * np.pi * (hour - 9) / 24),
            "depth": np.exp(0.25 * synoptic) * (0.4 + 1.2 * sun),
            "background": 25 * np.exp(0.6 * _memory(n_hours, 60, rng) - 0.3 * synoptic),
        }
    )


def _memory(n_hours: int, memory: float, rng: np.random.Generator) -> np.ndarray:
    """A stationary Ornstein-Uhlenbeck process of unit variance (T,), correlated over ``memory``."""
    from scipy.signal import lfilter

    keep = np.exp(-1 / memory)
    shocks = rng.normal(size=n_hours) * np.sqrt(1 - keep**2)
    shocks[0] = rng.normal()
    return lfilter([1.0], [1.0, -keep], shocks)


def _wave_numbers() -> np.ndarray:
    """Those of one axis (K,), per km."""
    return 2 * np.pi / TORUS * np.arange(-N_MODES, N_MODES + 1)


def _mass(weather: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """Fourier coefficients of m (T, K, K), eastwards and northwards."""
    k = _wave_numbers()
    waves = np.stack(np.meshgrid(k, k, indexing="ij"), axis=-1).reshape(-1, 2)
    sources = rng.uniform(-CITY / 2.5, CITY / 2.5, (N_SOURCES, 2))
    strength = 30 * rng.dirichlet(np.full(N_SOURCES, 3.0)) * N_SOURCES
    bump = np.exp(-(waves**2).sum(axis=1) * SOURCE_WIDTH**2 / 2)
    bump *= 2 * np.pi * SOURCE_WIDTH**2 / TORUS**2
    shape = bump * (strength @ np.exp(-1j * sources @ waves.T))
    steady = rng.uniform(0.1, 0.3)  # share of the emissions that is no traffic
    emission = steady + (1 - steady) * weather["traffic"].to_numpy()
    wind = weather[["east", "north"]].to_numpy()
    rate = -DIFFUSION * (waves**2).sum(axis=1) - DEPOSITION - 1j * wind @ waves.T  # (T, K * K)
    keep, gain = np.exp(rate), np.expm1(rate) / rate
    modes = np.empty_like(rate)
    state = emission.mean() * shape / -rate.mean(axis=0)
    for t in range(len(weather)):
        state = keep[t] * state + gain[t] * emission[t] * shape
        modes[t] = state
    return modes.reshape(len(weather), len(k), len(k))


def _readings(
    weather: pd.DataFrame,
    modes: np.ndarray,
    hour: np.ndarray,
    place: np.ndarray,
    sensor: np.ndarray,
    kind: str,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """What instruments read at hours (N,) and places (N, 2)."""
    now = weather.iloc[hour].reset_index(drop=True)
    mass = np.empty(len(hour))
    waves = _wave_numbers()
    for rows in np.array_split(np.arange(len(hour)), len(hour) // 1000 + 1):
        east, north = np.exp(1j * place[rows].T[..., None] * waves)
        along = modes[hour[rows]] @ north[..., None]
        mass[rows] = (along[..., 0] * east).sum(axis=1).real
    truth = now["background"] + np.maximum(mass, 0) / now["depth"]
    names, code = np.unique(sensor, return_inverse=True)
    error = INSTRUMENT_BIAS * rng.normal(size=len(names))[code] + NOISE * rng.normal(size=len(hour))
    comes_from = np.degrees(np.arctan2(-now["east"], -now["north"])) % 360
    parallel = EARTH_RADIUS * np.cos(np.radians(ORIGIN[0]))
    return pd.DataFrame(
        {
            "time": pd.Timestamp("2024-01-01") + pd.to_timedelta(hour, unit="h"),
            "sensor": sensor,
            "kind": kind,
            "latitude": ORIGIN[0] + np.degrees(place[:, 1] / EARTH_RADIUS),
            "longitude": ORIGIN[1] + np.degrees(place[:, 0] / parallel),
            "pm25": truth * np.exp(error),
            "truth": truth,
            "temperature": now["temperature"],
            "wind_speed": np.hypot(now["east"], now["north"]) / 3.6,
            "wind_direction": np.array(COMPASS)[np.rint(comes_from / 22.5).astype(int) % 16],
            "traffic": now["traffic"],
        }
    )


def _drive(n_hours: int, rng: np.random.Generator) -> np.ndarray:
    """Places (T, 2) on straight lines between random ones, at 20 km/h."""
    stops = rng.uniform(-CITY / 2, CITY / 2, (4 * n_hours + 2, 2))
    clock = np.append(0, np.cumsum(np.linalg.norm(np.diff(stops, axis=0), axis=1) / 20))
    return np.stack([np.interp(np.arange(n_hours), clock, stops[:, c]) for c in (0, 1)], axis=1)

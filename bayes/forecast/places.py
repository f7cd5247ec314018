r"""Positions in kilometres from the coordinate columns of a table.

Latitude and longitude, recognised by the names of their columns, become an equirectangular
projection about the middle :math:`(\phi_0, \lambda_0)` of the training places,

.. math:: x = R \cos\phi_0\,(\lambda - \lambda_0), \qquad y = R\,(\phi - \phi_0), \qquad
          R = 6371.0088 \text{ km},

which is right to about 1% within 100 km and to 10% across a country at middle latitudes. Any other
coordinates are taken as they are: give them in kilometres, or all in one unit of similar size.
They are not told from degrees by their range, since a city measured in kilometres also lies
within [-90, 90].
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

EARTH_RADIUS = 6371.0088  # mean radius, km
LATITUDES = frozenset({"lat", "latitude"})
LONGITUDES = frozenset({"lon", "long", "lng", "longitude"})
JUMP = 50.0  # km from where a fixed sensor stands


def geographic(coords: Sequence[str]) -> tuple[int, int] | None:
    """Where latitude and longitude are among the coordinate columns, or None.

    Examples
    --------
    >>> geographic(["longitude", "Lat", "altitude"])
    (1, 0)
    """
    names = [name.lower() for name in coords]
    north = [i for i, name in enumerate(names) if name in LATITUDES]
    east = [i for i, name in enumerate(names) if name in LONGITUDES]
    return (north[0], east[0]) if len(north) == len(east) == 1 else None


def middle(coords: Sequence[str], places: np.ndarray) -> tuple[float, float] | None:
    """Middle latitude and longitude of places (N, C) in degrees, the shorter way round."""
    axes = geographic(coords)
    if axes is None:
        return None
    latitude, longitude = places[:, axes[0]], places[:, axes[1]]
    turned = _wrap(longitude - longitude[0])
    return (
        float(latitude.min() + latitude.max()) / 2,
        float(_wrap(longitude[0] + (turned.min() + turned.max()) / 2)),
    )


def project(
    coords: Sequence[str], places: np.ndarray, origin: tuple[float, float] | None
) -> np.ndarray:
    """Positions (N, C) in km, column by column in the order of the coordinates.

    Examples
    --------
    >>> project(["lat", "lon"], np.array([[60.1, 30.0], [60.0, 30.2]]), (60.0, 30.0)).round(2)
    array([[11.12,  0.  ],
           [ 0.  , 11.12]])
    """
    axes = geographic(coords)
    if axes is None or origin is None:
        return places.copy()
    north, east = axes
    position = places.copy()
    position[:, north] = EARTH_RADIUS * np.radians(places[:, north] - origin[0])
    parallel = EARTH_RADIUS * np.cos(np.radians(origin[0]))
    position[:, east] = parallel * np.radians(_wrap(places[:, east] - origin[1]))
    return position


def check_degrees(coords: Sequence[str], places: np.ndarray) -> None:
    """Refuse latitudes beyond 90 and longitudes beyond 360 degrees."""
    axes = geographic(coords)
    if axes is None:
        return
    for axis, bound in zip(axes, (90, 360), strict=True):
        wrong = np.abs(places[:, axis]) > bound
        if wrong.any():
            raise ValueError(
                f"The column {coords[axis]!r} must be in degrees, within [-{bound}, {bound}]; got "
                f"{places[wrong, axis][0]:g} in {wrong.sum()} rows. "
                "Are latitude and longitude swapped, or units mixed?"
            )


def check_swapped(
    coords: Sequence[str], places: np.ndarray, box: tuple[tuple[float, ...], ...]
) -> None:
    """Refuse places outside the training region that lie inside it once swapped."""
    axes = geographic(coords)
    if axes is None:
        return
    low, high = np.array(box)
    margin = np.maximum(high - low, 0.1)  # degrees

    def inside(values: np.ndarray) -> np.ndarray:
        return ((values >= low - margin) & (values <= high + margin))[:, axes].all(axis=1)

    swapped = places.copy()
    swapped[:, axes] = places[:, axes[::-1]]
    wrong = inside(swapped) & ~inside(places)
    if wrong.mean() > 0.5:
        raise ValueError(
            f"The columns {coords[axes[0]]!r} and {coords[axes[1]]!r} must be as in training; "
            f"got {wrong.sum()} rows that lie in the training region only when they are swapped."
        )


def check_jumps(position: np.ndarray, sensor: np.ndarray, labels: Sequence[object]) -> None:
    """Refuse a sensor that stands still but for a few rows more than 50 km away.

    A sensor stands still if at least half of its rows lie within 1 km of their median, so that a
    vehicle with a name is no offence.
    """
    for code, label in enumerate(labels):
        own = position[sensor == code]
        if len(own) == 0:
            continue
        away = np.linalg.norm(own - np.median(own, axis=0), axis=1)
        if np.median(away) < 1 and away.max() > JUMP:
            raise ValueError(
                f"The position of sensor {label!r} must not jump; got {(away > JUMP).sum()} rows "
                f"up to {away.max():.0f} km from where it stands. Are the units mixed?"
            )


def _wrap(longitude: np.ndarray) -> np.ndarray:
    """Degrees in [-180, 180)."""
    return (longitude + 180) % 360 - 180

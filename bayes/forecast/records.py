"""Tables of space-time measurements as arrays: what every forecaster and baseline reads.

`Schema` names the columns, `read_records` checks a DataFrame and gives `Records`, `Reference` keeps
what the training table fixes for all later ones (projection, sensors, sampling step).

What is done with doubtful input:

- *Times* are datetimes or ISO 8601 text. Naive times are local times taken as they are, aware ones
  become UTC; a mixture of both, or of offsets, is an error, within a table and between tables.
- *Order* of rows does not matter: inside, rows are sorted by time, sensor and place;
  `Records.restore` gives results in the caller's order.
- *Irregular sampling* is allowed. The step is the given frequency, else the most frequent distance
  between consecutive distinct times, or their median if none repeats.
- *Missing* targets and covariates (NaN) are allowed, infinite ones are not. A missing time or
  coordinate is an error, and so are two observed targets at one time, place and sensor.
- *A sensor never seen* in training has code -1.
- *Text* covariates are 16-point compass directions, read as sine and cosine; no other text.
- *The target* of a training table must have two different values; later tables may lack it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from . import places
from .columns import angle_of, hours_of, numbers_of

MIN_ROWS_PER_PLACE = 10  # with fewer on average, places are not sensors


@dataclass(frozen=True)
class Schema:
    """Names of the columns of a space-time table.

    Parameters
    ----------
    time : str
    coords : sequence of str
        Names such as latitude, lat, longitude, lon say that both are in degrees; other columns are
        taken as they are (`bayes.forecast.places`).
    target : str
    covariates : sequence of str
    sensor : str, optional
        Identifies the instrument. Without it, each place with ten rows or more on average is one.
    freq : str, optional
        Sampling step as a fixed pandas frequency, such as ``"h"``, ``"15min"``, ``"D"``.

    Examples
    --------
    >>> Schema("time", ["lat", "lon"], "pm25", freq="h").coords
    ('lat', 'lon')
    """

    time: str
    coords: Sequence[str]
    target: str
    covariates: Sequence[str] = ()
    sensor: str | None = None
    freq: str | None = None

    def __post_init__(self) -> None:
        for name in ("coords", "covariates"):
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Sequence):
                raise ValueError(
                    f"The {name!r} parameter must be a sequence of column names; got {value!r}."
                )
            object.__setattr__(self, name, tuple(value))
        if not self.coords:
            raise ValueError("The 'coords' parameter must name a column at least; got ().")
        named = [self.time, *self.coords, self.target, *self.covariates]
        for column in named + ([] if self.sensor is None else [self.sensor]):
            if not isinstance(column, str):
                raise ValueError(f"The names of columns must be text; got {column!r}.")
        twice = sorted({column for column in named if named.count(column) > 1})
        if twice:
            raise ValueError(f"The columns of a schema must be distinct; got {twice} twice.")
        if self.freq is not None:
            step_of(self.freq)


@dataclass(frozen=True)
class Reference:
    """What training records fix for all later ones; its fields are plain Python values.

    Attributes
    ----------
    schema : Schema
    aware : bool
        Whether times have a time zone.
    origin : (latitude, longitude) or None
        Of the projection.
    box : (low, high)
        Extremes of the raw coordinates, C each.
    sensors : tuple
        Labels, or places rounded to 1 m as tuples if the schema names no sensor; S of them.
    step : float
        Sampling step in hours.
    directions : tuple of str
        Covariates that are compass directions.
    """

    schema: Schema
    aware: bool
    origin: tuple[float, float] | None
    box: tuple[tuple[float, ...], tuple[float, ...]]
    sensors: tuple[Hashable, ...]
    step: float
    directions: tuple[str, ...]


@dataclass(frozen=True)
class Records:
    """Arrays of N measurements, sorted by time, then sensor, then place.

    Attributes
    ----------
    hours : ndarray (N,)
        Hours since 1970-01-01 00:00, UTC for aware times and local for naive ones.
    position : ndarray (N, C)
        km; the columns are the coordinates of the schema, latitude being north.
    target : ndarray (N,)
        NaN where missing.
    covariates : ndarray (N, P)
        NaN where missing; a compass direction takes two columns.
    covariate_names : tuple of str
    sensor : ndarray (N,) of int64
        Codes 0, ..., S - 1, and -1 for a sensor never seen in training.
    rank : ndarray (N,) of int64
        The row of the arrays that holds each row of the table.
    index : Index
        Of the table, in the caller's order.
    reference : Reference
    """

    hours: np.ndarray
    position: np.ndarray
    target: np.ndarray
    covariates: np.ndarray
    covariate_names: tuple[str, ...]
    sensor: np.ndarray
    rank: np.ndarray
    index: pd.Index
    reference: Reference

    def __len__(self) -> int:
        return len(self.hours)

    @property
    def observed(self) -> np.ndarray:
        """Where the target is known (N,)."""
        return ~np.isnan(self.target)

    @property
    def n_sensors(self) -> int:
        """S, the sensors of the training records."""
        return len(self.reference.sensors)

    def restore(self, values: Any, axis: int = 0) -> Any:
        """An array or tensor over the sorted rows, in the caller's order along ``axis``."""
        return values[(slice(None),) * axis + (self.rank,)]

    def hide(self, rows: np.ndarray) -> Records:
        """The same rows with the targets of some, given as a mask (N,), missing."""
        return replace(self, target=np.where(rows, np.nan, self.target))

    def take(self, rows: np.ndarray) -> Records:
        """Some of the sorted rows, given as a mask or by increasing number; in that order."""
        numbers = np.arange(len(self))[rows]
        return replace(
            self,
            hours=self.hours[numbers],
            position=self.position[numbers],
            target=self.target[numbers],
            covariates=self.covariates[numbers],
            sensor=self.sensor[numbers],
            rank=np.arange(len(numbers)),
            index=self.index[np.argsort(self.rank)][numbers],
        )


def read_records(df: pd.DataFrame, schema: Schema, fitted: Reference | None = None) -> Records:
    """Check a table and read it.

    Parameters
    ----------
    df : DataFrame
    schema : Schema
    fitted : Reference, optional
        ``training_records.reference`` if this is a later table, whose target may be absent.

    Raises
    ------
    ValueError
        If the table breaks a rule of this module; the sentence names column, rule and value.

    Examples
    --------
    >>> times = pd.date_range("2024-01-01", periods=3, freq="h")
    >>> df = pd.DataFrame({"time": times[::-1], "x": 0.0, "pm25": [3.0, np.nan, 1.0]})
    >>> records = read_records(df, Schema("time", ["x"], "pm25"))
    >>> records.target, records.restore(records.target)
    (array([ 1., nan,  3.]), array([ 3., nan,  1.]))
    """
    _check_columns(df, schema, training=fitted is None)
    hours, aware = hours_of(df[schema.time], schema.time)
    raw = np.stack([numbers_of(df[c], c, finite=True) for c in schema.coords], axis=1)
    places.check_degrees(schema.coords, raw)
    target = (
        numbers_of(df[schema.target], schema.target)
        if schema.target in df
        else np.full(len(df), np.nan)
    )
    if fitted is None:
        fitted = _learn(df, schema, hours, aware, raw, target)
    elif aware != fitted.aware:
        kinds = {True: "a time zone", False: "no time zone"}
        raise ValueError(
            f"The column {schema.time!r} must have {kinds[fitted.aware]} as in training; "
            f"got {kinds[aware]}."
        )
    places.check_swapped(schema.coords, raw, fitted.box)
    position = places.project(schema.coords, raw, fitted.origin)
    labels = _labels(df, schema, position)
    sensor = pd.Index(_objects(fitted.sensors)).get_indexer(labels).astype(np.int64)
    if schema.sensor is not None:
        places.check_jumps(position, sensor, fitted.sensors)
    names, covariates = _covariates(df, schema, fitted.directions)
    order = np.lexsort((*position.T[::-1], sensor, hours))
    rank = np.empty(len(df), np.int64)
    rank[order] = np.arange(len(df))
    records = Records(
        hours[order], position[order], target[order], covariates[order], names, sensor[order],
        rank, df.index, fitted,
    )  # fmt: skip
    _check_duplicates(df, schema, records, labels[order], order)
    return records


def step_of(freq: str) -> float:
    """Hours of a fixed pandas frequency.

    Examples
    --------
    >>> step_of("15min"), step_of("D")
    (0.25, 24.0)
    """
    try:
        step = pd.to_timedelta(pd.tseries.frequencies.to_offset(freq)) / pd.Timedelta(hours=1)  # type: ignore[call-overload]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"The 'freq' parameter must be a fixed pandas frequency such as 'h' or '7D'; "
            f"got {freq!r}."
        ) from error
    if not step > 0:
        raise ValueError(f"The 'freq' parameter must be positive; got {freq!r}.")
    return float(step)


def check_target_above(records: Records, low: float, *, strict: bool, why: str) -> None:
    """Refuse targets below ``low``, or equal to it if strict; ``why`` names who needs it."""
    target = records.target[records.observed]
    wrong = target <= low if strict else target < low
    if wrong.any():
        relation = "greater than" if strict else "at least"
        raise ValueError(
            f"The target {records.reference.schema.target!r} must be {relation} {low:g} {why}; "
            f"got {target[wrong].min():g} in {wrong.sum()} rows."
        )


def _check_columns(df: Any, schema: Schema, training: bool) -> None:
    if not isinstance(df, pd.DataFrame):
        raise ValueError(f"The 'df' parameter must be a pandas DataFrame; got {type(df)}.")
    needed = [schema.time, *schema.coords, *schema.covariates]
    needed += [schema.target] if training else []
    needed += [schema.sensor] if schema.sensor is not None else []
    missing = [column for column in needed if column not in df]
    if missing:
        raise ValueError(
            f"The table must have the columns {needed}; got none named {missing}. "
            "A covariate that is unknown for now may be NaN."
        )
    twice = [column for column in needed if list(df.columns).count(column) > 1]
    if twice:
        raise ValueError(f"The names of columns must be distinct; got {twice} twice.")
    if len(df) == 0:
        raise ValueError("The table must have a row at least; got none.")


def _covariates(
    df: pd.DataFrame, schema: Schema, directions: tuple[str, ...]
) -> tuple[tuple[str, ...], np.ndarray]:
    names: list[str] = []
    columns: list[np.ndarray] = []
    for name in schema.covariates:
        if name in directions:
            angle = angle_of(df[name], name)
            names += [f"{name}_sin", f"{name}_cos"]
            columns += [np.sin(angle), np.cos(angle)]
        else:
            names.append(name)
            columns.append(numbers_of(df[name], name))
    return tuple(names), np.stack(columns, axis=1) if columns else np.empty((len(df), 0))


def _learn(
    df: pd.DataFrame,
    schema: Schema,
    hours: np.ndarray,
    aware: bool,
    raw: np.ndarray,
    target: np.ndarray,
) -> Reference:
    known = target[~np.isnan(target)]
    if len(known) == 0:
        raise ValueError(f"The target {schema.target!r} must be known somewhere; got NaN alone.")
    if known.min() == known.max():
        raise ValueError(
            f"The target {schema.target!r} must vary; got {known[0]:g} in all {len(known)} rows."
        )
    origin = places.middle(schema.coords, raw)
    labels = _labels(df, schema, places.project(schema.coords, raw, origin))
    sensors = pd.unique(labels)
    if schema.sensor is None and len(sensors) * MIN_ROWS_PER_PLACE > len(df):
        sensors = sensors[:0]
    if schema.freq is not None:
        step = step_of(schema.freq)
    else:
        gaps, counts = np.unique(np.diff(np.unique(hours)).round(6), return_counts=True)
        if len(gaps) == 0:
            step = 1.0
        else:
            step = float(gaps[counts.argmax()] if counts.max() > 1 else np.median(gaps))
    text = [c for c in schema.covariates if not pd.api.types.is_numeric_dtype(df[c])]
    return Reference(
        schema=schema,
        aware=aware,
        origin=origin,
        box=(tuple(raw.min(axis=0).tolist()), tuple(raw.max(axis=0).tolist())),
        sensors=tuple(sorted(sensors.tolist(), key=lambda label: (str(type(label)), label))),
        step=step,
        directions=tuple(text),
    )


def _labels(df: pd.DataFrame, schema: Schema, position: np.ndarray) -> np.ndarray:
    """Sensors of the rows (N,), as objects: labels, or places rounded to 1 m."""
    if schema.sensor is None:
        metres, inverse = np.unique(position.round(3) + 0.0, axis=0, return_inverse=True)
        return _objects([tuple(place) for place in metres.tolist()])[inverse]
    labels = df[schema.sensor]
    if labels.isna().any():
        raise ValueError(
            f"The column {schema.sensor!r} must name a sensor in each row; "
            f"got {labels.isna().sum()} missing."
        )
    return _objects(labels.tolist())


def _objects(values: Sequence[Any]) -> np.ndarray:
    """A one-dimensional object array, tuples staying whole."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _check_duplicates(
    df: pd.DataFrame, schema: Schema, records: Records, labels: np.ndarray, order: np.ndarray
) -> None:
    keys = pd.DataFrame({"hours": records.hours, "label": pd.factorize(labels)[0]})
    for axis, column in enumerate(records.position.T):
        keys[f"position {axis}"] = column
    keys = keys[records.observed]
    twice = keys.duplicated()
    if twice.any():
        row = df.iloc[order[records.observed][twice.to_numpy()][0]]
        where = {name: row[name] for name in (schema.time, *schema.coords)}
        raise ValueError(
            f"The target must be observed once at a time, place and sensor; got {twice.sum()} "
            f"rows that repeat another, first {where}. Average them first."
        )

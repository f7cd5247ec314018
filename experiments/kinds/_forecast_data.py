"""Records in space and time for `forecast` studies: a table of a folder, or the synthetic city.

A table comes from the folder that the study or ``MOEBIUS_AIR`` names. Where neither does, the
synthetic city stands in for it under its own name, so that every study runs with no download and
no row can be taken for one of the table.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import Field

from experiments.datasets import AIR_VARIABLE, DataError, air_folder, read_table
from experiments.kinds import SettingModel

if TYPE_CHECKING:
    from bayes.forecast import Schema

CITY = "city"
"""What the data of the synthetic city are called."""

CITY_UNIT = "ug/m3"


class CitySetting(SettingModel):
    """The synthetic city; each replicate is another one."""

    n_vehicles: int = Field(default=0, ge=0)
    daily: bool = Field(default=False, description="daily means in place of hourly values")


class PlacesSetting(SettingModel):
    """A second table, of coordinates, and the column that both have."""

    file: str
    by: str


class TableSetting(SettingModel):
    """A CSV or Parquet file of measurements, and its columns; times are local."""

    name: str = Field(pattern="^[a-z][a-z0-9]*$")
    file: str
    folder: str | None = None
    places: PlacesSetting | None = None
    time: str
    coords: tuple[str, ...] = Field(min_length=1)
    target: str
    unit: str = Field(description="of the target")
    sensor: str | None = None
    freq: str
    last: str = Field(description="the last time of the record that is used")
    rows: dict[str, str] = Field(default={}, description="text that a column must have")
    mobile: dict[str, str] = Field(default={}, description="the same, of rows measured by vehicles")
    covariates: dict[str, tuple[str, ...]] = Field(default={}, description="groups of columns")

    @property
    def present(self) -> bool:
        """Whether a folder is named."""
        return air_folder(self.folder) is not None


@dataclass(frozen=True, eq=False)
class SpaceTime:
    """A table with what is known of its columns.

    Attributes
    ----------
    frame : DataFrame
        Rows with a known or unknown target.
    schema : Schema
        Without covariates.
    mobile : ndarray (N,) of bool
        Rows measured by vehicles.
    covariates : dict
        Columns by the name of their group.
    synthetic : bool
        Whether it is the city's.
    """

    frame: pd.DataFrame
    schema: Schema
    mobile: np.ndarray
    covariates: dict[str, tuple[str, ...]]
    synthetic: bool = False

    @property
    def sha256(self) -> str:
        """First 16 hexadecimal digits of the hash of times, places and targets, row by row."""

        columns = [self.schema.time, *self.schema.coords, self.schema.target]
        rows = pd.util.hash_pandas_object(self.frame[columns], index=False)
        return hashlib.sha256(rows.to_numpy().tobytes()).hexdigest()[:16]


CITY_COVARIATES = {
    "weather": ("temperature",),
    "wind": ("wind_speed", "wind_direction"),
    "traffic": ("traffic",),
}


def load_city(setting: CitySetting, days: int, n_sensors: int, seed: int) -> SpaceTime:
    """A synthetic city."""
    from bayes.forecast.city import SCHEMA, synthetic_city

    frame = synthetic_city(n_sensors, days, seed, n_vehicles=setting.n_vehicles)
    schema = replace(SCHEMA, covariates=())
    if setting.daily:
        frame, schema = _daily(frame), replace(schema, freq="D")
    mobile = (frame["kind"] == "vehicle").to_numpy()
    return SpaceTime(frame, schema, mobile, {} if setting.daily else CITY_COVARIATES, True)


def load_table(
    setting: TableSetting, days: int, n_sensors: int, seed: int, earlier: float = 0.0
) -> SpaceTime:
    """The last days of a table at some of its sensors, drawn anew for each seed.

    Parameters
    ----------
    earlier : float
        Hours before the table's last time at which the record ends.

    Raises
    ------
    DataError
        If a file or column is not there, or there are no rows in these days.
    """
    from bayes.forecast import Schema

    frame = read_whole(setting)
    end = pd.Timestamp(setting.last) - pd.Timedelta(hours=earlier)
    time = frame[setting.time]
    frame = frame[(time <= end) & (time > end - pd.Timedelta(days=days))].reset_index(drop=True)
    mobile = _where(frame, setting.mobile) if setting.mobile else np.zeros(len(frame), bool)
    known = frame[setting.target].notna().to_numpy() & ~mobile
    names = [setting.sensor] if setting.sensor else list(setting.coords)
    sensor = frame.groupby(names, sort=True).ngroup().to_numpy()
    found = np.unique(sensor[known])
    if len(found) == 0:
        raise DataError(
            f"{setting.file} has no known {setting.target!r} in the {days} days up to {end}"
        )
    kept = np.random.default_rng(seed).permutation(found)[:n_sensors]
    used = mobile | np.isin(sensor, kept)
    schema = Schema(
        setting.time,
        setting.coords,
        setting.target,
        sensor=setting.sensor,
        freq=setting.freq,
    )
    return SpaceTime(frame[used].reset_index(drop=True), schema, mobile[used], setting.covariates)


def read_whole(setting: TableSetting) -> pd.DataFrame:
    """All rows of a table that a study may use, with coordinates and times.

    Raises
    ------
    DataError
        If the folder is not named, or a file or column is not there.
    """

    home = air_folder(setting.folder)
    if home is None:
        raise DataError(
            f"the data {setting.name!r} are not part of the project: set the environment variable "
            f"{AIR_VARIABLE} to the folder that holds {setting.file}"
        )
    text = [setting.sensor] if setting.sensor else []
    frame = read_table(home / setting.file, text)
    if setting.places is not None:
        places = read_table(home / setting.places.file, text)
        _check_columns(frame, [setting.places.by], setting.file)
        _check_columns(places, [setting.places.by], setting.places.file)
        frame = frame.merge(places, on=setting.places.by, validate="many_to_one")
    groups = [column for group in setting.covariates.values() for column in group]
    needed = [setting.time, *setting.coords, setting.target, *text, *groups]
    _check_columns(frame, [*needed, *setting.rows, *setting.mobile], setting.file)
    try:
        frame[setting.time] = pd.to_datetime(frame[setting.time], format="ISO8601")
    except ValueError as error:
        raise DataError(f"{setting.file}: column {setting.time!r}: {error}") from None
    return frame[_where(frame, setting.rows)].reset_index(drop=True)


def _where(frame: pd.DataFrame, values: dict[str, str]) -> Any:
    """Rows (N,) with these texts in these columns."""

    hits = [(frame[column] == value).to_numpy() for column, value in values.items()]
    return np.logical_and.reduce([np.ones(len(frame), bool), *hits])


def _check_columns(frame: pd.DataFrame, needed: list[str], file: str) -> None:
    missing = [column for column in needed if column not in frame]
    if missing:
        raise DataError(
            f"{file} lacks the columns {', '.join(missing)}; it has: {', '.join(frame.columns)}"
        )


def _daily(frame: pd.DataFrame) -> pd.DataFrame:
    """Means of days with 18 known hours at least, of fixed sensors; other days are unknown."""
    fixed = frame[frame["kind"] == "fixed"]
    keys = ["sensor", "latitude", "longitude", fixed["time"].dt.floor("D")]
    found = fixed.groupby(keys)["pm25"].agg(["mean", "count"]).reset_index()
    known = found["mean"].where(found["count"] >= 18)
    return found.assign(pm25=known, kind="fixed").drop(columns=["mean", "count"])

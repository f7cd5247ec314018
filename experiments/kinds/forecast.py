"""Kind `forecast`: hide parts of a record in space and time, forecast them, score.

A cell is a task (how rows are hidden) and an arm (who forecasts them) on one record; n is the
length of the record in days, and `sizes` says with how many sensors, members of an ensemble and
updates of a network it goes. A replicate draws the mask and the model's random numbers anew, and on
the synthetic city the city; a forecast from a table ends by its own length earlier with each
replicate. A task with a `mask_seed` has one mask (`_forecast_masks`) and, from a table, one record:
its replicates r are model seeds r. The arms of a replicate share record, mask and seed. Rows:
`_forecast_rows`; records: `_forecast_data`. Seconds are those of process CPU time.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from experiments.datasets import AIR_VARIABLE, DataError, air_folder
from experiments.kinds import Batch, Cell, KindError, ProfileModel, SettingModel, batch_each
from experiments.kinds._forecast_data import (
    CITY,
    CITY_COVARIATES,
    CITY_UNIT,
    CitySetting,
    SpaceTime,
    TableSetting,
    load_city,
    load_table,
    read_whole,
)
from experiments.kinds._forecast_masks import redrawable_mask
from experiments.kinds._forecast_rows import Forecast, drawn, scored
from experiments.study import Study

if TYPE_CHECKING:
    import pandas as pd

    from bayes.forecast import Schema
    from bayes.forecast.evaluation import Task

BASELINES = {
    "boosting": "Boosting",
    "climatology": "Climatology",
    "interpolation": "Interpolation",
    "inverse-distance": "InverseDistance",
    "persistence": "Persistence",
    "svgp": "SVGP",
}

OF_THE_RECORD = ("time", "coords", "target", "covariates", "sensor", "freq", "random_state")
"""Parameters of a forecaster that no arm sets."""

Option = bool | int | float | str | tuple[str, ...] | tuple[float, ...]


class TaskSetting(SettingModel):
    """What is hidden: by a pattern of `make_mask` at a rate, the last hours, or all that vehicles
    measured."""

    pattern: Literal["point", "block", "sensor", "outage", "trajectory", "forecast", "mobile"]
    rate: float | None = Field(default=None, gt=0, lt=1)
    gap: tuple[int, int] | None = Field(default=None, description="of blocks and outages, in steps")
    hours: float | None = Field(default=None, gt=0, description="of a forecast")
    mask_seed: int | None = Field(default=None, ge=0, description="of the mask of all replicates")
    sensors: tuple[str, ...] = Field(
        default=(), description="to hide, by a mask_seed; of the city as many of its first"
    )

    @model_validator(mode="after")
    def _fits_its_pattern(self) -> TaskSetting:
        if bool(self.sensors) != (self.pattern == "sensor" and self.mask_seed is not None):
            raise ValueError(
                f"'sensors' is for 'sensor' with a 'mask_seed'; got {self.sensors} with "
                f"{self.pattern!r} and {self.mask_seed}"
            )
        masked = self.pattern not in ("forecast", "mobile") and not self.sensors
        if (self.rate is not None) != masked:
            raise ValueError(f"'rate' is for masks; got {self.rate} with pattern {self.pattern!r}")
        if (self.hours is not None) != (self.pattern == "forecast"):
            raise ValueError(f"'hours' is for forecasts; got {self.hours} with {self.pattern!r}")
        if self.gap is not None and self.pattern not in ("block", "outage"):
            raise ValueError(f"'gap' is for block and outage; got {self.gap} with {self.pattern!r}")
        if self.mask_seed is not None and (self.pattern == "trajectory" or self.gap is not None):
            raise ValueError(
                f"'mask_seed' is not for trajectories or with a 'gap'; got {self.mask_seed} with "
                f"{self.pattern!r} and {self.gap}"
            )
        return self

    def build(self, name: str, record: SpaceTime, seed: int) -> Task:
        """The task on a record."""
        from bayes.forecast import ForecastTask, MaskTask, RowsTask

        if self.hours is not None:
            return ForecastTask(self.hours, name)
        if self.sensors:
            return RowsTask(name, self._named_sensors(record))
        if self.rate is not None and self.mask_seed is not None:
            sensor, time = record.schema.sensor, record.schema.time
            mask = redrawable_mask(
                record.frame, self.pattern, self.rate, self.mask_seed, sensor=sensor, time=time
            )
            return RowsTask(name, mask)
        if self.rate is not None:
            return MaskTask(self.pattern, self.rate, seed, self.gap, name)
        return RowsTask(name, record.mobile)

    def _named_sensors(self, record: SpaceTime) -> np.ndarray:
        column = record.frame[record.schema.sensor].astype(str)
        known = np.unique(column)
        hidden = known[: len(self.sensors)] if record.synthetic else self.sensors
        if not np.isin(hidden, known).all():
            raise DataError(f"the record has no sensors {self.sensors}; it has: {', '.join(known)}")
        return column.isin(hidden).to_numpy()


class ArmSetting(SettingModel):
    """A forecaster: CGLU-BNF with options of `CGLUBNF`, the same with its own parts off, or a
    baseline; and the groups of covariates that it is given."""

    model: Literal[
        "cglubnf",
        "bayesnf",
        "boosting",
        "climatology",
        "interpolation",
        "inverse-distance",
        "persistence",
        "svgp",
    ]
    options: dict[str, Option] = Field(default={})
    covariates: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_options_of_its_model(self) -> ArmSetting:
        if self.model in BASELINES and self.options:
            raise ValueError(f"options are for cglubnf and bayesnf; got them with {self.model!r}")
        return self

    def build(self, schema: Schema, size: SizeSetting, seed: int) -> Any:
        """The estimator, a network of the size's members and share of updates."""
        from bayes import CGLUBNF
        from bayes.forecast import baselines

        if self.model in BASELINES:
            return getattr(baselines, BASELINES[self.model])(**vars(schema), random_state=seed)
        make = CGLUBNF if self.model == "cglubnf" else CGLUBNF.bayesnf
        whole = make(**vars(schema)).n_updates
        own: dict[str, Any] = {
            "ensemble_size": size.members,
            "n_updates": max(round(size.updates * whole), 1),
        }
        return make(**vars(schema), random_state=seed, **(own | self.options))


class SizeSetting(SettingModel):
    """What goes with a record of that many days."""

    days: int = Field(ge=2)
    sensors: int = Field(ge=1, description="at most")
    members: int = Field(default=4, ge=1)
    updates: float = Field(default=1.0, gt=0, le=1, description="share of a network's own number")


class ForecastSetting(SettingModel):
    """Whose record, what is hidden, who forecasts."""

    city: CitySetting = CitySetting()
    table: TableSetting | None = None
    tasks: dict[str, TaskSetting] = Field(min_length=1)
    arms: dict[str, ArmSetting] = Field(min_length=1)
    sizes: tuple[SizeSetting, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _builds(self) -> ForecastSetting:
        from bayes import CGLUBNF

        known = set(CGLUBNF("time", ("x",), "y").get_params(deep=False)) - set(OF_THE_RECORD)
        for label, arm in self.arms.items():
            unknown = sorted(set(arm.options) - known)
            if unknown:
                raise ValueError(f"CGLUBNF has no option {unknown[0]!r}, as arm {label!r} wants")
        days = [size.days for size in self.sizes]
        if len(set(days)) < len(days):
            raise ValueError(f"'sizes' must have different days; got {days}")
        groups = [set(CITY_COVARIATES), *([set(self.table.covariates)] if self.table else [])]
        for label, arm in self.arms.items():
            if not any(set(arm.covariates) <= group for group in groups):
                raise ValueError(f"no data have the covariates {arm.covariates} of arm {label!r}")
        mobile = any(task.pattern == "mobile" for task in self.tasks.values())
        if mobile and not (self.city.n_vehicles and (self.table is None or self.table.mobile)):
            raise ValueError("a task 'mobile' needs city.n_vehicles and table.mobile")
        return self

    @property
    def data(self) -> str:
        """The name of the data that are used now: the table's if there is a folder for it."""
        return self.table.name if self.table is not None and self.table.present else CITY

    def unit_of(self, data: str) -> str:
        """The unit of the target in data of that name."""
        return CITY_UNIT if data == CITY or self.table is None else self.table.unit

    def size(self, days: int) -> SizeSetting:
        """What goes with a record of that many days."""
        return next(size for size in self.sizes if size.days == days)


class ForecastProfile(ProfileModel):
    """How long a record, how often, which tasks and arms (all, if none are named), between which
    bounds the coverage of nominal 95% intervals should lie, and what scores of the first arm, means
    over replicates, should be at most."""

    days: int
    replicates: int = Field(ge=1)
    tasks: tuple[str, ...] = ()
    arms: tuple[str, ...] = ()
    coverage: dict[str, tuple[float, float]] = Field(
        default={}, description="by task; else [.93, .97]"
    )
    at_most: dict[str, dict[Literal["mae", "crps"], float]] = Field(
        default={}, description="by task, on tables"
    )


class ForecastKind:
    """See the module's docstring."""

    name = "forecast"
    revision = 3
    Setting = ForecastSetting
    Profile = ForecastProfile

    def batches(self, setting: ForecastSetting, profile: ForecastProfile) -> list[Batch]:
        """One cell each."""
        for name, asked, there in (
            ("days", (profile.days,), [size.days for size in setting.sizes]),
            ("tasks", profile.tasks, list(setting.tasks)),
            ("at_most", tuple(profile.at_most), list(setting.tasks)),
            ("arms", profile.arms, list(setting.arms)),
        ):
            unknown = [value for value in asked if value not in there]
            if unknown:
                raise KindError(f"a profile's {name!r} must be among {there}; got {unknown[0]!r}")
        return batch_each(
            Cell(label, profile.days, r)
            for label, (_, task, arm) in labelled(setting).items()
            if task in (profile.tasks or setting.tasks) and arm in (profile.arms or setting.arms)
            for r in range(profile.replicates)
        )

    def prepare(self, study: Study) -> dict[str, Any]:
        """The name of the table, if the study has one; and that it can be read if it is there."""
        table = study.setting.table
        if table is None:
            return {}
        if table.present:
            read_whole(table)
        return {"table": table.name, "folder": table.folder}

    def describe(self, prepared: dict[str, Any]) -> str:
        """Whose record it is."""
        if "table" not in prepared:
            return "Record: the synthetic city."
        home = air_folder(prepared["folder"])
        if home is not None:
            return f"Record: {prepared['table']}, from {home}."
        return (
            f"Record: the synthetic city, which stands in for {prepared['table']}: {AIR_VARIABLE} "
            "does not name a folder with that."
        )

    def run_batch(self, study: Study, batch: Batch) -> list[dict[str, Any]]:
        """Hide, fit, forecast, score."""
        (cell,), setting = batch.cells, study.setting
        data, task, label = labelled(setting, cell.arm.split("-")[0])[cell.arm]
        record = load(study, data, task, cell)
        train, test = split(study, record, task, cell)
        arm, seed = setting.arms[label], study.seed_of(cell.n, cell.replicate, "model", bits=32)
        if setting.tasks[task].mask_seed is not None:
            seed = cell.replicate
        forecast, seconds = forecast_of(arm, record, train, test, setting.size(cell.n), seed)
        row: dict[str, Any] = {"data": data, "task": task, "model": label, **seconds}
        row["record_sha256"] = record.sha256
        row |= scored(forecast, study.seed_of(cell.n, cell.replicate, "bootstrap", bits=32))
        if cell.replicate == 0:
            row |= drawn(forecast)
        return [row]


def labelled(setting: ForecastSetting, data: str | None = None) -> dict[str, tuple[str, str, str]]:
    """Data, task and arm by the cells' arm names; arms whose covariates the data lack left out."""
    data = setting.data if data is None else data
    groups = setting.table.covariates if setting.table and data != CITY else CITY_COVARIATES
    return {
        f"{data}-{task}-{label}": (data, task, label)
        for task in setting.tasks
        for label, arm in setting.arms.items()
        if set(arm.covariates) <= set(groups)
    }


def load(study: Study, data: str, task: str, cell: Cell) -> SpaceTime:
    """The record of a cell."""
    setting, size = study.setting, study.setting.size(cell.n)
    if data == CITY:
        seed = study.seed_of(cell.n, cell.replicate, "city", bits=32)
        return load_city(setting.city, size.days, size.sensors, seed)
    asked = setting.tasks[task]
    earlier = 0.0 if asked.mask_seed is not None else cell.replicate * (asked.hours or 0.0)
    seed = study.seed_of(cell.n, 0, "sensors", bits=32)
    return load_table(setting.table, size.days, size.sensors, seed, earlier)


def split(
    study: Study, record: SpaceTime, task: str, cell: Cell
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows to learn from and rows with a known target to forecast."""
    seed = study.seed_of(cell.n, cell.replicate, "mask", task, bits=32)
    built = study.setting.tasks[task].build(task, record, seed)
    train, test = built.split(record.frame, record.schema)
    return train, test[test[record.schema.target].notna()]


def forecast_of(
    arm: ArmSetting,
    record: SpaceTime,
    train: pd.DataFrame,
    test: pd.DataFrame,
    size: SizeSetting,
    seed: int,
) -> tuple[Forecast, dict[str, float]]:
    """What an arm forecasts, and the CPU seconds of its fit and of its prediction."""
    from bayes.forecast.scores import LEVELS

    columns = tuple(column for group in arm.covariates for column in record.covariates[group])
    model = arm.build(replace(record.schema, covariates=columns), size, seed)
    asked = test.assign(**{record.schema.target: np.nan})
    began = time.process_time()
    model.fit(train)
    fitted = time.process_time()
    quantiles = model.predict_quantiles(asked, alpha=list(LEVELS)).to_numpy()
    mean = model.predict(asked, statistic="mean").to_numpy()
    seconds = {"fit_seconds": fitted - began, "predict_seconds": time.process_time() - fitted}
    return Forecast(record.schema, train, test, quantiles, mean), seconds


KIND = ForecastKind()

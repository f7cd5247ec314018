"""`moebius forecast`: train a forecaster on a table with holes, fill and forecast, compare.

A trained model is one file in a folder. It knows its columns and the rows that it was trained on,
so that `predict` needs nothing but the rows to predict.
"""

from __future__ import annotations

import json
import time as clock
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import UserError

if TYPE_CHECKING:
    import pandas as pd

app = typer.Typer(
    help="Forecast records in space and time that have holes, with intervals.",
    no_args_is_help=True,
)

FILE = "forecaster.safetensors"
"""Of a model, in its folder."""


class InferenceOption(StrEnum):
    """How weights are found."""

    map = "map"
    mle = "mle"
    vi = "vi"
    laplace = "laplace"
    sgmcmc = "sgmcmc"


class PatternOption(StrEnum):
    """What is hidden."""

    point = "point"
    block = "block"
    sensor = "sensor"
    outage = "outage"
    trajectory = "trajectory"
    forecast = "forecast"


class GroupOption(StrEnum):
    """By what scores are told apart."""

    all = "all"
    horizon = "horizon"
    gap = "gap"
    sensor = "sensor"
    hour = "hour"


_Data = Annotated[Path, typer.Argument(help="CSV or Parquet file, a row a measurement.")]
_Time = Annotated[str, typer.Option(help="Column of times, ISO 8601.")]
_Coords = Annotated[str, typer.Option(help="Columns of coordinates, as lat,lon.")]
_Target = Annotated[str, typer.Option(help="Column to forecast; empty where missing.")]
_Covariates = Annotated[str, typer.Option(help="Columns of covariates, as temperature,wind.")]
_Sensor = Annotated[str | None, typer.Option(help="Column that identifies the instrument.")]
_Freq = Annotated[
    str | None, typer.Option(help="Sampling step, as h or 15min; found if not given.")
]
_Field = Annotated[
    bool, typer.Option("--field", help="Coordinates and covariates alone, no observed neighbours.")
]
_Likelihood = Annotated[str, typer.Option(help="auto, normal, student_t, lognormal, ...")]
_Inference = Annotated[InferenceOption, typer.Option(help="How weights are found.")]
_Members = Annotated[int, typer.Option(help="Networks in the ensemble.")]
_Updates = Annotated[int, typer.Option(help="About how many steps of training.")]


@app.command()
def fit(
    data: _Data,
    time: _Time,
    coords: _Coords,
    target: _Target,
    out: Annotated[Path, typer.Option(help="Folder of the model.")],
    covariates: _Covariates = "",
    sensor: _Sensor = None,
    freq: _Freq = None,
    field: _Field = False,
    likelihood: _Likelihood = "auto",
    inference: _Inference = InferenceOption.map,
    members: _Members = 4,
    updates: _Updates = 400,
    seed: int = 0,
) -> None:
    """Train on the rows with a known target."""
    from rich.console import Console

    from bayes.forecast.training import Progress

    if out.exists() and not out.is_dir():
        raise UserError(f"--out must be a folder; {out} is a file")
    if not out.absolute().parent.is_dir():
        raise UserError(f"--out must be in a folder that is there; {out.absolute().parent} is not")
    table = _read(data, sensor)
    console = Console()
    began = clock.process_time()
    with _as_user_errors(), console.status("preparing") as shown:

        def show(now: Progress) -> None:
            shown.update(
                f"epoch {now.epoch} of {now.n_epochs}: loss {now.loss:.3f}, "
                f"held-out log score {now.held_out:.3f}"
            )

        model = _forecaster(
            time=time,
            coords=_names(coords),
            target=target,
            covariates=_names(covariates),
            sensor=sensor,
            freq=freq,
            context=not field,
            likelihood=likelihood,
            inference=inference.value,
            ensemble_size=members,
            n_updates=updates,
            random_state=seed,
        ).fit(table, callback=show)
        out.mkdir(exist_ok=True)
        model.save(out / FILE)
    known = int(table[target].notna().sum())
    sensors = model.model_.records.n_sensors
    console.print(
        f"Trained on {known} of {len(table)} rows, {sensors} sensors, in "
        f"{clock.process_time() - began:.1f} CPU seconds\n{out / FILE}",
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="Folder that `moebius forecast fit` wrote.")],
    rows: Annotated[Path, typer.Argument(help="CSV or Parquet file of the rows to predict.")],
    out: Annotated[Path, typer.Option(help="CSV file to write: the rows, and what is forecast.")],
    levels: Annotated[
        str | None, typer.Option(help="Of quantiles; .05,.5,.95 if neither this nor --coverage.")
    ] = None,
    coverage: Annotated[str | None, typer.Option(help="Of central intervals, as .5,.9.")] = None,
    observed: Annotated[
        Path | None, typer.Option(help="What has been measured since training, to look at.")
    ] = None,
) -> None:
    """Forecast rows; a target among their columns is not looked at."""
    from bayes import CGLUBNF

    from ..store import write_whole

    if levels is not None and coverage is not None:
        raise UserError("one of --levels and --coverage at most; got both")
    if not (model / FILE).is_file():
        raise UserError(f"there is no {model / FILE}; first: moebius forecast fit")
    with _as_user_errors():
        fitted = CGLUBNF.load(model / FILE)
        table = _read(rows, fitted.sensor)
        since = None if observed is None else _read(observed, fitted.sensor)
        if coverage is not None:
            asked = _shares("--coverage", coverage)
            found = fitted.predict_interval(table, asked, since)
            found.columns = [f"{fitted.target}_{end}{100 * c:g}" for c, end in found.columns]
        else:
            asked = _shares("--levels", ".05,.5,.95" if levels is None else levels)
            found = fitted.predict_quantiles(table, asked, since)
            found.columns = [f"{fitted.target}_q{level:g}" for level in found.columns]
    taken = [column for column in found.columns if column in table]
    if taken:
        raise UserError(f"{rows} has a column {taken[0]!r} already; rename it")
    write_whole(out, table.assign(**found).to_csv(index=False).encode())
    typer.echo(f"{len(table)} rows with {', '.join(found.columns)}\n{out}")


@app.command()
def evaluate(
    data: _Data,
    time: _Time,
    coords: _Coords,
    target: _Target,
    pattern: Annotated[PatternOption, typer.Option(help="What is hidden.")] = PatternOption.block,
    rate: Annotated[float, typer.Option(help="Share of known targets that a mask hides.")] = 0.3,
    hours: Annotated[float, typer.Option(help="Length of a forecast: the last hours.")] = 24.0,
    baselines: Annotated[
        str, typer.Option(help="To compare with, as climatology,boosting.")
    ] = "climatology,inverse-distance",
    by: Annotated[GroupOption, typer.Option(help="Tell scores apart.")] = GroupOption.all,
    covariates: _Covariates = "",
    sensor: _Sensor = None,
    freq: _Freq = None,
    field: _Field = False,
    likelihood: _Likelihood = "auto",
    inference: _Inference = InferenceOption.map,
    members: _Members = 4,
    updates: _Updates = 400,
    seed: int = 0,
    as_json: Annotated[bool, typer.Option("--json", help="All scores, for machines.")] = False,
) -> None:
    """Hide a part of what is known, forecast it, score; beside simpler forecasters."""
    from rich.console import Console

    from bayes.forecast import ForecastTask, MaskTask, Schema
    from bayes.forecast import baselines as simple
    from bayes.forecast import evaluate as scores_of

    from ..kinds.forecast import BASELINES

    names = _names(baselines)
    unknown = [name for name in names if name not in BASELINES]
    if unknown:
        raise UserError(f"--baselines must be among {', '.join(BASELINES)}; got {unknown[0]!r}")
    table = _read(data, sensor)
    console = Console(stderr=True)
    words = f"{pattern.value}: forecasters {', '.join(['CGLUBNF', *names])}"
    with _as_user_errors(), console.status(words):
        schema = Schema(time, _names(coords), target, _names(covariates), sensor, freq)
        model = _forecaster(
            **vars(schema),
            context=not field,
            likelihood=likelihood,
            inference=inference.value,
            ensemble_size=members,
            n_updates=updates,
            random_state=seed,
        )
        task = (
            ForecastTask(hours)
            if pattern is PatternOption.forecast
            else MaskTask(pattern.value, rate, seed)
        )
        others = {
            name: getattr(simple, BASELINES[name])(**vars(schema), random_state=seed)
            for name in names
        }
        found = scores_of(model, table, [task], others)
    found = found[found["by"] == by.value].dropna(axis=1, how="all")
    if as_json:
        records = found.astype(object).where(found.notna(), None).to_dict("records")
        typer.echo(json.dumps(records, indent=1, allow_nan=False))
        return
    shown = ["model", "n", "mae", "rmse", "crps", "coverage95", "width95", "interval_score95"]
    more = ["fit_seconds", "predict_seconds"] if by is GroupOption.all else []
    first = ["task"] if by is GroupOption.all else ["group"]
    typer.echo(found[first + shown + more].to_string(index=False, float_format="{:.4g}".format))


def _forecaster(**settings: Any) -> Any:
    from bayes import CGLUBNF

    return CGLUBNF(**settings)


def _read(path: Path, sensor: str | None) -> pd.DataFrame:
    from ..datasets import read_table

    return read_table(path, [sensor] if sensor else [])


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _shares(option: str, text: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or not all(0 < value < 1 for value in values) or len(set(values)) < len(values):
        raise UserError(f"{option} must be different numbers in (0, 1), as .5,.9; got {text!r}")
    return values


@contextmanager
def _as_user_errors() -> Iterator[None]:
    """What the library refuses is what the person can put right."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error

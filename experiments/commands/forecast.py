"""`moebius forecast`: train a forecaster on a table with holes, fill and forecast, compare.

A trained model is one file in a folder. It knows its columns and the rows that it was trained on,
so that `predict` needs nothing but the rows to predict.
"""

from __future__ import annotations

import time as clock
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import wraps
from inspect import Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from .. import UserError
from .options import Json, Seed, as_user_errors
from .output import examples, listed, notes, print_frame, print_json, records, say

if TYPE_CHECKING:
    import pandas as pd

    from bayes import CGLUBNF
    from bayes.forecast import Schema

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


_Data = Annotated[
    Path, typer.Argument(metavar="DATA", help="CSV or Parquet file, a row a measurement.")
]
_COLUMNS, _FORECASTER = "Columns of the table", "The forecaster"


@dataclass(frozen=True)
class Options:
    """What `fit` and `evaluate` both ask of a table and of the forecaster trained on it."""

    time: Annotated[
        str,
        typer.Option(metavar="COLUMN", rich_help_panel=_COLUMNS, help="Times, ISO 8601."),
    ]
    coords: Annotated[
        str,
        typer.Option(
            metavar="COLUMNS",
            rich_help_panel=_COLUMNS,
            help="Coordinates, as latitude,longitude (in degrees; known by these names) or x,y.",
        ),
    ]
    target: Annotated[
        str,
        typer.Option(
            metavar="COLUMN",
            rich_help_panel=_COLUMNS,
            help="What to forecast, in any unit; empty where it was not measured.",
        ),
    ]
    covariates: Annotated[
        str,
        typer.Option(
            metavar="COLUMNS",
            rich_help_panel=_COLUMNS,
            help="Covariates, as temperature,wind; none by default.",
            show_default=False,
        ),
    ] = ""
    sensor: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            rich_help_panel=_COLUMNS,
            help="What identifies the instrument; by default a place with many rows is one.",
        ),
    ] = None
    freq: Annotated[
        str | None,
        typer.Option(
            metavar="STEP",
            rich_help_panel=_COLUMNS,
            help="Sampling step, as h or 15min; found from the times by default.",
        ),
    ] = None
    field: Annotated[
        bool,
        typer.Option(
            "--field",
            rich_help_panel=_FORECASTER,
            help="Coordinates and covariates alone, no observed neighbours.",
        ),
    ] = False
    likelihood: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            rich_help_panel=_FORECASTER,
            help="auto chooses; else normal, student-t, log-normal, ...",
        ),
    ] = "auto"
    inference: Annotated[
        InferenceOption,
        typer.Option(
            metavar="NAME",
            rich_help_panel=_FORECASTER,
            help=f"How weights are found: {listed(InferenceOption)}.",
        ),
    ] = InferenceOption.map
    members: Annotated[
        int,
        typer.Option(metavar="N", rich_help_panel=_FORECASTER, help="Networks in the ensemble."),
    ] = 4
    updates: Annotated[
        int,
        typer.Option(
            metavar="N", rich_help_panel=_FORECASTER, help="About how many steps of training."
        ),
    ] = 400
    seed: Seed = 0

    @property
    def schema(self) -> Schema:
        from bayes.forecast import Schema

        return Schema(
            self.time,
            _names(self.coords),
            self.target,
            _names(self.covariates),
            self.sensor,
            self.freq,
        )

    @property
    def forecaster(self) -> CGLUBNF:
        from bayes import CGLUBNF

        return CGLUBNF(
            **vars(self.schema),
            context=not self.field,
            likelihood=self.likelihood,
            inference=self.inference.value,
            ensemble_size=self.members,
            n_updates=self.updates,
            random_state=self.seed,
        )


def _spelled_out(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameter ``options`` is the fields of `Options` on the command line."""
    own = get_type_hints(command, include_extras=True)
    shared = get_type_hints(Options, include_extras=True)
    asked = [p for p in signature(command).parameters.values() if p.name != "options"]
    given = [p.replace(kind=p.KEYWORD_ONLY, annotation=own[p.name]) for p in asked]
    given += [
        p.replace(kind=p.KEYWORD_ONLY, annotation=shared[p.name])
        for p in signature(Options).parameters.values()
    ]

    @wraps(command)
    def called(**values: Any) -> None:
        options = Options(**{name: values.pop(name) for name in shared})
        command(**values, options=options)

    called.__signature__ = Signature(given)  # type: ignore[attr-defined]
    called.__annotations__ = {p.name: p.annotation for p in given}
    return called


@app.command(
    epilog=examples(
        "moebius forecast fit air.csv --time time --coords lat,lon --target pm25 --out model",
        "moebius forecast predict model rows.csv --out forecast.csv",
    )
)
@_spelled_out
def fit(
    data: _Data,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of the model.")],
    options: Options,
    as_json: Json = False,
) -> None:
    """Train on the rows with a known target.

    Writes one file into the folder of the model. It knows its columns and the rows that it was
    trained on, so that `predict` needs nothing but the rows to predict.
    """
    from bayes.forecast.training import Progress

    if out.exists() and not out.is_dir():
        raise UserError(f"--out must be a folder; {out} is a file")
    if not out.absolute().parent.is_dir():
        raise UserError(f"--out must be in a folder that is there; {out.absolute().parent} is not")
    table = _read(data, options.sensor)
    began = clock.process_time()
    with as_user_errors(), notes(as_json).status("preparing") as shown:

        def show(now: Progress) -> None:
            shown.update(
                f"epoch {now.epoch} of {now.n_epochs}: loss {now.loss:.3f}, "
                f"held-out log score {now.held_out:.3f}"
            )

        model = options.forecaster.fit(table, callback=show)
        out.mkdir(exist_ok=True)
        model.save(out / FILE)
    known = int(table[options.target].notna().sum())
    sensors = model.model_.records.n_sensors
    seconds = clock.process_time() - began
    if as_json:
        print_json(
            {
                "model": out / FILE,
                "rows": len(table),
                "known": known,
                "sensors": sensors,
                "cpu_seconds": seconds,
            }
        )
        return
    say(
        f"Trained on {known} of {len(table)} rows, {sensors} sensors, in "
        f"{seconds:.1f} CPU seconds\n{out / FILE}"
    )


@app.command(
    epilog=examples(
        "moebius forecast predict model rows.csv --out forecast.csv",
        "moebius forecast predict model rows.csv --out forecast.csv --coverage .5,.9 "
        "--observed today.csv",
    )
)
def predict(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="Folder that `moebius forecast fit` wrote.")
    ],
    rows: Annotated[
        Path,
        typer.Argument(metavar="ROWS", help="CSV or Parquet file of the rows to predict."),
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="FILE", help="CSV file to write: the rows, and what is forecast."),
    ],
    levels: Annotated[
        str | None,
        typer.Option(
            metavar="SHARES",
            help="Levels of quantiles; .05,.5,.95 if neither this nor --coverage is given.",
        ),
    ] = None,
    coverage: Annotated[
        str | None,
        typer.Option(metavar="SHARES", help="Coverage of central intervals, as .5,.9."),
    ] = None,
    observed: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What has been measured since training, to look at."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Forecast rows, in the units of the target; a target among their columns is not looked at.

    Rows may lie in the past, between measurements, or in the future. Writes the same rows with a
    column a quantile, as pm25_q0.5, or two an interval, as pm25_low90 and pm25_high90.
    """
    from bayes import CGLUBNF

    from ..store import write_whole

    if levels is not None and coverage is not None:
        raise UserError("one of --levels and --coverage at most; got both")
    if not (model / FILE).is_file():
        raise UserError(f"there is no {model / FILE}; first: moebius forecast fit")
    with as_user_errors():
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
    if as_json:
        print_json({"file": out, "rows": len(table), "columns": list(found.columns)})
        return
    say(f"{len(table)} rows with {', '.join(found.columns)}\n{out}")


@app.command(
    epilog=examples(
        "moebius forecast evaluate air.csv --time time --coords lat,lon --target pm25",
        "moebius forecast evaluate air.csv --time time --coords lat,lon --target pm25 "
        "--pattern forecast --hours 48 --by horizon",
    )
)
@_spelled_out
def evaluate(
    data: _Data,
    options: Options,
    pattern: Annotated[
        PatternOption,
        typer.Option(metavar="NAME", help=f"What is hidden: {listed(PatternOption)}."),
    ] = PatternOption.block,
    rate: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of known targets that a mask hides.")
    ] = 0.3,
    hours: Annotated[
        float,
        typer.Option(metavar="HOURS", help="Length of a forecast: the last hours are hidden."),
    ] = 24.0,
    baselines: Annotated[
        str, typer.Option(metavar="NAMES", help="To compare with, as climatology,boosting.")
    ] = "climatology,inverse-distance",
    by: Annotated[
        GroupOption, typer.Option(metavar="NAME", help=f"Tell scores apart: {listed(GroupOption)}.")
    ] = GroupOption.all,
    as_json: Json = False,
) -> None:
    """Hide a part of what is known, forecast it, score; beside simpler forecasters.

    Scores are in the target's units (mae, rmse, crps, width95, interval_score95: less is better);
    coverage95 is the share of hidden values inside 95% intervals. JSON has all scores.
    """
    from bayes.forecast import ForecastTask, MaskTask
    from bayes.forecast import baselines as simple
    from bayes.forecast import evaluate as scores_of

    from ..kinds.forecast import BASELINES

    names = _names(baselines)
    unknown = [name for name in names if name not in BASELINES]
    if unknown:
        raise UserError(f"--baselines must be among {', '.join(BASELINES)}; got {unknown[0]!r}")
    table = _read(data, options.sensor)
    words = f"{pattern.value}: forecasters {', '.join(['CGLUBNF', *names])}"
    with as_user_errors(), notes(True).status(words):
        task = (
            ForecastTask(hours)
            if pattern is PatternOption.forecast
            else MaskTask(pattern.value, rate, options.seed)
        )
        columns = vars(options.schema)
        others = {
            name: getattr(simple, BASELINES[name])(**columns, random_state=options.seed)
            for name in names
        }
        found = scores_of(options.forecaster, table, [task], others)
    found = found[found["by"] == by.value].dropna(axis=1, how="all")
    if as_json:
        print_json(records(found))
        return
    shown = ["model", "n", "mae", "rmse", "crps", "coverage95", "width95", "interval_score95"]
    more = ["fit_seconds", "predict_seconds"] if by is GroupOption.all else []
    first = ["task"] if by is GroupOption.all else ["group"]
    print_frame(found[first + shown + more])


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

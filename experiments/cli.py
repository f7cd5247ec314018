"""The command line: `moebius list`, `run`, `status`, `figures`, `claims`, `verify`, `report`.

Thin: each command calls one or two functions and prints. The one place that may import any package
of the project, inside the commands, so that `moebius list` need not wait for torch.
"""

import json
import math
import sys
import warnings
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from . import UserError
from .commands import forecast, prior

if TYPE_CHECKING:
    from paper_figures import Stored

LONGEST = 60.0
"""Seconds that a check may take where no claim is named."""

EXIT_CODES = (
    "Exit codes: 0 done; 1 a check of a claim broke off; 2 wrong usage or bad input; "
    "130 interrupted by Ctrl-C."
)

app = typer.Typer(
    help="Simulate, estimate and verify what theory claims about mixtures of experts.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_CODES,
)
app.add_typer(forecast.app, name="forecast")
app.add_typer(prior.app, name="prior")


class ProfileOption(StrEnum):
    """How large a run: from seconds to days."""

    smoke = "smoke"
    quick = "quick"
    paper = "paper"
    beyond = "beyond"


class RouteOption(StrEnum):
    """How a claim is checked."""

    algebra = "algebra"
    calculus = "calculus"
    quadrature = "quadrature"
    two_point = "two-point"
    simulation = "simulation"


_Study = Annotated[str, typer.Argument(help="Name of a shipped study, or path of a TOML file.")]
_Profile = Annotated[ProfileOption, typer.Option(help="How large a run.")]
_Out = Annotated[Path, typer.Option(help="Folder of all results.")]
_Json = Annotated[bool, typer.Option("--json", help="As JSON, for machines.")]


@app.command("list")
def list_(as_json: _Json = False) -> None:
    """List the shipped studies with what each verifies and about how long it takes."""
    from .study import list_studies

    if as_json:
        listed = [
            {
                "study": study.name,
                "verifies": study.verifies,
                "kind": study.kind,
                "minutes": {name: p.minutes for name, p in study.profiles.items()},
            }
            for study in list_studies()
        ]
        typer.echo(json.dumps(listed, indent=1))
        return
    rows = [
        [
            study.name,
            study.verifies,
            study.kind,
            "\n".join(f"{name} {_duration(p.minutes)}" for name, p in study.profiles.items()),
        ]
        for study in list_studies()
    ]
    _table(["study", "verifies", "kind", "profiles, time on 2 cores"], rows, lines=True)


@app.command()
def run(
    study: _Study,
    profile: _Profile = ProfileOption.quick,
    out: _Out = Path("results"),
    jobs: Annotated[int, typer.Option(help="Worker processes; -1 for one per core.")] = -1,
    dask: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Compute on the Dask cluster there: tcp://host:8786."),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Compute batches with a failed cell again.")
    ] = False,
) -> None:
    """Compute what a profile of a study still lacks. Ctrl-C is safe: run again to continue."""
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from . import runner
    from .study import load_study

    loaded = load_study(study)
    console = Console()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[cells]} cells"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(loaded.name, total=None, cells="0")

        def show(now: runner.Progress) -> None:
            failed = f", {now.cells_failed} failed" if now.cells_failed else ""
            cells = f"{now.cells_done}/{now.cells_total}{failed}"
            bar.update(task, total=now.weight_total, completed=now.weight_done, cells=cells)

        summary = runner.run(
            loaded,
            profile.value,
            out,
            n_jobs=jobs,
            cluster=dask,
            retry_failed=retry_failed,
            announce=lambda text: _say(text, console=bar.console),
            progress=show,
        )
    if summary.interrupted:
        _say(
            f"Interrupted: {summary.stored} of {summary.cells} cells are stored in {summary.path}; "
            f"the same command continues from there",
            "yellow",
        )
        raise typer.Exit(130)
    _say(
        f"{summary.study} {summary.profile}: {summary.cells} cells, {summary.found} found, "
        f"{summary.computed} computed in {summary.seconds:.1f} s, {summary.failed} failed; "
        f"stored in {summary.path}"
    )
    if summary.failed:
        _say("Cells that failed have their reason in 'error'; --retry-failed tries again", "yellow")


@app.command()
def status(
    study: Annotated[
        str | None, typer.Argument(help="Name or path of one study; all stored ones by default.")
    ] = None,
    out: _Out = Path("results"),
    as_json: _Json = False,
) -> None:
    """Show how much of each profile is stored."""
    from .store import Store, stores_in
    from .study import load_study

    rows: list[list[Any]] = []
    for store in stores_in(out) if study is None else [Store(out, load_study(study))]:
        for name in store.study.profiles:
            batches = store.study.batches(name)
            table = store.table(store.done(batches))
            cells = sum(len(batch.cells) for batch in batches)
            failed = int((table["status"] == "failed").sum())
            rows.append([store.study.name, name, len(table), cells, failed, str(store.path)])
    if as_json:
        keys = ("study", "profile", "stored", "cells", "failed", "store")
        typer.echo(json.dumps([dict(zip(keys, row, strict=True)) for row in rows], indent=1))
        return
    shown = [[*row[:2], f"{row[2]}/{row[3]}", str(row[4]), row[5]] for row in rows]
    _table(["study", "profile", "cells", "failed", "store"], shown)


@app.command()
def figures(
    study: _Study,
    profile: _Profile = ProfileOption.quick,
    out: _Out = Path("results"),
    beside: Annotated[
        str | None,
        typer.Option(help="Another study, with a gate of another kind, to draw beside this one."),
    ] = None,
) -> None:
    """Draw the figures of a study from what is stored, with the tables and verdicts behind them."""
    import paper_figures

    shown = _stored(study, profile.value, out)
    other = None if beside is None else _stored(beside, profile.value, out)
    folder = Path(out) / shown.study.name / "figures"
    rendered = paper_figures.render(
        shown.study, profile.value, shown.table, shown.prepared, folder, other
    )
    summary = rendered.summary
    _table([str(name) for name in summary.columns], summary.map(_cell).values.tolist())
    _say(rendered.headline)
    for path in rendered.files:
        _say(str(path))


@app.command()
def claims(
    out: _Out = Path("results"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Everything that is stored, for machines.")
    ] = False,
) -> None:
    """List the claims with their source, their standing and what was found of them."""
    from .claims import by_route, chosen, document, records

    found = [(claim, records(claim, out)) for claim in chosen(None)]
    if as_json:
        typer.echo(json.dumps([document(*entry) for entry in found], indent=1, allow_nan=False))
        return
    rows = [
        [
            claim.name,
            claim.standing,
            claim.source,
            "\n".join(f"{route}: {words}" for route, words in by_route(stored).items()),
        ]
        for claim, stored in found
    ]
    _table(["claim", "standing", "source", "verdicts"], rows, lines=True)


@app.command()
def verify(
    claim: Annotated[str | None, typer.Argument(help="Name of one claim; all by default.")] = None,
    route: Annotated[RouteOption | None, typer.Option(help="Only checks of this route.")] = None,
    profile: _Profile = ProfileOption.quick,
    out: _Out = Path("results"),
    long: Annotated[
        bool, typer.Option("--long", help="Also checks of minutes, as for a claim that is named.")
    ] = False,
) -> None:
    """Check claims: by calculation, and on simulated data where their study is stored."""
    from theory.claims import Check, Claim

    from .claims import chosen
    from .claims import verify as run_checks

    console = Console()
    found: list[tuple[str, bool]] = []
    with console.status("") as shown:

        def begin(one: Claim, check: Check) -> None:
            takes = _duration(check.seconds / 60)
            shown.update(f"{one.name}, {check.route}: {check.question} (about {takes})")

        which = route and route.value
        longest = math.inf if long or claim is not None else LONGEST
        for one, record in run_checks(
            chosen(claim), out, profile=profile.value, route=which, longest=longest, begin=begin
        ):
            finding = record.finding
            found.append((finding.verdict, record.failed))
            took = f" ({finding.seconds:.1f} s)" if record.at else ""
            _say(f"{one.name}, {finding.route}: {finding.question}", "bold", console)
            _say(f"  {finding.verdict}{took}: {finding.sentence}", console=console)
    counts = Counter(verdict for verdict, _ in found)
    _say(", ".join(f"{n} {verdict}" for verdict, n in counts.items()) or "no check of that route")
    broken = sum(failed for _, failed in found)
    if broken:
        _say(f"{broken} checks broke off with an error", "red", Console(stderr=True))
        raise typer.Exit(1)


@app.command()
def report(out: _Out = Path("results")) -> None:
    """Write one HTML page of what is stored: claims, studies, verdicts, figures, versions."""
    from paper_figures.report import write_report

    with Console().status("Drawing what is stored"):
        files = write_report(out)
    for path in files:
        _say(str(path))


def main(argv: list[str] | None = None) -> None:
    """Run the command line; what a user can put right is one red line and exit code 2."""
    warnings.formatwarning = lambda message, *_, **__: f"Warning: {message}\n"
    try:
        app(args=argv, prog_name="moebius")
    except UserError as error:
        _say(f"Error: {' '.join(str(error).split())}", "red", Console(stderr=True))
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _stored(name: str, profile: str, out: Path) -> "Stored":
    """A study with what is stored of a profile."""
    from paper_figures import Stored

    from .store import Store
    from .study import load_study

    study = load_study(name)
    store = Store(out, study)
    batches = study.batches(profile)
    table = store.table(store.done(batches))
    cells = sum(len(batch.cells) for batch in batches)
    if table.empty:
        raise UserError(
            f"no cell of {study.name} {profile} is stored in {out}; "
            f"first: moebius run {name} --profile {profile} --out {out}"
        )
    if len(table) < cells:
        _say(f"Only {len(table)} of {cells} cells are stored; the figures show these", "yellow")
    return Stored(study, table, store.prepared() or {})


def _say(text: str, style: str | None = None, console: Console | None = None) -> None:
    console = console or Console()
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _table(head: list[str], rows: list[list[str]], lines: bool = False) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(*head, show_lines=lines, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _duration(minutes: float) -> str:
    if minutes < 1:
        return f"{60 * minutes:.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"

"""The command line: `moebius list`, `run`, `status`, `figures`, `claims`, `verify`, `report`.

Thin: each command calls one or two functions and prints. The one place that may import any package
of the project, inside the commands, so that `moebius list` need not wait for torch.
"""

import dataclasses
import difflib
import os
import re
import sys
import warnings
from importlib.metadata import version
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import UserError
from .commands import claims, forecast, prior
from .commands.options import Json, Out, Profile, ProfileOption, as_user_errors
from .commands.output import (
    duration,
    examples,
    notes,
    print_frame,
    print_json,
    print_table,
    records,
    say,
)

if TYPE_CHECKING:
    from paper_figures import Stored

EXIT_CODES = {
    0: "all done",
    1: "done in part: a cell or a check failed, or nobody read the output to its end",
    2: "wrong usage or bad input, with one line that says what",
    130: "interrupted by Ctrl-C",
}

app = typer.Typer(
    help="Simulate, estimate and verify what theory claims about mixtures of experts; priors for "
    "Bayesian networks; forecasts of records with holes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\n\n".join(
        [
            examples(
                "moebius list",
                "moebius run topk-exact --profile smoke",
                "moebius figures topk-exact --profile smoke",
                "moebius report",
            ),
            f"Exit codes: {'; '.join(f'{code} {words}' for code, words in EXIT_CODES.items())}.",
        ]
    ),
)
app.add_typer(forecast.app, name="forecast")
app.add_typer(prior.app, name="prior")

_UsageError: Any = typer.BadParameter.__base__  # of click, or of typer's own copy of it


def _study_names() -> list[str]:
    from .study import list_studies

    return [study.name for study in list_studies()]


_Study = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        autocompletion=_study_names,
        help="Name of a shipped study (moebius list), or path of a TOML file.",
    ),
]


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"moebius {version('moebius')}")
        raise typer.Exit


@app.callback()
def _moebius(
    _: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


@app.command("list", epilog=examples("moebius list", "moebius list --json"))
def list_(as_json: Json = False) -> None:
    """List the shipped studies: what each verifies, and about how long it takes."""
    from .study import list_studies

    if as_json:
        print_json(
            [
                {
                    "study": study.name,
                    "verifies": study.verifies,
                    "kind": study.kind,
                    "minutes": {name: p.minutes for name, p in study.profiles.items()},
                }
                for study in list_studies()
            ]
        )
        return
    rows = [
        [
            study.name,
            study.verifies,
            "\n".join(f"{name} {duration(p.minutes)}" for name, p in study.profiles.items()),
        ]
        for study in list_studies()
    ]
    print_table(["study", "verifies", "time on 2 cores"], rows, lines=True)


@app.command(
    epilog=examples(
        "moebius run topk-exact",
        "moebius run my-study.toml --profile smoke --jobs 4 --out results",
        "moebius run topk-over --profile paper --dask tcp://host:8786",
    )
)
def run(
    study: _Study,
    profile: Profile = ProfileOption.quick,
    out: Out = Path("results"),
    jobs: Annotated[
        int,
        typer.Option(metavar="N", help="Worker processes, at most 4 a core; -1 for one per core."),
    ] = -1,
    dask: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Compute on the Dask cluster there: tcp://host:8786."),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Compute batches with a failed cell again.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compute what a profile of a study still lacks. Ctrl-C is safe: run again to continue.

    Writes one Parquet file a batch to OUT/STUDY/CONFIGURATION, each whole or not at all, a row a
    fit. Ends with exit code 1 where cells of the profile failed; the others are stored.
    """
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from . import runner
    from .study import load_study

    most = 4 * (os.cpu_count() or 1)
    if jobs != -1 and not 1 <= jobs <= most:
        raise UserError(
            f"--jobs must be -1 (one per core) or in [1, {most}] (four a core); got {jobs}"
        )
    loaded = load_study(study)
    console = notes(as_json)
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
            announce=lambda text: say(text, console=bar.console),
            progress=show,
        )
    if as_json:
        shown = dataclasses.asdict(summary)
        print_json({"store" if key == "path" else key: value for key, value in shown.items()})
    if summary.interrupted:
        say(
            f"Interrupted: {summary.stored} of {summary.cells} cells are stored in {summary.path}; "
            f"the same command continues from there",
            "yellow",
            console,
        )
        raise typer.Exit(130)
    say(
        f"{summary.study} {summary.profile}: {summary.cells} cells, {summary.found} found, "
        f"{summary.computed} computed in {summary.seconds:.1f} s, {summary.failed} failed; "
        f"stored in {summary.path}",
        console=console,
    )
    if summary.failed:
        words = "Cells that failed have their reason in 'error'; --retry-failed tries again"
        say(words, "yellow", console)
        raise typer.Exit(1)


@app.command(epilog=examples("moebius status", "moebius status topk-exact --out results --json"))
def status(
    study: Annotated[
        str | None,
        typer.Argument(
            metavar="[STUDY]",
            autocompletion=_study_names,
            help="Name or path of one study; all stored ones by default.",
        ),
    ] = None,
    out: Out = Path("results"),
    as_json: Json = False,
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
            rows.append([store.study.name, name, len(table), cells, failed, store.path])
    if as_json:
        keys = ("study", "profile", "stored", "cells", "failed", "store")
        print_json([dict(zip(keys, row, strict=True)) for row in rows])
        return
    if not rows:
        say(f"Nothing is stored in {out}; first: moebius run STUDY --out {out}")
        return
    shown = [[*row[:2], f"{row[2]}/{row[3]}", str(row[4]), row[5].name] for row in rows]
    print_table(["study", "profile", "cells", "failed", "configuration"], shown)


@app.command(
    epilog=examples(
        "moebius figures topk-exact",
        "moebius figures dense-to-sparse-over --beside softmax-over",
    )
)
def figures(
    study: _Study,
    profile: Profile = ProfileOption.quick,
    out: Out = Path("results"),
    beside: Annotated[
        str | None,
        typer.Option(
            metavar="STUDY",
            help="Another study, with a gate of another kind, to draw beside this one.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw the figures of a study from what is stored, with the tables and verdicts behind them.

    Reads the store and simulates nothing. Writes PDF and PNG, and the table behind each as CSV, to
    OUT/STUDY/figures. How to read a verdict: docs/verdicts.md.
    """
    import paper_figures

    console = notes(as_json)
    shown = _stored(study, profile, out)
    other = None if beside is None else _stored(beside, profile, out)
    for each in (shown, other):
        if each is not None and each.stored < each.cells:
            words = f"Only {each.stored} of {each.cells} cells are stored; the figures show these"
            say(words, "yellow", console)
    folder = out / shown.of.study.name / "figures"
    with as_user_errors():
        rendered = paper_figures.render(
            shown.of.study,
            profile.value,
            shown.of.table,
            shown.of.prepared,
            folder,
            None if other is None else other.of,
        )
    if as_json:
        print_json(
            {
                "study": shown.of.study.name,
                "profile": profile.value,
                "config_hash": shown.of.study.config_hash,
                "stored": shown.stored,
                "cells": shown.cells,
                "headline": rendered.headline,
                "summary": records(rendered.summary),
                "files": rendered.files,
            }
        )
        return
    print_frame(rendered.summary)
    say(rendered.headline)
    for path in rendered.files:
        say(str(path))


app.command(epilog=examples("moebius claims", "moebius claims --json"))(claims.claims)
app.command(
    epilog=examples(
        "moebius verify",
        "moebius verify rbar --route algebra",
        "moebius verify topk-exact --profile paper",
    )
)(claims.verify)


@app.command(epilog=examples("moebius report", "moebius report --out results --json"))
def report(out: Out = Path("results"), as_json: Json = False) -> None:
    """Write one HTML page of what is stored: claims, studies, verdicts, figures, versions.

    Reads the store, simulates and fits nothing. Writes OUT/report.html, which needs nothing else,
    and its figures with their tables beside the findings.
    """
    from paper_figures.report import write_report

    with notes(as_json).status("Drawing what is stored"):
        page, *others = write_report(out)
    if as_json:
        print_json({"page": page, "files": others})
        return
    for path in (page, *others):
        say(str(path))


for _group in (app, forecast.app, prior.app):
    for _command in _group.registered_commands:  # lines of a docstring flow in its paragraphs
        _paragraphs = cleandoc(_command.callback.__doc__ or "").split("\n\n")
        _command.help = "\n\n".join(" ".join(text.split()) for text in _paragraphs)


def main(argv: list[str] | None = None) -> None:
    """Run the command line; what a user can put right is one red line and exit code 2."""
    _wait_without_spinning_long()
    warnings.formatwarning = lambda message, *_, **__: f"Warning: {message}\n"
    try:
        code = app(args=argv, prog_name="moebius", standalone_mode=False)
    except UserError as error:
        code = _refused(str(error))
    except _UsageError as error:
        code = _refused(_usage(error)) if error.format_message() else 2  # else it was the help
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except OSError as error:
        code = _refused(f"{error.filename or 'the output'}: {error.strerror or error}")
    sys.exit(code or 0)


def _wait_without_spinning_long() -> None:
    """Bound how long OpenMP's threads spin while they wait, unless the environment says.

    By default GNU's library spins 30 times as long. Fitting a forecaster to 11,994 values with two
    threads took 15.6 s on two idle cores and 180 s on two that were busy; so bounded it took 16.0
    and 53 s. It is read once, when torch is loaded, which the commands do.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def _refused(text: str) -> int:
    say(f"Error: {' '.join(text.split())}", "red", notes(True))
    try:
        sys.stdout.flush()
    except OSError:  # of a full disk, say, which would be met again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 2


def _usage(error: Any) -> str:
    """What was wrong with a command, the nearest choice, and where to read more."""
    text = error.format_message().replace("Value error, ", "").rstrip(".")
    choice = re.search(r"'([^']*)' is not one of (.+)", text)
    if choice is not None:
        near = difflib.get_close_matches(choice[1], re.findall(r"'([^']*)'", choice[2]), n=1)
        text += f"; did you mean {near[0]!r}?" if near else ""
    command = error.ctx.command_path if error.ctx is not None else "moebius"
    return f"{text} ({command} --help)"


@dataclasses.dataclass(frozen=True)
class _Found:
    """What is stored of a profile, and of how many cells."""

    of: "Stored"
    stored: int
    cells: int


def _stored(name: str, profile: ProfileOption, out: Path) -> _Found:
    from paper_figures import Stored

    from .store import Store
    from .study import load_study

    study = load_study(name)
    store = Store(out, study)
    batches = study.batches(profile.value)
    table = store.table(store.done(batches))
    if table.empty:
        raise UserError(
            f"no cell of {study.name} {profile.value} is stored in {out}; "
            f"first: moebius run {name} --profile {profile.value} --out {out}"
        )
    cells = sum(len(batch.cells) for batch in batches)
    return _Found(Stored(study, table, store.prepared() or {}), len(table), cells)

"""A study on one and on two worker processes, of this machine and of a Dask cluster.

The peer is one worker of this machine. What limits many workers is the process that gives the
command: it alone stores results, and spends some CPU time on every batch. Its note says how much,
and how many workers that feeds (`busy_workers`): a projection, not a measurement.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from experiments import load_study
from experiments import run as run_study
from experiments.store import Store

from .measure import Row

STUDY = "topk-exact"


@dataclass(frozen=True)
class ScalingRow(Row):
    """A run of a study; seconds that its workers computed, and CPU seconds of the other processes.

    ``parent_s`` is the process that gives the command, with its threads that talk to a scheduler.
    """

    workers: int = 1
    batches: int = 0
    computed_s: float = 0.0
    parent_s: float = 0.0


def run(quick: bool) -> Iterator[ScalingRow]:
    profile, repeats = ("smoke", 1) if quick else ("quick", 3)
    one = None
    for form in ("processes", "dask"):
        for workers in (1, 2):
            with _scheduler(form, workers) as address:
                _timed(form, workers, "smoke", address)  # starts processes, compiles kernels
                rows = [_timed(form, workers, profile, address) for _ in range(repeats)]
            rows.sort(key=lambda row: row.median_s)
            row = rows[len(rows) // 2]
            one = one or row.median_s
            note = (
                f"range {rows[-1].median_s - rows[0].median_s:.1f} s; "
                f"{1e3 * row.parent_s / row.batches:.1f} ms of the parent a batch: "
                f"feeds {busy_workers(row):.0f} workers (projected)"
            )
            yield replace(row, ratio_to_eager=one / row.median_s, note=note)


def busy_workers(row: ScalingRow) -> float:
    """How many workers one parent can feed: seconds a batch takes over those the parent spends.

    Examples
    --------
    >>> busy_workers(ScalingRow("", "", "", 1.0, 1.0, batches=10, computed_s=20.0, parent_s=0.1))
    200.0
    """
    return row.computed_s / row.parent_s


def projected(row: ScalingRow, workers: int, batches_a_worker: float) -> float:
    """Speed-up over one worker of a study with so many batches like the measured ones a worker.

    The workers' time is the whole work over their number, with one more batch for the last ones to
    end; the parent's is proportional to the batches; the longer of the two is the run.

    Examples
    --------
    >>> row = ScalingRow("", "", "", 1.0, 1.0, batches=10, computed_s=20.0, parent_s=0.1)
    >>> projected(row, 100, batches_a_worker=99.0)
    99.0
    >>> round(projected(row, 1000, batches_a_worker=99.0))
    200
    """
    n = batches_a_worker * workers
    seconds = row.computed_s / row.batches
    return n * seconds / max((batches_a_worker + 1) * seconds, n * row.parent_s / row.batches)


def picture(rows: Sequence[ScalingRow]) -> bytes:
    """What was measured, and the projection to 1,000 workers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    counts = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000]
    axes.plot(counts, counts, color="0.6", linewidth=0.8, label="ideal")
    for form, marker, color in (("processes", "o", "#0072B2"), ("dask", "s", "#D55E00")):
        measured = [row for row in rows if row.form == form]
        base = next(row.median_s for row in measured if row.workers == 1)
        axes.plot(
            [row.workers for row in measured],
            [base / row.median_s for row in measured],
            marker,
            color=color,
            label=f"{form}, measured",
        )
    last = max((row for row in rows if row.form == "dask"), key=lambda row: row.workers)
    for share, style in ((5, ":"), (50, "--")):
        axes.plot(
            counts,
            [projected(last, count, share) for count in counts],
            style,
            color="#D55E00",
            label=f"dask, projected: {share} batches a worker",
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("worker processes")
    axes.set_ylabel("times as fast as with one")
    axes.legend()
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=150)
    return drawn.getvalue()


def _timed(form: str, workers: int, profile: str, address: str | None) -> ScalingRow:
    study = load_study(STUDY)
    with tempfile.TemporaryDirectory() as out:
        cpu = time.process_time()
        done = run_study(study, profile, out, n_jobs=workers, cluster=address)
        cpu = time.process_time() - cpu
        if done.failed:
            raise RuntimeError(f"{done.failed} cells of {STUDY} failed; nothing to time.")
        computed = float(Store(out, study).table()["seconds"].sum())
    batches = len(study.batches(profile))
    shape = f"{STUDY} {profile}: {batches} batches, {workers} workers"
    return ScalingRow("run", form, shape, done.seconds, 1.0, "", workers, batches, computed, cpu)


@contextmanager
def _scheduler(form: str, workers: int) -> Iterator[str | None]:
    """The address of a Dask scheduler that has its workers; none for processes of this machine."""
    if form == "processes":
        yield None
        return
    from distributed import Client

    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        where = Path(folder) / "scheduler.json"
        options = ["--no-dashboard", "--scheduler-file", str(where)]

        def start(*arguments: str) -> None:
            command = [sys.executable, "-m", "dask", *arguments, *options]
            child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            running.callback(child.wait)
            running.callback(child.terminate)

        start("scheduler", "--host", "127.0.0.1", "--port", "0")
        while not where.exists():
            time.sleep(0.1)
        start("worker", "--nworkers", str(workers), "--nthreads", "1", "--local-directory", folder)
        address = json.loads(where.read_text())["address"]
        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=60)
        yield address

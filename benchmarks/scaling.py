"""A study on one and on two worker processes, of this machine and of a Dask cluster.

The four arms take turns, after one that is not counted, and every run gives a row at once. The peer
is one worker of this machine in the same turn. CPU seconds are given beside wall seconds: other
programs change them less. All arms must store the same rows.

What limits many workers is the process that gives the command: it alone stores results, and spends
some CPU time on every batch. `busy_workers` and `projected` say what follows from that: a
projection, not a measurement, and it leaves out that storing also waits for the disk.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from experiments import Study, load_study
from experiments import run as run_study
from experiments.store import Store
from experiments.study import study_from_document

from .measure import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STUDY = "topk-exact"
TURNS = 3
REPLICATES = 20
"""Half of what the study's quick profile has: 38 batches, so that all turns take five minutes."""

BATCHES_A_WORKER = 50
"""Of the projected study."""

ARMS = (("processes", 1), ("processes", 2), ("dask", 1), ("dask", 2))


@dataclass(frozen=True)
class ScalingRow(Row):
    """One run of the study.

    ``workers_s`` is CPU seconds of its workers and, on a cluster, of their nannies and scheduler;
    ``parent_s`` of the process that gives the command, with its threads that talk to a scheduler;
    ``load`` is how many processes wanted a core in the minute that ended with the run.
    """

    workers: int = 1
    batches: int = 1
    workers_s: float = 0.0
    parent_s: float = 0.0
    load: float = 0.0


def run(quick: bool) -> Iterator[ScalingRow]:
    study, profile = _study(), "smoke" if quick else "quick"
    batches = len(study.batches(profile))
    with ExitStack() as running:
        arms = [(*arm, running.enter_context(_cluster(*arm))) for arm in ARMS]
        expected: pd.DataFrame | None = None
        for turn in range(2 if quick else TURNS + 1):
            peer = None
            for form, workers, cluster in arms:
                idle = [pid for _, _, other in arms if other is not cluster for pid in other.pids]
                timed, table = _timed(study, profile, workers, cluster.address, idle)
                expected = table if expected is None else expected
                if not table.equals(expected):
                    raise RuntimeError(f"{form} {workers} gave other rows than the first run.")
                peer = peer or timed.wall
                if turn == 0:  # every worker compiles its kernels
                    continue
                yield ScalingRow(
                    operation=STUDY,
                    form=form,
                    shape=f"{batches} batches, {workers} workers, turn {turn}",
                    median_s=timed.wall,
                    ratio_to_eager=peer / timed.wall,
                    note=f"{1e3 * timed.parent / batches:.1f} ms of the parent a batch",
                    workers=workers,
                    batches=batches,
                    workers_s=timed.workers,
                    parent_s=timed.parent,
                    load=os.getloadavg()[0],
                )


def busy_workers(batch_s: float, parent_s: float) -> float:
    """How many workers one parent can feed: seconds a batch takes over those the parent spends.

    Examples
    --------
    >>> busy_workers(batch_s=2.0, parent_s=0.01)
    200.0
    """
    return batch_s / parent_s


def projected(workers: int, batch_s: float, parent_s: float, batches_a_worker: float) -> float:
    """Speed-up over one worker of a study with so many batches a worker.

    The workers' time is the whole work over their number, with one more batch for the last ones to
    end; the parent's is proportional to the batches; the longer of the two is the run.

    Examples
    --------
    >>> projected(100, batch_s=2.0, parent_s=0.01, batches_a_worker=99.0)
    99.0
    >>> round(projected(1000, batch_s=2.0, parent_s=0.01, batches_a_worker=99.0))
    200
    """
    n = batches_a_worker * workers
    return n * batch_s / max((batches_a_worker + 1) * batch_s, n * parent_s)


def picture(rows: Sequence[ScalingRow]) -> bytes:
    """What was measured, and a projection to 1,000 workers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_measured(left, rows)
    _draw_projected(right, rows)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=150)
    return drawn.getvalue()


@dataclass(frozen=True)
class _Seconds:
    """Wall seconds of a run, and CPU seconds of its workers and of this process."""

    wall: float
    workers: float
    parent: float


def _draw_measured(axes: Axes, rows: Sequence[ScalingRow]) -> None:
    axes.plot([1, 2], [1, 2], color="0.6", linewidth=0.8, label="ideal")
    for form, marker, color, shift in (
        ("processes", "o", "#0072B2", -0.02),
        ("dask", "s", "#D55E00", 0.02),
    ):
        counts = sorted({row.workers for row in rows if row.form == form})
        for count in counts:
            ratios = [r.ratio_to_eager for r in rows if (r.form, r.workers) == (form, count)]
            middle = statistics.median(ratios)
            axes.errorbar(
                count + shift,
                middle,
                [[middle - min(ratios)], [max(ratios) - middle]],
                fmt=marker,
                color=color,
                capsize=3,
                label=f"{form}: median and range of {len(ratios)}" if count == counts[0] else None,
            )
    axes.set(
        title=f"Measured: {rows[0].operation},\n{rows[0].batches} batches",
        xlabel="worker processes",
        ylabel="times as fast as one process of this machine",
        xticks=[1, 2],
        ylim=(0, None),
    )
    axes.legend(loc="lower right")


def _draw_projected(axes: Axes, rows: Sequence[ScalingRow]) -> None:
    over_dask = [row for row in rows if row.form == "dask"] or rows
    batch_s = statistics.median(row.workers_s / row.batches for row in over_dask)
    parent_s = statistics.median(row.parent_s / row.batches for row in over_dask)
    counts = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000]
    axes.plot(counts, counts, color="0.6", linewidth=0.8, label="ideal")
    for seconds, style in ((batch_s, ":"), (10.0, "--")):
        axes.plot(
            counts,
            [projected(count, seconds, parent_s, BATCHES_A_WORKER) for count in counts],
            style,
            color="#D55E00",
            label=f"batches of {seconds:.2g} s: feeds {busy_workers(seconds, parent_s):.0f}",
        )
    axes.set(
        title=f"Projected: {BATCHES_A_WORKER} batches a worker,\n"
        f"{1e3 * parent_s:.1f} ms of the parent's CPU a batch",
        xscale="log",
        yscale="log",
        xlabel="worker processes (not run)",
        ylabel="times as fast as one worker",
    )
    axes.legend()


def _study() -> Study:
    document = load_study(STUDY).document()
    document["profiles"]["quick"]["replicates"] = REPLICATES
    return study_from_document(document)


def _timed(
    study: Study, profile: str, workers: int, address: str | None, idle: Collection[int]
) -> tuple[_Seconds, pd.DataFrame]:
    """Seconds of a run, and its rows."""
    with tempfile.TemporaryDirectory() as out:
        parent, below = time.process_time(), _cpu_below(idle)
        done = run_study(study, profile, out, n_jobs=workers, cluster=address)
        seconds = _Seconds(done.seconds, _cpu_below(idle) - below, time.process_time() - parent)
        if done.interrupted:
            raise KeyboardInterrupt
        if done.failed:
            raise RuntimeError(f"{done.failed} cells of {STUDY} failed; nothing to time.")
        return seconds, Store(out, study).table().drop(columns="seconds")


def _cpu_below(idle: Collection[int]) -> float:
    """CPU seconds so far of the processes that this one and its children started, but idle ones."""
    import psutil

    children = [child for child in psutil.Process().children() if child.pid not in idle]
    below = [each for child in children for each in (child, *child.children(recursive=True))]
    return sum(times.user + times.system for times in (each.cpu_times() for each in below))


@dataclass(frozen=True)
class _Cluster:
    """A Dask cluster and the processes that this one started for it."""

    address: str | None = None
    pids: tuple[int, ...] = ()


@contextmanager
def _cluster(form: str, workers: int) -> Iterator[_Cluster]:
    """A Dask cluster that has its workers; an empty one for processes of this machine."""
    if form == "processes":
        yield _Cluster()
        return
    from distributed import Client

    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        where = Path(folder) / "scheduler.json"
        options = ["--no-dashboard", "--scheduler-file", str(where)]

        def start(*arguments: str) -> int:
            command = [sys.executable, "-m", "dask", *arguments, *options]
            child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            running.callback(child.wait)
            running.callback(child.terminate)
            return child.pid

        scheduler = start("scheduler", "--host", "127.0.0.1", "--port", "0")
        while not where.exists():
            time.sleep(0.1)
        nworkers = ("--nworkers", str(workers), "--nthreads", "1")
        nanny = start("worker", *nworkers, "--local-directory", folder)
        address = json.loads(where.read_text())["address"]
        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=60)
        yield _Cluster(address, (scheduler, nanny))

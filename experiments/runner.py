"""The runner: computes what a profile lacks in worker processes and writes it to the store.

Only the parent writes, whether the workers (`experiments.workers`) are of this machine or of a
cluster. Results depend neither on their number nor on the order of batches; the largest come
first, so that no long one is left for the end. A batch that raises an exception, or kills its
worker twice, becomes rows of status "failed" and the run goes on.
"""

import json
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import pyarrow as pa
from joblib import delayed

from . import UserError
from .kinds import Batch, Kind, get_kind
from .rows import failed_rows, tabulate
from .store import Store
from .study import Study
from .workers import LocalWorkers, WorkerDiedError, Workers, WorkersError, cluster_workers

_DIED = "the worker process died of this batch (out of memory, or a crash in native code)"


class RunError(UserError):
    """A run that could not start."""


@dataclass(frozen=True)
class Progress:
    """How far a run is; `weight` is the number of observations in cells, a measure of cost.

    What the store already had counts in `cells_done` but not in the weights, which therefore serve
    to estimate the time left.
    """

    cells_done: int
    cells_total: int
    cells_failed: int
    weight_done: int
    weight_total: int


@dataclass(frozen=True)
class RunSummary:
    """What a run did.

    Attributes
    ----------
    study, profile : str
    path : Path
        Folder of the store.
    cells : int
        Cells of the profile.
    found : int
        Of these, stored before the run.
    computed : int
        Computed by it, including `failed` ones.
    stored : int
        Cells of the profile in the store at the end.
    failed : int
        Of these, with status "failed", by this run or an earlier one.
    interrupted : bool
        Stopped by Ctrl-C. Running again goes on from there.
    seconds : float
        Wall time.
    """

    study: str
    profile: str
    path: Path
    cells: int
    found: int
    computed: int
    stored: int
    failed: int
    interrupted: bool
    seconds: float


def run(
    study: Study,
    profile: str,
    out: str | PathLike[str],
    *,
    n_jobs: int = -1,
    retry_failed: bool = False,
    announce: Callable[[str], None] | None = None,
    progress: Callable[[Progress], None] | None = None,
    cluster: str | None = None,
) -> RunSummary:
    """Compute the batches of a profile that the store lacks.

    Parameters
    ----------
    study : Study
    profile : str
        One of `study.profiles`.
    out : path
        Folder of all results.
    n_jobs : int, default -1
        Number of worker processes; -1 for one per core. A cluster has its own.
    retry_failed : bool, default False
        Compute batches with a failed cell again.
    announce : callable, optional
        Called once, before the first cell, with the kind's text about what it prepared.
    progress : callable, optional
        Called with a `Progress` at the start and after every batch.
    cluster : str, optional
        Address of a Dask scheduler whose workers compute in place of processes of this machine.

    Returns
    -------
    RunSummary

    Raises
    ------
    StoreError
        If the store is locked, of another version, full or unwritable. What was stored remains.
    RunError
        If the kind's preparation fails.
    WorkersError
        If `n_jobs` is not a number of workers, or the cluster cannot be used or is lost. What was
        stored remains.
    """
    start = time.monotonic()
    kind = get_kind(study.kind)
    batches = study.batches(profile)
    store = Store(out, study)
    interrupted = False
    with ExitStack() as open_now:
        workers: Workers = LocalWorkers(n_jobs)
        if cluster is not None:
            workers = open_now.enter_context(cluster_workers(cluster))
        open_now.enter_context(store.lock())
        done = store.done(batches)
        failed = store.failed(done)
        if retry_failed:
            done, failed = done - failed, set()
        todo = sorted(
            (batch for batch in batches if batch.key not in done),
            key=lambda batch: (-batch.weight, batch.key),
        )
        tally = _Tally(batches, todo, store.table(failed)["status"].tolist().count("failed"))
        try:
            prepared = store.prepared()
            if prepared is None:
                prepared = _prepare(kind, study, workers)
                store.write_prepared(prepared)
            if announce is not None:
                announce(kind.describe(prepared))
            if progress is not None:
                progress(tally.now())
            with closing(_tables(kind, study, todo, workers)) as tables:
                for batch, table in tables:
                    store.write(table)
                    tally.add(batch, table)
                    if progress is not None:
                        progress(tally.now())
        except KeyboardInterrupt:
            interrupted = True
        table = store.table(store.done(batches))
    return RunSummary(
        study=study.name,
        profile=profile,
        path=store.path,
        cells=tally.total,
        found=tally.found,
        computed=tally.computed,
        stored=len(table),
        failed=int((table["status"] == "failed").sum()),
        interrupted=interrupted,
        seconds=time.monotonic() - start,
    )


class _Tally:
    """Counts of a run under way."""

    def __init__(self, batches: Sequence[Batch], todo: Sequence[Batch], failed: int) -> None:
        self.total = sum(len(batch.cells) for batch in batches)
        self.found = self.total - sum(len(batch.cells) for batch in todo)
        self.computed = 0
        self.failed = failed
        self._weight = 0
        self._weights = sum(batch.weight for batch in todo)

    def add(self, batch: Batch, table: pa.Table) -> None:
        self.computed += len(batch.cells)
        self.failed += table["status"].to_pylist().count("failed")
        self._weight += batch.weight

    def now(self) -> Progress:
        return Progress(
            self.found + self.computed, self.total, self.failed, self._weight, self._weights
        )


def _prepare(kind: Kind, study: Study, workers: Workers) -> dict[str, Any]:
    try:
        ((_, text),) = workers.results({"preparation": delayed(_prepared_json)(kind, study)})
    except WorkersError:
        raise
    except Exception as error:
        raise RunError(f"the preparation of study {study.name!r} failed: {_why(error)}") from error
    return json.loads(text)


def _tables(
    kind: Kind, study: Study, batches: Sequence[Batch], workers: Workers
) -> Generator[tuple[Batch, pa.Table], None, None]:
    """Yield each batch with its table as they are done.

    When a worker dies (out of memory, a crash in native code), the batches that it may have died of
    are computed alone, and one whose worker dies again failed.
    """
    pending = {batch.key: batch for batch in batches}
    suspects: list[str] = []
    while pending:
        group = suspects[:1] or list(pending)
        calls = {key: delayed(_table)(kind, study, pending[key]) for key in group}
        try:
            with closing(workers.results(calls)) as results:
                for key, table in results:
                    yield pending.pop(key), table
        except WorkerDiedError as death:
            if not suspects:
                suspects = death.suspects
                continue
            batch = pending.pop(suspects[0])
            yield batch, tabulate(study, batch, failed_rows(batch, _DIED), 0.0)
        suspects = suspects[1:]


def _table(kind: Kind, study: Study, batch: Batch) -> pa.Table:
    """Compute a batch, in a worker process."""
    start = time.perf_counter()
    try:
        rows = kind.run_batch(study, batch)
        return tabulate(study, batch, rows, time.perf_counter() - start)
    except (Exception, SystemExit) as error:
        rows = failed_rows(batch, _why(error))
        return tabulate(study, batch, rows, time.perf_counter() - start)


def _prepared_json(kind: Kind, study: Study) -> str:
    """Run a kind's preparation, in a worker process."""
    return json.dumps(kind.prepare(study), allow_nan=False)


def _why(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"

"""The runner: computes what a profile lacks in worker processes and writes it to the store.

Only the parent writes. A worker computes one batch at a time with one thread, so results depend
neither on the number of workers nor on the order of batches; the largest come first, so that no
long one is left for the end. A batch that raises an exception, or kills its worker twice, becomes
rows of status "failed" and the run goes on.
"""

import json
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import closing
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import pyarrow as pa
from joblib import Parallel, cpu_count, delayed

from . import UserError
from .kinds import Batch, Kind, get_kind
from .rows import failed_rows, tabulate
from .store import Store
from .study import Study

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
    backend: str = "loky",
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
        Number of worker processes; -1 for one per core.
    retry_failed : bool, default False
        Compute batches with a failed cell again.
    announce : callable, optional
        Called once, before the first cell, with the kind's text about what it prepared.
    progress : callable, optional
        Called with a `Progress` at the start and after every batch.
    backend : str, default "loky"
        A joblib backend whose workers are processes.

    Returns
    -------
    RunSummary

    Raises
    ------
    StoreError
        If the store is locked, of another version, full or unwritable. What was stored remains.
    RunError
        If the kind's preparation fails or `n_jobs` is not a number of workers.
    """
    if n_jobs != -1 and n_jobs < 1:
        raise RunError(f"The number of jobs must be -1 (all cores) or at least 1; got {n_jobs}.")
    start = time.monotonic()
    kind = get_kind(study.kind)
    batches = study.batches(profile)
    store = Store(out, study)
    interrupted = False
    with store.lock():
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
                prepared = _prepare(kind, study, backend)
                store.write_prepared(prepared)
            if announce is not None:
                announce(kind.describe(prepared))
            if progress is not None:
                progress(tally.now())
            jobs = cpu_count() if n_jobs == -1 else n_jobs
            with closing(_tables(kind, study, todo, jobs, backend)) as tables:
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


def _prepare(kind: Kind, study: Study, backend: str) -> dict[str, Any]:
    try:
        (text,) = _in_workers([delayed(_prepared_json)(kind, study)], 1, backend)
    except Exception as error:
        raise RunError(f"the preparation of study {study.name!r} failed: {_why(error)}") from error
    return json.loads(text)


def _tables(
    kind: Kind, study: Study, batches: Sequence[Batch], n_jobs: int, backend: str
) -> Generator[tuple[Batch, pa.Table], None, None]:
    """Yield each batch with its table as they are done.

    When a worker dies (out of memory, a crash in native code), nobody knows of which batch: those
    that may have been under way are then computed alone, and one whose worker dies again failed.
    """
    pending = {batch.key: batch for batch in batches}
    suspects = 0
    while pending:
        group = list(pending.values())
        if suspects:
            group = group[:1]
        calls = [delayed(_table)(kind, study, batch) for batch in group]
        try:
            with closing(_in_workers(calls, 1 if suspects else n_jobs, backend)) as results:
                for key, table in results:
                    yield pending.pop(key), table
        except BrokenExecutor:
            if not suspects:
                suspects = 2 * n_jobs
                continue
            batch = pending.pop(group[0].key)
            yield batch, tabulate(study, batch, failed_rows(batch, _DIED), 0.0)
        suspects = max(suspects - 1, 0)


def _in_workers(calls: list[Any], n_jobs: int, backend: str) -> Generator[Any, None, None]:
    """Make calls in worker processes and yield the results as they come.

    The one place that knows of joblib. With n_jobs=1 joblib would make them in this process; two
    workers with one call under way at a time are what one worker would be.
    """
    loky_only = {"initializer": _start_worker, "initargs": (os.getpid(),)}
    parallel = Parallel(
        n_jobs=max(n_jobs, 2),
        pre_dispatch=1 if n_jobs == 1 else "2 * n_jobs",
        batch_size=1,
        backend=backend,
        return_as="generator_unordered",
        **(loky_only if backend == "loky" else {}),
    )
    results = parallel(calls)
    try:
        for result in results:  # noqa: UP028 - `yield from` would close it before `finally` does
            yield result
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that calls under way are cancelled is the intention
            results.close()


def _table(kind: Kind, study: Study, batch: Batch) -> tuple[str, pa.Table]:
    """Compute a batch, in a worker process."""
    _use_one_thread()
    start = time.perf_counter()
    try:
        rows = kind.run_batch(study, batch)
        table = tabulate(study, batch, rows, time.perf_counter() - start)
    except (Exception, SystemExit) as error:
        rows = failed_rows(batch, _why(error))
        table = tabulate(study, batch, rows, time.perf_counter() - start)
    return batch.key, table


def _prepared_json(kind: Kind, study: Study) -> str:
    """Run a kind's preparation, in a worker process."""
    _use_one_thread()
    return json.dumps(kind.prepare(study), allow_nan=False)


def _why(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


def _start_worker(parent: int) -> None:
    """Leave Ctrl-C to the parent, and end when it ends, even by SIGKILL."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _use_one_thread() -> None:
    """Bind this worker process to one thread, in libraries loaded and yet to be loaded."""
    from threadpoolctl import threadpool_limits

    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = "1"
    threadpool_limits(1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)

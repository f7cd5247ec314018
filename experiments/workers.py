"""Calls made in worker processes: of this machine (joblib), or of a cluster (Dask). The one place
that knows of either.

A worker makes one call at a time with one thread, so results depend neither on the number of
workers nor on which of them makes a call.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from joblib import Parallel, cpu_count

from . import UserError
from .rows import moebius_version

if TYPE_CHECKING:
    from distributed import Client

PATIENCE = 10.0
"""Seconds to wait for a scheduler, and then for its first worker."""


class WorkersError(UserError):
    """Workers that cannot be had."""


Calls = Sequence[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]]
"""As `joblib.delayed` writes them."""


class Workers(Protocol):
    """Where calls are made.

    Attributes
    ----------
    count : int
        Processes.
    deaths : type
        What `results` raises when a worker dies of a call.
    """

    @property
    def count(self) -> int: ...

    @property
    def deaths(self) -> type[Exception]: ...

    def results(self, calls: Calls) -> Generator[Any, None, None]:
        """Make calls and yield their results as they come."""
        ...


class LocalWorkers:
    """Processes of this machine.

    Parameters
    ----------
    n_jobs : int, default -1
        How many; -1 for one per core.

    Raises
    ------
    WorkersError
        If that is not a number of processes.

    Examples
    --------
    >>> LocalWorkers(2).count
    2
    """

    deaths = BrokenExecutor

    def __init__(self, n_jobs: int = -1) -> None:
        if n_jobs != -1 and n_jobs < 1:
            raise WorkersError(
                f"The number of jobs must be -1 (all cores) or at least 1; got {n_jobs}."
            )
        self.count = cpu_count() if n_jobs == -1 else n_jobs

    def results(self, calls: Calls) -> Generator[Any, None, None]:
        """See `Workers.results`."""
        # With one job joblib would make the calls in this process; two workers with one call under
        # way at a time are what one worker would be.
        parallel = Parallel(
            n_jobs=max(self.count, 2),
            pre_dispatch=1 if self.count == 1 else "2 * n_jobs",
            batch_size=1,
            backend="loky",
            initializer=_start_worker,
            initargs=(os.getpid(),),
            return_as="generator_unordered",
        )
        results = parallel(calls)
        try:
            for result in results:  # noqa: UP028 - `yield from` would close it before `finally`
                yield result
        finally:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # calls under way are cancelled: the intention
                results.close()


class ClusterWorkers:
    """The workers of a Dask cluster, which may come and go; see `cluster_workers`."""

    def __init__(self, client: Client, count: int) -> None:
        from distributed import KilledWorker

        self._client = client
        self.count = count
        self.deaths = KilledWorker

    def results(self, calls: Calls) -> Generator[Any, None, None]:
        """See `Workers.results`."""
        from distributed import as_completed

        futures = [
            self._client.submit(function, *arguments, pure=False, **options)
            for function, arguments, options in calls
        ]
        try:
            for future in as_completed(futures, loop=self._client.loop):
                yield future.result()
        finally:
            self._client.cancel(futures)


@contextmanager
def cluster_workers(address: str) -> Iterator[ClusterWorkers]:
    """The workers of the Dask scheduler at an address such as ``tcp://host:8786``.

    They run what this process sends them as a pickle, as Dask does: use schedulers that you trust.

    Raises
    ------
    WorkersError
        If `distributed` is not installed, no scheduler answers at that address or no worker is
        there in time, workers have several threads, or their versions of moebius, torch, numpy or
        scipy are not this process's: any of these could change results.
    """
    try:
        from distributed import Client
    except ImportError:
        raise WorkersError(
            "A run on a cluster needs Dask: pip install 'moebius[cluster]'."
        ) from None
    try:
        client = Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise WorkersError(f"No Dask scheduler answers at {address!r}: {error}.") from None
    with client:
        yield ClusterWorkers(client, _checked(client, address))


def use_one_thread() -> None:
    """Bind this worker process to one thread, in libraries loaded and yet to be loaded."""
    from threadpoolctl import threadpool_limits

    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = "1"
    threadpool_limits(1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _start_worker(parent: int) -> None:
    """Leave Ctrl-C to the parent, and end when it ends, even by SIGKILL."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _checked(client: Client, address: str) -> int:
    """The number of workers, all of which can give this process's results."""
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
    except TimeoutError:
        raise WorkersError(
            f"The Dask scheduler at {address!r} has no worker after {PATIENCE:.0f} s."
        ) from None
    threads = client.nthreads()
    several = sorted(worker for worker, n in threads.items() if n != 1)
    if several:
        raise WorkersError(
            f"Workers must have one thread each (dask worker --nthreads 1); got "
            f"{threads[several[0]]} in {several[0]}."
        )
    here = _versions()
    for worker, there in client.run(_versions).items():
        if there != here:
            raise WorkersError(
                f"Workers must have this process's versions, {_named(here)}; got "
                f"{_named(there)} in {worker}."
            )
    return len(threads)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    others = {name: version(name) for name in ("torch", "numpy", "scipy")}
    return {"moebius": moebius_version(), **others}


def _named(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())

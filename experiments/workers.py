"""Calls made in worker processes: of this machine (joblib), or of a cluster (Dask). The one place
that knows of either.

A worker makes one call at a time with one thread, so results depend neither on the number of
workers nor on which of them makes a call. It also keeps the memory that it frees (`_keep_memory`).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import BrokenExecutor, CancelledError
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from joblib import Parallel, cpu_count, delayed

from . import UserError
from .rows import moebius_version

if TYPE_CHECKING:
    from distributed import Client

PATIENCE = 10.0
"""Seconds to wait for a scheduler, and then for its first worker."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


class WorkersError(UserError):
    """Workers that cannot be had, or no longer."""


class WorkerDiedError(Exception):
    """A worker process died of one of some calls.

    Attributes
    ----------
    suspects : list of str
        Names of the calls that it may have been.
    """

    def __init__(self, suspects: list[str]) -> None:
        super().__init__("a worker process died (out of memory, or a crash in native code)")
        self.suspects = suspects


Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
"""As `joblib.delayed` writes it."""


class Workers(Protocol):
    """Where calls are made."""

    def results(self, calls: Mapping[str, Call]) -> Generator[tuple[str, Any], None, None]:
        """Make named calls and yield their names and results as they come.

        Raises
        ------
        WorkerDiedError
            If a worker died; calls without a result are cancelled.
        WorkersError
            If the workers are lost or unfit.
        """
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

    def __init__(self, n_jobs: int = -1) -> None:
        if n_jobs != -1 and n_jobs < 1:
            raise WorkersError(
                f"The number of jobs must be -1 (all cores) or at least 1; got {n_jobs}."
            )
        self.count = cpu_count() if n_jobs == -1 else n_jobs

    def results(self, calls: Mapping[str, Call]) -> Generator[tuple[str, Any], None, None]:
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
        pending = dict.fromkeys(calls)
        results = parallel(delayed(_make)(name, call) for name, call in calls.items())
        try:
            for name, result in results:
                del pending[name]
                yield name, result
        except BrokenExecutor as error:  # of which call is not known; they start in their order
            raise WorkerDiedError(list(pending)[: 2 * self.count]) from error
        finally:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # calls under way are cancelled: the intention
                results.close()


class ClusterWorkers:
    """The workers of a Dask cluster, which may come and go; see `cluster_workers`."""

    def __init__(self, client: Client, address: str) -> None:
        self._client = client
        self._address = address

    def results(self, calls: Mapping[str, Call]) -> Generator[tuple[str, Any], None, None]:
        """See `Workers.results`."""
        from distributed import KilledWorker, as_completed
        from distributed.comm import CommClosedError

        here = _versions()
        names = {
            self._client.submit(_make_if_fit, here, name, call, pure=False): name
            for name, call in calls.items()
        }
        try:
            for future in as_completed(list(names), loop=self._client.loop):
                try:
                    result = future.result()
                except KilledWorker as error:
                    raise WorkerDiedError([names[future]]) from error
                except (CancelledError, CommClosedError):
                    raise WorkersError(
                        f"The connection to the Dask scheduler at {self._address!r} was lost; what "
                        f"was computed is stored, and the same command goes on from there."
                    ) from None
                del names[future]
                future.release()  # else its worker keeps the result, and dead ones' are made again
                yield result
        finally:
            self._client.cancel(list(names))


@contextmanager
def cluster_workers(address: str) -> Iterator[ClusterWorkers]:
    """The workers of the Dask scheduler at an address such as ``tcp://host:8786``.

    They run what this process sends them as a pickle, as Dask does: use schedulers that you trust.

    Every call first checks its worker, so that one that joins late is checked too: several threads,
    or another version of moebius, torch, numpy or scipy than this process's, could change results.

    Raises
    ------
    WorkersError
        If `distributed` is not installed, no scheduler answers at that address or no worker is
        there in time.
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
        _check(client, address)
        yield ClusterWorkers(client, address)


def _start_worker(parent: int) -> None:
    """Leave Ctrl-C to the parent, and end when it ends, even by SIGKILL."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _make(name: str, call: Call) -> tuple[str, Any]:
    """Make a call, in a worker process."""
    _use_one_thread()
    _keep_memory()
    function, arguments, options = call
    return name, function(*arguments, **options)


def _make_if_fit(here: dict[str, str], name: str, call: Call) -> tuple[str, Any]:
    """Make a call in a worker of a cluster that gives the results of the process that asks."""
    from distributed import get_worker

    worker = get_worker()
    if worker.state.nthreads != 1:
        raise WorkersError(
            f"Workers must have one thread each (dask worker --nthreads 1); got "
            f"{worker.state.nthreads} in {worker.address}."
        )
    there = _versions()
    if there != here:
        raise WorkersError(
            f"Workers must have this process's versions, {_named(here)}; got {_named(there)} in "
            f"{worker.address}."
        )
    return _make(name, call)


def _use_one_thread() -> None:
    """Bind this process to one thread, in libraries loaded and yet to be loaded."""
    from threadpoolctl import threadpool_limits

    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = "1"
    threadpool_limits(1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _keep_memory() -> None:
    """Let glibc keep freed memory for the next tensors, up to the bounds it sets itself in time.

    Dask's nannies set MALLOC_TRIM_THRESHOLD_ to 64 kB; glibc then gives every larger tensor back to
    the system when it is freed, and gets the next one's pages one fault at a time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        mallopt(_M_TRIM_THRESHOLD, 64 << 20)


def _check(client: Client, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
    except TimeoutError:
        raise WorkersError(
            f"The Dask scheduler at {address!r} has no worker after {PATIENCE:.0f} s."
        ) from None


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    others = {name: version(name) for name in ("torch", "numpy", "scipy")}
    return {"moebius": moebius_version(), **others}


def _named(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())

"""Likelihood and gradient of data that are drawn chunk by chunk, against data that are stored.

The peer draws X and y with NumPy through `GaussianMoE.sample`, keeps them and evaluates once. Times
are CPU seconds of the process, the median of three; the note has the memory that the passes so far
have added to it at its peak.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Iterator

from kernels import simulate
from kernels.gating import evaluate
from kernels.philox import Stream

from .measure import Row
from .settings import draw, flat, three_experts


def run(quick: bool) -> Iterator[Row]:
    truth = three_experts()
    params, form = truth.to_params(), truth.gate.form
    source = simulate.Truth(params, form, simulate.Design("uniform", -1.0, 2.0))
    for n in (10**5, 10**6) if quick else (10**6, 10**7):
        shape = f"n={n} k=3 D=1"
        before = _peak()

        def drawn(n: int = n) -> None:
            simulate.evaluate(params[None], form, source, Stream(0), n)

        def stored(n: int = n) -> None:
            evaluate(*flat_of(n))

        def flat_of(n: int) -> tuple:
            theta, x, y = flat(truth, *draw(truth, n, 0, low=-1.0))
            return theta, form, x, y

        seconds = _cpu_seconds(drawn)
        added = _peak() - before
        base = _cpu_seconds(stored)
        more = _peak() - before
        yield Row("simulate and evaluate", "stored", shape, base, 1.0, f"{more:.0f} MiB")
        yield Row(
            "simulate and evaluate", "drawn", shape, seconds, base / seconds, f"{added:.0f} MiB"
        )


def _cpu_seconds(call: Callable[[], None]) -> float:
    call()
    times = []
    for _ in range(3):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return statistics.median(times)


def _peak() -> float:
    """Peak memory of the process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

"""Time on a GPU: by its own events, on inputs that its caches do not hold, under its ceilings."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .measure import Row

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class DeviceRow(Row):
    """A measurement beside what the device could do.

    ``spread_s`` is the distance of the quartiles. ``bytes_moved`` are those an ideal pass reads and
    writes, ``operations`` its multiply-adds; ``share`` is the time the binding one of them takes at
    the measured copy bandwidth or arithmetic peak, over the time measured. ``tests`` is the outcome
    of the operation's tests on this device.
    """

    spread_s: float = 0.0
    bytes_moved: int = 0
    operations: int = 0
    share: float = 0.0
    ratio_to_compiled: float = 0.0
    tests: str = ""


@dataclass(frozen=True)
class Ceilings:
    """Measured limits of a device: bytes a second copied, float32 multiply-adds a second."""

    bandwidth: float
    arithmetic: float

    def seconds(self, bytes_moved: int, operations: int) -> float:
        """The least time of a pass."""
        return max(bytes_moved / self.bandwidth, operations / self.arithmetic)


def times(call: Callable[[], Any], repeats: int, device: torch.device) -> list[float]:
    """Seconds of each of some calls, after two that warm up, the caches overwritten before each."""
    call()
    call()
    found = []
    flush = torch.empty(2**28 if device.type == "cuda" else 1, dtype=torch.int8, device=device)
    for _ in range(repeats):
        flush.zero_()
        if device.type != "cuda":
            start = time.perf_counter()
            call()
            found.append(time.perf_counter() - start)
            continue
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        call()
        last.record()
        last.synchronize()
        found.append(first.elapsed_time(last) / 1e3)
    return found


def median_and_spread(values: list[float]) -> tuple[float, float]:
    """Median and distance of the quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return middle, high - low


def measure_ceilings(device: torch.device, size: int, repeats: int) -> Ceilings:
    """Copy ``size`` float32 numbers; multiply smaller matrices without tensor cores."""
    source = torch.randn(size, device=device)
    target = torch.empty_like(source)
    copy = statistics.median(times(lambda: target.copy_(source), repeats, device))
    side = max(16, int((size / 8) ** 0.5) // 16 * 16)
    left, right = (source[: side * side].view(side, side) for _ in range(2))
    if torch.backends.cuda.matmul.allow_tf32:
        raise RuntimeError("The arithmetic peak must be measured without TF32; it is allowed.")
    multiply = statistics.median(times(lambda: left @ right, repeats, device))
    return Ceilings(2 * 4 * size / copy, side**3 / multiply)


def tests_of(*names: str, slow: bool) -> str:
    """The last line of pytest for some files of ``tests/kernels``, with or without slow tests."""
    paths = [str(ROOT / "tests" / "kernels" / f"test_{name}.py") for name in names]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *paths]
    command += [] if slow else ["-m", "not slow"]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return child.stdout.strip().splitlines()[-1] if child.stdout.strip() else child.stderr[-200:]

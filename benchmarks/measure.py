"""How things are timed, and the row every benchmark yields."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One measurement; ``ratio_to_eager`` is the peer's time over this one's."""

    operation: str
    form: str
    shape: str
    median_s: float
    ratio_to_eager: float
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def median_seconds(call: Callable[[], Any], repeats: int) -> float:
    """Median wall time of a call, after one that warms up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)

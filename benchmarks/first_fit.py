"""The first fit of a fresh process: 1,000 rows, 3 experts, timed from the end of the import."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from .measure import Row

_SCRIPT = """
from benchmarks.settings import draw, three_experts
from moe_stats import GaussianMoERegressor
import time
X, y = draw(three_experts(), 1_000, 0, -1.0)
start = time.perf_counter()
GaussianMoERegressor(3, random_state=0).fit(X, y)
print(time.perf_counter() - start)
"""


def run(quick: bool) -> Iterator[Row]:
    times = []
    for _ in range(1 if quick else 3):
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True
        )
        times.append(float(done.stdout))
    yield Row("first fit", "fresh process", "n=1000 k=3 D=1", sorted(times)[len(times) // 2], 1.0)

"""Forty replicates fitted as one batch against forty calls."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from moe_stats import fit_mle

from .measure import Row, median_seconds
from .settings import draw, two_experts


def run(quick: bool) -> Iterator[Row]:
    replicates, n = 40, 1_000
    truth = two_experts()
    data = [draw(truth, n, seed) for seed in range(replicates)]
    X, y = (torch.stack(part) for part in zip(*data, strict=True))
    options = {"n_experts": 2, "min_scale": 0.05, "n_rounds": 0, "quasi_newton": False}

    def singly() -> None:
        for r in range(replicates):
            fit_mle(X[r : r + 1], y[r : r + 1], random_states=[r], **options)

    def together() -> None:
        fit_mle(X, y, random_states=range(replicates), **options)

    repeats = 3 if quick else 5
    shape = f"R={replicates} n={n} k=2 D=1"
    base = median_seconds(singly, repeats)
    yield Row("maximum-likelihood fit", "40 calls", shape, base, 1.0)
    seconds = median_seconds(together, repeats)
    yield Row("maximum-likelihood fit", "one batch", shape, seconds, base / seconds)

"""Top-K fits with the boundary search against many restarts of the smooth solver.

Thirty data sets of n = 1,000 from a top-2 mixture of 3 experts on two features, where selection
boundaries are rays: `fit_mle` with 8 starts against the best of 200 starts that are climbed
without looking across selections. And top-1 selection on one feature: the fit against every
position of the boundary, each with both experts refitted by least squares.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from moe_stats import GaussianMoE, LinearExperts, TopKGate, Uniform, fit_mle
from moe_stats.fit.maximize import climb
from moe_stats.fit.starts import KINDS, draw_starts

from .measure import Row

PLANE = GaussianMoE(
    TopKGate([0.2, 0, -0.3], [[2, 0], [-1, 1.7], [-1, -1.7]], top_k=2, rank="slope"),
    LinearExperts([[3, 1], [-2, 2], [1, -3]], [4, 0, -4], [0.4, 0.5, 0.45]),
)
LINE = GaussianMoE(
    TopKGate([-8, 0], [[25], [0]], top_k=1, rank="logit"),
    LinearExperts([[-20], [20]], [15, -5], [math.sqrt(0.3), math.sqrt(0.4)]),
)
SCALE = 0.05


def run(quick: bool) -> Iterator[Row]:
    yield from restarts(3 if quick else 30, starts=40 if quick else 200)
    yield from partitions(10 if quick else 100)


def restarts(sets: int, starts: int) -> Iterator[Row]:
    """Two features: 8 starts and the search against many starts without it."""
    X, y = _data(PLANE, 1_000, sets, -1.0)
    gate = TopKGate.template(**PLANE.gate.options)
    options = {"n_experts": 3, "gate": gate, "min_scale": SCALE, "gate_bound": 20.0, "n_rounds": 0}

    def ours() -> Tensor:
        return fit_mle(X, y, random_states=range(sets), **options).log_likelihood

    problem = fit_mle(X, y, n_init=1, max_iter=0, random_states=range(sets), **options)._problem
    rngs = [np.random.default_rng(1_000 + r) for r in range(sets)]
    many = draw_starts(problem, TopKGate, starts, tuple(KINDS), rngs)
    ours()
    begin = time.perf_counter()
    found = ours()
    middle = time.perf_counter()
    rival = climb(problem, many, 1e-6, 300).value
    end = time.perf_counter()
    gap = found - rival
    shape = f"n=1000 k=3 K=2 D=2, {sets} data sets"
    note = (
        f"worse by more than 1e-3: {int((gap < -1e-3).sum())}; higher by "
        f"{float(gap.min()):.3g} to {float(gap.max()):.3g}, median {float(gap.median()):.3g}"
    )
    base, seconds = end - middle, middle - begin
    yield Row("top-K fit", f"{starts} starts, no search", shape, base, 1.0)
    yield Row("top-K fit", "8 starts, search", shape, seconds, base / seconds, note)


def partitions(sets: int) -> Iterator[Row]:
    """One feature, top-1 by logit: the fit against every boundary position."""
    X, y = _data(LINE, 200, sets, 0.0)
    gate = TopKGate.template(**LINE.gate.options)
    options = {"n_experts": 2, "gate": gate, "min_scale": SCALE, "n_rounds": 0}
    begin = time.perf_counter()
    found = fit_mle(X, y, random_states=range(sets), **options).log_likelihood
    middle = time.perf_counter()
    best = [exhaustive(x[:, 0].numpy(), v.numpy()) for x, v in zip(X, y, strict=True)]
    end = time.perf_counter()
    gap = (found - torch.tensor(best, dtype=found.dtype)).abs()
    shape = f"n=200 k=2 K=1 D=1, {sets} data sets"
    note = f"equal to 1e-6: {int((gap < 1e-6).sum())} of {sets}; largest gap {float(gap.max()):.1e}"
    yield Row("top-1 fit", "least squares, every cut", shape, end - middle, 1.0)
    ratio = (end - middle) / (middle - begin)
    yield Row("top-1 fit", "fit_mle", shape, middle - begin, ratio, note)


def exhaustive(x: np.ndarray, y: np.ndarray) -> float:
    """Best log-likelihood over all boundaries, each side fitted by least squares."""
    order = np.argsort(x)
    design = np.column_stack([np.ones_like(x), x])[order]
    response = y[order]

    def side(part: slice) -> float:
        u, v = design[part], response[part]
        residual = v - u @ np.linalg.lstsq(u, v, rcond=None)[0]
        variance = max(float(np.mean(residual**2)), SCALE**2)
        squares = float(residual @ residual) / variance
        return -0.5 * (len(v) * math.log(2 * math.pi * variance) + squares)

    cuts = range(1, len(x))
    return max(side(slice(0, c)) + side(slice(c, None)) for c in cuts)


def _data(truth: GaussianMoE, n: int, sets: int, low: float) -> tuple[Tensor, Tensor]:
    design = Uniform(low, 1.0, truth.n_features)
    X = torch.stack([design.sample(n, seed) for seed in range(sets)])
    return X, torch.stack([truth.sample(x, 10_000 + seed) for seed, x in enumerate(X)])

"""How good the optimum is: fits against many starts and against L-BFGS-B from the same starts.

For 50 data sets of n = 10,000 from the softmax truth: the 2-expert fit with 8 starts against the
best of 200 starts of two solvers, and the 3-expert fit with 8 starts against L-BFGS-B, written
straight on SciPy, given the same bounds and the same starts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from scipy.optimize import minimize

from kernels.gating import evaluate
from moe_stats import GaussianMoE, SoftmaxGate, fit_mle
from moe_stats.fit.problem import Problem
from moe_stats.fit.starts import KINDS, draw_starts

from .measure import Row
from .settings import draw, two_experts

MIN_SCALE, GATE_BOUND, N = 0.05, 100.0, 10_000


def lbfgsb(problem: Problem, starts: torch.Tensor) -> np.ndarray:
    """The log-likelihood that SciPy's L-BFGS-B reaches from each start."""
    low, high = (b[0].numpy() for b in problem.bounds(torch.tensor([0])))

    def negative(theta: np.ndarray) -> tuple[float, np.ndarray]:
        at = evaluate(torch.from_numpy(theta)[None], problem.form, problem.x, problem.y)
        assert at.gradient is not None
        return -float(at.value), -at.gradient[0].numpy()

    options = {"gtol": 1e-6, "ftol": 0.0, "maxiter": 5_000, "maxfun": 10_000}
    bounds = list(zip(low, high, strict=True))
    return np.array(
        [
            -minimize(
                negative,
                np.clip(start.numpy(), low, high),
                jac=True,
                method="L-BFGS-B",
                bounds=bounds,
                options=options,
            ).fun
            for start in starts
        ]
    )


def run(quick: bool) -> Iterator[Row]:
    truth, sets = two_experts(), 3 if quick else 50
    for k, against in ((2, 25 if quick else 200), (3, 8)):
        worst, within, ours_s, theirs_s = np.inf, 0, 0.0, 0.0
        for seed in range(sets):
            X, y = draw(truth, N, seed)
            problem = Problem(
                X.mT.contiguous()[None], y[None], SoftmaxGate.form_of(), k,
                torch.tensor([MIN_SCALE], dtype=torch.float64), gate_bound=GATE_BOUND,
            )  # fmt: skip
            starts = draw_starts(
                problem, SoftmaxGate, against, tuple(KINDS), [np.random.default_rng(seed)]
            )
            given = GaussianMoE.from_params(starts[0, :8], SoftmaxGate.template(), k)
            start = time.perf_counter()
            fit = fit_mle(
                X[None], y[None], n_experts=k, init=given, n_init=8, min_scale=MIN_SCALE,
                gate_bound=GATE_BOUND, random_states=[seed],
            )  # fmt: skip
            ours_s += time.perf_counter() - start
            start = time.perf_counter()
            best = lbfgsb(problem, starts[0]).max()
            theirs_s += time.perf_counter() - start
            if k == 2:  # the second solver, from all starts
                every = GaussianMoE.from_params(starts[0], SoftmaxGate.template(), k)
                second = fit_mle(
                    X[None], y[None], n_experts=k, init=every, min_scale=MIN_SCALE,
                    gate_bound=GATE_BOUND, n_rounds=0, random_states=[seed],
                )  # fmt: skip
                best = max(best, float(second.log_likelihood))
            gap = float(fit.log_likelihood) - best
            worst, within = min(worst, gap), within + (gap >= -1e-3)
        shape = f"n={N} k={k} D=1, {sets} data sets"
        rival = f"L-BFGS-B{' and Newton' if k == 2 else ''}, {against} starts"
        note = f"within 1e-3 or above: {within} of {sets}; worst difference {worst:.2e}"
        yield Row("optimum", rival, shape, theirs_s / sets, 1.0)
        yield Row("optimum", "fit_mle, 8 starts", shape, ours_s / sets, theirs_s / ours_s, note)

"""Coverage of nominal 95% delta intervals where the normal limit holds."""

import pytest
import torch

from moe_stats import GaussianMoE, LinearExperts, SoftmaxGate, Uniform, fit_mle
from moe_stats.inference import delta_intervals

TRUTH = GaussianMoE(
    SoftmaxGate([0.3, 0.0], [[5.0], [0.0]]), LinearExperts([[2.0], [-1.0]], [1.0, 0.2], [0.3, 0.4])
)
REPLICATES, BATCH, N = 1000, 200, 2000
FREE = [0, 1, 2, 3, 4, 7, 8, 9]  # the last expert's gate is pinned
LOW, HIGH = 0.93, 0.97
"""At a coverage of exactly 95% a parameter of 1,000 replicates leaves this band with probability
0.004; at 88%, the coverage of standard errors 20% short, it stays inside with probability 1e-6."""


@pytest.fixture(scope="module")
def fits():
    found = []
    for start in range(0, REPLICATES, BATCH):
        seeds = range(start, start + BATCH)
        X = torch.stack([Uniform(-1, 1).sample(N, [7, s]) for s in seeds])
        y = torch.stack([TRUTH.sample(x, [8, s]) for x, s in zip(X, seeds, strict=True)])
        found.append(fit_mle(X, y, n_experts=2, init=TRUTH, n_rounds=0, quasi_newton=False))
    return found


def coverage(fits, kind, shrink=1.0):
    """Share of intervals that hold the truth, with standard errors multiplied by ``shrink``."""
    low, high = (
        torch.cat(ends)
        for ends in zip(*(delta_intervals(f, 0.95, kind) for f in fits), strict=True)
    )
    reach = shrink * (high - low) / 2
    inside = (TRUTH.to_params() - (high + low) / 2).abs() <= reach
    return inside[:, FREE].double().mean(0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["observed", "sandwich"])
def test_intervals_cover_as_often_as_they_say(fits, kind):
    """H0: each of 8 parameters is covered with probability .95; exact case, k = k* = 2."""
    share = coverage(fits, kind)
    assert bool(((share >= LOW) & (share <= HIGH)).all()), share
    short = coverage(fits, kind, shrink=0.8)
    assert bool((short < LOW).all()), short  # control: every parameter tells them apart

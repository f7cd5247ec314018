"""The models and data that benchmarks share."""

from __future__ import annotations

import torch
from torch import Tensor

from moe_stats import GaussianMoE, LinearExperts, SoftmaxGate, Uniform


def two_experts() -> GaussianMoE:
    """The softmax truth of `softmax-exact`: variances .3 and .4."""
    return GaussianMoE(
        SoftmaxGate([-8.0, 0.0], [[25.0], [0.0]]),
        LinearExperts([[-20.0], [20.0]], [15.0, -5.0], [0.3**0.5, 0.4**0.5]),
    )


def three_experts() -> GaussianMoE:
    """The experts of `topk-exact` behind a dense softmax gate."""
    return GaussianMoE(
        SoftmaxGate([0.2, 0.0, -0.3], [[4.0], [0.0], [-4.0]]),
        LinearExperts([[3.0], [-2.0], [1.0]], [4.0, 0.0, -4.0], [0.4, 0.5, 0.45]),
    )


def draw(truth: GaussianMoE, n: int, seed: int, low: float = 0.0) -> tuple[Tensor, Tensor]:
    """X (n, 1) uniform on [low, 1] and y (n,)."""
    X = Uniform(low, 1.0).sample(n, seed)
    return X, truth.sample(X, 10_000 + seed)


def flat(truth: GaussianMoE, X: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Parameters (1, P), x (1, D, N) and y (1, N) as the kernels take them."""
    return truth.to_params()[None], X.mT.contiguous()[None], y[None].to(torch.float64)

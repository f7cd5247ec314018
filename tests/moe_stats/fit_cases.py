"""What tests of fits share: truths, data and the problem that a fit solves."""

import math

import numpy as np
import torch

from moe_stats import GaussianMoE, LinearExperts, SoftmaxGate, TopKGate, Uniform
from moe_stats.fit.problem import Problem

NATS = 1e-6
"""Two routes to one optimum, log-likelihood: a scaled gradient g leaves at most about
P g^2 / (2 curvature), 1e-10 here; SciPy's stops at 1e-8 of its own."""

TRUTH = GaussianMoE(  # two well separated experts
    SoftmaxGate([-8, 0], [[25], [0]]),
    LinearExperts([[-20], [20]], [15, -5], [math.sqrt(0.3), math.sqrt(0.4)]),
)
TOP_2 = GaussianMoE(
    TopKGate([0.2, 0, -0.3], [[2], [0], [-2]], top_k=2, rank="slope"),
    LinearExperts([[3], [-2], [1]], [4, 0, -4], [0.4, 0.5, 0.45]),
)


def data(truth=TRUTH, n=600, n_sets=1, seed=0, low=0, high=1):
    rng = np.random.default_rng(seed)
    X = torch.stack([Uniform(low, high).sample(n, rng) for _ in range(n_sets)])
    return X, truth.sample(X, rng)


def problem_of(X, y, truth=TRUTH, **bounds):
    floor = torch.full((len(y),), bounds.pop("min_scale", 1e-3), dtype=torch.float64)
    return Problem(X.mT.contiguous(), y, truth.gate.form, truth.n_experts, floor, **bounds)

"""Truths that checks by quadrature speak of, each with the law of its features.

Those whose exponents are settled are in `theory.inverse.SETTINGS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from moe_stats import (
    ActivationDenseToSparseGate,
    GaussianMoE,
    LinearExperts,
    TopKGate,
    Uniform,
)

from ..inverse.settings import probe_truth, tempered_truth, topk_truth

Setting = tuple[GaussianMoE, Any]
"""A truth and a design."""


def probe() -> Setting:
    """Two softmax experts that overlap, so that every direction is seen."""
    return probe_truth(), Uniform(0, 1)


def topk() -> Setting:
    """Two of three experts selected by slope: the truth of the top-K studies."""
    return topk_truth(), Uniform(-1, 1)


def topk_one(shift: float = 0.0) -> Setting:
    """One of two experts selected by logit, with the boundary at .32 - shift."""
    gate = TopKGate(
        _array([-8.0 + 25.0 * shift, 0.0]), _array([[25.0], [0.0]]), top_k=1, rank="logit"
    )
    return GaussianMoE(gate, _experts([-20, 20], [15, -5], [0.3**0.5, 0.4**0.5])), Uniform(0, 1)


def topk_two_sides() -> Setting:
    """One of two experts selected by slope: each on a side of 0."""
    gate = TopKGate(_array([0.2, 0.0]), _array([[2.0], [-2.0]]), top_k=1, rank="slope")
    return GaussianMoE(gate, _experts([3, -2], [4, 0], [0.4, 0.5])), Uniform(-1, 1)


def dense_to_sparse() -> Setting:
    """The truth of the temperature studies."""
    return tempered_truth(), Uniform(-3, 3)


def activation(
    psi: str, slope: tuple[float, ...] = (5.0, 0.5), temperature: float = 0.1
) -> Setting:
    """The truth of the activation studies, behind another activation or with other slopes: two, or
    three with an expert between the others."""
    e = len(slope)
    gate = ActivationDenseToSparseGate(
        _array([-0.25, 0.0, 0.1][:e]),
        _array(slope).unsqueeze(-1),
        _array(temperature),
        activation=psi,
    )
    experts = _experts([-1, 1, 0][:e], [4, -4, 0][:e], [0.3, 0.4, 0.35][:e])
    return GaussianMoE(gate, experts), Uniform(-3, 3)


def _experts(
    slope: Sequence[float], intercept: Sequence[float], scale: Sequence[float]
) -> LinearExperts:
    return LinearExperts(_array(slope).unsqueeze(-1), _array(intercept), _array(scale))


def _array(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)

"""What tests of gates with a temperature share: the truth of the temperature studies."""

import torch

from moe_stats import LinearExperts
from moe_stats.gates import ActivationDenseToSparseGate

EXACT = 1e-12
"""Two ways to the same number of order 1 to 100, float64."""

INTERCEPT, SLOPE = [-0.25, 0.0], [[5.0], [0.5]]
EXPERTS = LinearExperts([[-1.0], [1.0]], [4.0, -4.0], [0.3, 0.4])
"""With temperature .1 the truth of the temperature studies."""


def bent(z):
    """No named activation, nor homogeneous."""
    return torch.atan(z) + 0.1 * z


def activated(activation, intercept=INTERCEPT, slope=SLOPE, temperature=0.1):
    return ActivationDenseToSparseGate(intercept, slope, temperature, activation)


def close(found, expected, tolerance):
    assert float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())

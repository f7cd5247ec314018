"""Profile likelihood of a temperature: flat on a ray, a parabola where it is identified."""

import numpy as np
import pytest
import torch

from moe_stats import (
    ActivationDenseToSparseGate,
    DenseToSparseGate,
    GaussianMoE,
    LinearExperts,
    SoftmaxGate,
    Uniform,
    fit_mle,
)
from moe_stats.inference import covariance
from moe_stats.inference.shared_profile import shared_profile

EXPERTS = LinearExperts([[-1.0], [1.0]], [4.0, -4.0], [0.3, 0.4])
FLAT = 1e-6
"""Nats: Newton's method stops at scaled gradients of 1e-6."""


def fitted(gate, n=2_000):
    truth = GaussianMoE(gate, EXPERTS)
    X = Uniform(-3, 3).sample(n, random_state=0)
    y = truth.sample(X, random_state=1)
    return fit_mle(X[None], y[None], n_experts=2, gate=gate, n_init=4, random_states=[0])


def test_a_dense_to_sparse_gate_is_flat_along_its_ray():
    profile = shared_profile(
        fitted(DenseToSparseGate([-0.25, 0.0], [[5.0], [0.5]], 0.5)), n_points=5
    )
    assert np.abs(profile.log_likelihood).max() < FLAT
    assert profile.value[2] == profile.estimate


def test_relu_is_flat_and_tanh_is_not():
    slopes = [[5.0], [-1.0]]
    relu = fitted(ActivationDenseToSparseGate([-0.25, 0.0], slopes, 1.0, activation="relu"))
    assert np.abs(shared_profile(relu, n_points=3).log_likelihood).max() < FLAT
    tanh = fitted(ActivationDenseToSparseGate([-0.25, 0.0], [[5.0], [0.5]], 0.1, activation="tanh"))
    assert shared_profile(tanh, n_points=3).log_likelihood.min() < -10


def test_near_the_maximum_the_profile_is_the_parabola_of_the_standard_error():
    """-(v / se)^2 / 2 up to third order: at a tenth of a standard error within 5%."""
    gate = ActivationDenseToSparseGate([-0.25, 0.0], [[5.0], [0.5]], 0.1, activation="tanh")
    fit = fitted(gate)
    found = covariance(fit)
    errors = dict(zip(found.names, found.standard_errors[0].tolist(), strict=True))
    (error,) = (value for name, value in errors.items() if "temperature" in name)
    profile = shared_profile(fit, width=error / 10, n_points=3)
    assert profile.log_likelihood[[0, 2]] == pytest.approx(-0.005, rel=0.05)


def test_a_gate_without_shared_parameters_is_refused():
    fit = fitted(SoftmaxGate([0.0, 0.0], [[1.0], [0.0]]), n=200)
    with pytest.raises(ValueError, match="'index' parameter"):
        shared_profile(fit)


def test_numbers_out_of_range_are_named():
    fit = fitted(DenseToSparseGate([0.0, 0.0], [[1.0], [0.0]], 0.5), n=200)
    with pytest.raises(ValueError, match="'width' parameter"):
        shared_profile(fit, width=0.0)
    with pytest.raises(ValueError, match="'row' parameter"):
        shared_profile(fit, row=1)
    assert torch.isfinite(fit.log_likelihood).all()

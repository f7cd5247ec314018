"""Covariances of networks against quadrature and simulation."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from bayes.networks import ACTIVATIONS, MLP
from bayes.networks.layers import Elementwise
from bayes.priors import GaussianPrior
from bayes.priors.nngp import CLOSED, activation_covariance, mehler, network_covariance

FALSE_ALARM = 1e-6
"""Of each test on samples here."""

CASES = [(0.7, 1.3, 0.4), (1.1, 0.6, -0.8), (2.0, 1.5, 0.9)]
"""Standard deviations and correlation of (u, v)."""


def covariance(s, t, rho):
    return torch.tensor([[s * s, rho * s * t], [rho * s * t, t * t]], dtype=torch.float64)


def by_quadrature(function, s, t, rho, reach=9.0):
    """E phi(u) phi(v), u = s x and v = t (rho x + sqrt(1 - rho^2) y), x and y standard normal."""

    x, w = np.polynomial.legendre.leggauss(400)
    x, w = torch.from_numpy(reach * x), torch.from_numpy(reach * w)
    normal = torch.exp(-0.5 * x.square()) / math.sqrt(2 * math.pi) * w
    v = t * (rho * x[:, None] + math.sqrt(1 - rho**2) * x)
    return float(((function(s * x) * normal)[:, None] * function(v) * normal).sum())


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize(("s", "t", "rho"), CASES)
def test_expectations_against_quadrature(name, s, t, rho):
    """Gauss-Legendre on [-9, 9]^2, 400 nodes a side: 1e-12 for smooth activations, 1e-4 for relu,
    whose kink it meets. The series with 64 terms errs by 2e-6 for s = 2 and rho = .9."""
    got = activation_covariance(Elementwise(ACTIVATIONS[name], name), covariance(s, t, rho))
    expected = by_quadrature(ACTIVATIONS[name], s, t, rho)
    tolerance = 1e-4 if name == "relu" else 1e-10 if name in CLOSED else 1e-6
    assert float(got[0, 1]) == pytest.approx(expected, abs=tolerance)
    assert float(got[0, 1]) == float(got[1, 0])
    # control: another correlation is told apart
    other = activation_covariance(Elementwise(ACTIVATIONS[name], name), covariance(s, t, rho - 0.1))
    assert abs(float(other[0, 1]) - expected) > 10 * tolerance


@pytest.mark.parametrize("name", ["erf", "cos", "sin", "rbf", "linear"])
def test_series_and_closed_form_agree(name):
    q = covariance(0.9, 1.2, 0.6)
    assert torch.allclose(mehler(ACTIVATIONS[name], q), CLOSED[name](q), atol=1e-9)


@pytest.mark.parametrize("name", ["tanh", "relu", "erf", "swish"])
@pytest.mark.parametrize("fan_in_scaling", [True, False])
def test_one_hidden_layer_is_exact_at_any_width(name, fan_in_scaling):
    """Null: E f(x) f(x') is the kernel, for 3 hidden units. Statistic: the mean product over
    100,000 draws in its standard errors, 6 pairs. False alarm: `FALSE_ALARM` by Bonferroni."""
    net = MLP(2, [3], 1, activation=name, fan_in_scaling=fan_in_scaling)
    prior = GaussianPrior.ard(net)
    with torch.no_grad():
        prior.log_scale += torch.tensor([0.3, -0.5, 0.2, 0.4, -0.7])
    X = torch.tensor([[0.5, -1.0], [1.5, 0.3], [-0.2, 0.8]], dtype=torch.float64)
    f = prior.sample_functions(X, 100_000, 0)[..., 0]
    products = f.unsqueeze(1) * f.unsqueeze(2)
    error = products.std(0) / len(f) ** 0.5
    bound = stats.norm.isf(FALSE_ALARM / 12)

    def distance(scales):
        kernel = network_covariance(net, scales, X)[0]
        return float(((products.mean(0) - kernel) / error).abs().max())

    scales = prior.gaussian_scale()[None].detach()
    assert distance(scales) < bound
    assert distance(1.05 * scales) > bound  # control


def test_two_hidden_layers_tend_to_the_recursion():
    """Null: E f(x) f(x') tends to the recursion's value as widths grow. At width 32 the mean
    product of 20,000 draws is within 5 standard errors of it (false alarm 6e-7) and a bias of
    order 1/width, a 32nd of that at width 1, which is significant: the control."""
    X = torch.tensor([[2.0], [-1.0]], dtype=torch.float64)
    gap, error = {}, {}
    for width in (1, 32):
        prior = GaussianPrior.per_layer(MLP(1, [width, width], 1, activation="cos"), scale=2.0)
        products = prior.sample_functions(X, 20_000, 1)[..., 0].prod(1)
        kernel = network_covariance(prior.net, prior.gaussian_scale()[None].detach(), X)[0]
        gap[width] = abs(float(products.mean() - kernel[0, 1]))
        error[width] = float(products.std()) / len(products) ** 0.5
    assert gap[1] > 5 * error[1]
    assert gap[32] < 5 * error[32] + gap[1] / 32


def test_gradient_of_the_covariance():
    net = MLP(2, [4], 1)
    X = torch.tensor([[0.5, -1.0], [1.5, 0.3]], dtype=torch.float64)
    prior = GaussianPrior.ard(net)

    def kernel(log_scale):
        return network_covariance(net, log_scale.exp()[prior._group][None], X)

    log_scale = torch.tensor([0.3, -0.5, 0.2, 0.4, -0.7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(kernel, log_scale)


@pytest.mark.parametrize("name", ["tanh", "relu"])
def test_a_row_of_zeros_without_bias(name):
    net = MLP(2, [4], 1, activation=name)
    scales = torch.ones(1, net.n_weights, dtype=torch.float64)
    for block in net.blocks:
        if block.kind == "bias":
            scales[:, block.slice] = 0
    X = torch.tensor([[0.0, 0.0], [1.0, 0.3]], dtype=torch.float64)
    kernel = network_covariance(net, scales.requires_grad_(), X)
    (gradient,) = torch.autograd.grad(kernel.sum(), scales)
    assert float(kernel[0, 0, 0].detach()) == pytest.approx(0, abs=1e-14)
    assert bool(torch.isfinite(gradient).all())


def test_scales_that_differ_between_units_are_refused():
    net = MLP(2, [4], 1)
    scales = torch.linspace(1, 2, net.n_weights)[None].double()
    with pytest.raises(ValueError, match=r"same scale in all units.*'energy'"):
        network_covariance(net, scales, torch.ones(2, 2).double())

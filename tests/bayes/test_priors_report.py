"""The report: numbers against known laws, and that a perfect match is at its floor."""

import math

import gpytorch
import matplotlib
import numpy as np
import pytest
import torch

from bayes.networks import MLP
from bayes.priors import Grid, fixed_gaussian
from bayes.priors.base import Prior
from bayes.priors.report import (
    class_probabilities,
    correlation_length,
    excess_kurtosis,
    marginal_variance,
)

KERNEL = gpytorch.kernels.RBFKernel()
KERNEL.lengthscale = 0.5
GRID = Grid(-2, 2, 60)


class Perfect(Prior):
    """The Gaussian process itself, dressed as a prior."""

    family = "perfect"

    def rsample(self, n, random_state=None):
        raise NotImplementedError

    def log_prob(self, weights):
        raise NotImplementedError

    def gaussian_scale(self):
        raise NotImplementedError

    def sample_functions(self, X, n, random_state=None):
        from bayes.priors import GaussianProcessTarget

        return GaussianProcessTarget(KERNEL).sample_functions(X, n, random_state)


def test_a_perfect_match_is_at_its_floor_and_another_is_not():
    """Null: prior and target are one law. Statistic: the difference of each row's numbers in the
    errors of both. With 6 repetitions Student's t; 1e-5 each (bound 8 for 5 degrees, conservative
    for the difference)."""
    net = MLP(1, [10], 1)
    options = {"n_functions": 300, "n_measurement": 40, "n_repeats": 6, "random_state": 0}
    for prior, perfect in ((Perfect(net), True), (fixed_gaussian(net), False)):
        table = prior.report(KERNEL, GRID, **options).table
        assert list(table.index) == [
            "Bures-W2",
            "sliced W1",
            "energy distance",
            "marginal variance",
            "excess kurtosis",
            "correlation length",
        ]
        t = (table.prior - table.target).abs() / np.hypot(table.prior_error, table.target_error)
        distances = t[["Bures-W2", "sliced W1", "energy distance"]]
        assert bool((distances < 8).all()) if perfect else bool((distances > 8).all())


def test_statistics_of_known_laws():
    """A Gaussian process with variance 2: excess kurtosis 0; correlation falls to 1/e at sqrt(2)
    lengthscales. 20,000 functions: errors of the variance 2 sqrt(2/20,000) = .02, of the kurtosis
    sqrt(24/20,000) = .035; the correlation length is interpolated between 20 bins of width .2."""
    X = GRID.points
    f = math.sqrt(2) * Perfect(MLP(1, [1], 1)).sample_functions(X, 20_000, 0)
    assert marginal_variance(X, f) == pytest.approx(2, abs=5 * 0.02)
    assert excess_kurtosis(X, f) == pytest.approx(0, abs=5 * 0.035)
    assert correlation_length(X, f) == pytest.approx(math.sqrt(2) * 0.5, abs=0.03)
    assert excess_kurtosis(X, f.sign() * f.square()) > 1  # control
    lines = torch.randn(100, 1, 1) * (X + 9)
    assert correlation_length(X, lines) == math.inf


def test_plot_and_text():
    prior = fixed_gaussian(MLP(2, [10], 1))
    X = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    kernel = gpytorch.kernels.RBFKernel()
    found = prior.report(kernel, X, n_functions=50, n_measurement=20, n_repeats=2, random_state=0)
    assert found.position.shape == (150,)
    assert found.prior_functions.shape == found.target_functions.shape == (8, 150)
    figure = found.plot()
    assert isinstance(figure, matplotlib.figure.Figure)
    for ax, functions in zip(
        figure.axes, (found.target_functions, found.prior_functions), strict=True
    ):
        assert np.array_equal(np.stack([line.get_ydata() for line in ax.lines]), functions)
    assert "energy distance" in str(found)


def test_class_probabilities():
    """Two logits with the same process: their probabilities have mean 1/2 and, however large the
    logits, a variance of at most 1/4; the logits' own is far larger. Control: the report without
    the link."""
    prior = fixed_gaussian(MLP(1, [10], 2))
    kernel = gpytorch.kernels.ScaleKernel(KERNEL)
    kernel.outputscale = 100.0
    options = {"n_functions": 100, "n_measurement": 10, "n_repeats": 2, "random_state": 3}
    linked = prior.report(kernel, GRID, link=class_probabilities, **options)
    assert 0.2 < linked["marginal variance"].target < 0.25
    assert linked.target_functions.min() >= 0
    assert linked.target_functions.max() <= 1
    plain = prior.report(kernel, GRID, **options)
    assert plain["marginal variance"].target > 50
    assert linked["energy distance"].prior < plain["energy distance"].prior


def test_the_same_seed_reports_the_same():
    prior = fixed_gaussian(MLP(1, [10], 1))
    options = {"n_functions": 50, "n_measurement": 10, "n_repeats": 2, "random_state": 3}
    a, b = (prior.report(KERNEL, GRID, **options).table for _ in range(2))
    assert a.equals(b)


def test_bad_input():
    prior = fixed_gaussian(MLP(1, [10], 1))
    with pytest.raises(ValueError, match="'n_repeats'"):
        prior.report(KERNEL, GRID, n_repeats=1)
    with pytest.raises(ValueError, match=r"'n_measurement'.*GiB"):
        prior.report(KERNEL, torch.randn(5, 1), n_measurement=10**7)

"""Targets and measurement sets: laws of what they draw, and what they refuse."""

import math

import gpytorch
import numpy as np
import pandas as pd
import pytest
import torch
from gpytorch.kernels import LinearKernel, PeriodicKernel, RBFKernel, ScaleKernel
from gpytorch.priors import GammaPrior, LogNormalPrior, MultivariateNormalPrior, UniformPrior
from scipy import stats

from bayes._validation import torch_generator
from bayes.priors import (
    Box,
    CallableTarget,
    Density,
    GaussianProcessTarget,
    Grid,
    Mixture,
    TrainingRows,
    hierarchical_rbf,
)
from bayes.priors.measurement import as_measurement
from bayes.priors.targets import JITTER, _drawn, as_target, cholesky

X = torch.tensor([[0.0, 1.0], [0.5, -1.0], [2.0, 0.3]], dtype=torch.float64)
FALSE_ALARM = 1e-6
"""Of each test on samples here."""


def test_functions_have_the_kernels_covariance():
    """Null: mean 1 and covariance k. Statistic: means of products of 20,000 functions in their
    standard errors, Bonferroni over 9; the control is another lengthscale."""
    kernel = ScaleKernel(RBFKernel())
    kernel.outputscale, kernel.base_kernel.lengthscale = 2.0, 1.3
    mean = gpytorch.means.ConstantMean()
    mean.initialize(constant=1.0)
    target = GaussianProcessTarget(kernel, mean)
    f = target.sample_functions(X, 20_000, 0)[..., 0]
    products = (f - 1).unsqueeze(1) * (f - 1).unsqueeze(2)
    error = products.std(0) / len(f) ** 0.5
    bound = stats.norm.isf(FALSE_ALARM / 18)

    def worst(lengthscale):
        k = 2 * torch.exp(-0.5 * torch.cdist(X, X).square() / lengthscale**2)
        return float(((products.mean(0) - k) / error).detach().abs().max())

    assert worst(1.3) < bound
    assert worst(1.1) > bound
    exact = target.moments(X, 1)
    assert torch.allclose(exact[0], torch.ones(1, 3).double())
    assert torch.allclose(exact[1][0], kernel.double()(X).to_dense().detach(), atol=1e-12)


def test_hyperparameters_are_drawn_from_their_priors():
    """Lengthscales and variances themselves are log-normal: Kolmogorov-Smirnov on 2,000 draws.
    Controls: another centre; for variances, softplus of such numbers, as the published code has
    it."""
    kernel = _drawn(hierarchical_rbf(13).kernel, 2_000, torch.Generator().manual_seed(0))
    length = kernel.base_kernel.lengthscale.detach()
    assert length.shape == (2_000, 1, 13)
    centre = 0.5 * math.log(26)
    variance = kernel.outputscale.detach()
    for values, loc in ((length[:, 0, 4], centre), (variance, 0.1)):
        law, off = (stats.lognorm(1.0, scale=math.exp(c)) for c in (loc, loc + 0.3))
        assert stats.kstest(values.numpy(), law.cdf).pvalue > FALSE_ALARM
        assert stats.kstest(values.numpy(), off.cdf).pvalue < FALSE_ALARM
    softplus = variance.exp().log1p().numpy()
    assert stats.kstest(softplus, law.cdf).pvalue < FALSE_ALARM


def test_hyperparameters_are_fresh_for_every_function():
    """Var(f^2) of a mixture of variances: E f^4 / (E f^2)^2 = 3 E s^4 / (E s^2)^2 = 3 e for a
    log-normal variance with log-sd 1. With log-sd 1/4 the ratio is 3 e^(1/16) = 3.19; a single
    variance for all functions gives 3."""
    kernel = ScaleKernel(RBFKernel(), outputscale_prior=LogNormalPrior(0.0, 0.5))
    f = GaussianProcessTarget(kernel).sample_functions(X, 20_000, 0)[:, 0, 0]
    batches = f.view(20, 1_000).square()
    ratio = batches.square().mean(1) / batches.mean(1).square()
    error = float(ratio.std()) / 20**0.5
    assert abs(float(ratio.mean()) - 3 * math.exp(0.25)) < 6.9 * error + 0.06  # ratios' own bias
    assert float(ratio.mean()) - 3 > 6.9 * error


@pytest.mark.parametrize(
    "kernel",
    [
        ScaleKernel(
            RBFKernel(lengthscale_prior=GammaPrior(3.0, 2.0)) + LinearKernel(),
            outputscale_prior=UniformPrior(0.5, 2.0),
        ),
        PeriodicKernel(period_length_prior=LogNormalPrior(0.0, 0.3)) * RBFKernel(),
        RBFKernel(active_dims=[1], lengthscale_prior=GammaPrior(3.0, 2.0)),
    ],
    ids=["sum", "product", "active"],
)
def test_compound_kernels_with_priors(kernel):
    """Drawn in a batch, each function's covariance is that of the kernel with its own values."""
    target = GaussianProcessTarget(kernel)
    assert target.is_mixture
    _, covariances = target.laws(X, 5, 3)
    batch = _drawn(target.kernel, 5, torch_generator(3))
    for i in range(5):
        single = _drawn(target.kernel, 1, torch.Generator())
        for part, whole in zip(single.modules(), batch.modules(), strict=True):
            for name, parameter in part._parameters.items():
                if parameter is not None:
                    parameter.data = whole._parameters[name].data[i : i + 1]
        assert torch.allclose(single(X).to_dense()[0], covariances[i], atol=1e-12)
    assert not torch.allclose(covariances[0], covariances[1])


def test_moments_of_a_mixture():
    """Law of total covariance: with mean c ~ U(0, 2) the variance is that of k plus 1/3."""
    mean = gpytorch.means.ConstantMean(constant_prior=UniformPrior(0.0, 2.0))
    target = GaussianProcessTarget(RBFKernel(), mean)
    m, c = target.moments(X, 40_000, 0)
    k = RBFKernel().double()(X).to_dense().detach()
    # standard errors of a mean and of a variance of 40,000 uniform numbers: .0029 and .0015
    assert torch.allclose(m, torch.ones(1, 3).double(), atol=5 * 0.0029)
    assert torch.allclose(c[0], k + 1 / 3, atol=5 * 0.0015)
    by_draws = CallableTarget(lambda X, n, g: target.sample_functions(X, n, g)).moments(
        X, 40_000, 1
    )
    assert torch.allclose(by_draws[1], c, atol=0.1)


def test_several_outputs_are_independent():
    """Correlation of two outputs over 5,000 functions, in 1/sqrt(n); false alarm 1e-6."""
    kernel = RBFKernel()
    kernel.lengthscale = 2.0
    f = GaussianProcessTarget(kernel, n_outputs=2).sample_functions(X, 5_000, 0)
    assert f.shape == (5_000, 3, 2)
    z = (f - f.mean(0)) / f.std(0)
    between = (z[:, 0, 0] * z[:, 0, 1]).mean()
    assert abs(float(between)) < 4.9 / 5_000**0.5
    within = (z[:, 0, 0] * z[:, 1, 0]).mean()
    assert abs(float(within)) > 4.9 / 5_000**0.5


def test_draws_leave_kernel_and_global_generator_alone():
    kernel = hierarchical_rbf(2).kernel
    before, state = kernel.outputscale.item(), torch.get_rng_state()
    target = GaussianProcessTarget(kernel)
    a, b = (target.sample_functions(X, 4, 5) for _ in range(2))
    assert torch.equal(a, b)
    assert kernel.outputscale.item() == before
    assert torch.equal(torch.get_rng_state(), state)


def test_jitter_is_the_least_that_does():
    good = torch.eye(3).double()
    low = torch.ones(3, 3).double()
    bad = low - 5e-7 * torch.eye(3)  # eigenvalue -5e-7: the first jitter does not do
    roots = cholesky(torch.stack([good, low, bad]))
    added = (roots @ roots.mT - torch.stack([good, low, bad])).diagonal(dim1=1, dim2=2).mean(1)
    assert torch.allclose(
        added, torch.tensor([JITTER[0], JITTER[0], JITTER[1]]).double(), rtol=1e-3
    )


def test_singular_and_nan_kernels():
    with pytest.raises(ValueError, match=r"singular.*0.0001 .*positive definite"):
        cholesky(torch.tensor([[1.0, 2.0], [2.0, 1.0]]).double())
    with pytest.raises(ValueError, match="singular"):
        GaussianProcessTarget(LinearKernel()).sample_functions(0 * X, 2)
    kernel = RBFKernel()
    kernel.raw_lengthscale.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="NaN or infinity"):
        GaussianProcessTarget(kernel).sample_functions(X, 2)
    for place, value in (((0, 0), torch.inf), ((2, 1), torch.nan), ((2, 1), torch.inf)):
        matrix = torch.eye(3).double()
        matrix[place] = matrix[place[::-1]] = value
        with pytest.raises(ValueError, match="NaN or infinity"):
            cholesky(matrix)


def test_dimensions_that_do_not_fit():
    ard = ScaleKernel(RBFKernel(ard_num_dims=3))
    with pytest.raises(ValueError, match=r"RBFKernel takes 3 features \(ard_num_dims\).* 2"):
        as_target(ard).sample_functions(X, 2)
    with pytest.raises(ValueError, match=r"takes 4 features \(active_dims\).*active_dims below 2"):
        as_target(RBFKernel(active_dims=[3])).sample_functions(X, 2)
    assert as_target(RBFKernel(active_dims=[0])).sample_functions(X, 2).shape == (2, 3, 1)


def test_what_may_be_a_target():
    pair = as_target((gpytorch.means.ConstantMean(), RBFKernel()), 2)
    assert pair.sample_functions(X, 4).shape == (4, 3, 2)
    with pytest.raises(ValueError, match="as many outputs as the network, 1; got 2"):
        as_target(pair, 1)
    for wrong in ("rbf", torch.nn.Linear(1, 1), (RBFKernel(), RBFKernel())):
        with pytest.raises(ValueError, match="'target'"):
            as_target(wrong)
    with pytest.raises(ValueError, match=r"= \(4, 3, 1\); got shape \(4, 2, 1\)"):
        as_target(lambda X, n, g: torch.zeros(n, 2)).sample_functions(X, 4)
    with pytest.raises(ValueError, match="with NaN"):
        as_target(lambda X, n, g: torch.full((n, 3), torch.nan)).sample_functions(X, 4)
    odd = RBFKernel(lengthscale_prior=MultivariateNormalPrior(torch.zeros(1), torch.eye(1)))
    with pytest.raises(ValueError, match=r"MultivariateNormalPrior.*callable target"):
        as_target(odd).sample_functions(X, 4)


def test_rows_and_box():
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(30, 2, generator=generator, dtype=torch.float64)
    rows = TrainingRows(data).sample(30, 1)
    assert torch.equal(rows.sort(0).values, data.sort(0).values)
    assert not torch.equal(rows, data)
    assert TrainingRows(data).sample(40, 1).shape == (40, 2)
    box = Box(data).sample(2_000, 1)
    assert bool(((box >= data.amin(0)) & (box <= data.amax(0))).all())
    for d in range(2):
        law = stats.uniform(data[:, d].min(), data[:, d].max() - data[:, d].min())
        assert stats.kstest(box[:, d].numpy(), law.cdf).pvalue > FALSE_ALARM
    wide = Box(data, margin=0.5).sample(2_000, 1)
    assert bool((wide > data.amax(0)).any())


def test_no_test_input_enters_a_measurement_box():
    """The box is a function of the training inputs alone: an outlier among the test inputs widens
    nothing. Control: among the training inputs it does."""
    train = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    outlier = torch.full((1, 3), 100.0, dtype=torch.float64)
    drawn = as_measurement(train).sample(1_000, 1)
    assert bool((drawn <= train.amax(0)).all())
    assert bool((drawn >= train.amin(0)).all())
    control = as_measurement(torch.cat([train, outlier])).sample(1_000, 1)
    assert bool((control > train.amax(0)).any())


def test_a_mixture_has_its_shares():
    train = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = as_measurement(train).sample(100, 1)
    known = (drawn.unsqueeze(1) == train).all(-1).any(1)
    assert known.sum() > 69
    # 70 rows out of 50 repeat some; 30 box points are no rows
    assert (~known).sum() == 30


def test_grid_density_and_tables():
    grid = Grid(-6, 6, 200)
    assert torch.equal(grid.sample(200, 0), grid.points)
    some = grid.sample(40, 0)
    assert len(some.unique()) == 40
    assert bool(torch.isin(some, grid.points).all())
    with pytest.raises(ValueError, match="200 points; got n=201"):
        grid.sample(201)
    normal = Density(lambda n, g: torch.randn(n, 2, generator=g))
    assert normal.sample(5, 0).dtype == torch.float64
    table = pd.DataFrame({"a": np.arange(4.0), "b": [1, 2, 3, 5]})
    assert as_measurement(table).sample(6, 0).shape == (6, 2)
    assert as_measurement(grid) is grid


def test_bad_measurement_sets():
    with pytest.raises(ValueError, match="'shares'"):
        Mixture([Grid(0, 1)], [0.5])
    with pytest.raises(ValueError, match="'high'"):
        Grid(1, 1)
    with pytest.raises(ValueError, match=r"\(N, D\).*Reshape"):
        as_measurement(torch.ones(4))
    with pytest.raises(ValueError, match="numeric"):
        as_measurement([["a"], ["b"]])
    # a constant column is no obstacle
    assert Box(torch.tensor([[0.0, 1.0], [1.0, 1.0]])).sample(3, 0)[:, 1].tolist() == [1, 1, 1]

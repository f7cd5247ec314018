"""Matching: every method comes closer on held-out inputs; runs resume bit by bit."""

import copy
from types import SimpleNamespace

import gpytorch
import numpy as np
import pytest
import torch

from bayes.networks import MLP, ConvNet
from bayes.priors import (
    Density,
    FlowPrior,
    GaussianPrior,
    Grid,
    HierarchicalPrior,
    StudentTPrior,
    fit_functional_prior,
    hierarchical_rbf,
)
from bayes.priors.energy import energy_distance
from bayes.priors.matching import (
    Bures,
    Energy,
    Method,
    Moments,
    Sinkhorn,
    Sliced,
    Wasserstein,
)
from bayes.priors.matching.critic import Critic
from bayes.priors.matching.methods import resolve
from bayes.priors.matching.run import Judge, cosine
from bayes.priors.matching.wasserstein import principal_directions
from bayes.priors.targets import as_target

NET = MLP(1, [20], 1)
GRID = Grid(-3, 3, 60)
KERNEL = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel())
KERNEL.outputscale, KERNEL.base_kernel.lengthscale = 9.0, 2.0
QUICK = {
    "moments": Moments(n_steps=30),
    "energy": Energy(n_steps=30, n_functions=128),
    "bures": Bures(n_steps=30, n_functions=256),
    "sliced": Sliced(n_steps=30, n_functions=256),
    "sinkhorn": Sinkhorn(n_steps=15, n_functions=48, learning_rate=0.2),
    "wasserstein": Wasserstein(n_steps=20, n_critic_steps=30, n_functions=64, width=50),
}


def fit(prior, method, **options):
    options = {"n_measurement": 20, "random_state": 0, "check_every": 10} | options
    return fit_functional_prior(prior.net, prior, KERNEL, GRID, method=method, **options)


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.filterwarnings("ignore:Sinkhorn did not converge:UserWarning")
def test_every_method_comes_closer(name):
    """From FG to at most half of its held-out energy distance; a method that learned nothing, or
    went the wrong way, would end where it began."""
    prior = GaussianPrior.per_layer(NET)
    before = prior.scale.detach().clone()
    fitted = fit(prior, QUICK[name])
    assert torch.equal(prior.scale, before)
    first, best = fitted.fit_.checks[0], fitted.fit_.best
    assert first.step == 0
    assert best.held_out < 0.5 * first.held_out
    assert not any(p.requires_grad for p in fitted.parameters())


@pytest.mark.parametrize("name", QUICK)
def test_gradients_reach_every_parameter(name):
    generator = torch.Generator().manual_seed(0)
    prior = GaussianPrior.per_layer(NET)
    target = hierarchical_rbf(1)
    loss = QUICK[name].loss(prior, target, GRID.sample(10, generator), generator)
    (gradient,) = torch.autograd.grad(loss, prior.log_scale)
    assert bool((gradient != 0).all())


@pytest.mark.parametrize(
    "prior",
    [
        GaussianPrior.per_parameter(NET),
        HierarchicalPrior.per_layer(NET, shape=3.0),
        StudentTPrior.per_layer(NET),
        FlowPrior(NET, n_couplings=2, width=4),
    ],
    ids=lambda p: p.family,
)
def test_every_family_comes_closer(prior):
    fitted = fit(prior, Energy(n_steps=30, n_functions=128))
    assert fitted.fit_.best.held_out < 0.5 * fitted.fit_.checks[0].held_out


def test_auto_takes_moments_where_they_are_known():
    def names(prior):
        return [m.name for m in resolve("auto", prior)]

    assert names(GaussianPrior.per_layer(NET)) == ["moments", "energy"]
    assert names(GaussianPrior.per_parameter(NET)) == ["moments", "energy"]
    assert names(HierarchicalPrior.per_layer(NET)) == ["moments", "energy"]
    assert names(FlowPrior(NET)) == ["moments", "energy"]
    fitted = GaussianPrior.per_parameter(NET)
    with torch.no_grad():
        fitted.log_scale[3] += 1
    assert names(fitted) == ["energy"]
    assert names(GaussianPrior.per_layer(ConvNet((1, 4, 4), [2], 1))) == ["energy"]


def test_moments_keep_a_per_parameter_prior_tied():
    fitted = fit(GaussianPrior.per_parameter(NET), Moments(n_steps=5))
    for block in NET.blocks:
        assert len(fitted.scale[block.slice].unique()) == 1


@pytest.mark.parametrize("method", [QUICK["energy"], [Moments(n_steps=20), QUICK["energy"]]])
def test_resuming_is_bit_identical(method, tmp_path):
    """Interrupted at any check and resumed, a fit ends as if it had not been."""

    class InterruptedFitError(Exception):
        pass

    prior = HierarchicalPrior.per_layer(NET, shape=3.0)
    if isinstance(method, list):
        prior = GaussianPrior.per_layer(NET)
    whole = fit(prior, method)

    def stop_at(n):
        seen = []

        def callback(progress):
            seen.append(progress)
            if len(seen) == n:
                raise InterruptedFitError

        return callback

    path = tmp_path / "fit"
    for n in (3, 2):  # twice, each time later
        with pytest.raises(InterruptedFitError):
            fit(prior, method, checkpoint=path, callback=stop_at(n))
        assert path.exists()
    # another seed is given, and not used: the generator is in the checkpoint
    resumed = fit(prior, method, checkpoint=path, random_state=99)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    held_out = [[c.held_out for c in p.fit_.checks] for p in (whole, resumed)]
    assert held_out[0] == held_out[1]
    assert not torch.equal(
        next(fit(prior, method, random_state=99).parameters()), next(whole.parameters())
    )  # control


def test_a_checkpoint_of_another_fit_is_refused(tmp_path):
    fit(GaussianPrior.per_layer(NET), Moments(n_steps=2), checkpoint=tmp_path / "fit")
    with pytest.raises(ValueError, match="fit with another methods"):
        fit(GaussianPrior.per_layer(NET), Moments(n_steps=3), checkpoint=tmp_path / "fit")
    with pytest.raises(ValueError, match="another settings"):
        fit(GaussianPrior.ard(NET), Moments(n_steps=2), checkpoint=tmp_path / "fit")
    older = (tmp_path / "fit").read_bytes().replace(b'"version":"2"', b'"version":"1"')
    (tmp_path / "older").write_bytes(older)
    with pytest.raises(
        ValueError, match=r"version 1; this library reads version 2\. Make it again"
    ):
        fit(GaussianPrior.per_layer(NET), Moments(n_steps=2), checkpoint=tmp_path / "older")


def test_a_check_judges_the_average_of_the_steps():
    """Under a constant gradient Adam's steps are the learning rates themselves, so that the average
    of the parameters over ten steps is known. Control: where the descent ended is another place."""

    class Upwards(Method):
        name = "upwards"

        def loss(self, prior, target, X, generator):
            return -prior.log_scale.sum()

    fitted = fit(GaussianPrior.per_layer(NET), Upwards(n_steps=10, learning_rate=0.1))
    path = np.cumsum([cosine(0.1, k, 10) for k in range(1, 11)])
    assert fitted.fit_.best.step == 10
    assert torch.allclose(fitted.log_scale, torch.full((4,), path.mean()).double(), rtol=1e-6)
    assert path[-1] > 1.3 * path.mean()


def test_a_check_is_the_energy_distance():
    """In float32, against float64; functions of another seed are the control."""
    prior, generator = GaussianPrior.per_layer(NET), torch.Generator().manual_seed(0)
    run = SimpleNamespace(
        measurement=GRID, target=as_target(KERNEL), n_measurement=20, generator=generator
    )
    judge = Judge.draw(run)

    def exact(seed):
        weights = prior.rsample(1024, seed, torch.float32).detach().double()
        return float(energy_distance(prior.net(weights, judge.X).flatten(1), judge.target.double()))

    assert judge.energy_distance(prior) == pytest.approx(exact(judge.seed), abs=1e-4)
    assert judge.energy_distance(prior) != pytest.approx(exact(judge.seed + 1), abs=1e-4)


def test_patience_ends_a_fit_early():
    """From the optimum, a large learning rate does not improve."""
    good = fit(GaussianPrior.per_layer(NET), Moments(n_steps=60))
    again = fit(
        copy.deepcopy(good), Energy(n_steps=100, n_functions=8, learning_rate=1.0),
        patience=2, check_every=2,
    )  # fmt: skip
    assert "no better in 2 checks" in again.fit_.status[0]
    assert again.fit_.checks[-1].step < 100
    assert again.fit_.best.held_out == min(c.held_out for c in again.fit_.checks)


def test_several_outputs():
    net = MLP(1, [10], 2)
    fitted = fit(GaussianPrior.per_layer(net), [Moments(n_steps=10), QUICK["energy"]])
    assert fitted.fit_.best.held_out < 0.5 * fitted.fit_.checks[0].held_out


def test_gradients_of_the_critic():
    """Those written out against automatic differentiation of the published objective."""
    generator = torch.Generator().manual_seed(0)
    critic = Critic(6, 5, generator)
    critic.parameters = [p.double().requires_grad_() for p in critic.parameters]
    f, g = (torch.randn(8, 6, generator=generator).double() for _ in range(2))
    epsilon = torch.rand(3, 1, generator=generator).double()
    between = (epsilon * f[4:7] + (1 - epsilon) * g[4:7]).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    value = critic(f).mean() - critic(g).mean()
    penalised = value - 10 * (slope.norm(dim=1) - 1).square().mean()
    expected = torch.autograd.grad(penalised, critic.parameters, retain_graph=True)
    without = torch.autograd.grad(value, critic.parameters)
    with torch.no_grad():
        got = critic.gradients(f, g, epsilon, 4, 10.0)
    for a, b, c in zip(got, expected, without, strict=True):
        assert torch.allclose(a, b, atol=1e-13)
        assert not torch.allclose(a, c, atol=1e-3)  # control: the penalty matters


def test_the_critic_estimates_a_shift():
    """W1 between two samples that differ by a shift is the shift's length, 2; the penalty is soft,
    so the estimate may err by some 10%. Without a shift it is far smaller."""
    generator = torch.Generator().manual_seed(0)
    f = torch.randn(256, 4, generator=generator)
    shift = torch.tensor([0.0, 1.2, 0.0, -1.6])
    method = Wasserstein(n_critic_steps=300, width=50, n_penalised=256)

    def estimate(a, b):
        critic = method.trained_critic(a, b, generator)
        return float(critic(a).mean() - critic(b).mean())

    assert estimate(f + shift, f) == pytest.approx(2.0, abs=0.2)
    assert abs(estimate(f, f.flip(0))) < 0.1


def test_a_critic_bears_functions_of_any_size():
    """Units far below zero and far above it are flat and straight; float32 ends at 3e38."""
    generator = torch.Generator().manual_seed(0)
    f = torch.randn(8, 3, generator=generator)
    for size in (1e-6, 1e4):
        critic = Critic(3, 10, generator)
        before = [p.clone() for p in critic.parameters]
        critic.step(size * f, -size * f, torch.rand(4, 1, generator=generator), 0, 10.0, 0.1)
        assert all(bool(torch.isfinite(p).all()) for p in critic.parameters)
        assert not any(torch.equal(p, b) for p, b in zip(critic.parameters, before, strict=True))


def test_a_critic_starts_without_memory():
    a, b = (Critic(3, 4, torch.Generator().manual_seed(1)) for _ in range(2))
    f = torch.randn(5, 3, generator=torch.Generator().manual_seed(2))
    a.step(f, f + 1, torch.full((5, 1), 0.5), 0, 10.0, 0.1)
    assert all(float(s.max()) == pytest.approx(1e-10) for s in b.squares)
    assert any(float(s.max()) > 1e-6 for s in a.squares)


def test_principal_directions_leave_little_out():
    generator = torch.Generator().manual_seed(0)
    f = torch.randn(50, 3, generator=generator) @ torch.randn(3, 30, generator=generator)
    basis = principal_directions(f)
    assert basis.shape == (30, 3)
    assert torch.allclose(basis.mT @ basis, torch.eye(3), atol=1e-5)
    kept = (f @ basis).square().sum() / f.square().sum()
    assert float(kept) > 1 - 2e-4


def test_bad_input():
    prior = GaussianPrior.per_layer(NET)
    X = torch.linspace(0, 1, 9)[:, None]
    with pytest.raises(ValueError, match="one over the weights of 'net'"):
        fit_functional_prior(MLP(1, [5], 1), prior, KERNEL, X)
    with pytest.raises(ValueError, match=r"'method'.*'newton'"):
        fit_functional_prior(NET, prior, KERNEL, X, method="newton")
    with pytest.raises(ValueError, match=r"all 9 are equal\. Take inputs that vary"):
        fit_functional_prior(NET, prior, KERNEL, 0 * X)
    with pytest.raises(ValueError, match="at least 2 rows; got 1"):
        fit_functional_prior(NET, prior, KERNEL, X[:1])
    with pytest.raises(ValueError, match="at least 2 rows; got 0"):
        fit_functional_prior(NET, prior, KERNEL, X[:0])
    with pytest.raises(ValueError, match=r"NaN or infinity in 1 rows.* row 3\. Drop or impute"):
        fit_functional_prior(NET, prior, KERNEL, X.index_fill(0, torch.tensor([3]), torch.nan))
    with pytest.raises(ValueError, match=r"'n_measurement'.*memory.*GiB"):
        fit_functional_prior(NET, prior, KERNEL, X, n_measurement=10**7)
    for wrong in (1, 2.5, "many"):
        with pytest.raises(ValueError, match="'n_measurement'"):
            fit_functional_prior(NET, prior, KERNEL, X, n_measurement=wrong)
    with pytest.raises(ValueError, match=r"'X' parameter must have shape \(N, 1\)"):
        fit_functional_prior(NET, prior, KERNEL, X.expand(-1, 3))
    flat = gpytorch.kernels.LinearKernel()
    with pytest.raises(ValueError, match=r"singular.*Use a kernel that is positive definite"):
        fit_functional_prior(NET, prior, flat, Density(lambda n, g: torch.zeros(n, 1)))
    with pytest.raises(ValueError, match=r"'target'.*got str"):
        fit_functional_prior(NET, prior, "rbf", X)
    five = gpytorch.kernels.RBFKernel(ard_num_dims=5)
    with pytest.raises(ValueError, match=r"takes 5 features .*inputs have 1\. Make it with ard"):
        fit_functional_prior(NET, prior, five, X)
    with pytest.raises(ValueError, match="lower its learning_rate"):
        fit(prior, Energy(n_steps=3, learning_rate=1e4, n_functions=8), check_every=100)

"""Diagnostics, step sizes and references against what is known exactly."""

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
import torch
from scipy import stats

from bayes.samplers import (
    BAOAB,
    SGLD,
    AdaptiveSGHMC,
    LinearRegression,
    find_step_size,
    nuts_reference,
    sample_density,
)
from bayes.samplers.diagnostics import RHAT_LIMIT, ess, rhat
from bayes.samplers.draws import Moments

LIMIT = NormalDist().inv_cdf(1 - 1e-6 / 2)  # false alarm 1e-6, two sides


def bowl(q):
    return -0.5 * (q * q * torch.tensor([1.0, 4.0]).to(q)).sum()


def start(n_chains=200, n=2):
    return torch.randn(n_chains, n, generator=torch.Generator().manual_seed(0)).double()


@pytest.fixture(scope="module")
def good():
    return sample_density(
        bowl, start(), BAOAB(0.2), n_draws=100, burn_in=60, thin=4, random_state=3
    )


def test_temperatures_of_baoab(good):
    """On a Gaussian: T for the position, T (1 - e^2 lambda / 4) for the momentum.

    The momentum at q solves E[p^2] = T - e^2/4 E[g^2]/... : for leapfrog-like splittings the
    conserved form is p^2 + (lambda - e^2 lambda^2 / 4) q^2.
    """
    split = replace(good, names={"soft": slice(0, 1), "stiff": slice(1, 2)})
    for name, lam in (("soft", 1.0), ("stiff", 4.0)):
        block = split.temperatures().blocks[name]
        expected = 1 - 0.2**2 * lam / 4
        assert abs(block.kinetic - expected) < LIMIT * block.kinetic_error
        assert abs(block.configurational - 1) < LIMIT * block.configurational_error
    assert "soft" in str(split.temperatures())


def test_slow_chains_are_not_taken_for_cold_ones():
    """Chains at equilibrium in the same Gaussian, followed for 0.64 units of time. Control: centred
    at its own mean, a chain with an effective size near 1 looks cold."""
    bulk = start() / torch.tensor([1.0, 2.0])
    run = sample_density(bowl, bulk, BAOAB(0.005), n_draws=128, burn_in=0, random_state=3)
    block = run.temperatures().blocks["all"]
    assert abs(block.configurational - 1) < LIMIT * block.configurational_error
    sums = run.moments
    own = (sums.product - sums.position * sums.gradient / sums.count) / sums.count
    assert float(own.mean()) < 0.5


def test_a_good_run_has_nothing_to_say(good):
    assert good.diagnose() == []


def test_a_wrong_target_temperature_is_said(good):
    said = replace(good, temperature=0.5).diagnose()
    assert any("too hot" in s and "configurational" in s for s in said)
    assert any("too cold" in s for s in replace(good, temperature=2.0).diagnose())


def test_a_step_too_large_is_said():
    run = sample_density(bowl, start(), SGLD(0.3), n_draws=100, burn_in=60, thin=2, random_state=3)
    assert any("too hot" in s for s in run.diagnose())


def test_chains_that_disagree_are_said():
    def two_wells(q):
        return -8 * (q[0] ** 2 - 1) ** 2 - 0.5 * q[1] ** 2

    apart = torch.tensor([[-1.0, 0.0], [1.0, 0.0]]).double().repeat(2, 1)
    run = sample_density(two_wells, apart, BAOAB(0.1), n_draws=200, burn_in=20, random_state=0)
    assert float(run.rhat()[0]) > 1.5
    assert any("Chains disagree" in s for s in run.diagnose())


def test_few_draws_and_one_chain_are_said():
    run = sample_density(bowl, start(1), BAOAB(0.2), n_draws=4, burn_in=0, random_state=0)
    assert any("too few" in s for s in run.diagnose())
    run = sample_density(bowl, start(1), BAOAB(0.2), n_draws=400, burn_in=0, random_state=0)
    assert any("one chain" in s for s in run.diagnose())


def test_negative_injected_noise_is_detected_reported_and_mended():
    """Curvature 10^4: gradients of root mean square 100 at T = 1, against a limit of 50."""

    def stiff(q):
        return -0.5 * (q * q * torch.tensor([1.0, 1e4]).to(q)).sum()

    sampler = AdaptiveSGHMC(0.02, momentum_decay=0.01)
    with pytest.warns(UserWarning, match="negative variance at 1 of 2 weights"):
        run = sample_density(
            stiff, start(20) / 100, sampler, n_draws=20, burn_in=500, random_state=0
        )
    assert any("momentum decay was raised" in s for s in run.diagnose())
    none = AdaptiveSGHMC(0.02, momentum_decay=0.01, noise_estimate="none")
    run = sample_density(stiff, start(20) / 100, none, n_draws=20, burn_in=500, random_state=0)
    assert run.faults == ()


def _rank_rhat(values):
    """Vehtari et al. (2021), equations (1) to (4) and (14), of one parameter (C, S)."""
    halves = np.concatenate([values[:, : values.shape[1] // 2], values[:, values.shape[1] // 2 :]])

    def of(x):
        z = stats.norm.ppf((stats.rankdata(x).reshape(x.shape) - 0.375) / (x.size + 0.25))
        within, n = z.var(1, ddof=1).mean(), z.shape[1]
        return np.sqrt((n - 1) / n + z.mean(1).var(ddof=1) / within)

    return max(of(halves), of(np.abs(halves - np.median(halves))))


def test_rhat_is_the_rank_normalised_one_and_the_tree_has_everything():
    run = sample_density(
        bowl, start(4), BAOAB(0.4), n_draws=100, burn_in=20, thin=5, random_state=1
    )
    tree = run.to_datatree()
    own = [_rank_rhat(run.draws[..., i].numpy()) for i in range(2)]
    assert rhat(run.draws).tolist() == pytest.approx(own, rel=1e-10)
    assert torch.equal(torch.from_numpy(tree.posterior["w"].values), run.draws)
    assert float(run.rhat().max()) < RHAT_LIMIT
    assert tree.attrs["seed"] == 1
    assert torch.equal(torch.from_numpy(tree.sample_stats["lp"].values), -run.potential)
    named = replace(run, names={"a": slice(0, 1), "b": slice(1, 2)}).to_datatree()
    assert set(named.posterior.data_vars) == {"a", "b"}


def test_effective_size_of_independent_draws():
    draws = torch.randn(4, 500, 3, generator=torch.Generator().manual_seed(2)).double()
    assert bool((ess(draws) > 1000).all())
    assert bool((ess(draws.repeat_interleave(10, 1)) < 3500).all())  # ten copies tell nothing new
    assert bool(torch.isnan(rhat(draws[:, :5])).all())


def test_moments_leave_out_what_came_after_divergence():
    going = torch.tensor([[True, False], [True, True]])
    values = torch.tensor([[[1.0], [torch.nan]], [[2.0], [3.0]]])
    sums = Moments.zeros(2, 1)
    sums.add(going, values, values, values)
    assert sums.count.flatten().tolist() == [1, 2]
    assert sums.product.flatten().tolist() == [1, 13]


def test_step_size_of_langevin():
    """Configurational temperature 1 / (1 - h lambda / 2): 5% too hot at h lambda = 0.095."""
    lam = 4.0

    def density(q):
        return -0.5 * lam * q.square().sum()

    bulk = start(1, 40)[0] / lam**0.5
    fine = find_step_size(density, bulk, SGLD(0.04), n_steps=600, random_state=0)
    coarse = find_step_size(density, bulk, SGLD(0.04), n_steps=600, tolerance=0.4, random_state=0)
    assert 0.095 / lam / 2 < fine.step_size < 0.095 / lam
    assert fine.step_size < coarse.step_size < 2 / lam
    assert fine.rungs[-1].diverged or fine.rungs[-1].deviation > 100
    with pytest.raises(ValueError, match="'tolerance' parameter must be within reach"):
        find_step_size(density, bulk, SGLD(100.0), n_steps=200, random_state=0)


@pytest.fixture
def model():
    generator = torch.Generator().manual_seed(5)
    X = torch.randn(15, 2, generator=generator).double()
    y = X @ torch.tensor([1.0, -1.0]).double() + torch.randn(15, generator=generator).double()
    return LinearRegression(X, y, noise_scale=0.7, prior_scale=1.5)


def test_conjugate_regression_by_second_routes(model):
    y_law = torch.distributions.MultivariateNormal(
        torch.zeros(15).double(),
        model.X @ model.X.T * model.prior_scale**2 + model.noise_scale**2 * torch.eye(15).double(),
    )
    assert float(model.log_evidence()) == pytest.approx(float(y_law.log_prob(model.y)), rel=1e-12)
    slope = torch.func.grad(model.log_density)(model.mean)
    assert float(slope.abs().max()) < 1e-12
    hessian = torch.func.hessian(model.log_density)(model.mean)
    assert torch.allclose(-hessian, model.precision, rtol=1e-12)
    assert torch.allclose(model.covariance @ model.precision, torch.eye(2).double(), atol=1e-12)
    mean, scale = model.predict(torch.zeros(1, 2).double())
    assert (float(mean), float(scale)) == pytest.approx((0.0, 0.7))
    wrong = replace(model, noise_scale=1.4)
    assert float(wrong.log_evidence()) != pytest.approx(float(model.log_evidence()), rel=1e-3)


@pytest.mark.slow
def test_nuts_gives_the_conjugate_posterior_and_leaves_the_random_state(model):
    before = torch.get_rng_state()
    run = nuts_reference(
        model.log_density, torch.zeros(2).double(), 2, n_draws=500, burn_in=200, random_state=1
    )
    assert torch.equal(before, torch.get_rng_state())
    assert run.draws.shape == (2, 500, 2)
    error = model.covariance.diagonal().sqrt() / torch.sqrt(ess(run.draws))
    assert bool(((run.draws.mean((0, 1)) - model.mean).abs() < LIMIT * error).all())
    assert not bool(((run.draws.mean((0, 1)) - 1.5 * model.mean).abs() < LIMIT * error).all())
    again = nuts_reference(
        model.log_density, torch.zeros(2).double(), 1, n_draws=500, burn_in=200, random_state=1
    )
    assert torch.equal(again.draws[0], run.draws[0])

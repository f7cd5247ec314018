"""Certificates: what is called a local maximum, what is not, and what is not identified."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from moe_stats import (
    GaussianMoE,
    GaussianMoERegressor,
    LinearExperts,
    SoftmaxGate,
    TopKGate,
)
from moe_stats.fit.boundary import search
from moe_stats.fit.certificate import FLAT, certify
from moe_stats.fit.newton import newton

TOP_1 = TopKGate.template(top_k=1, rank="logit")
SMOOTH = GaussianMoE(
    SoftmaxGate([0.3, 0.0], [[5.0], [0.0]]), LinearExperts([[2.0], [-1.0]], [1.0, 0.2], [0.3, 0.4])
)
EXPERTS = LinearExperts([[2.0], [-4.0]], [1.0, 3.0], [0.2, 0.2])


def broken_line(n=300, seed=0):
    """y is 1 + 2 x left of .5 and 3 - 4 x right of it, with noise of scale .2."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(0, 1, (n, 1))
    mean = np.where(X[:, 0] < 0.5, 1 + 2 * X[:, 0], 3 - 4 * X[:, 0])
    return X, mean + 0.2 * rng.normal(size=n)


def two_regimes(n=400, seed=0):
    """Draws from a softmax mixture whose gate is smooth, so that its estimate is finite."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1, 1, (n, 1))
    return X, SMOOTH.sample(torch.from_numpy(X), rng).numpy()


def test_a_good_fit_is_certified():
    fit = GaussianMoERegressor(2, random_state=0).fit(*two_regimes())
    found = fit.stationarity_
    assert found.is_stationary
    assert found.is_local_maximum
    assert found.scaled_gradient <= found.tol == 1e-6
    assert found.curvature <= FLAT
    assert found.flat_directions == 2  # the gate's two translations
    assert found.active_bounds == ()
    assert "smooth" in found.boundary
    assert str(found).startswith("a local maximum: scaled gradient")


def test_a_saddle_is_stationary_but_no_maximum():
    """Control: two copies of the one-expert fit have a zero gradient and a way up."""
    X, y = broken_line()
    one = GaussianMoERegressor(1, random_state=0).fit(X, y).model_.to_params()
    saddle = GaussianMoE.from_params(torch.cat([one, one]), SoftmaxGate.template(), 2)
    fit = GaussianMoERegressor(2, init=saddle, max_iter=0, n_rounds=0, quasi_newton=False).fit(X, y)
    assert fit.stationarity_.is_stationary
    assert fit.stationarity_.curvature > 0.1
    assert not fit.stationarity_.is_local_maximum
    assert "not shown to be a local maximum" in str(fit.stationarity_)
    # and Newton, repelled by saddles, leaves it when the copies differ by a hair
    saddle = GaussianMoE.from_params(
        torch.cat([one, one + 1e-6 * torch.linspace(-1, 1, 5)]), SoftmaxGate.template(), 2
    )
    freed = GaussianMoERegressor(2, init=saddle, n_rounds=0).fit(X, y)
    assert freed.log_likelihood_ > fit.log_likelihood_ + 10
    assert freed.stationarity_.is_local_maximum


def test_perturbed_parameters_are_not_certified():
    """Control: a tenth of a standard error off is refused, each coordinate of the experts."""
    fit = GaussianMoERegressor(2, random_state=0).fit(*two_regimes())
    problem, rows = fit._mle._problem, torch.tensor([0])
    best = fit.model_.to_params()
    information = problem.evaluate(best[None], rows, "information").information[0]
    for place in (2, 3, 4, 7, 8, 9):
        params = best.clone()
        params[place] += 0.1 * information[place, place] ** -0.5
        at = newton(problem, params[None], rows, tol=1e-6, max_iter=0)
        found = certify(problem, params, 0, float(at.scaled_gradient), 1e-6)
        assert not found.is_stationary, place
        assert not found.is_local_maximum
        assert str(found).startswith("neither stationary nor a maximum")


def test_a_bound_that_holds_does_not_spoil_the_certificate():
    fit = GaussianMoERegressor(2, min_scale=0.5, random_state=0).fit(*two_regimes())
    assert len(fit.stationarity_.active_bounds) == 2
    assert fit.stationarity_.is_local_maximum
    assert "scale[0] at its lower bound" in str(fit.stationarity_)


def test_a_weight_that_binds_does_not_spoil_the_certificate():
    fit = GaussianMoERegressor(2, min_weight=0.49, random_state=0).fit(*two_regimes())
    active = [b for b in fit.stationarity_.active_bounds if "min_weight=0.49" in b]
    assert active
    assert fit.stationarity_.is_local_maximum


def test_boundary_search_improves_a_misplaced_top_1_gate():
    """The gate picks the first expert left of .2 only, where .5 is right: no gradient tells,
    the search across selections does. The estimator searches, and nothing is left to find."""
    X, y = broken_line()
    bad = GaussianMoE(TopKGate([0.0, -0.2], [[0.0], [1.0]], top_k=1, rank="logit"), EXPERTS)
    fit = GaussianMoERegressor(2, TOP_1, init=bad, n_rounds=0).fit(X, y)
    assert fit.stationarity_.boundary_stands
    assert fit.stationarity_.is_local_maximum
    assert "every change of selection" in fit.stationarity_.boundary

    problem, row = fit._mle._problem, torch.tensor([0])
    stuck = newton(problem, bad.to_params()[None], row, tol=1e-6, max_iter=100)
    found = certify(problem, stuck.params[0], 0, float(stuck.scaled_gradient), 1e-6)
    assert fit.log_likelihood_ > float(stuck.value) + 10
    assert found.is_stationary
    assert not found.boundary_stands
    assert not found.is_local_maximum
    assert "improves by" in found.boundary


def test_boundary_search_sees_what_a_loop_over_thresholds_sees():
    """One feature, top 1 of 2: every split of the line is reached, so the search's best gain
    is the best over all thresholds, computed here one by one."""
    X, y = broken_line(n=80)
    bad = GaussianMoE(TopKGate([0.0, -0.2], [[0.0], [1.0]], top_k=1, rank="logit"), EXPERTS)
    problem = GaussianMoERegressor(2, TOP_1, init=bad, n_rounds=0).fit(X, y)._mle._problem
    found = search(problem, bad.to_params()[None], torch.tensor([0]))
    normal = torch.distributions.Normal(bad.experts.mean(torch.from_numpy(X)), bad.experts.scale)
    density = normal.log_prob(torch.from_numpy(y)[:, None]).numpy()[np.argsort(X[:, 0])]
    best = max(density[:k, 0].sum() + density[k:, 1].sum() for k in range(81))
    assert found.value == pytest.approx(best, rel=1e-10)


def test_a_rank_that_is_not_affine_is_named_not_searched():
    X, y = broken_line()
    fit = GaussianMoERegressor(2, TOP_1, random_state=0).fit(X, y)
    problem, params = fit._mle._problem, fit.model_.to_params()
    curved = replace(problem.form, rank=lambda own, shared, x: (own[0] + own[1] * x[0]) ** 3)
    found = certify(replace(problem, form=curved), params, 0, 0.0, 1e-6)
    assert "not searched, since the gate's ranks are not affine" in found.boundary
    assert not found.is_local_maximum


def test_top_1_gates_are_not_identified():
    fit = GaussianMoERegressor(2, TOP_1, random_state=0).fit(*broken_line())
    gate = {
        f"gate {part}" for part in ("intercept[0]", "intercept[1]", "slope[0, 0]", "slope[1, 0]")
    }
    assert set(fit.not_identified_) == gate


def test_an_expert_never_selected_is_not_identified():
    """Slope ranking on features of one sign: the lowest slope is never among the best two."""
    X, y = broken_line()
    gate = TopKGate([0.1, 0.3, -0.2], [[5.0], [-2.0], [-9.0]], top_k=2, rank="slope")
    experts = LinearExperts([[2.0], [-4.0], [7.0]], [1.0, 3.0, -9.0], [0.2, 0.2, 0.2])
    fit = GaussianMoERegressor(
        3, TopKGate.template(top_k=2), init=GaussianMoE(gate, experts), n_rounds=0, gate_bound=30
    ).fit(X, y)  # bounded, or the gate between the two regimes becomes a step
    silent = int(fit.model_.gate_probs(torch.from_numpy(X)).sum(0).argmin())
    assert float(fit.model_.gate_probs(torch.from_numpy(X))[:, silent].max()) == 0
    assert {f"{name}[{silent}]" for name in ("gate intercept", "intercept", "scale")} | {
        f"{name}[{silent}, 0]" for name in ("gate slope", "slope")
    } == set(fit.not_identified_)


def test_an_identified_fit_reports_nothing():
    assert GaussianMoERegressor(2, random_state=0).fit(*two_regimes()).not_identified_ == ()

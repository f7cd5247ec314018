"""Maximum likelihood: EM, Newton, bounds, batches and starts, against independent routes."""

import math

import numpy as np
import pytest
import torch
from fit_cases import NATS, TOP_2, TRUTH, data, problem_of
from scipy.optimize import minimize

from kernels.gating import Layout
from moe_stats import (
    ActivationDenseToSparseGate,
    GaussianMoE,
    LinearExperts,
    SoftmaxGate,
    TopKGate,
    Uniform,
    fit_mle,
)
from moe_stats.fit import maximize
from moe_stats.fit import newton as newton_module
from moe_stats.fit.em import em, m_step, ridge_solve
from moe_stats.fit.maximize import EM_ROWS
from moe_stats.fit.newton import newton, standard_error_units
from moe_stats.fit.problem import Problem, make_feasible
from moe_stats.fit.starts import KINDS, draw_starts

BOUND = 1e-6
"""How far inside or outside a bound an optimum may lie."""

GRADIENT = 1e-6
"""Scaled gradient at which a fit has converged, the estimator's default."""

PARAMETERS = 1e-4
"""Two routes to one optimum, each parameter in its standard error."""

BATCH = 1e-8
"""Log-likelihood of a fit alone and in a batch, in nats. Sums are taken in another order, so
the runs differ by rounding (1e-16 times 1e3 nats, amplified by a few hundred iterations) and
stop at different points inside the tolerance, where the likelihood is flat to 1e-10 nats."""


def negative_log_likelihood(theta, x, y):
    """Softmax mixture of two in plain NumPy, D = 1: value and gradient."""
    b0, b1, a, b, log_scale = theta.reshape(2, 5).T[:, :, None]
    score, z = b0 + b1 * x, (y - a * x - b) / np.exp(log_scale)
    joint = score - 0.5 * z**2 - log_scale - 0.5 * np.log(2 * np.pi)
    top_s, top_j = score.max(0), joint.max(0)
    total_s, total_j = np.exp(score - top_s).sum(0), np.exp(joint - top_j).sum(0)
    g, r = np.exp(score - top_s) / total_s, np.exp(joint - top_j) / total_j
    value = (top_j + np.log(total_j) - top_s - np.log(total_s)).sum()
    t = r * z / np.exp(log_scale)
    parts = [(r - g), (r - g) * x, t * x, t, r * (z**2 - 1)]
    return -value, -np.stack([p.sum(1) for p in parts], 1).ravel()


def scaled_gradient(model, X, y):
    """By autograd on the model's own density, in complete-data standard errors."""
    gate = type(model.gate).template(**model.gate.options)
    theta = model.to_params().clone().requires_grad_()
    value = GaussianMoE.from_params(theta, gate, model.n_experts).log_prob(y, X).sum()
    (gradient,) = torch.autograd.grad(value, theta)
    problem = problem_of(X[None], y[None], model)
    at = problem.evaluate(theta.detach()[None], torch.tensor([0]), "information")
    return gradient, standard_error_units(at.information)[0]


def identified(params):
    """Parameters of a two-expert softmax model with the second gate at 0 and sorted slopes."""
    block = params.view(2, 5).clone()
    block[:, :2] -= block[1, :2].clone()
    if block[0, 1] < 0:
        block = block.flip(0)
        block[:, :2] -= block[1, :2].clone()
    return block.ravel()


def test_em_never_lowers_the_likelihood():
    X, y = data(TOP_2, low=-1)
    problem, rows = problem_of(X, y, TOP_2), torch.zeros(5, dtype=torch.long)
    rng = torch.Generator().manual_seed(0)
    params = TOP_2.to_params() + 0.8 * torch.randn(5, 15, generator=rng, dtype=torch.float64)
    last = problem.evaluate(params, rows, "value").value
    first = last.clone()
    for _ in range(60):
        step = em(problem, params, rows, tol=0.0, max_iter=1)
        assert bool((step.value >= last - 1e-12 * last.abs()).all())
        again = problem.evaluate(step.params, rows, "value").value
        assert torch.allclose(step.value, again, rtol=1e-12, atol=0)
        params, last = step.params, step.value
    assert bool((last > first + 10).all())


def test_fixed_points_of_em_are_newtons():
    """EM's step vanishes at Newton's optimum, and EM run long ends there. The control: a
    standard error away, EM's step is of the order of a standard error."""
    X, y = data()
    problem, rows = problem_of(X, y), torch.zeros(1, dtype=torch.long)
    top = newton(problem, TRUTH.to_params()[None], rows, tol=1e-9, max_iter=100)
    assert bool(top.converged.all())

    def step_size(params):
        at = problem.evaluate(params, rows, "information")
        units = standard_error_units(at.information)
        return max(float((units * change).abs().max()) for change in m_step(problem, params, at))

    at = problem.evaluate(top.params, rows, "information")
    units = standard_error_units(at.information)
    # a step is at most the gradient over the smallest scaled curvature, some 1e-3 in the gate
    assert step_size(top.params) < 1e-5
    away = torch.randn(10, generator=torch.Generator().manual_seed(0)).double() / units
    assert step_size(top.params + away) > 0.1

    run = em(problem, TRUTH.to_params()[None], rows, tol=1e-11, max_iter=5000)
    assert abs(float(run.value - top.value)) < NATS
    gap = (identified(run.params[0]) - identified(top.params[0])) * units[0]
    # EM stops where it gains 1e-11 an iteration: within sqrt(1e-11 / rate) standard errors
    assert float(gap.abs().max()) < 1e-3


@pytest.mark.parametrize(("truth", "low"), [(TRUTH, 0), (TOP_2, -1)])
def test_fit_ends_at_a_stationary_point(truth, low):
    X, y = data(truth, low=low)
    gate = type(truth.gate).template(**truth.gate.options)
    fit = fit_mle(X, y, n_experts=truth.n_experts, gate=gate, random_states=[0])
    gradient, units = scaled_gradient(fit.model[0], X[0], y[0])
    assert float((gradient / units).abs().max()) <= GRADIENT
    assert bool(fit.converged.all())
    assert float(fit.log_likelihood) == pytest.approx(
        float(fit.model.log_prob(y, X).sum()), rel=1e-12
    )
    assert float(fit.log_likelihood) >= float(truth.log_prob(y, X).sum())


@pytest.mark.parametrize("seed", range(5))
def test_optimum_is_that_of_scipy_from_the_same_start(seed):
    X, y = data(seed=seed)
    fit = fit_mle(X, y, n_experts=2, init=TRUTH, n_rounds=0, random_states=[0])
    run = minimize(
        negative_log_likelihood,
        TRUTH.to_params().numpy(),
        (X[0, :, 0].numpy(), y[0].numpy()),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-15, "gtol": 1e-8},
    )
    assert float(fit.log_likelihood) == pytest.approx(-run.fun, abs=NATS)
    _, units = scaled_gradient(fit.model[0], X[0], y[0])
    mine, theirs = identified(fit.model.to_params()[0]), identified(torch.from_numpy(run.x))
    # units are complete-data standard errors, the narrower ones, and L-BFGS-B is loose
    assert float(((mine - theirs) * units).abs().max()) < 100 * PARAMETERS


def test_scale_floor_holds_and_is_reported():
    X, y = data()
    fit = fit_mle(X, y, n_experts=2, min_scale=0.6, random_states=[0])
    assert bool(fit.converged.all())
    scale = fit.model.experts.scale[0]
    assert bool((scale >= 0.6 - BOUND).all())
    held = int(scale.argmin())  # of scales .55 and .63 the floor holds the first
    assert float(scale[held]) == pytest.approx(0.6, abs=BOUND)
    assert fit.active_bounds() == (f"scale[{held}] at its lower bound",)
    assert f"scale[{held}] at its lower bound" in fit.status()
    gradient, units = scaled_gradient(fit.model[0], X[0], y[0])
    place = Layout(2, 1, 2).scale_index(held)
    assert float(gradient[place] / units[place]) < -0.1  # a smaller scale would be likelier
    rest = torch.arange(10) != place
    assert float((gradient / units)[rest].abs().max()) <= GRADIENT


def test_gate_bound_holds_and_is_reported():
    """Truth's gate slopes differ by 25, more than a box of 5 allows in any translation."""
    X, y = data()
    fit = fit_mle(X, y, n_experts=2, gate_bound=5, random_states=[0])
    assert bool(fit.converged.all())
    own, _ = fit.model[0].gate.pack()
    assert float(own.abs().max()) <= 5 + BOUND
    steep = int(own[:, 1].argmax())
    assert fit.active_bounds()
    assert f"gate slope[{steep}, 0] at its upper bound" in fit.active_bounds()
    assert f"gate slope[{1 - steep}, 0] at its lower bound" in fit.active_bounds()
    gradient, units = scaled_gradient(fit.model[0], X[0], y[0])
    blocks = (gradient / units).view(2, 5)
    assert float(blocks[steep, 1]) > 0.1
    assert float(blocks[1 - steep, 1]) < -0.1
    assert float(blocks[:, 2:].abs().max()) <= GRADIENT
    free = fit_mle(X, y, n_experts=2, random_states=[0])
    assert float(free.log_likelihood) > float(fit.log_likelihood) + 1
    assert free.active_bounds() == ()
    wide = fit_mle(X, y, n_experts=2, gate_bound=500, random_states=[0])
    assert float(wide.log_likelihood) == pytest.approx(float(free.log_likelihood), abs=NATS)
    assert wide.active_bounds() == ()


def test_weight_floor_holds_and_satisfies_kkt():
    """Two experts made the data; a third must be given a fifth of the mass. At the optimum the
    gradient is minus a combination of the binding constraints' normals, multipliers > 0."""
    X, y = data(n=1000)
    fit = fit_mle(X, y, n_experts=3, min_weight=0.25, random_states=[0])
    model = fit.model[0]
    weights = model.gate_probs(X[0]).mean(0)
    assert float(weights.min()) >= 0.25 - BOUND
    binding = torch.nonzero(weights < 0.25 + 100 * BOUND).ravel().tolist()
    assert binding
    for e in binding:
        assert f"mean gate probability of expert {e} at min_weight=0.25" in fit.active_bounds()
        assert float(weights[e]) == pytest.approx(0.25, abs=BOUND)

    gradient, units = scaled_gradient(model, X[0], y[0])
    problem = problem_of(X, y, model, min_weight=0.25)
    tilt = torch.zeros(1, 3, dtype=torch.float64)
    _, jacobian, _ = problem.gate_means(model.to_params()[None], torch.tensor([0]), tilt)
    normals = (jacobian[0, binding] / units).mT
    multipliers = torch.linalg.lstsq(normals, -(gradient / units)[:, None]).solution[:, 0]
    residual = gradient / units + normals @ multipliers
    assert float(residual.abs().max()) < GRADIENT
    assert bool((multipliers > 0).all())
    free = fit_mle(X, y, n_experts=3, random_states=[0])
    assert float(free.log_likelihood) > float(fit.log_likelihood)


def test_weight_floor_that_does_not_bind_changes_nothing():
    X, y = data()
    free = fit_mle(X, y, n_experts=2, random_states=[0])
    share = float(free.model[0].gate_probs(X[0]).mean(0).min())
    fit = fit_mle(X, y, n_experts=2, min_weight=share / 2, random_states=[0])
    # the barrier may cost its final parameter, 1e-9 nats, an expert
    assert float(fit.log_likelihood) == pytest.approx(float(free.log_likelihood), abs=NATS)
    assert fit.active_bounds() == ()


@pytest.mark.parametrize(("truth", "low", "bounds"), [
    (TRUTH, 0, {}),
    (TRUTH, 0, {"min_weight": 0.2, "gate_bound": 10.0, "min_scale": 0.3}),
    (TOP_2, -1, {}),
])  # fmt: skip
def test_a_batch_is_its_single_fits(truth, low, bounds):
    X, y = data(truth, n=400, n_sets=4, low=low)
    gate = type(truth.gate).template(**truth.gate.options)
    options = {"n_experts": truth.n_experts, "gate": gate, "n_init": 4, **bounds}
    together = fit_mle(X, y, random_states=[3, 1, 4, 1], **options)
    for r, seed in enumerate([3, 1, 4, 1]):
        alone = fit_mle(X[r : r + 1], y[r : r + 1], random_states=[seed], **options)
        value = float(alone.log_likelihood)
        assert float(together.log_likelihood[r]) == pytest.approx(value, abs=BATCH)
        assert alone.active_bounds() == together.active_bounds(r)
        mine, theirs = together.model[r].mean(X[r]), alone.model[0].mean(X[r])
        assert torch.allclose(mine, theirs, rtol=0, atol=1e-4)


def test_same_seed_same_fit():
    X, y = data(TOP_2, low=-1)
    gate = TopKGate.template(top_k=2)
    fits = [fit_mle(X, y, n_experts=3, gate=gate, random_states=[s]) for s in (5, 5, 6)]
    assert torch.equal(fits[0].model.to_params(), fits[1].model.to_params())
    assert torch.equal(fits[0].restarts, fits[1].restarts)
    assert not torch.equal(fits[0].restarts, fits[2].restarts)


def test_more_starts_are_never_worse():
    """With the same seed the first starts are the same ones, so without moves the best of more
    can only be better (up to the preference for a converged run among equals, 1e-7 relative)."""
    X, y = data(n=300)
    last = -math.inf
    for n_init in (1, 2, 4, 8):
        fit = fit_mle(
            X,
            y,
            n_experts=3,
            n_init=n_init,
            n_rounds=0,
            quasi_newton=False,
            random_states=[2],
        )
        assert fit.restarts.shape == (1, n_init)
        value = float(fit.log_likelihood)
        assert value >= last - 1e-7 * (1 + abs(value))
        assert value == pytest.approx(float(fit.restarts.max()), rel=1e-7)
        last = value


def test_quasi_newton_is_never_below_scipy_from_the_same_starts():
    """Three experts for two: L-BFGS-B from raw starts finds maxima that EM and Newton miss, so
    without it some data set stays below (the control)."""
    X, y = data(n=500, n_sets=6)
    problem = Problem(
        X.mT.contiguous(),
        y,
        SoftmaxGate.form_of(),
        3,
        torch.full((6,), 0.05, dtype=torch.float64),
        gate_bound=100.0,
    )
    rngs = [np.random.default_rng(0)]
    starts = draw_starts(problem, SoftmaxGate, 4, tuple(KINDS), rngs)[0]

    def scipys(row):
        low, high = (bound[0].numpy() for bound in problem.bounds(torch.tensor([row])))

        def negative(theta):
            at = problem.evaluate(torch.from_numpy(theta)[None], torch.tensor([row]), "gradient")
            return -float(at.value), -at.gradient[0].numpy()

        options = {"gtol": 1e-6, "ftol": 0.0, "maxiter": 5_000, "maxfun": 10_000}
        bounds = list(zip(low, high, strict=True))
        return max(
            -minimize(
                negative,
                np.clip(start.numpy(), low, high),
                jac=True,
                method="L-BFGS-B",
                bounds=bounds,
                options=options,
            ).fun
            for start in starts
        )

    rival = torch.tensor([scipys(row) for row in range(6)], dtype=torch.float64)
    gains = {}
    for quasi_newton in (True, False):
        fit = fit_mle(
            X,
            y,
            n_experts=3,
            init=GaussianMoE.from_params(starts, SoftmaxGate.template(), 3),
            min_scale=0.05,
            gate_bound=100.0,
            n_rounds=0,
            quasi_newton=quasi_newton,
        )
        gains[quasi_newton] = fit.log_likelihood - rival
        assert fit.restarts.shape == (6, 8 if quasi_newton else 4)
    assert bool((gains[True] >= -1e-6).all())
    assert bool((gains[False] < -1e-2).any())


def test_many_rows_end_where_newton_from_the_truth_does():
    """Beyond `EM_ROWS` rows L-BFGS-B leads to the maximum and Newton ends the climb."""
    X, y = data(n=12_000)
    assert X.shape[1] > EM_ROWS
    fit = fit_mle(X, y, n_experts=2, n_init=3, n_rounds=0, random_states=[0])
    best = fit_mle(X, y, n_experts=2, init=TRUTH, n_rounds=0, random_states=[0])
    assert bool(fit.converged.all())
    assert float(fit.log_likelihood) == pytest.approx(float(best.log_likelihood), abs=NATS)


def test_a_subsample_leads_wandering_climbs_to_the_maximum_of_all_rows(monkeypatch):
    """From these two starts EM and Newton alone miss a GELU gate's maximum (the control)."""
    gate = ActivationDenseToSparseGate([-0.25, 0.0], [[5.0], [0.5]], 0.1, "gelu")
    truth = GaussianMoE(gate, LinearExperts([[-1.0], [1.0]], [4.0, -4.0], [0.3, 0.4]))
    X = Uniform(low=-3, high=3, n_features=1).sample(1_500, random_state=3)[None]
    y = truth.sample(X[0], random_state=4)[None]
    template = ActivationDenseToSparseGate.template(activation="gelu")
    options = {"n_init": 2, "n_rounds": 0, "gate_bound": 100.0, "min_scale": 0.05}

    def reached(**more):
        fit = fit_mle(X, y, n_experts=2, gate=template, random_states=[8], **options, **more)
        return float(fit.log_likelihood)

    best = float(fit_mle(X, y, n_experts=2, gate=template, init=truth).log_likelihood)
    monkeypatch.setattr(maximize, "EM_ROWS", 1_000)
    assert reached() == pytest.approx(best, abs=NATS)
    assert reached(quasi_newton=False) < best - 1


def test_bounded_weights_climb_rung_by_rung_to_the_maximum_of_all_rows(monkeypatch):
    X, y = data(n=2_100)
    options = {"n_experts": 2, "min_weight": 0.35, "n_init": 2, "n_rounds": 1}
    best = fit_mle(X, y, random_states=[0], **options)
    monkeypatch.setattr(maximize, "SEARCH_ROWS", 84)
    problem = problem_of(X, y, min_weight=0.35)
    assert [rung.n_observations for rung in maximize._rungs(problem)] == [420]
    fit = fit_mle(X, y, random_states=[0], **options)
    assert bool(fit.converged)
    assert len(fit.active_bounds()) == len(best.active_bounds()) == 1
    assert float(fit.log_likelihood) == pytest.approx(float(best.log_likelihood), abs=NATS)
    assert fit.restarts.shape == (1, 4)
    part = problem.subsample(420)  # the control: its maximum is another
    few = fit_mle(part.x.mT, part.y, random_states=[0], **options)
    assert float(few.model.log_prob(y, X).sum()) < float(best.log_likelihood) - 1


def three_for_two():
    X, y = data(n=400, seed=1)
    floor = torch.tensor([0.05], dtype=torch.float64)
    form = SoftmaxGate.template().form()
    return Problem(X.mT.contiguous(), y, form, 3, floor, min_weight=0.1, gate_bound=20.0)


def test_a_rough_climb_leaves_about_what_it_may():
    """The model's promise and the barrier of each of 3 weights: 4 times the gain."""
    problem, rows = three_for_two(), torch.zeros(8, dtype=torch.long)
    starts = draw_starts(problem, SoftmaxGate, 8, ("lines",), [np.random.default_rng(0)])[0]
    inside = make_feasible(problem, starts, rows)
    basin = em(problem, inside, rows, tol=1e-2, max_iter=60).params
    top = newton(problem, basin, rows, tol=GRADIENT, max_iter=300)
    rough = newton(problem, basin, rows, tol=GRADIENT, max_iter=300, gain=3e-3)
    rougher = newton(problem, basin, rows, tol=GRADIENT, max_iter=300, gain=0.1)
    assert bool(top.converged.all())
    assert bool((rough.value > top.value - 4 * 3e-3).all())
    assert int(rough.n_iter.sum()) < int(top.n_iter.sum())
    assert bool((rougher.value < top.value - 4 * 3e-3).any())


def test_a_rough_climb_does_not_end_on_a_saddle(monkeypatch):
    """One of two experts doubled: a gradient of nearly 0, and a direction that curves upwards."""
    problem, row = three_for_two(), torch.tensor([0])
    pair = fit_mle(problem.x.mT, problem.y, n_experts=2, random_states=[0]).model.to_params()
    start = pair.view(2, 5)[[0, 1, 1]]
    start[1:, 0] -= math.log(2)
    start[1:, 2:4] += torch.tensor([[1e-3], [-1e-3]], dtype=torch.float64)

    def reached(**more):
        run = newton(problem, start.ravel()[None], row, tol=GRADIENT, max_iter=300, **more)
        return float(run.value)

    top = reached()
    assert reached(gain=1e-2) > top - 4e-2
    monkeypatch.setattr(newton_module, "_UPWARD", math.inf)
    assert reached(gain=1e-2) < top - 1


def test_steps_towards_a_weight_that_will_bind_are_cut_not_refused(monkeypatch):
    problem, rows = three_for_two(), torch.zeros(8, dtype=torch.long)
    starts = draw_starts(problem, SoftmaxGate, 8, ("lines",), [np.random.default_rng(0)])[0]
    inside = make_feasible(problem, starts, rows)
    cut = newton(problem, inside, rows, tol=GRADIENT, max_iter=300)
    monkeypatch.setattr(newton_module, "_TO_THE_BOUND", math.inf)
    whole = newton(problem, inside, rows, tol=GRADIENT, max_iter=300)
    assert bool(cut.converged.all())
    assert int(cut.n_iter.sum()) < int(whole.n_iter.sum())


def test_moves_are_never_worse():
    X, y = data(n=300)
    values = [
        float(fit_mle(X, y, n_experts=3, n_init=2, n_rounds=r, random_states=[2]).log_likelihood)
        for r in (0, 1, 3)
    ]
    assert values == sorted(values)


def test_a_singular_matrix_in_a_batch_gives_no_step():
    """Rounding leaves such a matrix where a gate is a step function."""
    rounding = torch.full((2, 2), 1 + 1e-9, dtype=torch.float64).fill_diagonal_(1.0)
    right = torch.ones(2, 2, dtype=torch.float64)
    found = ridge_solve(torch.stack([rounding, torch.eye(2).double()]), right)
    assert found[0].tolist() == [0.0, 0.0]
    assert torch.allclose(found[1], right[1], rtol=1e-8)  # the ridge is 1e-9

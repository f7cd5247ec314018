"""Across the jumps of a top-K likelihood: partitions, lines and cells against other routes."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from kernels.gating import GateForm
from moe_stats import GaussianMoE, LinearExperts, TopKGate, Uniform, fit_mle
from moe_stats.fit import boundary, partition
from moe_stats.fit.annealing import annealed
from moe_stats.fit.boundary import improve, search
from moe_stats.fit.cells import climb_cell, ranks_are_affine, walls_touched
from moe_stats.fit.em import em
from moe_stats.fit.newton import newton, standard_error_units
from moe_stats.fit.partition import best_partition
from moe_stats.fit.problem import Problem, weights_hold
from moe_stats.fit.starts import draw_starts
from moe_stats.gates.softmax import affine, affine_gradient

SUMS = 1e-8
"""Log-likelihoods of one partition by cumulative sums and by least squares, in nats: 300 terms
of order 10 cancel to 1e-13, and Newton stops where the likelihood is flat to 1e-10."""

NATS = 1e-6
"""Two routes to one optimum; also what a certificate calls an improvement."""

BATCH = 1e-8
"""A model alone and in a batch, in nats: sums in another order, then a few Newton steps."""

TOP_1 = GaussianMoE(  # one expert at each x
    TopKGate([-8, 0], [[25], [0]], top_k=1, rank="logit"),
    LinearExperts([[-20], [20]], [15, -5], [math.sqrt(0.3), math.sqrt(0.4)]),
)
SIGNS = GaussianMoE(  # selections change at x = 0 only
    TopKGate([0.2, 0, -0.3], [[2], [0], [-2]], top_k=2, rank="slope"),
    LinearExperts([[3], [-2], [1]], [4, 0, -4], [0.4, 0.5, 0.45]),
)
PLANE = GaussianMoE(
    TopKGate([0.2, 0, -0.3], [[2, 0], [-1, 1.7], [-1, -1.7]], top_k=2, rank="slope"),
    LinearExperts([[3, 1], [-2, 2], [1, -3]], [4, 0, -4], [0.4, 0.5, 0.45]),
)
LOGIT = GaussianMoE(
    TopKGate([0.2, 0, -0.3], [[4], [0], [-4]], top_k=2, rank="logit"),
    LinearExperts([[3], [-2], [1]], [4, 0, -4], [0.4, 0.5, 0.45]),
)
FOUR = GaussianMoE(
    TopKGate([0.2, 0, -0.3, 0.1], [[3, 0], [0, 3], [-3, 0], [0, -3]], top_k=2, rank="logit"),
    LinearExperts([[3, 1], [-2, 2], [1, -3], [0, 2]], [4, 0, -4, 8], [0.4, 0.5, 0.45, 0.4]),
)


def problem_of(truth, n, n_sets=1, seed=0, low=-1, n_experts=None, min_scale=0.05, **bounds):
    rng = np.random.default_rng(seed)
    X = torch.stack([Uniform(low, 1, truth.n_features).sample(n, rng) for _ in range(n_sets)])
    y = truth.sample(X, rng)
    floor = torch.full((n_sets,), min_scale, dtype=torch.float64)
    experts = n_experts or truth.n_experts
    return Problem(X.mT.contiguous(), y, truth.gate.form, experts, floor, **bounds)


def rows_of(problem):
    return torch.arange(len(problem.x))


def improved(problem, params, rows=None):
    rows = rows_of(problem) if rows is None else rows
    return improve(problem, params, rows, tol=1e-6, max_iter=100)


def likelihood_of_run(x, y, floor):
    """Of the best line through a run of observations, by least squares."""
    design = np.c_[x, np.ones_like(x)] if x[0] != x[-1] else np.ones((len(x), 1))
    residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    scale = max(np.sqrt(np.mean(residual**2)), floor)
    return -np.sum(0.5 * (residual / scale) ** 2 + np.log(scale) + 0.5 * np.log(2 * np.pi))


def likelihoods_of_cuts(problem, row):
    """Two intervals: the likelihood of every cut in turn."""
    order = problem.x[row, 0].argsort().numpy()
    x, y = problem.x[row, 0].numpy()[order], problem.y[row].numpy()[order]
    floor = float(problem.min_scale[row])
    return np.array(
        [
            likelihood_of_run(x[:c], y[:c], floor) + likelihood_of_run(x[c:], y[c:], floor)
            for c in range(1, len(x))
        ]
    )


def likelihood_of_three(problem, row, least=1):
    """Three intervals: the best of every pair of cuts."""
    order = problem.x[row, 0].argsort().numpy()
    x, y = problem.x[row, 0].numpy()[order], problem.y[row].numpy()[order]
    floor, n = float(problem.min_scale[row]), len(x)
    may_cut = [c for c in range(1, n) if x[c - 1] < x[c]]
    run = {
        (i, j): likelihood_of_run(x[i:j], y[i:j], floor)
        for i in [0, *may_cut]
        for j in [*may_cut, n]
        if j - i >= least
    }
    none = -np.inf
    return max(
        run.get((0, i), none) + run.get((i, j), none) + run.get((j, n), none)
        for i in may_cut
        for j in may_cut
        if i < j
    )


def test_the_boundary_is_the_exhaustive_optimum_on_100_data_sets():
    problem = problem_of(TOP_1, 200, n_sets=100, seed=1, low=0)
    found = improved(problem, torch.zeros(100, problem.layout.size, dtype=torch.float64))
    assert found.converged.all()
    every = np.stack([likelihoods_of_cuts(problem, r) for r in range(100)])
    assert np.abs(found.value.numpy() - every.max(1)).max() < SUMS
    # control: a boundary one observation off would not pass on any data set
    assert np.diff(np.sort(every, axis=1))[:, -1].min() > SUMS


def test_three_intervals_are_the_exhaustive_optimum():
    problem = problem_of(TOP_1, 50, n_sets=5, seed=2, low=0, n_experts=3)
    problem.x[1].copy_((20 * problem.x[1]).round() / 20)  # ties, which no boundary can split
    found = improved(problem, torch.zeros(5, problem.layout.size, dtype=torch.float64))
    expected = [likelihood_of_three(problem, r) for r in range(5)]
    assert found.value.tolist() == pytest.approx(expected, abs=SUMS)
    assert (found.params[:, 4::5] >= math.log(0.05)).all()
    # control: two intervals fall short of three
    assert all(likelihoods_of_cuts(problem, r).max() < e - 0.1 for r, e in enumerate(expected))


def test_partitions_keep_to_min_weight_and_gate_bound():
    bounds = {"min_weight": 0.2, "gate_bound": 0.7}
    problem = problem_of(TOP_1, 50, n_sets=3, seed=3, low=0, n_experts=3, **bounds)
    found = best_partition(problem, rows_of(problem))
    values = problem.evaluate(found, rows_of(problem), "value").value
    expected = [likelihood_of_three(problem, r, least=11) for r in range(3)]
    assert values.tolist() == pytest.approx(expected, abs=SUMS)
    assert weights_hold(problem, found, rows_of(problem)).all()
    assert float(found.view(3, 3, 5)[:, :, :2].abs().max()) <= 0.7
    # control: without the bound on weights these data would be cut otherwise
    assert max(likelihood_of_three(problem, r) - e for r, e in enumerate(expected)) > 0.1


def test_cuts_sought_on_a_grid_end_where_the_full_search_does(monkeypatch):
    """Experts no narrower than the truth's, so that a short run cannot pay."""
    problem = problem_of(TOP_1, 400, n_sets=4, seed=4, low=0, n_experts=3, min_scale=0.5)
    rows = rows_of(problem)
    full = problem.evaluate(best_partition(problem, rows), rows, "value").value
    monkeypatch.setattr(partition, "MAX_POSITIONS", 40)
    coarse = problem.evaluate(best_partition(problem, rows), rows, "value").value
    assert (coarse <= full + SUMS).all()
    assert (coarse > full - 2.0).sum() >= 3  # nats; what no single cut can gain may be left
    monkeypatch.setattr(partition, "_move_cuts", lambda segments, cuts: cuts)
    control = problem.evaluate(best_partition(problem, rows), rows, "value").value
    assert (control < coarse - 1.0).any()


@pytest.mark.parametrize("truth", [PLANE, LOGIT, FOUR, TOP_1], ids=["plane", "logit", "four", "1"])
def test_jumps_along_a_line_are_those_of_a_selection_by_sorting(truth):
    """Gate weights and experts as at the start, experts selected by ranks anywhere on the line."""
    problem = problem_of(truth, 60, seed=5)
    layout, top_k = problem.layout, truth.gate.top_k
    theta = truth.to_params()[None]
    line = torch.zeros_like(theta)
    gate = layout.gate_indices()
    line[0, gate] = torch.from_numpy(np.random.default_rng(6).normal(size=len(gate)))
    times, jumps = boundary._changes(problem, theta, torch.tensor([0]), line)
    times, order = times[0].sort()
    jumps = jumps[0, order][torch.isfinite(times)]
    times = times[torch.isfinite(times)]

    X = problem.x[0].mT
    normal = torch.distributions.Normal(truth.experts.mean(X), truth.experts.scale)
    score = truth.gate.intercept + X @ truth.gate.slope.mT
    joint = score + normal.log_prob(problem.y[0][:, None])

    def likelihood(t):
        own = layout.split(theta + t * line)[0][0]
        rank = X @ own[:, 1:].mT + (own[:, 0] if truth.gate.rank == "logit" else 0)
        chosen = rank.topk(top_k, dim=1).indices
        return (joint.gather(1, chosen).logsumexp(1) - score.gather(1, chosen).logsumexp(1)).sum()

    between = (times[1:] + times[:-1]) / 2
    apart = torch.diff(times) > 1e-6 * (1 + between.abs())
    values = torch.stack([likelihood(t) for t in between])[apart]
    expected = (jumps.cumsum(0)[:-1])[apart]
    assert len(values) > 30
    assert torch.allclose(values - values[0], expected - expected[0], rtol=0, atol=SUMS)
    # control: as many jumps in another order
    wrong = (jumps.flip(0).cumsum(0)[:-1])[apart]
    assert not torch.allclose(values - values[0], wrong - wrong[0], rtol=0, atol=1.0)


def test_the_top_of_a_cell_is_what_slsqp_finds_under_its_walls():
    """Selections are written down at the start, here as a mask and as linear constraints."""
    problem, rows = problem_of(PLANE, 150, seed=7), torch.tensor([0])
    layout, start = problem.layout, PLANE.to_params()[None]
    X, y = problem.x[0].mT, problem.y[0]
    out = (X @ PLANE.gate.slope.mT).argmin(1)  # the one expert of three that is not selected
    walls = np.zeros((150, 3, 3, layout.width))  # selected expert, expert, parameter
    for n, silent in enumerate(out.tolist()):
        walls[n, :, silent, 1:3] = -X[n]
        for i in {0, 1, 2} - {silent}:
            walls[n, i, i, 1:3] = X[n]
        walls[n, silent] = 0
    walls = walls.reshape(450, -1)

    def negative(theta):
        theta = torch.from_numpy(theta).requires_grad_()
        own, slope, intercept, log_scale, _ = layout.split(theta)
        score = (own[:, 0] + X @ own[:, 1:].mT).scatter(1, out[:, None], -torch.inf)
        density = torch.distributions.Normal(X @ slope.mT + intercept, log_scale.exp())
        joint = score + density.log_prob(y[:, None])
        value = (score.logsumexp(1) - joint.logsumexp(1)).sum()
        return value.item(), torch.autograd.grad(value, theta)[0].numpy()

    reference = minimize(
        negative,
        start[0].numpy(),
        jac=True,
        method="SLSQP",
        constraints={"type": "ineq", "fun": lambda t: walls @ t, "jac": lambda t: walls},
        options={"ftol": 1e-12, "maxiter": 500},
    )
    found = climb_cell(problem, start, rows, tol=1e-6, max_iter=200)
    assert found.converged.all()
    assert float(found.value) == pytest.approx(-reference.fun, abs=NATS)
    gaps = walls[np.abs(walls).sum(1) > 0] @ found.params[0].numpy()
    assert gaps.min() > 0
    assert gaps.min() < 1e-8  # a wall holds it, or this test would show nothing of walls
    # from the cell's other end it meets walls that must be released again
    far = start.clone().view(3, layout.width)
    far[:, 1:3] *= 0.1
    far[:, 0] = torch.tensor([2.0, -1.0, 0.0])
    far[:, -1] += 1.0
    again = climb_cell(problem, far.view(1, -1), rows, tol=1e-6, max_iter=200)
    assert float(again.value) == pytest.approx(-reference.fun, abs=NATS)
    # control: Newton from the same start stops below, or in another cell
    stopped = newton(problem, start, rows, tol=1e-6, max_iter=200)
    left = (walls @ stopped.params[0].numpy()).min() < 0
    assert left or float(stopped.value) < float(found.value) - NATS


@pytest.mark.parametrize("truth", [PLANE, LOGIT], ids=["plane", "logit"])
def test_improvement_is_certified_and_does_not_depend_on_the_batch(truth):
    problem = problem_of(truth, 300, n_sets=3, seed=8)
    start = truth.to_params().repeat(3, 1)
    climbed = newton(problem, start, rows_of(problem), tol=1e-6, max_iter=100)
    found = improved(problem, climbed.params)
    assert found.converged.all()
    assert (found.value >= climbed.value - NATS).all()
    for r in range(3):
        alone = improved(problem, climbed.params[r : r + 1], torch.tensor([r]))
        assert float(alone.value) == pytest.approx(float(found.value[r]), abs=BATCH)
        after = search(problem, found.params[r : r + 1], torch.tensor([r]))
        assert after.value - float(found.value[r]) <= NATS
        assert "changes of selection" in after.searched
    # control: where Newton stopped, the same search finds better
    before = [search(problem, climbed.params[r : r + 1], torch.tensor([r])).value for r in range(3)]
    assert max(b - float(v) for b, v in zip(before, climbed.value, strict=True)) > NATS


def test_experts_that_swap_at_zero_are_put_right():
    """With one feature and slope ranking two observations stand for all."""
    problem = problem_of(SIGNS, 300, seed=9)
    truth = SIGNS.to_params()[None]
    wrong = truth.clone()
    wrong[0, 6] = 3.0  # expert 1 steeper than expert 0: another one is silent on each side
    rows = torch.tensor([0])
    found = search(problem, wrong, rows)
    assert found.value > float(problem.evaluate(wrong, rows, "value").value) + 100
    assert "every change of selection" in found.searched
    right, reached = improved(problem, truth), improved(problem, wrong)
    assert float(reached.value) == pytest.approx(float(right.value), abs=NATS)
    assert search(problem, right.params, rows).value <= float(right.value) + NATS


@pytest.mark.slow
def test_no_restart_does_better():
    """Eight starts and the search against the best of 60 starts, climbed without it."""
    problem = problem_of(PLANE, 500, n_sets=3, seed=10)

    def climbed(n_init):
        rngs = [np.random.default_rng(r) for r in range(3)]
        starts = draw_starts(problem, TopKGate, n_init, ("kmeans", "lines"), rngs)
        rows = rows_of(problem).repeat_interleave(n_init)
        basin = em(problem, starts.flatten(0, 1), rows, tol=1e-2, max_iter=60).params
        top = newton(problem, basin, rows, tol=1e-6, max_iter=100)
        best = top.value.view(3, n_init).max(1)
        return top.params.view(3, n_init, -1)[rows_of(problem), best.indices], best.values

    few, many = climbed(8), climbed(60)
    assert (improved(problem, few[0]).value > many[1] - 1e-3).all()
    assert not (few[1] > many[1] - 1e-3).all()  # control


def test_annealed_starts_lead_past_wrong_selections():
    """Experts in the wrong halves: EM under the selection keeps them there, dense EM does not."""
    problem = problem_of(LOGIT, 400, n_sets=4, seed=11)
    start = LOGIT.to_params().repeat(4, 1)
    layout, rows = problem.layout, rows_of(problem)
    wrong = start.clone()
    for e, f in ((0, 2), (2, 0)):
        own = slice(e * layout.width, e * layout.width + layout.n_own)
        other = slice(f * layout.width, f * layout.width + layout.n_own)
        wrong[:, own] = start[:, other]
    kept = em(problem, wrong, rows, tol=1e-1, max_iter=100)
    freed = em(problem, annealed(problem, wrong, rows), rows, tol=1e-1, max_iter=100)
    truth = problem.evaluate(start, rows, "value").value
    assert (kept.value < truth - 50).all()  # control
    assert (freed.value > kept.value + 50).all()


def bent(own, shared, x):
    return own[0] + torch.tanh(own[1] * x[0])


def heated(own, shared, x):
    return (own[0] + own[1] * x[0]) / shared[0]


@pytest.mark.parametrize(("rank", "n_shared"), [(bent, 0), (heated, 1)])
def test_a_rank_that_is_not_affine_is_refused(rank, n_shared):
    form = GateForm(affine, affine_gradient, rank=rank, top_k=1, n_shared=n_shared)
    x = torch.linspace(-1, 1, 50, dtype=torch.float64).view(1, 1, -1)
    floor = torch.full((1,), 0.1, dtype=torch.float64)
    problem = Problem(x, x[:, 0], form, 2, floor)
    theta = torch.zeros(1, problem.layout.size, dtype=torch.float64)
    for run in (
        lambda: improved(problem, theta),
        lambda: search(problem, theta, torch.tensor([0])),
    ):
        with pytest.raises(ValueError, match=rf"rank is affine.*'{rank.__name__}', which is not"):
            run()
    for truth in (TOP_1, PLANE, LOGIT):  # and the built-in ranks are not
        assert ranks_are_affine(truth.gate.form, torch.ones(1, truth.n_features, 5).double())


@pytest.mark.parametrize("truth", [PLANE, LOGIT], ids=["plane", "logit"])
def test_walls_hold_what_gradient_a_fit_has_left(truth):
    """At the fit the gradient is a combination of the walls it touches, each pushed outward, up to
    the tolerance of 1e-6 in each of 15 or 21 coordinates. The control: alone it is not 0."""
    rng = np.random.default_rng(0)
    X = Uniform(-1, 1, truth.n_features).sample(400, rng)[None]
    options = {"n_rounds": 0, "min_scale": 0.05, "gate_bound": 20.0, "random_states": [0]}
    fit = fit_mle(X, truth.sample(X, rng), n_experts=3, gate=truth.gate, **options)
    theta, rows = fit.model.to_params(), torch.tensor([0])
    at = fit._problem.evaluate(theta, rows, "information")
    units = standard_error_units(at.information)
    normals, gradient = walls_touched(fit._problem, theta, rows) / units, (at.gradient / units)[0]
    push = torch.linalg.lstsq(normals.mT, gradient.unsqueeze(-1)).solution.squeeze(-1)
    assert float(gradient.abs().max()) > 0.1
    assert (push < 0).all()
    assert float((gradient - push @ normals).norm()) < 1e-6 * len(gradient) ** 0.5
    assert fit.stationarity().is_local_maximum

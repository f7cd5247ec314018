"""Selection boundaries: closed forms in one, two and three features, counting, invariances."""

import math

import pytest
import torch
from scipy.stats import norm

from moe_stats import GaussianMoE, LinearExperts, Normal, SoftmaxGate, TopKGate, Uniform
from moe_stats.gates import GateTemplate
from theory.boundaries import boundary_deviation, has_boundaries, selection_distance

ROUNDING = 1e-13
"""Probabilities summed from some hundred pieces of the unit interval, each rounded to 1e-16."""

FALSE_ALARM = 1e-5
"""Probability with which a random check may fail on correct code."""


def top_k(intercept, slope, top_k=1, rank="slope"):
    """A model with such a gate and experts that name themselves."""
    slope = torch.as_tensor(slope, dtype=torch.float64)
    intercept = torch.as_tensor(intercept, dtype=torch.float64)
    n_experts, n_features = slope.shape[-2:]
    level = torch.arange(n_experts, dtype=torch.float64).expand(intercept.shape)
    experts = LinearExperts(torch.zeros_like(slope), 10 * level, torch.ones_like(level))
    assert experts.n_features == n_features
    return GaussianMoE(TopKGate(intercept, slope, top_k=top_k, rank=rank), experts)


def turned(angle, n_features=2):
    """Two experts whose boundary is turned by an angle in the plane of the last two features."""
    slope = torch.zeros(2, n_features, dtype=torch.float64)
    slope[0, -2], slope[0, -1] = math.cos(angle), math.sin(angle)
    return top_k([0.0, 0.0], slope)


def moved(model, size, seed, n_models):
    """A batch with every parameter of the model moved at random."""
    rng = torch.Generator().manual_seed(seed)
    params = model.to_params().repeat(n_models, 1)
    params[:] += size * torch.randn(params.shape, generator=rng, dtype=params.dtype)
    template = GateTemplate(type(model.gate), model.gate.options)
    return GaussianMoE.from_params(params, template, model.n_experts)


PLANE = top_k([0.2, 0, -0.3], [[2, 0], [-1, 1.7], [-1, -1.7]], top_k=2)
FOUR = top_k([0.2, 0, -0.3, 0.1], [[3, 0], [0, 3], [-3, 0], [0, -3]], top_k=2, rank="logit")


@pytest.mark.parametrize("shift", [0.3, 1e-3, 1e-9])
def test_one_boundary_on_the_line(shift):
    truth = top_k([0.4, 0.0], [[-2.0], [0.0]], rank="logit")  # at x = .2
    fit = top_k([0.4 + 2 * shift, 0.0], [[-2.0], [0.0]], rank="logit")
    found = selection_distance(fit, truth, Uniform(-1, 3))
    assert float(found.value) == pytest.approx(shift / 4, abs=ROUNDING)
    assert float(found.error) == 0


def test_a_window_narrower_than_any_grid():
    """Expert 1 leads on (.2, .2 + 2e-7) only, in the fit; a boundary elsewhere is off by .01."""
    slope = [[-10.0], [0.0], [10.0]]
    truth = top_k([0.0, -100.0, 0.0], slope, rank="logit")
    fit = top_k([2.0, 1e-6, -2.0], slope, rank="logit")
    found = selection_distance(fit, truth, Uniform(-1, 1), cells=torch.tensor([0, 1, 2]))
    assert float(found.value) == pytest.approx((0.2 + 1e-7) / 2, abs=ROUNDING)


@pytest.mark.parametrize("angle", [0.4, 0.01, 1e-8])
def test_a_turned_boundary_in_the_plane(angle):
    """Two triangles of height 1 in [-1, 1]^2; of heights 1 and 1/2 in [-1/2, 1]^2."""
    truth, fit = turned(0.0), turned(angle)
    wedge = math.tan(angle)
    square = selection_distance(fit, truth, Uniform(-1, 1, 2)).value
    assert float(square) == pytest.approx(wedge / 4, rel=1e-6, abs=ROUNDING)
    corner = selection_distance(fit, truth, Uniform(-0.5, 1, 2)).value
    assert float(corner) == pytest.approx(wedge * (1 + 0.25) / 2 / 2.25, rel=1e-6, abs=ROUNDING)


@pytest.mark.parametrize("angle", [0.3, 1e-8])
def test_three_features_have_a_small_relative_error(angle):
    """Null: the average over lines is right; z is refused with probability `FALSE_ALARM`."""
    found = selection_distance(turned(angle, 3), turned(0.0, 3), Uniform(-1, 1, 3), random_state=1)
    value, error = float(found.value), float(found.error)
    assert 0 < error < 0.05 * value
    assert abs(value - math.tan(angle) / 4) < norm.isf(FALSE_ALARM / 2) * error


@pytest.mark.parametrize("truth", [PLANE, FOUR], ids=["slope", "logit"])
def test_counting_agrees(truth):
    """Null: the share of 100,000 points selected differently is binomial about the value."""
    law, n, fits = Uniform(-0.7, 1, 2), 100_000, moved(truth, 0.1, 0, 4)
    cells = torch.arange(truth.n_experts).expand(4, -1)
    value = selection_distance(fits, truth, law, cells=cells).value
    X = law.sample(n, 2)
    differ = ((fits.gate_probs(X) > 0) != (truth.gate_probs(X) > 0)).any(-1)
    spread = (value * (1 - value) / n).sqrt()
    z = (differ.double().mean(-1) - value) / spread
    assert bool((z.abs() < norm.isf(FALSE_ALARM / 8)).all())
    assert bool((value > 0.005).all())
    wrong = (differ.double().mean(-1) - 1.2 * value) / spread
    assert bool((wrong.abs() > norm.isf(FALSE_ALARM / 8)).all())  # control: the test has power


def test_names_and_translations_of_experts_do_not_matter():
    fit = moved(PLANE, 0.05, 3, 1)[0]
    first = selection_distance(fit, PLANE, Uniform(-1, 1, 2))
    shuffle = [2, 0, 1]
    gate, experts = fit.gate, fit.experts
    other = GaussianMoE(
        TopKGate(gate.intercept[shuffle] + 1, gate.slope[shuffle] + 0.5, top_k=2),
        LinearExperts(experts.slope[shuffle], experts.intercept[shuffle], experts.scale[shuffle]),
    )
    again = selection_distance(other, PLANE, Uniform(-1, 1, 2))
    assert float(again.value) == pytest.approx(float(first.value), abs=ROUNDING)
    deviation, same = boundary_deviation(fit, PLANE), boundary_deviation(other, PLANE)
    assert float(same.direction) == pytest.approx(float(deviation.direction), abs=ROUNDING)
    # control: with the wrong names selections differ almost everywhere
    wrong = selection_distance(other, PLANE, Uniform(-1, 1, 2), cells=torch.tensor([0, 1, 2]))
    assert float(wrong.value) > 0.5


def test_stretching_moves_no_boundary_and_turning_changes_no_length():
    gate = PLANE.gate
    stretched = top_k(gate.intercept, 1.3 * gate.slope, top_k=2)
    found = boundary_deviation(stretched, PLANE)
    assert float(found.length) == pytest.approx(0.3, abs=ROUNDING)
    assert float(found.direction) < ROUNDING
    assert float(selection_distance(stretched, PLANE, Uniform(-1, 1, 2)).value) < ROUNDING

    angle = 1e-7
    rotation = torch.tensor(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]],
        dtype=torch.float64,
    )
    rotated = top_k(gate.intercept, gate.slope @ rotation, top_k=2)
    found = boundary_deviation(rotated, PLANE)
    assert float(found.direction) == pytest.approx(angle, rel=1e-6)
    assert float(found.length) < ROUNDING
    assert float(selection_distance(rotated, PLANE, Uniform(-1, 1, 2)).value) > angle / 10


def test_only_pairs_that_tie_for_the_last_place_count():
    """An expert amid the others never leads, but with two selected it comes second."""
    slope = [[2, 0], [-1, 1.7], [-1, -1.7], [0.1, 0.05]]
    one, two = (top_k([0.0] * 4, slope, top_k=k) for k in (1, 2))
    assert boundary_deviation(one, one).pairs == ((0, 1), (0, 2), (1, 2))
    assert set(boundary_deviation(two, two).pairs) == {(0, 3), (1, 3), (2, 3)}
    other = torch.tensor(slope, dtype=torch.float64)
    other[3] = torch.tensor([0.0, 0.2])
    fit = top_k([0.0] * 4, other, top_k=1)
    assert float(boundary_deviation(fit, one).direction) < ROUNDING
    assert float(boundary_deviation(top_k([0.0] * 4, other, top_k=2), two).direction) > 0.01


def test_experts_that_are_not_one_to_one_give_nan():
    fits = moved(PLANE, 0.01, 4, 2)
    cells = torch.tensor([[0, 1, 2], [0, 1, 1]])
    distance = selection_distance(fits, PLANE, Uniform(-1, 1, 2), cells=cells).value
    deviation = boundary_deviation(fits, PLANE, cells=cells)
    for value in (distance, deviation.direction, deviation.length):
        assert value.isnan().tolist() == [False, True]
    more = top_k([0.0] * 4, [[2, 0], [-1, 1.7], [-1, -1.7], [0.1, 0]], top_k=2)
    assert bool(selection_distance(more, PLANE, Uniform(-1, 1, 2)).value.isnan())
    assert bool(boundary_deviation(more, PLANE).direction.isnan())


def test_where_parameters_move_boundaries():
    assert has_boundaries(PLANE)
    assert has_boundaries(top_k([0.0, 1.0], [[1.0], [0.0]], rank="logit"))
    assert not has_boundaries(top_k([0.0, 1.0], [[1.0], [0.0]]))  # at x = 0, wherever slopes are
    assert not has_boundaries(top_k([0.0, 1.0], [[1.0, 1.0], [0.0, 0.0]], top_k=2))
    line = top_k([0.0, 1.0], [[1.0], [0.0]])
    soft = GaussianMoE(SoftmaxGate([0.0, 1.0], [[1.0], [0.0]]), line.experts)
    assert not has_boundaries(soft)


def test_bad_input_is_named():
    line = top_k([0.0, 1.0], [[1.0], [0.0]])
    with pytest.raises(ValueError, match=r"'design' .* Uniform or a Grid; got Normal"):
        selection_distance(PLANE, PLANE, Normal(n_features=2))
    with pytest.raises(ValueError, match=r"'truth' .* single model; got batch shape"):
        selection_distance(PLANE, moved(PLANE, 0.1, 5, 2), Uniform(-1, 1, 2))
    soft = GaussianMoE(SoftmaxGate([0.0, 1.0], [[1.0], [0.0]]), line.experts)
    with pytest.raises(ValueError, match=r"'model' .* TopKGate; got SoftmaxGate"):
        selection_distance(soft, line, Uniform(-1, 1))
    with pytest.raises(ValueError, match=r"'truth' .* at least 2 features; got rank='slope'"):
        boundary_deviation(line, line)

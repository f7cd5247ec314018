"""Hellinger and total variation distances against closed forms, identities and each other."""

import math

import numpy as np
import pytest
import torch

from moe_stats import GaussianMoE, LinearExperts, Normal, SoftmaxGate, TopKGate, Uniform
from theory.distances import hellinger, total_variation
from theory.selection import changes

FALSE_ALARM = 1e-5
"""Probability that a correct Monte Carlo average fails its test."""

BEYOND = 4.42
"""The normal quantile of 1 - FALSE_ALARM / 2."""


def array(*values):
    return np.array(values, dtype=float)


def topk_truth():
    return GaussianMoE(
        TopKGate(array(0.2, 0, -0.3), array([2], [0], [-2]), top_k=2, rank="slope"),
        LinearExperts(array([3], [-2], [1]), array(4, 0, -4), array(0.4, 0.5, 0.45)),
    )


def sharp_truth():
    return GaussianMoE(
        SoftmaxGate(array(-8, 0), array([25], [0])),
        LinearExperts(array([-20], [20]), array(15, -5), array(0.3, 0.4) ** 0.5),
    )


def shifted(model, size, seed=0, batch=()):
    """The model with every parameter moved by ``size`` times a fixed random direction."""
    rng = np.random.default_rng(seed)

    def move(x):
        return x + size * torch.from_numpy(rng.normal(size=(*batch, *x.shape)))

    own, shared = model.gate.pack()
    e = model.experts
    gate = model.gate.from_parameters(move(own), shared, **model.gate.options)
    scale = torch.exp(move(torch.log(e.scale)))
    return GaussianMoE(gate, LinearExperts(move(e.slope), move(e.intercept), scale))


def one_expert(slope, intercept, scale, n_experts=1):
    """Identical experts: whatever the gate, a single Gaussian."""
    ones = np.ones(n_experts)
    gate = SoftmaxGate(np.linspace(0, 1, n_experts), np.linspace(-3, 2, n_experts)[:, None])
    return GaussianMoE(gate, LinearExperts(slope * ones[:, None], intercept * ones, scale * ones))


@pytest.mark.parametrize("n_experts", [1, 3])
@pytest.mark.parametrize(
    ("gap", "scales"), [(0.3, (0.7, 0.7)), (1e-6, (0.7, 0.7)), (2.0, (0.2, 1.5))]
)
def test_single_gaussians_have_closed_forms(n_experts, gap, scales):
    s, t = scales
    p, q = one_expert(1.3, 0.0, s, n_experts), one_expert(1.3, gap, t)
    if s == t:
        h = math.sqrt(-math.expm1(-((gap / s) ** 2) / 8))
        v = math.erf(gap / s / math.sqrt(8))
        found = total_variation(p, q, Uniform(-1, 2))
        assert float(found.value) == pytest.approx(v, rel=2e-3)
    else:
        affinity = math.sqrt(2 * s * t / (s**2 + t**2)) * math.exp(-(gap**2) / (4 * (s**2 + t**2)))
        h = math.sqrt(1 - affinity)
    found = hellinger(p, q, Uniform(-1, 2))
    assert float(found.value) == pytest.approx(h, rel=1e-6)
    assert found.method == "quadrature"


def test_it_is_the_average_of_h_and_not_the_root_of_the_average_of_its_square():
    p, q = one_expert(0.0, 0.0, 0.5), one_expert(0.4, 0.0, 0.5)
    x = np.linspace(0, 1, 20001)
    h = np.sqrt(-np.expm1(-((0.4 * x / 0.5) ** 2) / 8))
    found = hellinger(p, q, Uniform(0, 1))
    assert float(found.value) == pytest.approx(np.trapezoid(h, x), rel=1e-6)
    assert abs(float(found.value) - np.sqrt(np.trapezoid(h**2, x))) > 0.01  # control


@pytest.mark.parametrize("truth", [topk_truth(), sharp_truth()], ids=["topk", "sharp"])
def test_identities(truth):
    design = Uniform(-1, 1)
    assert float(hellinger(truth, truth, design).value) == 0
    assert float(total_variation(truth, truth, design).value) == 0
    for size in (1e-3, 0.1, 0.5):
        other = shifted(truth, size)
        h, v = hellinger(truth, other, design), total_variation(truth, other, design)
        back = hellinger(other, truth, design)
        assert float(back.value) == pytest.approx(float(h.value), rel=1e-12)
        assert (
            0
            < float(h.value) ** 2
            <= float(v.value)
            <= math.sqrt(2) * float(h.value)
            <= math.sqrt(2)
        )


@pytest.mark.parametrize("truth", [topk_truth(), sharp_truth()], ids=["topk", "sharp"])
def test_the_distance_is_linear_in_small_perturbations(truth):
    sizes = (1e-4, 1e-5, 1e-6, 1e-7)
    h = [float(hellinger(shifted(truth, d), truth, Uniform(0, 1)).value) / d for d in sizes]
    assert h == pytest.approx([h[1]] * 4, rel=2e-3)


@pytest.mark.parametrize("design", [Uniform(0, 1), Normal(0.3, 0.5)], ids=["uniform", "normal"])
@pytest.mark.parametrize("size", [1e-3, 0.05, 0.5])
def test_the_stated_error_is_of_the_size_of_the_error(design, size):
    for truth in (topk_truth(), sharp_truth()):
        other = shifted(truth, size)
        found = hellinger(other, truth, design)
        fine = hellinger(other, truth, design, n_nodes=400)
        off = abs(float(found.value - fine.value))
        assert off <= 3 * float(found.error) + 1e-9
        assert off <= 1e-3 * float(fine.value)


def test_permuted_experts_are_at_distance_zero():
    truth = topk_truth()
    own, shared = truth.gate.pack()
    pick, e = [2, 0, 1], truth.experts
    gate = truth.gate.from_parameters(own[pick], shared, **truth.gate.options)
    same = GaussianMoE(gate, LinearExperts(e.slope[pick], e.intercept[pick], e.scale[pick]))
    assert float(hellinger(same, truth, Uniform(-1, 1)).value) < 1e-12


def test_a_batch_equals_a_loop():
    truth = topk_truth()
    batch = shifted(truth, 0.2, batch=(5,))
    both = hellinger(batch, truth, Uniform(-1, 1))
    assert both.value.shape == both.error.shape == (5,)
    each = [float(hellinger(batch[r], truth, Uniform(-1, 1)).value) for r in range(5)]
    assert both.value.tolist() == pytest.approx(each, rel=1e-6)
    swapped = hellinger(truth, batch, Uniform(-1, 1)).value
    assert swapped.tolist() == pytest.approx(both.value.tolist(), rel=1e-12)


def step(boundary, sharpness=1.0):
    """Two experts, one selected on each side of a boundary."""
    gate = TopKGate(array(0, -sharpness * boundary), array([0], [sharpness]), top_k=1, rank="logit")
    return GaussianMoE(gate, LinearExperts(array([1], [1]), array(-9, 9), array(0.5, 0.5)))


def test_a_boundary_that_is_off_by_d_costs_d():
    """Where the selections differ the densities have no overlap: h = 1 there, 0 elsewhere."""
    for d in (1e-2, 1e-4, 1e-6):
        found = hellinger(step(0.3), step(0.3 + d, 7.0), Uniform(0, 1))
        assert float(found.value) == pytest.approx(d, rel=1e-6)
        assert float(total_variation(step(0.3), step(0.3 + d), Uniform(0, 1)).value) == (
            pytest.approx(d, rel=1e-6)
        )


def test_boundaries_are_found_even_two_between_grid_points():
    gate = TopKGate(
        array(0, -0.3, -0.6006), array([0], [1], [2]), top_k=1, rank="logit"
    )  # 1 to 2 at .3, 2 to 3 at .3006
    ((sets, leads),) = changes(gate, 0.0, 1.0)
    assert sets == pytest.approx([0.3, 0.3006], abs=1e-12)
    assert leads == []
    ((sets, leads),) = changes(sharp_truth().gate, 0.0, 1.0)
    assert sets == []
    assert leads == pytest.approx([8 / 25], abs=1e-9)
    ((sets, _),) = changes(topk_truth().gate, -1.0, 1.0)
    assert sets == pytest.approx([0.0], abs=1e-12)


@pytest.mark.parametrize("kind", [hellinger, total_variation])
def test_monte_carlo_agrees_with_quadrature(kind):
    """Null: the average over 4,000 draws of X is unbiased. Statistic: its distance from quadrature
    in standard errors. False alarms: 1e-5 by the normal law."""
    truth = topk_truth()
    other = shifted(truth, 0.3)
    exact = kind(other, truth, Uniform(-1, 1))
    drawn = kind(other, truth, Uniform(-1, 1), method="monte_carlo", n_nodes=4000, random_state=0)
    assert drawn.method == "monte_carlo"
    assert abs(float(drawn.value - exact.value)) <= BEYOND * float(drawn.error)
    # control: another design is told apart
    wrong = kind(other, truth, Uniform(0, 1)).value
    assert abs(float(drawn.value - wrong)) > BEYOND * float(drawn.error)


def test_two_features_of_which_one_does_nothing_are_as_one():
    """Null: as above, the second feature having no influence; false alarms 1e-5."""

    def widened(model):
        own, shared = model.gate.pack()
        gate = model.gate.from_parameters(
            torch.cat([own, torch.zeros_like(own[:, :1])], -1), shared, **model.gate.options
        )
        e = model.experts
        slope = torch.cat([e.slope, torch.zeros_like(e.slope)], -1)
        return GaussianMoE(gate, LinearExperts(slope, e.intercept, e.scale))

    truth = topk_truth()
    other = shifted(truth, 0.1)
    exact = hellinger(other, truth, Uniform(-1, 1)).value
    drawn = hellinger(widened(other), widened(truth), Uniform(-1, 1, n_features=2), random_state=1)
    assert abs(float(drawn.value - exact)) <= BEYOND * float(drawn.error)


def test_single_precision_models_are_computed_in_double():
    truth = topk_truth()
    own, shared = truth.gate.pack()
    e = truth.experts
    single = GaussianMoE(
        truth.gate.from_parameters(own.float(), shared.float(), **truth.gate.options),
        LinearExperts(e.slope.float(), e.intercept.float(), e.scale.float()),
    )
    found = hellinger(single, truth, Uniform(-1, 1)).value
    assert found.dtype == torch.float64
    assert 0 < float(found) < 1e-6


def test_bad_arguments_are_refused():
    truth = topk_truth()
    batch = shifted(truth, 0.1, batch=(2,))
    with pytest.raises(ValueError, match="number of features"):
        hellinger(truth, truth, Uniform(-1, 1, n_features=2))
    with pytest.raises(ValueError, match="At most one"):
        hellinger(batch, batch, Uniform(-1, 1))
    with pytest.raises(ValueError, match="'method' parameter"):
        hellinger(truth, truth, Uniform(-1, 1), method="exact")
    with pytest.raises(ValueError, match="'n_nodes' parameter"):
        hellinger(truth, truth, Uniform(-1, 1), n_nodes=1)

"""The attainable distance against known figures, its own bounds, and negative controls."""

import math

import numpy as np
import pytest
import torch

from moe_stats import GaussianMoE, LinearExperts, SoftmaxGate, TopKGate, Uniform
from theory.attainable import ATTAINED, attainable_distance
from theory.closest import Family, Target
from theory.distances import hellinger

BY_CONSTRUCTION = 1e-8
"""E_X h of a model that is the truth written differently."""


def array(*values):
    return np.array(values, dtype=float)


TOPK = GaussianMoE(
    TopKGate(array(0.2, 0, -0.3), array([2], [0], [-2]), top_k=2, rank="slope"),
    LinearExperts(array([3], [-2], [1]), array(4, 0, -4), array(0.4, 0.5, 0.45)),
)
SOFTMAX = GaussianMoE(
    SoftmaxGate(array(-8, 0), array([25], [0])),
    LinearExperts(array([-20], [20]), array(15, -5), array(0.3, 0.4) ** 0.5),
)
BOTH_SIGNS = Uniform(-1, 1)


def top(k):
    return TopKGate.template(top_k=k, rank="slope")


@pytest.mark.parametrize("n_experts", [2, 3, 4])
def test_a_softmax_truth_is_attained_with_experts_to_spare(n_experts):
    found = attainable_distance(
        SOFTMAX, Uniform(0, 1), n_experts=n_experts, gate=SoftmaxGate.template()
    )
    assert found.near < BY_CONSTRUCTION
    assert found.everywhere < BY_CONSTRUCTION
    assert all(s.copies < BY_CONSTRUCTION for s in found.splits)
    assert sorted(set(found.near_cells)) == [0, 1]


def test_splitting_the_always_selected_expert_attains_the_truth_and_splitting_another_does_not():
    """h = 4e-17 splitting the expert that is selected everywhere, .078 another."""
    found = attainable_distance(TOPK, BOTH_SIGNS, n_experts=4, gate=top(3))
    copies = {s.cells: s.copies for s in found.splits}
    assert copies[0, 1, 1, 2] < BY_CONSTRUCTION
    assert copies[0, 0, 1, 2] == pytest.approx(0.078, abs=5e-4)
    assert copies[0, 1, 2, 2] > 0.05
    assert found.near_cells == (0, 1, 1, 2)
    assert "is attained" in found.sentence


def test_the_exact_family_attains_the_truth():
    found = attainable_distance(TOPK, BOTH_SIGNS, n_experts=3, gate=top(2))
    assert found.near == found.everywhere < BY_CONSTRUCTION


def test_fewer_experts_than_the_truth_have_no_neighbourhood():
    found = attainable_distance(
        SOFTMAX, Uniform(0, 1), n_experts=1, gate=SoftmaxGate.template(), n_starts=1
    )
    assert math.isnan(found.near)
    assert found.near_model is None
    assert found.everywhere > 0.3
    # two routes: a single Gaussian linear in x, by grid, does no better
    x = np.linspace(0, 1, 6)
    tried = [
        float(hellinger(_line(b - a, a, s), SOFTMAX, Uniform(0, 1)).value)
        for a in 15 * x
        for b in 15 * x
        for s in (0.6, 2.0, 5.0)
    ]
    assert found.everywhere <= min(tried) + 1e-6


def _line(slope, intercept, scale):
    return GaussianMoE(
        SoftmaxGate(array(0), array([0])),
        LinearExperts(array([slope]), array(intercept), array(scale)),
    )


@pytest.mark.slow
def test_one_selected_expert_levels_off():
    """At least .39 for atoms at the true experts."""
    found = attainable_distance(TOPK, BOTH_SIGNS, n_experts=4, gate=top(1))
    assert found.near >= 0.38
    assert all(s.copies >= 0.39 for s in found.splits)
    assert found.everywhere <= found.near
    assert "not attained" in found.sentence


@pytest.mark.slow
def test_too_few_selected_attain_the_truth_far_away_but_not_near():
    """K <= K' < bound: near G* the infimum stays away from 0, as a duplicate of the expert that is
    always selected, with the whole of its mass, does not."""
    found = attainable_distance(TOPK, BOTH_SIGNS, n_experts=4, gate=top(2))
    assert 0.03 < found.near <= 0.0985
    assert found.everywhere < ATTAINED
    nearer = attainable_distance(
        TOPK, BOTH_SIGNS, n_experts=4, gate=top(2), radius=0.02, everywhere=False
    )
    assert nearer.near > found.near
    assert math.isnan(nearer.everywhere)
    # what is claimed of the minimiser holds
    model = found.near_model
    again = hellinger(model, TOPK, BOTH_SIGNS)
    assert float(again.value) == pytest.approx(found.near, rel=1e-6)
    pick = list(found.near_cells)
    for ours, theirs in (
        (model.gate.slope, TOPK.gate.slope),
        (model.experts.slope, TOPK.experts.slope),
        (model.experts.intercept, TOPK.experts.intercept),
        (model.experts.scale.log(), TOPK.experts.scale.log()),
    ):
        assert float((ours - theirs[pick]).abs().max()) <= 0.1 + 1e-9
    for j in range(3):
        mass = torch.logsumexp(model.gate.intercept[[i for i, c in enumerate(pick) if c == j]], 0)
        assert abs(float(mass - TOPK.gate.intercept[j])) <= 0.1 * 1.002


@pytest.mark.slow
def test_searched_values_respect_bounds():
    two = GaussianMoE(
        TopKGate(array(0, 0), array([2], [-1]), top_k=1, rank="slope"),
        LinearExperts(array([3], [-2]), array(4, 0), array(0.4, 0.5)),
    )
    found = attainable_distance(
        two,
        BOTH_SIGNS,
        n_experts=3,
        gate=top(2),
        min_weight=0.1,
        gate_bound=3.0,
        min_scale=0.35,
        n_starts=1,
    )
    assert 0 < found.everywhere <= found.near <= min(s.copies for s in found.splits)
    for model in (found.near_model, found.everywhere_model):
        X, weights = BOTH_SIGNS.quadrature(200, [0.0])
        mean = weights @ model.gate_probs(X)
        assert float(mean[mean > 0].min()) >= 0.0995
        own, _ = model.gate.pack()
        assert float(own.abs().max()) <= 3.0
        assert float(model.experts.scale.min()) >= 0.35 - 1e-12
    # control: a wider gate comes closer, as it switches off the unwanted expert
    wider = attainable_distance(
        two, BOTH_SIGNS, n_experts=3, gate=top(2), gate_bound=100.0, n_starts=1, near=False
    )
    assert wider.everywhere < found.everywhere


def test_the_searched_objective_is_the_distance_and_its_gradient_is_right():
    family = Family(top(3), 4, 1, 0.0, math.inf, 1e-3)
    target = Target(TOPK, BOTH_SIGNS, family, 0)
    rng = np.random.default_rng(0)
    model = GaussianMoE(
        TopKGate(array(0.1, 0.2, 0, -0.4), array([2.2], [1.7], [0.1], [-2.1]), top_k=3),
        LinearExperts(
            array([2.9], [3.1], [-2], [1]), array(4, 4.1, 0, -4), array(0.4, 0.5, 0.5, 0.4)
        ),
    )
    params = model.to_params()
    X, weights = target.nodes(params.numpy())
    squared, _ = target.squared(params[None], X)
    by_search = float(squared[0].sqrt() @ weights)
    assert by_search == pytest.approx(float(hellinger(model, TOPK, BOTH_SIGNS).value), rel=1e-3)

    leaf = params.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(target.squared(leaf[None], X)[0][0] @ weights, leaf)
    direction = torch.from_numpy(rng.normal(size=params.shape))
    step = 1e-5
    ahead, behind = (
        float(target.squared((params + s * direction)[None], X)[0][0] @ weights)
        for s in (step, -step)
    )
    assert float(gradient @ direction) == pytest.approx((ahead - behind) / (2 * step), rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_weight": 0.5}, "'min_weight' parameter"),
        ({"gate": TopKGate.template(top_k=4)}, "'top_k'"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    arguments = {"n_experts": 3, "gate": top(2), **options}
    with pytest.raises(ValueError, match=message):
        attainable_distance(TOPK, BOTH_SIGNS, **arguments)


def test_a_gate_bound_counts_up_to_translation():
    found = attainable_distance(
        SOFTMAX, Uniform(0, 1), n_experts=2, gate=SoftmaxGate.template(), gate_bound=13.0
    )
    assert found.near < BY_CONSTRUCTION
    # control: slopes that differ by 25 do not fit in
    tight = attainable_distance(
        SOFTMAX,
        Uniform(0, 1),
        n_experts=2,
        gate=SoftmaxGate.template(),
        gate_bound=10.0,
        everywhere=False,
    )
    assert not tight.near < ATTAINED


def test_a_batch_of_truths_is_refused():
    params = TOPK.to_params().repeat(2, 1)
    batch = GaussianMoE.from_params(params, top(2), 3)
    with pytest.raises(ValueError, match="single model"):
        attainable_distance(batch, BOTH_SIGNS, n_experts=3, gate=top(2))

"""Voronoi losses against explicit loops, brute force over translations, and their invariances."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from moe_stats import GaussianMoE, LinearExperts, MixingMeasure, SoftmaxGate, TopKGate
from theory.identified import identified_gate
from theory.voronoi import ORDERS, voronoi_loss

EXACT = 1e-10
"""Agreement asked of two ways to the same number, float64."""

SEARCHED = 1e-8
"""How much a search over translations in two or more dimensions may miss brute force by."""


def random_model(rng, n_experts, n_features=1, batch=(), top_k=None, rank="slope"):
    shape = (*batch, n_experts)
    b0, b1 = rng.normal(size=shape), rng.normal(size=(*shape, n_features))
    a, b = rng.normal(size=(*shape, n_features)), rng.normal(size=shape)
    gate = SoftmaxGate(b0, b1) if top_k is None else TopKGate(b0, b1, top_k=top_k, rank=rank)
    return GaussianMoE(gate, LinearExperts(a, b, np.exp(0.3 * rng.normal(size=shape))))


def perturbed(rng, model, size, extra=0):
    """The model with deviations of a given size, and copies of its first expert."""
    m = model.mixing_measure()
    pick = [*range(m.n_atoms), *[0] * extra]
    noisy = {
        q: (v[pick] + size * torch.from_numpy(rng.normal(size=v[pick].shape)))
        for q, v in m.atoms.items()
    }
    log_weight = m.log_weight[pick] + size * torch.from_numpy(rng.normal(size=len(pick)))
    return MixingMeasure(log_weight, noisy, m.translates)


def loss_at(fit, truth, order, n_largest, shift):
    """The definition in loops at one translation of the gate slopes, least over the masses."""
    true_mass = np.exp(truth.log_weight.numpy())
    true_mass = true_mass / true_mass.sum()
    mass = np.exp(fit.log_weight.numpy())
    n_fit, n_true, parts = len(mass), len(true_mass), list(truth.atoms)
    gap = np.zeros((n_fit, n_true, len(parts)))
    for i in range(n_fit):
        for j in range(n_true):
            for q, part in enumerate(parts):
                d = fit.atoms[part][i].numpy() - truth.atoms[part][j].numpy()
                gap[i, j, q] = np.linalg.norm(d + shift if part == "gate_slope" else d)
    cell = (gap**2).sum(-1).argmin(1)
    spread, total = np.zeros(n_true), np.zeros(n_true)
    for i, j in enumerate(cell):
        m = int((cell == j).sum())
        powers = [1.0 if m == 1 else ORDERS[order][part](m) for part in parts]
        spread[j] += mass[i] * sum(gap[i, j, q] ** p for q, p in enumerate(powers))
        total[j] += mass[i]

    def value(c):
        return np.sort(c * spread + abs(c * total - true_mass))[-n_largest:].sum()

    kinks = true_mass[total > 0] / total[total > 0]
    low, high = kinks.min(), kinks.max()
    a, b, ratio = low, high, (5**0.5 - 1) / 2
    for _ in range(80):  # convex in c
        left, right = b - ratio * (b - a), a + ratio * (b - a)
        a, b = (a, right) if value(left) < value(right) else (left, b)
    return min(value((a + b) / 2), value(low), value(high))


def brute_force(fit, truth, order, n_largest, rng):
    dim = truth.atoms["gate_slope"].shape[-1]

    def f(shift):
        return loss_at(fit, truth, order, n_largest, np.atleast_1d(shift))

    if dim == 1:
        points = list(np.linspace(-7, 7, 400)[:, None])
    else:
        points = [2 * rng.normal(size=dim) for _ in range(20)]
        points += list(
            (truth.atoms["gate_slope"][:, None] - fit.atoms["gate_slope"]).reshape(-1, dim).numpy()
        )
    points = sorted(points, key=f)[:4]
    ends = [
        minimize(f, p, method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-12}).fun
        for p in points
    ]
    return min(ends)


@pytest.mark.parametrize("top_k", [None, 2, 1])
@pytest.mark.parametrize("seed", range(3))
def test_far_models_with_one_feature_match_brute_force(seed, top_k):
    rng = np.random.default_rng(seed)
    truth = random_model(rng, 3)
    fit = random_model(rng, 3 + seed % 2)
    order = ["D1", "D2", "sharp"][seed % 3]
    loss = voronoi_loss(fit, truth, order=order, top_k=top_k)
    reached = brute_force(fit.mixing_measure(), truth.mixing_measure(), order, top_k or 3, rng)
    assert float(loss.value) <= reached + EXACT
    assert float(loss.value) >= reached - 1e-6  # the infimum may lie on the edge of a cell


@pytest.mark.parametrize("top_k", [None, 2])
@pytest.mark.parametrize("order", ["D1", "D2"])
@pytest.mark.parametrize("n_features", [2, 3])
def test_models_with_more_features_match_brute_force(n_features, order, top_k):
    rng = np.random.default_rng(n_features)
    truth = random_model(rng, 3, n_features, top_k=top_k)
    fit = perturbed(rng, truth, 0.3, extra=order == "D2")
    loss = voronoi_loss(fit, truth, order=order)
    reached = brute_force(fit, truth.mixing_measure(), order, top_k or 3, rng)
    assert float(loss.value) <= reached + SEARCHED
    at_its_own = loss_at(
        fit, truth.mixing_measure(), order, top_k or 3, loss.translation["gate_slope"].numpy()
    )
    assert at_its_own == pytest.approx(float(loss.value), abs=1e-6)


@pytest.mark.parametrize(("n_features", "top_k"), [(1, None), (1, 2), (2, None), (8, 2)])
@pytest.mark.parametrize("order", ["D1", "D2"])
def test_zero_at_the_truth_and_unchanged_by_order_and_translation(n_features, top_k, order):
    rng = np.random.default_rng(5)
    truth = random_model(rng, 3, n_features, top_k=top_k)
    fit = perturbed(rng, truth, 0.1, extra=1)
    assert float(voronoi_loss(truth, truth, order=order).value) < EXACT

    def moved(model):
        m = model.mixing_measure() if isinstance(model, GaussianMoE) else model
        pick = rng.permutation(m.n_atoms)
        shift = torch.from_numpy(rng.normal(size=n_features))
        atoms = {q: v[pick] + (shift if q == "gate_slope" else 0) for q, v in m.atoms.items()}
        return MixingMeasure(m.log_weight[pick] + rng.normal(), atoms, m.translates)

    options = {"order": order, "top_k": top_k}
    loss = voronoi_loss(fit, truth, **options)
    again = voronoi_loss(moved(fit), moved(truth), **options)
    tolerance = EXACT if n_features == 1 else 1e-8  # Newton steps end within 1e-9
    assert float(again.value) == pytest.approx(float(loss.value), abs=tolerance)
    for key in loss.weighted:
        assert float(again.weighted[key]) == pytest.approx(
            float(loss.weighted[key]), abs=1e-6, nan_ok=True
        )
    # control: moving one atom only is no translation
    lone = moved(truth)
    lone.atoms["gate_slope"][0] += 0.05
    assert float(voronoi_loss(lone, truth, **options).value) > 1e-3


def test_values_computed_by_hand():
    truth = GaussianMoE(
        SoftmaxGate(np.log([3.0, 1.0]), [[2.0], [0.0]]),
        LinearExperts([[1.0], [-3.0]], [0.0, 5.0], np.array([0.5, 0.8])),
    )
    # true masses 3/4 and 1/4; fitted masses .4 + .35 and .25; the first atom is split
    fit = MixingMeasure(
        torch.log(torch.tensor([0.4, 0.35, 0.25], dtype=torch.float64)),
        {
            "gate_slope": torch.tensor([[2.0], [2.0], [0.0]], dtype=torch.float64),
            "slope": torch.tensor([[1.1], [1.0], [-3.0]], dtype=torch.float64),
            "intercept": torch.tensor([[0.2], [-0.2], [5.0]], dtype=torch.float64),
            "variance": torch.tensor([[0.25], [0.16], [0.65]], dtype=torch.float64),
        },
        ("log_weight", "gate_slope"),
    )
    d1 = 0.4 * (0.1 + 0.2) + 0.35 * (0.2 + 0.09) + 0.25 * 0.01
    d2 = 0.4 * (0.1**2 + 0.2**4) + 0.35 * (0.2**4 + 0.09**2) + 0.25 * 0.01
    assert float(voronoi_loss(fit, truth, order="D1").value) == pytest.approx(d1, abs=EXACT)
    loss = voronoi_loss(fit, truth, order="D2")
    assert float(loss.value) == pytest.approx(d2, abs=EXACT)
    row = loss.as_row()
    assert (row["cell_sizes"], row["n_single"], row["n_multi"], row["n_empty"]) == ("2,1", 1, 1, 0)
    assert row["intercept_multi_weighted"] == pytest.approx(0.15, abs=EXACT)
    assert row["intercept_multi_largest"] == pytest.approx(0.2, abs=EXACT)
    assert row["variance_single_largest"] == pytest.approx(0.01, abs=EXACT)
    assert row["mass_multi_weighted"] == pytest.approx(0, abs=EXACT)
    assert loss.cells.tolist() == [0, 0, 1]
    # top-1: the larger of the two cells
    top = voronoi_loss(fit, truth, order="D1", top_k=1)
    assert float(top.value) < d1 - 0.25 * 0.01 + EXACT
    assert "sum w|d|" in loss.summary()


def test_an_empty_cell_costs_its_mass():
    rng = np.random.default_rng(0)
    truth = random_model(rng, 3)
    m = truth.mixing_measure()
    fit = MixingMeasure(
        m.log_weight[[0, 1]], {q: v[[0, 1]] for q, v in m.atoms.items()}, m.translates
    )
    loss = voronoi_loss(fit, truth)
    share = float(torch.softmax(m.log_weight, 0)[2])
    assert float(loss.value) == pytest.approx(share, abs=EXACT)
    assert loss.as_row()["n_empty"] == 1


@pytest.mark.parametrize(("n_features", "top_k"), [(1, None), (1, 2), (2, 2)])
def test_a_batch_equals_a_loop(n_features, top_k):
    rng = np.random.default_rng(1)
    truth = random_model(rng, 3, n_features, top_k=top_k)
    batch = random_model(rng, 4, n_features, batch=(2, 3), top_k=top_k)
    loss = voronoi_loss(batch, truth)
    assert loss.value.shape == (2, 3)
    assert loss.cells.shape == (2, 3, 4)
    assert len(loss.table()) == 6
    for index in np.ndindex(2, 3):
        one = voronoi_loss(batch[index], truth)
        assert float(one.value) == pytest.approx(float(loss.value[index]), abs=1e-8)
        if n_features == 1:
            for key in one.largest:
                assert float(one.largest[key]) == pytest.approx(
                    float(loss.largest[key][index]), abs=1e-8, nan_ok=True
                )


def test_d2_sees_a_split_atom_as_closer_than_d1_does():
    truth = random_model(np.random.default_rng(3), 2)
    fit = perturbed(np.random.default_rng(4), truth, 0.05, extra=1)
    d1, d2 = (float(voronoi_loss(fit, truth, order=order).value) for order in ("D1", "D2"))
    assert d2 < d1
    exact = perturbed(np.random.default_rng(4), truth, 0.05)
    same = [float(voronoi_loss(exact, truth, order=order).value) for order in ORDERS]
    assert same == pytest.approx([same[0]] * 3, abs=EXACT)


def test_anchor_keeps_a_single_atom_free_of_what_a_multi_atom_cell_gets_wrong():
    truth = GaussianMoE(
        SoftmaxGate([-8.0, 0.0], [[25.0], [0.0]]),
        LinearExperts([[-20.0], [20.0]], [15.0, -5.0], [0.5, 0.6]),
    )
    m = truth.mixing_measure()
    pick = [0, 1, 1]
    atoms = {q: v[pick].clone() for q, v in m.atoms.items()}
    atoms["gate_slope"] += torch.tensor([[0.0], [0.4], [-0.1]], dtype=torch.float64)
    fit = MixingMeasure(torch.tensor([-8.0, -1.4, -0.3], dtype=torch.float64), atoms, m.translates)
    anchored = voronoi_loss(fit, truth).as_row()
    blurred = voronoi_loss(fit, truth, anchor="infimum").as_row()
    assert np.isnan(anchored["gate_slope_single_largest"])  # 0 by the choice of translation
    assert anchored["gate_slope_multi_largest"] == pytest.approx(0.4, abs=EXACT)
    assert blurred["gate_slope_single_largest"] > 0.01
    assert anchored["voronoi_loss"] == blurred["voronoi_loss"]


def test_what_is_not_identified_is_said_and_not_compared():
    rng = np.random.default_rng(6)
    truth = random_model(rng, 2, top_k=1, rank="logit")
    m = truth.mixing_measure()
    other = MixingMeasure(
        m.log_weight * 3 + 1, {**m.atoms, "gate_slope": 5 * m.atoms["gate_slope"]}, m.translates
    )
    loss = voronoi_loss(other, truth)
    assert float(loss.value) < EXACT
    assert loss.compared == ("slope", "intercept", "variance")
    assert "not compared" in loss.not_identified
    assert "gate_slope_single_largest" not in loss.as_row()
    # control: asked to compare, it does
    assert float(voronoi_loss(other, truth, compare=["mass", "gate_slope"]).value) > 0.01
    # slope ranking, one feature: {1, 2} speak for x > 0 and {3, 4} for x < 0, no link between them
    four = GaussianMoE(
        TopKGate([0.0] * 4, [[2.0], [1.0], [-1.0], [-2.0]], top_k=2),
        LinearExperts([[1.0]] * 4, [0.0, 1.0, 2.0, 3.0], [1.0] * 4),
    )
    groups, sentence = identified_gate(four)
    assert groups == ()
    assert "{1, 2}, {3, 4}" in sentence
    three = random_model(rng, 3, top_k=2)
    assert identified_gate(three) == (("mass", "gate_slope"), "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "D3"}, "'order' parameter"),
        ({"top_k": 4}, "'top_k' parameter"),
        ({"compare": ["scale"]}, "'compare' parameter"),
        ({"anchor": "last"}, "'anchor' parameter"),
        ({"order": {"slope": lambda m: 1.0}}, "has no power"),
    ],
)
def test_bad_options_are_refused(options, message):
    truth = random_model(np.random.default_rng(0), 2)
    with pytest.raises(ValueError, match=message):
        voronoi_loss(truth, truth, **options)


def test_bad_models_are_refused():
    rng = np.random.default_rng(0)
    truth = random_model(rng, 2)
    with pytest.raises(ValueError, match="same parts"):
        voronoi_loss(random_model(rng, 2, 2), truth)
    with pytest.raises(ValueError, match="single model"):
        voronoi_loss(truth, random_model(rng, 2, batch=(3,)))
    with pytest.raises(ValueError, match="one model"):
        voronoi_loss(random_model(rng, 2, batch=(3,)), truth).as_row()

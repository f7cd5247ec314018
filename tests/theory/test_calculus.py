"""Relations between derivatives of u: known ones proved, all found, none where none is."""

import json
import math

import pytest
import sympy as sp
import torch
from mpmath import mp

from moe_stats import gates
from theory.activations import ACTIVATIONS
from theory.calculus import atom, find_relations, interactions, relation
from theory.calculus.atoms import DEGREES

HEAT = "d2u/db^2 = 2 du/ds"
RAY = [
    "du/dtau = -(b1/tau) du/db1",
    "d2u/dtau ds = -(b1/tau) d2u/db1 ds",
    "d2u/dtau db = -(b1/tau) d2u/db1 db",
    "d2u/dtau da = -(b1/tau) d2u/db1 da",
    "d2u/dtau db1 = -(1/tau) du/db1 - (b1/tau) d2u/db1^2",
    "d2u/dtau^2 = (2*b1/tau^2) du/db1 + (b1^2/tau^2) d2u/db1^2",
]
NAMED = ["sigmoid", "tanh", "gelu", "silu"]
SLOW = pytest.mark.slow
APART = 1e-8
"""Independent derivatives are 1e-6 or more from the span of others, dependent ones 1e-60."""


def found(gate, **options):
    """Relations as text, after checking that all are proved and the gap is beyond doubt."""
    search = find_relations(gate, **options)
    assert search.proved
    assert search.nearest > APART
    assert search.largest_null < 1e-50
    return [str(r) for r in search.relations]


def holds(of, left, right):
    return relation(of, left, right).proved


@pytest.mark.parametrize("n_features", [1, 2])
@pytest.mark.parametrize("gate", ["softmax", "topk", "dense-to-sparse", "sigmoid", "laplace"])
def test_interactions_are_proved(gate, n_features):
    every = interactions(gate, n_features=n_features)
    assert HEAT in map(str, every)
    assert all(r.proved for r in every)


@pytest.mark.parametrize("activation", [*ACTIVATIONS, sp.Function("psi")])
def test_interactions_of_activations_are_proved(activation):
    every = interactions("activation", activation=activation)
    assert all(r.proved for r in every)
    rays = [r for r in every if r.left == ("tau",)]
    assert len(rays) == (activation in DEGREES)


@pytest.mark.parametrize("activation", [*ACTIVATIONS, sp.Function("psi")])
def test_the_gates_interactions_fail_behind_an_activation(activation):
    of = atom("activation", activation=activation)
    linear, degree = activation == "identity", DEGREES.get(str(activation))
    assert holds(of, ("b1", "b"), {("a",): "1/tau"}) is linear
    assert holds(of, ("tau",), {("b1",): "-b1/tau"}) is (degree == 1)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (("b", "b"), {("s",): 1}),
        (("b1", "b"), {("a",): 2}),
        (("b1", "b1"), {(): 1}),
        (("b1",), {}),
    ],
)
def test_wrong_relations_are_not_proved(left, right):
    assert not holds(atom("softmax"), left, right)


def test_the_heat_relation_is_the_gaussians():
    heat, interaction = interactions("softmax", expert="logistic")
    assert not heat.proved
    assert interaction.proved  # needs a location a'x + b only


@pytest.mark.parametrize("gate", ["softmax", "topk"])
def test_search_rediscovers_the_softmax_interactions(gate):
    assert found(gate) == [HEAT, "d2u/da db = 2 d2u/db1 ds", "d2u/db1 db = du/da"]


def test_search_rediscovers_the_temperatures_interactions():
    straight = [HEAT, "d2u/da db = 2*tau d2u/db1 ds", "d2u/db1 db = (1/tau) du/da"]
    ray = [*RAY]
    ray[2] = "d2u/dtau db = -(b1/tau^2) du/da"
    assert found("dense-to-sparse") == [*straight, *ray]
    assert found("activation", activation="identity") == [*straight, *ray]


@pytest.mark.parametrize("activation", NAMED)
def test_activations_leave_the_heat_relation_alone(activation):
    assert found("activation", activation=activation) == [HEAT]


@pytest.mark.parametrize(
    "activation",
    ["relu", pytest.param("leaky_relu", marks=SLOW), pytest.param("abs", marks=SLOW)],
)
def test_homogeneous_activations_keep_the_ray(activation):
    assert found("activation", activation=activation) == [HEAT, *RAY]


def test_an_activation_of_ones_own():
    assert found("activation", activation=sp.atan) == [HEAT]
    assert len(found("activation", activation=lambda z: 3 * z)) == 9


def test_several_features_leave_a_symmetry_behind_every_activation():
    psi = interactions("activation", activation=sp.Function("psi"), n_features=3)
    assert len(psi) == 1 + 3
    assert all(r.proved for r in psi)


@pytest.mark.slow
def test_with_several_features_the_search_finds_what_gates_of_one_have_not():
    symmetry = "d2u/db1_1 da_2 = d2u/db1_2 da_1"
    assert found("activation", activation="tanh", n_features=2) == [HEAT, symmetry]
    rotation = "d2u/db1_1 da_2 = b1_2 d2u/db1_1 db - b1_1 d2u/db1_2 db + d2u/db1_2 da_1"
    assert found("laplace", n_features=2) == [HEAT, rotation]


def test_intercepts_add_what_a_factor_adds():
    search = find_relations("activation", activation="sigmoid", intercept=True)
    assert search.proved
    assert [str(r) for r in search.relations if "b0" not in r.parameters] == [HEAT]
    assert len(search.involving("b0")) == 7  # u/tau, and its derivatives in s, b, a, b1, b0, tau


def test_the_intercept_inside_a_sigmoid_gate_interacts():
    assert found("sigmoid") == [HEAT]
    assert found("sigmoid", intercept=True) == [HEAT, "d2u/db0 da = d2u/db1 db"]


def test_the_laplace_gate_as_published_has_a_relation_with_one_feature_only():
    assert found("laplace") == [HEAT, "d2u/db1^2 = u"]
    assert found("laplace", softened=True) == [HEAT]
    assert not holds(atom("laplace", n_features=2), ("b1_1", "b1_1"), {(): 1, ("b1_2", "b1_2"): -1})


@pytest.mark.parametrize("activation", NAMED)
def test_search_finds_nothing_where_nothing_is(activation):
    assert found("activation", activation=activation, expert="logistic") == []


def test_search_at_first_order():
    assert found("softmax", order=1) == []
    assert found("dense-to-sparse", order=1) == ["du/dtau = -(b1/tau) du/db1"]


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=SLOW), pytest.param(3, marks=SLOW)])
def test_other_points_find_the_same(seed):
    assert found("laplace", random_state=seed) == found("laplace")
    assert found("activation", activation="silu", random_state=seed) == [HEAT]


@pytest.mark.slow
def test_temperature_with_several_features_and_an_intercept():
    assert len(found("dense-to-sparse", n_features=2)) == 14
    assert len(found("dense-to-sparse", intercept=True)) == 16


def test_results_are_plain_json_with_a_sentence():
    search = find_relations("activation", activation="gelu")
    table = json.loads(json.dumps(search.as_dict()))
    assert table["relations"][0]["relation"] == HEAT
    assert table["proved"] is True
    assert "1 relations among 21 derivatives up to order 2: " + HEAT in search.status


GATE_FORMS = [
    ("softmax", {}, gates.SoftmaxGate.form_of()),
    ("dense-to-sparse", {}, gates.DenseToSparseGate.form_of()),
    ("sigmoid", {}, gates.SigmoidGate.form_of()),
    ("laplace", {}, gates.LaplaceGate.form_of()),
    ("laplace", {"softened": True}, gates.LaplaceGate.form_of(softening=0.3)),
    *(
        ("activation", {"activation": a}, gates.ActivationDenseToSparseGate.form_of(activation=a))
        for a in gates.ACTIVATIONS
    ),
]


@pytest.mark.parametrize(("gate", "options", "form"), GATE_FORMS)
@pytest.mark.parametrize("x", [[0.7, -0.4], [-1.1, 0.2]])
def test_atoms_are_the_librarys_gates_with_gaussian_experts(gate, options, form, x):
    of = atom(gate, n_features=2, intercept=True, **options)
    values = {"s": 0.49, "b": 0.3, "a_1": -1.0, "a_2": 0.4, "b1_1": 1.3, "b1_2": -0.6, "b0": 0.25}
    values |= {"tau": 0.8, "delta": 0.3}
    own = [values[p] * torch.ones(1, dtype=torch.float64) for p in ("b0", "b1_1", "b1_2")]
    shared = [torch.tensor([0.8], dtype=torch.float64).log()]
    features = [torch.tensor([v], dtype=torch.float64) for v in x]
    mean, scale = values["b"] - x[0] + 0.4 * x[1], 0.7
    log_density = -(((1.2 - mean) / scale) ** 2) / 2 - math.log(scale)
    expected = form.score(own, shared, features) + log_density
    at = {s: values[n] for n, s in {**of.parameters, **of.constants}.items()}
    at |= {**dict(zip(of.features, x, strict=True)), of.response: 1.2}
    (log_u,) = (b.log_u.subs(at) for b in of.branches if b.where.subs(at) == sp.true)
    assert abs(float(log_u) - float(expected)) < 1e-12  # rounding of ten terms of order 1


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_are_those_of_the_independence_report(activation):
    of = atom("activation", activation=activation)
    tau, (x,) = of.parameters["tau"], of.features
    for z in (-1.3, 0.9):
        at = {of.parameters["b1"]: 1, x: z}
        (branch,) = (b for b in of.branches if b.where.subs(at) == sp.true)
        psi = -(tau**2) * of.ratio(branch, ("tau",))
        assert abs(float(psi.subs(at)) - float(ACTIVATIONS[activation][0](mp.mpf(z)))) < 1e-14


@pytest.mark.parametrize(
    ("gate", "options", "words"),
    [
        ("soft", {}, "'gate' parameter must be one of"),
        ("softmax", {"expert": "cauchy"}, "'expert' parameter must be one of"),
        ("softmax", {"order": 3}, "'order' parameter must be 1 or 2; got 3"),
        ("softmax", {"n_features": 0}, "'n_features' parameter must be an int of at least 1"),
        ("softmax", {"activation": "tanh"}, "'activation' parameter must be None with gate"),
        ("softmax", {"softened": True}, "'softened' parameter must be False with gate"),
        ("activation", {}, "'activation' parameter must be one of .* or a function; got None"),
        ("activation", {"activation": "swish"}, "got 'swish'"),
        ("activation", {"activation": sp.Function("psi")}, "that mpmath computes; got"),
    ],
)
def test_bad_input_is_named(gate, options, words):
    with pytest.raises(ValueError, match=words):
        find_relations(gate, **options)


@pytest.mark.parametrize(
    ("left", "right", "words"),
    [
        (("tau",), {}, "at most two of"),
        (("b", "b", "b"), {}, "at most two of"),
        (("b",), {("c",): 1}, "at most two of"),
        (("b1", "b1"), {(): "x**2"}, "coefficients in .* got \\['x'\\]"),
    ],
)
def test_a_relation_names_what_it_cannot_mean(left, right, words):
    with pytest.raises(ValueError, match=words):
        relation(atom("softmax"), left, right)

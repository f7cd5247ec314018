"""Inverse bounds: the quotient against closed forms and the other quadrature, and bad input."""

import dataclasses
import math
import sys

import numpy as np
import pytest
import torch

from moe_stats import GaussianMoE, LinearExperts, SigmoidGate, SoftmaxGate, TopKGate, Uniform
from moe_stats.gates import ActivationDenseToSparseGate
from theory.distances import hellinger
from theory.inverse import (
    Neighbourhood,
    discrepancy,
    every_cell_over_fitted,
    inverse_bound,
    local_exponent,
    settle,
    temperature_ray,
)
from theory.inverse.descent import Descent, descend
from theory.inverse.local_exponent import extrapolated
from theory.inverse.quotient import Quotient
from theory.inverse.settings import (
    laplace_truth,
    plane_truth,
    probe_truth,
    tempered_truth,
    topk_truth,
)
from theory.inverse.sufficiency import topk_sufficiency

NEIGHBOURHOODS = {
    "softmax": lambda: Neighbourhood(probe_truth(), Uniform(0, 1), cells=(2, 1)),
    "three": lambda: Neighbourhood(probe_truth(), Uniform(0, 1), cells=(3, 2), min_share=0.1),
    "tempered": lambda: Neighbourhood(tempered_truth(), Uniform(-3, 3), cells=(2, 1)),
    "sigmoid": lambda: Neighbourhood(tempered_truth("sigmoid"), Uniform(-3, 3), cells=(1, 2)),
    "laplace": lambda: Neighbourhood(laplace_truth(0.5), Uniform(-3, 3), cells=(2, 1)),
    "top-K": lambda: Neighbourhood(
        topk_truth(),
        Uniform(-1, 1),
        cells=(1, 2, 1),
        gate=TopKGate.template(top_k=3, rank="slope"),
    ),
}
SIZE = 0.02
"""Of random deviations; h is then of order 1e-2, which both routes resolve."""


def moved(near, size=SIZE, seed=0):
    rng = np.random.default_rng(seed)
    return near.copies() + size * rng.normal(size=near.size)


@pytest.mark.parametrize("name", NEIGHBOURHOODS)
def test_the_discrepancy_is_the_hellinger_distance_of_the_models(name):
    near = NEIGHBOURHOODS[name]()
    d = moved(near)
    found = discrepancy(near, d)
    other = hellinger(near.model(d), near.truth, near.design)
    assert found.mean == pytest.approx(float(other.value), abs=2 * float(other.error) + 1e-6)
    assert found.mean <= found.value
    assert found.error < 1e-3 * found.value  # six nodes a piece of y against nine


def test_two_features_agree_with_monte_carlo():
    near = Neighbourhood(plane_truth(), Uniform(0, 1, 2), cells=(2, 1))
    d = moved(near, 0.05)
    other = hellinger(near.model(d), near.truth, near.design, random_state=0)
    # five standard errors: false alarm below 1e-6
    assert discrepancy(near, d).mean == pytest.approx(
        float(other.value), abs=5 * float(other.error)
    )


@pytest.mark.parametrize("name", NEIGHBOURHOODS)
def test_the_jacobian_is_that_of_the_residuals(name):
    near = NEIGHBOURHOODS[name]()
    quotient, d, step = Quotient(near), moved(near), 1e-5
    _, J = quotient.residuals(d, jacobian=True)
    for k in range(near.size):
        e = np.eye(near.size)[k] * step
        slope = (quotient.residuals(d + e)[0] - quotient.residuals(d - e)[0]) / (2 * step)
        # central differences: step^2 times third derivatives, which the temperature .1 makes 1e4
        assert np.abs(slope - J[:, k]).max() <= 1e-5 * np.abs(J).max()


@pytest.mark.parametrize("delta", [1e-1, 1e-2, 1e-3])
def test_two_atoms_hide_one_normal_to_fourth_order(delta):
    """cosh(d t) exp(-d^2 t^2 / 2) = 1 - (d t)^4 / 12 + ..., so h = d^4 / (48^(1/2) s^2)."""
    s = 0.3
    truth = GaussianMoE(SoftmaxGate([0.3], [[1.0]]), LinearExperts([[2.0]], [0.5], [math.sqrt(s)]))
    near = Neighbourhood(truth, Uniform(0, 1), cells=(2,))
    d = near.copies()
    d[near.where("intercept", 0)] = delta, -delta
    d[near.where("variance", 0)] = -(delta**2)
    found = discrepancy(near, d)
    # the next term is of relative order (delta^2 / s) ^ 1
    assert found.value == pytest.approx(delta**4 / (math.sqrt(48) * s**2), rel=5 * delta**2 / s)
    assert found.rounding < 1e-6 * found.value
    d[near.where("variance", 0)] = -(delta**2) * 1.1  # negative control: second order remains
    assert discrepancy(near, d).value > 3 * found.value


def test_shares_respect_their_bound_and_their_derivatives():
    near = NEIGHBOURHOODS["three"]()
    rng = np.random.default_rng(0)
    share = near.group == "share"
    for _ in range(20):
        d = near.copies()
        d[share] = rng.uniform(size=3)
        q, slope = near.shares(d)
        assert (q >= 0.1).all()
        assert q[:3].sum() == pytest.approx(1, abs=1e-15)
        for k, index in enumerate(np.flatnonzero(share)):
            up, down = d.copy(), d.copy()
            up[index] += 1e-6
            down[index] -= 1e-6
            numeric = (near.shares(up)[0] - near.shares(down)[0]) / 2e-6
            assert np.abs(numeric - slope[:, k]).max() < 1e-9


def test_descent_ends_at_a_bound_where_the_minimum_lies_outside():
    def rosenbrock(p, jacobian):
        e = np.array([10 * (p[1] - p[0] ** 2), 1 - p[0]])
        return e, np.array([[-20 * p[0], 10], [-1, 0]])

    start, scale = np.array([-1.2, 1.0]), np.ones(2)
    free = descend(rosenbrock, start, np.full(2, -5.0), np.full(2, 5.0), scale)
    assert np.abs(free.point - 1).max() < 1e-8
    held = descend(rosenbrock, start, np.full(2, -5.0), np.array([0.5, 5.0]), scale)
    assert held.point == pytest.approx([0.5, 0.25], abs=1e-8)


@pytest.mark.parametrize("shift", [1.0, 5.0])
def test_equal_densities_where_every_cell_is_over_fitted(shift):
    found = every_cell_over_fitted(probe_truth(), Uniform(0, 1), shift=shift)
    assert found.flat
    assert found.discrepancy.value < 1e-14
    assert found.loss > 0.5
    assert "check against the theorem's text" in found.sentence
    other = hellinger(found.model, probe_truth(), Uniform(0, 1))
    assert float(other.value) < 1e-12  # the other route


@pytest.mark.parametrize("cells", [(2, 1), (1, 2)])
def test_one_single_atom_cell_ends_that_family(cells):
    found = every_cell_over_fitted(probe_truth(), Uniform(0, 1), cells=cells)
    assert not found.flat
    assert found.discrepancy.value > 1e-3


def test_the_search_finds_the_gate_slope_free_where_every_cell_is_over_fitted():
    near = Neighbourhood(probe_truth(), Uniform(0, 1), cells=(2, 2))
    found = local_exponent(near, "gate_slope", deltas=[1.0, 0.5, 0.25, 0.1], n_starts=1)
    assert found.status == "flat"
    bound = inverse_bound({"gate_slope": found}, {"gate_slope": 4.0})
    assert (bound.holds, bound.is_sharp) == ("no", "no")


def test_raw_parameters_have_a_ray_and_an_activation_breaks_it():
    ray = temperature_ray(tempered_truth(), Uniform(-3, 3))
    assert ray.flat
    assert ray.loss == 5.0
    broken = temperature_ray(tempered_truth("sigmoid"), Uniform(-3, 3))
    assert not broken.flat
    assert broken.discrepancy.value > 0.1


def test_a_single_atom_is_noticed_at_first_order():
    near = Neighbourhood(probe_truth(), Uniform(0, 1), cells=(1, 1))
    found = local_exponent(near, "intercept", deltas=np.geomspace(0.05, 0.002, 5), n_starts=1)
    assert found.status == "settled"
    assert found.exponent == pytest.approx(1, abs=0.01)
    right, wrong = (inverse_bound({"intercept": found}, {"intercept": p}) for p in (1.0, 2.0))
    assert (right.holds, right.is_sharp) == ("yes", "yes")
    assert (wrong.holds, wrong.is_sharp) == ("yes", "no")


def test_two_atoms_hide_an_intercept_to_fourth_order_and_three_is_refused():
    near = NEIGHBOURHOODS["softmax"]()
    found = local_exponent(near, "intercept", deltas=np.geomspace(0.05, 0.002, 5), n_starts=1)
    assert found.exponent == pytest.approx(4, abs=0.03)
    assert found.powers["variance"] == pytest.approx(2, abs=0.05)
    bounds = {p: inverse_bound({"intercept": found}, {"intercept": p}) for p in (3.0, 4.0, 6.0)}
    assert [bounds[p].holds for p in (3.0, 4.0, 6.0)] == ["no", "yes", "yes"]
    assert [bounds[p].is_sharp for p in (3.0, 4.0, 6.0)] == ["no", "yes", "no"]
    unsure = {"intercept": dataclasses.replace(found, error=1.0)}
    assert inverse_bound(unsure, {"intercept": 4.0}).holds == "undecided"


def test_a_search_that_alone_finds_the_minimum_is_followed_back(monkeypatch):
    """Of two valleys delta^2 and delta^1.5 / 10, the first starts know only the second."""
    near = NEIGHBOURHOODS["softmax"]()
    module = sys.modules["theory.inverse.local_exponent"]
    lost = dict.fromkeys(np.geomspace(0.04, 0.001, 5), 0)

    def best(self, starts, delta, variant, chosen, *, every):
        last = every and delta < 0.0011
        knows = last or any(start[0] == 1.0 for start in starts)
        lost[delta] += not knows
        norm = delta**2 if knows else delta**1.5 / 10
        return Descent(np.eye(near.size)[0] * knows, norm, 1, True)

    monkeypatch.setattr(module._Search, "best", best)
    monkeypatch.setattr(module._Search, "continued", lambda self, points, sizes: points[-1:])
    monkeypatch.setattr(module._Search, "fresh", lambda self, delta, n, rng: [])
    kept = {}
    monkeypatch.setattr(module, "_result", lambda search, sizes, best, reach: kept.update(b=best))
    local_exponent(near, "intercept", deltas=list(lost), n_starts=1)
    assert [d.norm for d in kept["b"]] == pytest.approx(
        [min(d**2, d**1.5 / 10) for d in lost], rel=1e-12
    )
    assert all(lost[delta] > 0 for delta in list(lost)[:-1])


@pytest.mark.parametrize("limit", [2.0, 4.0])
def test_extrapolation_finds_the_limit_of_a_geometric_drift(limit):
    value, error = extrapolated(limit - 0.2 * 0.6 ** np.arange(6))
    assert value == pytest.approx(limit, abs=1e-9)
    assert error >= 0.2 * 0.6**5 - 1e-12
    noisy, error = extrapolated(limit + np.array([0.1, -0.1, 0.1, -0.1]))
    assert abs(noisy - limit) <= error


def test_a_top_k_gate_that_selects_other_experts_is_infinitely_far():
    near = NEIGHBOURHOODS["top-K"]()
    d = near.copies()
    d[near.where("gate_slope", 0)] = -2.5  # the first expert falls behind the second
    assert np.isinf(Quotient(near).value(d))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cells": (2,)}, "'cells' parameter must hold 2 ints"),
        ({"cells": (2, 0)}, "'cells' parameter"),
        ({"cell": 2}, "'cell' parameter must be an int in"),
        ({"min_share": 0.5}, "'min_share' parameter"),
        ({"radius": 0.0}, "'radius' parameter"),
        ({"hold": ("temprature",)}, "'hold' parameter"),
        ({"design": Uniform(0, 1, 2)}, "'design' parameter"),
    ],
)
def test_bad_neighbourhoods_are_refused(change, message):
    parts = {"truth": probe_truth(), "design": Uniform(0, 1), "cells": (2, 1), **change}
    with pytest.raises(ValueError, match=message):
        Neighbourhood(**parts)


def test_a_gate_whose_atoms_cannot_share_their_mass_is_refused():
    gate = SigmoidGate([0.3, 0.0], [[1.0], [0.0]])
    truth = GaussianMoE(gate, probe_truth().experts)
    with pytest.raises(ValueError, match="SigmoidGate"):
        Neighbourhood(truth, Uniform(0, 1), cells=(2, 1))


def test_sizes_below_the_resolution_are_refused_with_what_is_possible():
    near = NEIGHBOURHOODS["softmax"]()
    with pytest.raises(ValueError, match=r"sizes from 0\.\d+ up can be resolved"):
        local_exponent(near, "intercept", deltas=[1e-2, 1e-3, 1e-4, 1e-5], n_starts=1)


@pytest.mark.parametrize(
    ("group", "deltas", "message"),
    [
        ("slop", None, "'group' parameter must be one of"),
        ("temperature", None, "no parameter of the gate"),
        ("intercept", [0.1, 0.05], "'deltas' parameter must hold at least 4"),
        ("intercept", [0.01, 0.1, 0.2, 0.3], "descending"),
        ("variance", [0.5, 0.2, 0.1, 0.05], "as far as the neighbourhood reaches"),
    ],
)
def test_bad_questions_are_refused(group, deltas, message):
    with pytest.raises(ValueError, match=message):
        local_exponent(NEIGHBOURHOODS["softmax"](), group, deltas=deltas)


def test_a_gate_that_varies_too_fast_is_refused():
    own = torch.tensor([0.0, 0.0]), torch.tensor([[9000.0], [0.5]])
    gate = ActivationDenseToSparseGate(*own, torch.tensor(0.1), "sin")
    experts = LinearExperts(*(torch.tensor(v) for v in ([[4.0], [-4.0]], [-1.0, 1.0], [0.3, 0.4])))
    near = Neighbourhood(GaussianMoE(gate, experts), Uniform(-3, 3), cells=(2, 1))
    with pytest.raises(ValueError, match="varies too fast"):
        Quotient(near)


def test_other_bad_input_is_refused():
    with pytest.raises(ValueError, match="'name' parameter must be one of"):
        settle("softmax, five atoms")
    with pytest.raises(ValueError, match="slopes may be translated"):
        every_cell_over_fitted(laplace_truth(), Uniform(-3, 3))
    with pytest.raises(ValueError, match="'shift' parameter"):
        every_cell_over_fitted(probe_truth(), Uniform(0, 1), shift=0.0)
    with pytest.raises(ValueError, match="with a temperature"):
        temperature_ray(probe_truth(), Uniform(0, 1))
    with pytest.raises(ValueError, match="must be top-K gates"):
        topk_sufficiency(probe_truth(), Uniform(0, 1), n_experts=3, gate=SoftmaxGate.template())
    with pytest.raises(ValueError, match="must name measured groups"):
        inverse_bound({}, {"intercept": 1.0})

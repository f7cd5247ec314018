"""Polynomial systems, rbar, its upper side: exact identities, elimination, counted sign changes."""

import json
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import sympy as sp

import theory
from theory.algebra import (
    MAX_EXACT,
    compare,
    count_sign_changes,
    eliminate_two_atoms,
    equivalence,
    gmm_system,
    imitation,
    rbar,
    softmax_system,
)
from theory.voronoi import ORDERS


def solution(m):
    """Nodes, weights and q2 of the Gauss-Hermite rule as sympy's own algebraic numbers."""
    x = sp.Symbol("x")
    hermite = sp.Poly(2 ** -sp.Rational(m, 2) * sp.hermite(m, x / sp.sqrt(2)), x)
    before = 2 ** -sp.Rational(m - 1, 2) * sp.hermite(m - 1, x / sp.sqrt(2))
    nodes = sp.roots(hermite, multiple=True)
    weights = [sp.Integer(math.factorial(m)) / (m * before.subs(x, v)) ** 2 for v in nodes]
    return weights, [(v, -sp.Rational(1, 2)) for v in nodes]


@pytest.mark.parametrize("m", [2, 3, 4])
def test_gauss_hermite_solves_one_order_less_than_rbar(m):
    left = gmm_system(m, 2 * m).residuals(*solution(m))
    exact = [sp.radsimp(sp.expand(v)) for v in left.values()]
    assert exact[:-1] == [0] * (2 * m - 1)
    assert exact[-1] == -sp.Rational(math.factorial(m), math.factorial(2 * m))


def test_the_same_points_with_another_variance_solve_nothing():
    weights, atoms = solution(3)
    left = gmm_system(3, 5).residuals(weights, [(v, sp.Rational(-1, 3)) for v, _ in atoms])
    assert sp.simplify(left[2,]) == sp.Rational(1, 6)


def test_systems_are_coefficients_of_their_generating_functions():
    x, t = sp.symbols("x t")
    system = softmax_system(2, 3)
    weights, atoms = system.symbols()
    generating = sum(
        w * sp.exp(x * db1 + t * (x * da + db) + t**2 * ds / 2)
        for w, (db1, da, db, ds) in zip(weights, atoms, strict=True)
    )
    for (l1, l2), left in system.expressions().items():
        coefficient = sp.diff(generating, x, l1, t, l2).subs({x: 0, t: 0})
        coefficient /= math.factorial(l1) * math.factorial(l2)
        assert sp.expand(coefficient - left) == 0


@pytest.mark.parametrize(("m", "order"), [(2, 4), (3, 6)])
@pytest.mark.parametrize("n_features", [1, 2])
def test_the_published_systems_are_solvable_together(m, order, n_features):
    found = equivalence(m, order, n_features)
    assert found.holds
    assert "equal values" in found.status
    assert json.loads(json.dumps(found.as_dict()))["holds"] is True


def test_the_published_systems_agree_as_sympy_expressions_too():
    softmax, gmm = softmax_system(2, 4), gmm_system(2, 4)
    weights, atoms = softmax.symbols()
    in_q = gmm.residuals(weights, [(db, ds / 2) for _, _, db, ds in atoms])
    still = {v: 0 for db1, da, _, _ in atoms for v in (db1, da)}
    for (l1, l2), left in softmax.expressions().items():
        if l1 == 0:
            assert sp.expand(left - in_q[l2,]) == 0
        else:
            assert sp.expand(left.subs(still)) == 0


def test_a_system_with_a_wrong_coefficient_or_a_stray_term_is_not_equivalent():
    good, gmm = softmax_system(2, 3), gmm_system(2, 3)
    wrong = {**good.equations, (0, 2): {(0, 0, 2, 0): Fraction(1, 2), (0, 0, 0, 1): Fraction(1)}}
    found = compare(replace(good, equations=wrong), gmm)
    assert not found.restricts
    assert "not S-gmm's" in found.status
    stray = {**good.equations, (1, 1): {(0, 0, 1, 0): Fraction(1)}}
    found = compare(replace(good, equations=stray), gmm)
    assert found.restricts
    assert not found.holds
    assert "does not vanish" in found.status


def test_rbar_is_twice_the_number_of_atoms_and_one_for_one():
    assert [theory.rbar(m).value for m in (1, 2, 3, 4, 50, 10**6)] == [1, 4, 6, 8, 100, 2 * 10**6]
    assert theory.rbar is rbar
    assert "by definition" in rbar(1).status
    assert json.loads(json.dumps(rbar(3).as_dict()))["value"] == 6
    assert ORDERS["D2"]["slope"](3) == 3  # the losses' powers are the same object's


def test_one_atom_has_no_solution_at_order_one():
    (equation,) = gmm_system(1, 1).expressions().values()
    weights, ((q1, _),) = gmm_system(1, 1).symbols()
    assert equation == weights[0] * q1


@pytest.mark.parametrize("m", [0, -1, 2.0, True, "2", None])
def test_rbar_names_what_it_needs(m):
    with pytest.raises(ValueError, match=r"'m' parameter must be an int in \[1, inf\); got"):
        rbar(m)


def test_too_many_atoms_for_exact_arithmetic_still_have_a_value():
    found = rbar(MAX_EXACT + 1)
    with pytest.raises(
        ValueError, match=rf"at most {MAX_EXACT}.*{found.value} is proved for every m"
    ):
        _ = found.certificate
    with pytest.raises(ValueError, match=r"rbar\(1\) = 1 needs none"):
        _ = rbar(1).certificate


def test_residuals_refuse_atoms_of_another_shape():
    with pytest.raises(ValueError, match="2 entries, each atom the variables"):
        gmm_system(2, 3).residuals([1], [(0, 0)])


def test_elimination_excludes_two_atoms_at_order_four_and_not_at_three():
    found = eliminate_two_atoms()
    w = sp.Symbol("w")
    assert found.excluded
    assert sp.discriminant(sp.sympify(found.eliminant), w) == -3
    assert not eliminate_two_atoms(3).excluded
    assert json.loads(json.dumps(found.as_dict()))["excluded"] is True


def test_elimination_agrees_with_the_equations_at_its_complex_roots():
    w = sp.Rational(1, 2) + sp.sqrt(3) * sp.I / 2
    atoms = [(1 - w, w / 6 - sp.Rational(1, 3)), (-w, -w / 6 - sp.Rational(1, 6))]
    left = gmm_system(2, 5).residuals([w, 1 - w], atoms)
    values = [sp.expand(v) for v in left.values()]
    assert values[:4] == [0] * 4
    assert values[4] != 0


@pytest.mark.parametrize("m", range(2, 9))
@pytest.mark.parametrize("variance", [1.05, 2.0, 10.0])
def test_the_bound_on_sign_changes_is_attained_by_the_imitation(m, variance):
    assert count_sign_changes(*imitation(m, variance)) == 2 * m


def test_random_combinations_keep_the_bound_and_one_more_density_breaks_it():
    # the bound is a theorem and counts are from below, so there is no false alarm
    rng = np.random.default_rng(5)
    most = dict.fromkeys((2, 3, 4, 5), 0)
    for n in most:
        for _ in range(400):
            counted = count_sign_changes(
                rng.normal(size=n) * 10 ** rng.uniform(-4, 0, n),
                rng.normal(size=n) * rng.choice([0.1, 1.0, 3.0]),
                10 ** rng.uniform(-4, 1, n),
            )
            most[n] = max(most[n], counted)
    assert all(count <= 2 * (n - 1) for n, count in most.items())
    assert most[4] > 2 * (3 - 1)  # three densities could not


def test_equal_variances_change_sign_less_often():
    assert count_sign_changes([1, -2, 1.2], [-1, 0, 1], [0.5, 0.5, 0.5]) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([1.0], [0.0, 1.0], [1.0]), "one shape"),
        (([1.0], [0.0], [0.0]), "must be positive"),
        (([np.nan], [0.0], [1.0]), "finite"),
    ],
)
def test_sign_changes_refuse_bad_input(arguments, words):
    with pytest.raises(ValueError, match=words):
        count_sign_changes(*arguments)

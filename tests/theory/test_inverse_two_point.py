"""Two-point lower bounds: rates, matched moments, and a parameter that needs none."""

import dataclasses

import numpy as np
import pytest

from moe_stats import Uniform
from theory.inverse import Neighbourhood, local_exponent, moving_pairs, pointwise_pairs
from theory.inverse.settings import probe_truth
from theory.inverse.two_point import matched_shapes


def near(*cells):
    return Neighbourhood(probe_truth(), Uniform(0, 1), cells=cells)


def moments(shape, n):
    """By Gauss-Hermite quadrature, in complex numbers where an excess variance is negative."""
    z, w = np.polynomial.hermite_e.hermegauss(12)
    w = w / w.sum()
    q, b, s = (shape[0], 1 - shape[0]), shape[1:3], shape[3:]
    points = [b[i] + np.sqrt(complex(s[i])) * z for i in range(2)]
    return np.array([sum(q[i] * (w @ points[i] ** k) for i in range(2)).real for k in range(1, n)])


def test_two_different_mixtures_share_five_moments_and_not_six():
    a, b = matched_shapes()
    gap = moments(a, 7) - moments(b, 7)
    assert np.abs(gap[:5] / [1, 2, 6, 24, 120]).max() < 1e-12  # as far as they are solved for
    assert abs(gap[5]) > 1e-2
    assert abs(a[1:3] - b[1:3]).max() > 0.2
    assert 0.25 <= min(a[0], b[0]) <= max(a[0], b[0]) <= 0.75


def test_moving_pairs_keep_an_intercept_to_the_twelfth_root():
    found = moving_pairs(near(2, 1))
    assert found.exponent == pytest.approx(1 / 12, abs=0.003)
    assert abs(found.exponent - 1 / 8) > 0.03  # the pointwise rate is not uniform
    assert found.affinity.min() > 0.7
    assert found.n[-1] == pytest.approx(1e12, rel=1e-3)


def test_a_single_atom_gives_the_parametric_rate():
    one = near(1, 1)
    deltas = np.geomspace(0.1, 0.001, 5).tolist()
    found = pointwise_pairs(one, local_exponent(one, "intercept", deltas=deltas, n_starts=1))
    assert found.exponent == pytest.approx(1 / 2, abs=0.002)
    assert found.affinity == pytest.approx(np.full(8, np.exp(-0.25)), abs=0.01)
    assert found.n[-1] > 9e11


@pytest.mark.slow
@pytest.mark.parametrize(
    ("group", "rate"),
    [("gate_slope", 1 / 4), ("slope", 1 / 4), ("intercept", 1 / 8), ("variance", 1 / 4)],
)
def test_two_atoms_give_the_slow_rates(group, rate):
    two = near(2, 1)
    deltas = np.geomspace(0.25, 0.002, 8).tolist()  # variances reach .297
    found = pointwise_pairs(two, local_exponent(two, group, deltas=deltas, n_starts=2))
    assert found.exponent == pytest.approx(rate, abs=0.01)
    assert found.affinity.min() > 0.7
    assert found.n[-1] > 9e11


def test_bad_input_is_refused():
    one = near(1, 1)
    deltas = [0.1, 0.05, 0.02, 0.01]
    found = local_exponent(one, "intercept", deltas=deltas, n_starts=1)
    flat = dataclasses.replace(found, status="flat")
    with pytest.raises(ValueError, match="is not identified"):
        pointwise_pairs(one, flat)
    with pytest.raises(ValueError, match="'n' parameter must hold at least 4"):
        pointwise_pairs(one, found, n=[1e6, 1e7])
    with pytest.raises(ValueError, match="two atoms in the examined cell"):
        moving_pairs(one)

"""Predicted exponents: the table of theorems, entry by entry."""

import pytest

from theory import exponent


@pytest.mark.parametrize("group", ["mass", "gate_slope", "slope", "intercept", "variance"])
def test_a_cell_with_one_atom_is_parametric(group):
    assert exponent(group, 1) == exponent(group, 1, source="derived") == 0.5


@pytest.mark.parametrize(
    ("group", "published", "derived"),
    [
        ("gate_slope", 1 / 8, 1 / 4),
        ("slope", 1 / 4, 1 / 4),
        ("intercept", 1 / 8, 1 / 8),
        ("variance", 1 / 4, 1 / 4),
    ],
)
def test_a_cell_with_two_atoms(group, published, derived):
    assert exponent(group, 2) == published
    assert exponent(group, 2, source="derived") == derived


def test_three_atoms_follow_rbar_six():
    assert exponent("intercept", 3) == pytest.approx(1 / 12)
    assert exponent("variance", 3) == pytest.approx(1 / 6)
    assert exponent("gate_slope", 3, source="derived") == 0.25


def test_nothing_is_derived_when_every_cell_is_over_fitted():
    with pytest.raises(ValueError, match="every cell is over-fitted"):
        exponent("gate_slope", 2, source="derived", free_cell=False)


@pytest.mark.parametrize("group", ["selection", "direction"])
def test_a_boundary_is_bounded_by_the_parametric_rate_and_found_like_a_change_point(group):
    assert exponent(group, 1) == 0.5
    assert exponent(group, 1, source="derived") == 1


def test_lengths_move_no_boundary():
    assert exponent("length", 1) == exponent("length", 1, source="derived") == 0.5


def test_a_density_that_is_not_attained_levels_off_and_nothing_else_is_predicted():
    assert exponent("density", 1, attained=False) == 0
    with pytest.raises(ValueError, match="'slope' where the truth is not attained"):
        exponent("slope", 1, attained=False)


def test_unknown_group_is_named():
    with pytest.raises(ValueError, match="got 'tau'"):
        exponent("tau", 1)


@pytest.mark.parametrize("group", ["gate_slope", "slope"])
def test_slopes_that_do_not_interact_are_bounded_by_a_quarter(group):
    for source in ("published", "derived"):
        assert exponent(group, 3, source=source, interacting=False) == 1 / 4
    assert exponent("gate_slope", 3) == 1 / 12  # the control: they do


def test_a_temperature():
    assert exponent("temperature", 1, interacting=False) == 1 / 2
    assert exponent("temperature", 2, interacting=False) == 1 / 4
    assert exponent("temperature", 2, source="derived", interacting=False) == 1 / 2
    assert exponent("not identified", 2) == 0

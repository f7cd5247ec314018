"""Assessment of a study's table: right predictions pass, controls are rejected.

The tables are made, not simulated from models: a deviation is a chi variable with 6 degrees of
freedom times n^-a, which is what the largest of a few parameter errors looks like.
"""

import numpy as np
import pandas as pd
import pytest

from theory import fit_rate, verdict
from theory.assessment import assess, attainment, comparable, levels_off, quantities, summary

SIZES = [100, 178, 316, 562, 1000, 1778, 3162, 5623, 10000, 17783, 31623, 56234, 100000]


def made_table(exponents, cell_sizes, seed=0, replicates=40):
    rng = np.random.default_rng(seed)
    n = np.repeat(SIZES, replicates)
    table = pd.DataFrame({"n": n, "cell_sizes": cell_sizes, "n_single": 1, "n_empty": 0})
    for column, a in exponents.items():
        spread = np.sqrt(rng.chisquare(6, len(n)) / 6)
        table[column] = spread * n.astype(float) ** -a
    return table


EXACT = {
    "hellinger": 0.5,
    "voronoi_loss": 0.5,
    "mass_deviation": 0.5,
    "slope_single_largest": 0.5,
    "variance_single_largest": 0.5,
}


def test_exact_study_is_consistent_and_every_control_is_rejected():
    # Null: all exponents are 1/2. At these sizes false "inconsistent" has probability < .01 a row
    # (tests/theory/test_verdict.py); the seed is fixed.
    rows = summary(assess(made_table(EXACT, "1,1,1"), random_state=0))
    claims, controls = rows[rows["role"] != "control"], rows[rows["role"] == "control"]
    assert len(controls) == len(EXACT)
    assert (controls["verdict"] == "inconsistent").all()
    assert (claims["verdict"] != "inconsistent").all()
    assert (claims["verdict"] == "consistent").mean() > 0.7


def test_over_fitted_cells_are_asked_about_bound_and_derived_rate():
    table = made_table(
        {**EXACT, "gate_slope_multi_largest": 0.25, "intercept_multi_largest": 0.125}, "1,2"
    )
    rows = summary(assess(table, random_state=0))
    gate = rows[rows["quantity"].str.startswith("gate slope")].set_index(["role", "question"])
    assert gate.loc[("published", "bound"), "verdict"] == "consistent"  # 1/4 is within n^-1/8
    assert gate.loc[("published", "sharp"), "verdict"] == "inconsistent"  # and not sharp
    assert gate.loc[("derived", "sharp"), "verdict"] == "consistent"
    assert gate.loc[("control", "sharp"), "verdict"] == "inconsistent"


def test_a_deviation_that_translation_makes_zero_is_left_out():
    table = made_table({**EXACT, "gate_slope_single_largest": 0.5}, "1,1")
    assert "gate_slope_single_largest" in {q.column for q in quantities(table)}
    table.loc[3, "gate_slope_single_largest"] = 0.0
    assert "gate_slope_single_largest" not in {q.column for q in quantities(table)}


def test_boundaries_are_asked_about_bound_and_change_point():
    """A published n^-1/2 holds for a boundary found at n^-1, and is not sharp."""
    boundary = {"selection_distance": 1.0, "direction_deviation": 1.0, "length_deviation": 0.5}
    rows = summary(assess(made_table({**EXACT, **boundary}, "1,1"), random_state=0))
    for label in ("selection", "direction of boundaries"):
        asked = rows[rows["quantity"] == label].set_index(["role", "question"])["verdict"]
        assert asked["published", "bound"] == "consistent"
        assert asked["published", "sharp"] == "inconsistent"
        assert asked["derived", "sharp"] == "consistent"
        assert asked["control", "sharp"] == "inconsistent"
    length = rows[rows["quantity"] == "length across boundaries"]
    assert "derived" not in set(length["role"])
    assert (length[length["role"] == "published"]["verdict"] == "consistent").all()


def test_boundaries_that_do_not_move_are_left_out():
    table = made_table({**EXACT, "selection_distance": 1.0}, "1,1")
    table.loc[5, "selection_distance"] = 0.0
    assert "selection_distance" not in {q.column for q in quantities(table)}


def level_table(level, spread, seed=1):
    """Distances that come down to a level like 1 / n, with errors of order n^-1/2."""
    table = made_table(EXACT, "1,1")
    noise = np.random.default_rng(seed).standard_normal(len(table))
    table["hellinger"] = level * (1 + 0.3 / table["n"] + spread * noise / table["n"] ** 0.5)
    return table


def test_a_distance_that_levels_off_is_told_from_one_that_falls():
    levelling = summary(assess(level_table(0.5, 0.5), random_state=0, attained="nowhere"))
    assert list(levelling["quantity"].unique()) == ["Hellinger distance"]
    verdicts = levelling.set_index("role")["verdict"]
    assert verdicts["derived"] == "consistent"
    assert verdicts["control"] == "inconsistent"
    falling = summary(assess(made_table(EXACT, "1,1"), random_state=0, attained="nowhere"))
    assert falling.set_index("role")["verdict"]["derived"] == "inconsistent"  # control


def test_a_level_is_judged_however_precisely_the_way_down_to_it_is_seen():
    """Errors so small that a slope of exactly 0 is refuted, and one so large that none is told."""
    n = np.repeat(SIZES, 40)
    precise = fit_rate(n, level_table(0.5, 1e-3)["hellinger"], random_state=0)
    assert verdict(precise, 0, question="sharp").status != "consistent"
    assert levels_off(precise).status == "consistent"
    noise = np.random.default_rng(2).normal(size=len(n))
    vague = fit_rate(n, 0.5 * np.exp(2 * noise), random_state=0)
    assert levels_off(vague).status == "inconclusive"
    slow = fit_rate(n, 0.5 * n**-0.1 * np.exp(0.05 * noise), random_state=0)
    assert levels_off(slow).status == "inconsistent"
    assert "levels off" in str(levels_off(slow))


def test_where_only_the_density_can_converge_nothing_else_is_judged():
    rows = summary(assess(made_table(EXACT, "1,1"), random_state=0, attained="everywhere"))
    assert set(rows["quantity"]) == {"Hellinger distance"}
    assert set(rows["predicted"]) == {-0.5, -0.25}


@pytest.mark.parametrize(
    ("near", "everywhere", "expected"),
    [
        (1e-9, 1e-9, "near"),
        (0.06, 1e-6, "everywhere"),
        (None, 1e-6, "everywhere"),
        (0.4, 0.4, "nowhere"),
    ],
)
def test_attainment(near, everywhere, expected):
    assert attainment({"near": near, "everywhere": everywhere}) == expected


def test_gate_slopes_are_not_judged_where_every_cell_is_over_fitted():
    table = made_table({**EXACT, "gate_slope_multi_largest": 0.25}, "2,2")
    flat = {"gate_slope_multi_largest", "voronoi_loss"}
    assert flat <= {q.column for q in quantities(comparable(table))}
    table.loc[table.index % 4 > 0, "n_single"] = 0  # three fits of four
    assert flat.isdisjoint(q.column for q in quantities(comparable(table)))
    assert "hellinger" in {q.column for q in quantities(comparable(table))}
    table["n_empty"] = 1  # (4, 0): one cell holds none, which is another matter
    assert flat <= {q.column for q in quantities(comparable(table))}


def test_cells_of_another_size_are_left_out_of_the_deviations():
    table = made_table({**EXACT, "intercept_multi_largest": 0.125}, "2,1")
    table.loc[table.index % 3 == 0, "cell_sizes"] = "3,1"
    left = comparable(table)
    assert left["intercept_multi_largest"].isna().equals(table["cell_sizes"] == "3,1")
    assert left["hellinger"].equals(table["hellinger"])


def test_a_quantity_that_few_fits_have_is_left_out():
    table = made_table(EXACT, "1,1")
    table.loc[(table["n"] == 100) & (table.index > 3), "mass_deviation"] = np.nan
    assert "mass_deviation" not in {q.column for q in quantities(table)}
    del table["mass_deviation"]
    assert "mass_deviation" not in {q.column for q in quantities(table)}


def test_too_few_sizes_is_an_error():
    table = made_table(EXACT, "1,1,1")
    with pytest.raises(ValueError, match="sizes"):
        assess(table[table["n"] <= 178], random_state=0)

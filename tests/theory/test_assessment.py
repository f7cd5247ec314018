"""Assessment of a study's table: right predictions pass, controls are rejected.

The tables are made, not simulated from models: a deviation is a chi variable with 6 degrees of
freedom times n^-a, which is what the largest of a few parameter errors looks like.
"""

import numpy as np
import pandas as pd
import pytest

from theory.assessment import assess, quantities, summary

SIZES = [100, 178, 316, 562, 1000, 1778, 3162, 5623, 10000, 17783, 31623, 56234, 100000]


def made_table(exponents, cell_sizes, seed=0, replicates=40):
    rng = np.random.default_rng(seed)
    n = np.repeat(SIZES, replicates)
    table = pd.DataFrame({"n": n, "cell_sizes": cell_sizes, "n_single": 1})
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


def test_too_few_sizes_is_an_error():
    table = made_table(EXACT, "1,1,1")
    with pytest.raises(ValueError, match="sizes"):
        assess(table[table["n"] <= 178], random_state=0)

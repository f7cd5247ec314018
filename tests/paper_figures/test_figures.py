"""Figures: drawn from a made table, saved with the table they show."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

import paper_figures
from experiments.study import load_study
from paper_figures.estimators import comparison
from paper_figures.levels import closest_gates, levels, levels_figure
from paper_figures.moving import moving_rates, moving_table
from paper_figures.rates import rates_figure
from paper_figures.temperature import temperature_figure
from theory.assessment import assess

SIZES = [100, 316, 1000, 3162]


def made_rows(study, seed=0, replicates=10):
    """A stored table as a run of the study would leave it, with n^-1/2 errors."""
    rng = np.random.default_rng(seed)
    frames = []
    for arm in study.setting.arms:
        n = np.repeat(SIZES, replicates)
        frame = pd.DataFrame({"arm": arm, "n": n, "status": "ok", "converged": True})
        names = ["hellinger", "voronoi_loss", "mass_deviation"]
        groups = ["gate_slope", "slope", "intercept", "variance"]
        kinds = ["single", "multi"] if study.name.endswith("over") else ["single"]
        names += [f"{group}_{kind}_largest" for group in groups for kind in kinds]
        if study.name == "topk-d2":
            names += ["selection_distance", "direction_deviation", "length_deviation"]
        for name in names:
            frame[name] = np.sqrt(rng.chisquare(6, len(n)) / 6 / n)
        frame["cell_sizes"] = "1,2" if study.name.endswith("over") else "1,1"
        frame["n_single"], frame["n_empty"] = 1, 0
        frame["least_weight"], frame["gain"] = rng.uniform(0, 0.3, len(n)), rng.chisquare(5, len(n))
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def made_prepared(study, **distances):
    """What `prepare` leaves; near the truth's atoms unless arms say otherwise."""
    arms = {}
    for arm in study.setting.arms:
        near, everywhere = distances.get(arm, (0.0, 0.0))
        arms[arm] = {
            "near": near,
            "everywhere": everywhere,
            "models": {"near": None, "everywhere": None},
            "cells": {"near": None, "everywhere": None},
            "sentence": "S.",
        }
    return {"arms": arms}


def test_experts_that_move_are_drawn_beside_those_that_stay(tmp_path):
    """Errors drawn with exponents 1/12 and 1/2 are told apart by the figure's table."""
    study = load_study("softmax-moving")
    rows, rng = made_rows(study, replicates=40), np.random.default_rng(1)
    for which, power in (("moving", 1 / 12), ("staying", 1 / 2)):
        noise = np.sqrt(rng.chisquare(6, len(rows)) / 6)
        rows[f"intercept_{which}_deviation"] = noise * rows["n"].to_numpy() ** -power
    rendered = paper_figures.render(study, "quick", rows, made_prepared(study), tmp_path)
    assert {"quick-rates-constrained", "quick-moving-constrained"} == {
        path.stem for path in rendered.files
    }
    table = moving_table(moving_rates(rows, study.seed))
    table = table[table["statistic"] == "median"].set_index("experts")
    assert table.loc["moving", "low"] < -1 / 12 < table.loc["moving", "high"]
    assert table.loc["staying", "low"] < -1 / 2 < table.loc["staying", "high"]
    assert table.loc["staying", "high"] < table.loc["moving", "low"]


@pytest.mark.parametrize(
    "name", ["topk-exact", "topk-d2", pytest.param("softmax-over", marks=pytest.mark.slow)]
)
def test_every_figure_comes_with_its_table(name, tmp_path):
    study = load_study(name)
    prepared = made_prepared(study)
    rendered = paper_figures.render(study, "quick", made_rows(study), prepared, tmp_path)
    stems = {path.stem for path in rendered.files}
    expected = {f"quick-rates-{arm}" for arm in study.setting.arms}
    if len(study.setting.arms) > 1:
        expected.add("quick-estimators")
    assert stems == expected
    assert all(path.stat().st_size > 0 for path in rendered.files)
    for stem in stems:
        assert {p.suffix for p in rendered.files if p.stem == stem} == {".pdf", ".png", ".csv"}
        assert len(pd.read_csv(tmp_path / f"{stem}.csv")) > 0
    assert rendered.headline.startswith("S.\n")
    columns = set(rendered.summary.columns)
    assert {"quantity", "slope", "95% interval", "bound holds", "wrong on purpose"} <= columns


def test_boundaries_have_a_panel_of_their_own():
    study = load_study("topk-d2")
    table = made_rows(study)
    figure = rates_figure(assess(table, random_state=0), table, "plane")
    assert [ax.get_title() for ax in figure.axes][2:] == [
        "Largest deviation",
        "Selection boundaries",
    ]
    labels = [text.get_text() for text in figure.axes[-1].get_legend().get_texts()]
    assert [label.split(":")[0] for label in labels] == [
        "selection",
        "direction",
        "length",
        "published",
        "derived",
    ]


def too_few():
    """The study with rows, and the closest models written down: copies of expert 2."""
    study = load_study("topk-too-few")
    prepared = made_prepared(study, k1=(0.39, 0.39), k2=(0.06, 1e-6))
    t = study.setting.truth
    for place, share in (("near", 0.5), ("everywhere", 1.0)):
        atoms = [
            (
                t.gate_intercept[j] + math.log(share if j == 1 else 1.0),
                t.gate_slope[j][0] + move,
                t.slope[j][0],
                t.intercept[j],
                math.log(t.scale[j]),
            )
            for j, move in ((0, 0.0), (1, 1e-6), (1, -1e-6), (2, 0.0))
        ]
        prepared["arms"]["k2"]["models"][place] = [number for atom in atoms for number in atom]
        prepared["arms"]["k2"]["cells"][place] = [0, 1, 1, 2]
    return study, prepared


def temperature_rows(study, identified):
    """Rows with a temperature: its error falls like n^-1/2, or stays where it is."""
    table = made_rows(study)
    rng = np.random.default_rng(1)
    noise = np.sqrt(rng.chisquare(6, (2, len(table))) / 6)
    speed = table["n"] ** -0.5 if identified else 1.0
    table["temperature_deviation"] = 0.1 * noise[0] * speed
    table["raw_gate_slope_deviation"] = 5 * noise[1] * speed
    table["scaled_gate_slope_deviation"] = 50 * table["gate_slope_single_largest"]
    if identified:
        table["temperature_single_largest"] = table["temperature_deviation"]
    return table


def temperature_prepared(study):
    log_tau = [-3.0, -2.3, -1.6]
    profile = {"n": 10, "log_temperature": log_tau, "log_likelihood": [0.0, 0.0, 0.0]}
    return {**made_prepared(study), "profile": {**profile, "estimate": -2.3}}


def test_what_a_temperature_costs_for_two_gates_side_by_side(tmp_path):
    dense, tanh = load_study("dense-to-sparse-exact"), load_study("activation-exact-tanh")
    stored = [
        paper_figures.Stored(s, temperature_rows(s, s is tanh), temperature_prepared(s))
        for s in (dense, tanh)
    ]
    rendered = paper_figures.render(
        dense, "quick", stored[0].table, stored[0].prepared, tmp_path, stored[1]
    )
    assert "quick-temperature.png" in {path.name for path in rendered.files}
    table = pd.read_csv(tmp_path / "quick-temperature.csv")
    best = table[(table["arm"] == "mle") & (table["delta_bic"] == 0)]
    laws = best.set_index(["study", "quantity"])["law"]
    assert laws["dense-to-sparse-exact", "temperature_deviation"] == "constant"
    assert laws["activation-exact-tanh", "temperature_deviation"] in ("power", "log_power")
    shown = rendered.summary.set_index(["arm", "quantity"])
    assert "levels off" in shown.loc[("mle", "temperature, raw"), "derived is sharp"]


def test_panels_without_a_measurement_are_left_out():
    study = load_study("activation-over-tanh")
    table = temperature_rows(study, True)
    stored = paper_figures.Stored(study, table, temperature_prepared(study))
    assert len(temperature_figure([stored], "all").axes) == 4
    slopes = ["raw_gate_slope_deviation", "scaled_gate_slope_deviation"]
    unmeasured = dataclasses.replace(stored, table=table.assign(**dict.fromkeys(slopes, np.nan)))
    titles = [ax.get_title() for ax in temperature_figure([unmeasured], "one").axes]
    assert [title.split(" ")[0] for title in titles] == ["Error", "Profile"]


def test_a_study_without_a_temperature_is_not_drawn_beside_another(tmp_path):
    study = load_study("topk-exact")
    dense = load_study("dense-to-sparse-exact")
    beside = paper_figures.Stored(dense, pd.DataFrame(), temperature_prepared(dense))
    with pytest.raises(ValueError, match="'topk-exact' and 'dense-to-sparse-exact'"):
        paper_figures.render(study, "quick", made_rows(study), {}, tmp_path, beside)


def test_levels_replace_rates_where_parameters_cannot_converge(tmp_path):
    study, prepared = too_few()
    table = made_rows(study)
    k1 = table["arm"] == "k1"
    table.loc[k1, "hellinger"] = 0.6 + 0.1 * (table["hellinger"] - 0.05)
    rendered = paper_figures.render(study, "quick", table, prepared, tmp_path)
    assert {path.name for path in rendered.files} == {
        "quick-levels.pdf",
        "quick-levels.png",
        "quick-levels.csv",
        "quick-levels-gates.csv",
    }
    assert set(rendered.summary["quantity"]) == {"Hellinger distance"}
    assert "levels off" in rendered.summary.set_index("arm").loc["k1", "derived is sharp"]


def test_copies_with_the_whole_mass_match_the_truth_and_with_a_share_do_not():
    study, prepared = too_few()
    gates = closest_gates(study.setting, prepared["arms"])
    fitted = gates.groupby(["place", "cell", "x"])["probability"].sum()
    true = gates.groupby(["place", "cell", "x"])["true_probability"].first()
    gap = (fitted - true).abs().groupby("place").max()
    assert gap["everywhere"] < 1e-5  # copies are 1e-6 apart in slope
    assert gap["near"] > 0.1
    mass = gates.groupby(["place", "cell"])["mass"].first()
    assert mass["everywhere"].tolist() == pytest.approx([1, 2, 1])
    assert mass["near"].tolist() == pytest.approx([1, 1, 1])


def test_levels_are_drawn_where_the_truth_is_not_attained():
    study, prepared = too_few()
    distances = levels(made_rows(study))
    gates = closest_gates(study.setting, prepared["arms"])
    figure = levels_figure(distances, gates, prepared["arms"], "title")
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert "k1: least anywhere, 0.39" in labels
    assert "k2: least near the truth's atoms, 0.06" in labels
    assert not any(label.startswith("k2: least anywhere") for label in labels)
    assert len(figure.axes) == 3
    assert "closest anywhere" in figure.axes[2].get_title()


def test_drawing_leaves_no_global_style(tmp_path):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    study = load_study("topk-exact")
    paper_figures.render(study, "quick", made_rows(study), {}, tmp_path)
    assert dict(mpl.rcParams) == before


def test_share_as_supposed_counts_empty_cells_and_light_experts():
    study = load_study("softmax-over")
    table = made_rows(study)
    table["least_weight"] = 0.2
    table.loc[table["n"] == 100, "n_empty"] = 1
    table.loc[table["n"] == 316, "least_weight"] = 0.01
    shares = comparison(table, 0.1).query("quantity == 'as_supposed'").groupby("n")["centre"].max()
    assert shares.to_dict() == {100: 0.0, 316: 0.0, 1000: 1.0, 3162: 1.0}


def test_a_kind_without_figures_is_named():
    class Other:
        kind = "astrology"

    with pytest.raises(ValueError, match="astrology"):
        paper_figures.render(Other(), "quick", pd.DataFrame(), {}, "x")

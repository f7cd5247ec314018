"""The `rates` kind: a batch end to end, and what its settings refuse."""

import json
import math

import numpy as np
import pytest
import torch

from experiments.kinds import Batch, Cell, get_kind, rates
from experiments.kinds._moving import moving_deviations, truth_at
from experiments.kinds.rates import template
from experiments.simulation import design, truth
from experiments.study import StudyError, list_studies, load_study, study_from_document
from theory.inverse.settings import tempered_truth
from theory.inverse.two_point import matched_shapes
from theory.precision import gate_precision

TEMPERATURE = [
    "activation-exact-gelu",
    "activation-exact-sigmoid",
    "activation-exact-tanh",
    "activation-over-gelu",
    "activation-over-sigmoid",
    "activation-over-tanh",
    "activation-relu",
    "dense-to-sparse-exact",
    "dense-to-sparse-over",
]
STUDIES = [
    *TEMPERATURE,
    "softmax-d8",
    "softmax-exact",
    "softmax-moving",
    "softmax-over",
    "softmax-over-4",
    "topk-d2",
    "topk-exact",
    "topk-one",
    "topk-over",
    "topk-too-few",
]


def test_the_studies_are_shipped():
    assert [s.name for s in list_studies() if s.kind == "rates"] == STUDIES


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("profile", ["smoke", "quick", "paper", "beyond"])
def test_batches_cover_every_cell_once_and_are_shared_by_profiles(name, profile):
    study = load_study(name)
    wanted = study.profile(profile)
    cells = [cell for batch in study.batches(profile) for cell in batch.cells]
    assert len(cells) == len(study.setting.arms) * len(wanted.sizes) * wanted.replicates
    by_key = {batch.key: batch.cells for p in study.profiles for batch in study.batches(p)}
    assert all(by_key[batch.key] == batch.cells for batch in study.batches(profile))


def run(name, arm, n, replicates):
    study = load_study(name)
    batch = Batch("b", tuple(Cell(arm, n, r) for r in range(replicates)))
    return get_kind("rates").run_batch(study, batch)


def test_a_batch_gives_certified_fits_and_the_same_ones_again():
    rows = run("topk-exact", "mle", 400, 3)
    assert all(row["converged"] and row["scaled_gradient"] <= 1e-6 for row in rows)
    assert all(row["gain"] > 0 for row in rows)  # the maximum is above the truth
    assert all(row["cell_sizes"] == "1,1,1" for row in rows)
    assert all(0 < row["hellinger"] < 1 for row in rows)
    again = run("topk-exact", "mle", 400, 3)
    assert [str(row) for row in rows] == [str(row) for row in again]  # str: NaN equals NaN


def test_arms_share_their_data():
    constrained = run("softmax-over", "constrained", 150, 2)
    free = run("softmax-over", "unconstrained", 150, 2)
    assert all(c["least_weight"] >= 0.1 * (1 - 1e-6) for c in constrained)
    # a maximum over a smaller set, on the same data, found by separate searches
    assert all(f["gain"] >= c["gain"] - 1e-3 for f, c in zip(free, constrained, strict=True))


def test_boundaries_are_measured_where_parameters_move_them():
    plane = run("topk-d2", "mle", 200, 2)
    line = run("topk-one", "mle", 200, 2)
    fixed = run("topk-exact", "mle", 200, 2)
    assert all(0 < row["selection_distance"] < 0.3 for row in [*plane, *line])
    assert all(row["direction_deviation"] > 0 and row["length_deviation"] > 0 for row in plane)
    assert all("direction_deviation" not in row for row in line)
    assert all("selection_distance" not in row for row in fixed)  # at x = 0, whatever the slopes
    assert all(math.isnan(row["mass_deviation"]) for row in line)  # top-1: not identified
    assert all(row["mass_deviation"] > 0 for row in plane)


def test_an_arm_may_have_a_gate_of_its_own():
    one, two = (run("topk-too-few", arm, 300, 3) for arm in ("k1", "k2"))
    assert all(row["hellinger"] > 0.39 for row in one)
    assert all(row["hellinger"] < 0.3 for row in two)
    setting = load_study("topk-too-few").setting
    assert template(setting, "k1").options["top_k"] == 1
    assert template(setting, "k2").options["top_k"] == setting.fitted_gate.top_k == 2


def document(**setting):
    made = load_study("topk-exact").document()
    made["setting"].update(setting)
    return made


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ({"n_expert": 3}, "n_expert"),
        ({"fitted_gate": {"name": "topk", "top_k": 0}}, "top_k"),
        ({"fitted_gate": {"name": "nearest"}}, "gate"),
        ({"loss": "D3"}, "loss"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(setting, match):
    with pytest.raises(StudyError, match=match):
        study_from_document(document(**setting), "test")


def test_an_arm_with_an_unknown_gate_is_refused():
    made = document()
    made["setting"]["arms"]["mle"]["fitted_gate"] = {"name": "nearest"}
    with pytest.raises(StudyError, match="nearest"):
        study_from_document(made, "test")


def test_a_negative_scale_is_refused():
    made = document()
    made["setting"]["truth"]["scale"] = [0.4, -0.5, 0.45]
    with pytest.raises(StudyError, match="scale"):
        study_from_document(made, "test")


def test_an_infeasible_weight_fails_the_cells_with_the_reason():
    made = load_study("softmax-over").document()
    made["setting"]["arms"]["constrained"]["min_weight"] = 0.5
    study = study_from_document(made, "test")
    batch = Batch("b", (Cell("constrained", 150, 0),))
    with pytest.raises(ValueError, match="min_weight"):
        get_kind("rates").run_batch(study, batch)


def test_the_attainable_distance_is_stated_first():
    kind = get_kind("rates")
    prepared = kind.prepare(load_study("topk-exact"))
    assert prepared["arms"]["mle"]["near"] == pytest.approx(0, abs=1e-8)
    assert math.isfinite(prepared["arms"]["mle"]["error"])
    described = kind.describe(prepared)
    assert described.startswith("With 3 experts, 2 of them selected, the truth is attained")
    assert "mean gate" not in described  # no bound on weights was asked for
    assert kind.describe({}) == ""


@pytest.mark.slow
def test_each_arm_has_its_attainable_distance():
    kind = get_kind("rates")
    prepared = kind.prepare(load_study("topk-too-few"))
    one, two = prepared["arms"]["k1"], prepared["arms"]["k2"]
    assert min(one["near"], one["everywhere"]) > 0.3
    assert two["near"] > 0.05
    assert two["everywhere"] < 1e-4
    assert len(two["models"]["everywhere"]) == 4 * 5  # b0, b1, a, b, log scale of 4 experts
    lines = kind.describe(prepared).splitlines()
    assert [line.split(":")[0] for line in lines] == ["k1", "k2"]
    assert "anywhere: the truth is not attained in this search" in lines[0]
    assert "the truth is attained away from them" in lines[1]
    json.dumps(prepared, allow_nan=False)


def test_arms_of_one_family_share_a_sentence():
    described = get_kind("rates").describe(get_kind("rates").prepare(load_study("softmax-over")))
    lines = described.splitlines()
    assert len(lines) == 3
    assert "mean gate probabilities of at least 0.1" in lines[0]
    assert lines[1].split(": ")[1] == lines[2].split(": ")[1]


@pytest.mark.parametrize("name", TEMPERATURE)
def test_sizes_start_where_the_gate_can_be_estimated(name):
    study = load_study(name)
    precision = gate_precision(truth(study.setting), design(study.setting))
    assert precision.singular == ()
    assert max(precision.relative.values()) > 0
    for profile in ("quick", "paper", "beyond"):
        assert min(study.profile(profile).sizes) >= precision.n_needed


def test_a_temperature_is_prepared_and_described():
    made = load_study("activation-exact-tanh").document()
    made["setting"]["arms"] = {"mle": made["setting"]["arms"]["mle"]}
    prepared = get_kind("rates").prepare(study_from_document(made, "test"))
    json.dumps(prepared, allow_nan=False)
    assert prepared["precision"]["n_null"] == 1
    assert min(prepared["profile"]["log_likelihood"]) < -5  # identified, so not flat
    assert "Fisher condition number" in get_kind("rates").describe(prepared)


def test_temperature_columns():
    (tanh,) = run("activation-exact-tanh", "mle", 1_500, 1)
    (free,) = run("dense-to-sparse-exact", "mle", 2_400, 1)
    (known,) = run("dense-to-sparse-exact", "tau-known", 2_400, 1)
    assert tanh["temperature_deviation"] == tanh["temperature_single_largest"] < 0.1
    assert tanh["raw_gate_slope_deviation"] == pytest.approx(tanh["gate_slope_single_largest"])
    assert "temperature_single_largest" not in free
    assert free["scaled_gate_slope_deviation"] == pytest.approx(free["gate_slope_single_largest"])
    assert "temperature_deviation" not in known
    assert known["log_likelihood"] == pytest.approx(free["log_likelihood"], abs=1e-5)


def temperature_document(**changed):
    made = load_study("activation-exact-tanh").document()
    made["setting"]["truth"].update(changed)
    return made


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": -0.1}, "'temperature' parameter must be positive; got -0.1"),
        ({"temperature": None}, "'temperature' must be given for gate 'activation'"),
        ({"gate": {"name": "softmax"}}, "'temperature' is no parameter of gate 'softmax'"),
        ({"gate": {"name": "activation", "activation": "tahn"}}, "activation"),
        ({"gate": {"name": "dense-to-sparse", "activation": "tanh"}}, "activation"),
    ],
)
def test_a_temperature_that_cannot_be_is_refused(changed, match):
    with pytest.raises(StudyError, match=match):
        study_from_document(temperature_document(**changed), "test")


def test_a_truth_without_slopes_has_constant_experts():
    made = load_study("softmax-exact").document()
    del made["setting"]["truth"]["slope"]
    study = study_from_document(made, "test")
    assert truth(study.setting).experts.kind == "constant"
    (row,) = get_kind("rates").run_batch(study, Batch("b", (Cell("mle", 500, 0),)))
    assert "slope_single_largest" not in row
    assert row["gain"] > 0
    prepared = get_kind("rates").prepare(study)
    assert prepared["arms"]["mle"]["near"] == pytest.approx(0, abs=1e-8)


def test_keys_added_later_leave_other_configurations_as_they_are():
    added = {"moving", "in_chunks"}
    assert not added & load_study("softmax-exact").setting.model_dump().keys()
    study = load_study("softmax-moving")
    assert added <= study.setting.model_dump().keys()
    assert study_from_document(study.document(), "test").config_hash == study.config_hash
    made = study.document()
    made["setting"]["moving"]["exponent"] = 0.1
    assert study_from_document(made, "test").config_hash != study.config_hash


def test_a_moving_truth_tends_to_its_limit_along_shapes_of_five_equal_moments():
    setting = load_study("softmax-moving").setting
    limit = truth(setting)
    for n in (10**3, 10**9):
        there, size = truth_at(setting, n), n ** (-1 / 12)
        intercept = (there.experts.intercept - limit.experts.intercept) / size
        excess = (there.experts.scale.square() - limit.experts.scale.square()) / size**2
        shape = np.array([0.6, *intercept[:2].tolist(), *excess[:2].tolist()])
        assert np.abs(shape - matched_shapes()[0]).max() < 1e-8
        assert float(intercept[2]) == float(excess[2]) == 0
    share = torch.softmax(limit.gate.intercept[:2], 0)
    assert share.tolist() == pytest.approx([0.6, 0.4], abs=1e-12)
    assert truth_at(load_study("softmax-exact").setting, 10**9).to_params().tolist() == (
        truth(load_study("softmax-exact").setting).to_params().tolist()
    )


def test_deviations_from_a_moving_truth_know_no_order_of_experts():
    setting = load_study("softmax-moving").setting
    true = truth_at(setting, 1000)
    blocks = true.to_params().view(3, -1)
    order = torch.tensor([2, 0, 1])
    moved = blocks[order].clone()
    moved[:, :2] += torch.tensor([0.3, -2.0])  # a translation of the gate
    assert list(deviations(true, moved, setting).values()) == pytest.approx([0] * 7, abs=1e-12)
    moved[1, 3] += 0.05  # the intercept of the first true expert
    found = deviations(true, moved, setting)
    assert found.pop("intercept_moving_deviation") == pytest.approx(0.05, abs=1e-12)
    assert list(found.values()) == pytest.approx([0] * 6, abs=1e-12)


def deviations(true, blocks, setting):
    fitted = true.with_params(blocks.reshape(1, -1))
    found = moving_deviations(fitted, true, setting.moving)
    return {name: value for name, (value,) in found.items()}


def test_a_moving_truth_end_to_end_and_in_chunks(monkeypatch):
    made = load_study("softmax-moving").document()
    made["setting"]["arms"]["constrained"].update(n_init=2, n_rounds=0)
    study = study_from_document(made, "test")
    batch = Batch("b", (Cell("constrained", 1_200, 0),))
    (held,) = get_kind("rates").run_batch(study, batch)
    assert held["intercept_staying_deviation"] < held["intercept_moving_deviation"] < 2
    assert "intercept_single_largest" not in held  # of a fixed truth, whose theorems say nothing
    assert "mass_deviation" not in held
    monkeypatch.setattr(rates, "CHUNK", 700)
    (chunked,) = get_kind("rates").run_batch(study, batch)
    assert chunked["converged"]
    assert chunked["gain"] > 0
    assert chunked["least_weight"] >= 0.1 * (1 - 1e-6)
    assert held["hellinger"] != chunked["hellinger"] < 0.1  # other draws of the same law


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"intercept": [1.0, 0.0]}, "must have 3 directions"),
        ({"variance": [-0.4, 0.0, 0.0]}, "every variance positive at n = 1"),
        ({"exponent": 0.0}, "exponent"),
        ({"intercept": [1.0, 1.0, 1.0]}, "must be 0 for an expert that stays"),
    ],
)
def test_a_motion_that_cannot_be_is_refused(changed, match):
    made = load_study("softmax-moving").document()
    made["setting"]["moving"].update(changed)
    with pytest.raises(StudyError, match=match):
        study_from_document(made, "test")


@pytest.mark.parametrize("activation", [None, "tanh"])
def test_the_truth_of_temperatures_is_that_of_the_studies(activation):
    name = "dense-to-sparse-exact" if activation is None else f"activation-exact-{activation}"
    stated = truth(load_study(name).setting).to_params()
    assert torch.allclose(tempered_truth(activation).to_params(), stated, rtol=0, atol=1e-14)

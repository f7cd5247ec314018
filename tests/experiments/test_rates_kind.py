"""The `rates` kind: a batch end to end, and what its settings refuse."""

import json
import math

import pytest

from experiments.kinds import Batch, Cell, get_kind
from experiments.kinds.rates import design, template, truth
from experiments.study import StudyError, list_studies, load_study, study_from_document
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

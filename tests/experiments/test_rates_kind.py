"""The `rates` kind: a batch end to end, and what its settings refuse."""

import math

import pytest

from experiments.kinds import Batch, Cell, get_kind
from experiments.study import StudyError, list_studies, load_study, study_from_document

STUDIES = ["softmax-exact", "softmax-over", "topk-exact", "topk-over"]


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
    assert prepared["near"] == pytest.approx(0, abs=1e-8)
    assert math.isfinite(prepared["error"])
    assert "3 experts" in kind.describe(prepared)

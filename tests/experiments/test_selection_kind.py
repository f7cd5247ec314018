"""The `selection` kind: a batch end to end, what its settings refuse, and its figure."""

import numpy as np
import pandas as pd
import pytest

from experiments.kinds import Batch, Cell, get_kind
from experiments.study import StudyError, list_studies, load_study, study_from_document
from paper_figures import selection as figure

METHODS = ["bic", "aic", "icl", "dendrogram"]


@pytest.fixture(scope="module")
def study():
    return load_study("selection")


def batch_of(study, case, n, replicates):
    cells = [Cell(f"{case}-{m}", n, r) for m in study.setting.methods for r in range(replicates)]
    return Batch("b", tuple(cells))


def small(study, **changes):
    """The study with two experts at most and few starts, as a document."""
    document = study.document()
    del document["setting"]["cases"]["three"]
    document["setting"].update({"max_experts": 2, **changes})
    document["setting"]["fit"].update({"n_init": 2, "n_rounds": 0})
    return document


def test_the_study_is_shipped(study):
    assert "selection" in [s.name for s in list_studies()]
    truths = {name: len(case.truth.intercept) for name, case in study.setting.cases.items()}
    assert truths == {"two": 2, "three": 3}


@pytest.mark.parametrize("profile", ["smoke", "quick", "paper", "beyond"])
def test_batches_cover_every_cell_once_and_are_shared_by_profiles(study, profile):
    wanted = study.profile(profile)
    cells = [cell for batch in study.batches(profile) for cell in batch.cells]
    assert len(cells) == 2 * len(METHODS) * len(wanted.sizes) * wanted.replicates
    by_key = {batch.key: batch.cells for p in study.profiles for batch in study.batches(p)}
    assert all(by_key[batch.key] == batch.cells for batch in study.batches(profile))


def test_a_batch_gives_a_row_a_cell_and_the_same_ones_again(study):
    made = study_from_document(small(study), "test")
    batch = batch_of(made, "two", 120, 2)
    rows = get_kind("selection").run_batch(made, batch)
    assert [f"{row['case']}-{row['method']}" for row in rows] == [c.arm for c in batch.cells]
    assert all(row["n_true"] == 2 and row["n_chosen"] in (1, 2) for row in rows)
    assert all(row["converged"] for row in rows)
    # lines that cross at an angle of 2 * 87 degrees: one expert is far off, so 2 beats 1
    assert all(row["n_chosen"] == 2 for row in rows)
    assert all(row["margin"] > 0 for row in rows if row["method"] != "dendrogram")
    # the dendrogram has a choice from 3 experts on
    assert all(row["margin"] is None for row in rows if row["method"] == "dendrogram")
    assert rows == get_kind("selection").run_batch(made, batch)


def test_replicates_differ_and_do_not_depend_on_their_batch(study):
    made = study_from_document(small(study, methods=["bic"]), "test")
    both = get_kind("selection").run_batch(made, batch_of(made, "two", 120, 2))
    alone = get_kind("selection").run_batch(made, Batch("b", (Cell("two-bic", 120, 1),)))
    # a fit alone and in a batch ends at another point inside the tolerance, 1e-8 nats
    assert alone[0]["margin"] == pytest.approx(both[1]["margin"], abs=1e-6)
    assert abs(both[0]["margin"] - both[1]["margin"]) > 1


def test_an_impossible_setting_is_refused(study):
    document = study.document()
    document["setting"]["max_experts"] = 2
    with pytest.raises(StudyError, match="at least the 3 experts of case 'three'; got 2"):
        study_from_document(document, "test")
    document = study.document()
    document["setting"]["methods"] = ["waic"]
    with pytest.raises(StudyError, match="methods"):
        study_from_document(document, "test")
    document = study.document()
    document["setting"]["fit"]["init"] = "oracle"
    with pytest.raises(StudyError, match="init"):
        study_from_document(document, "test")
    document = study.document()
    document["setting"]["cases"]["two"]["truth"]["gate"] = {"name": "topk"}
    with pytest.raises(StudyError, match="'softmax', the fitted models' own; got 'topk'"):
        study_from_document(document, "test")


def test_the_distance_of_one_expert_fewer_is_stated_first(study):
    kind = get_kind("selection")
    prepared = kind.prepare(study_from_document(small(study), "test"))
    assert set(prepared["one_fewer"]) == {"two"}
    assert 0.1 < prepared["one_fewer"]["two"] < 1
    assert "(two)" in kind.describe(prepared)
    assert kind.describe({"one_fewer": {}}) == ""


def made_rows(study):
    """A stored table: BIC right in 3 of 4, AIC one too many in all, the others always right."""
    rows = []
    for case, n_true in (("two", 2), ("three", 3)):
        for method in METHODS:
            for n in (100, 1000):
                for r in range(4):
                    wrong = (method == "aic") - (method == "bic" and r == 0)
                    row = {"arm": f"{case}-{method}", "case": case, "method": method, "n": n}
                    row.update(replicate=r, n_true=n_true, n_chosen=n_true + wrong)
                    rows.append({**row, "status": "ok", "converged": True})
    return pd.DataFrame(rows)


def test_success_rates_have_wilson_intervals(study):
    shares = figure.success(made_rows(study)).set_index(["case", "method", "n"])
    bic, aic = shares.loc["two", "bic", 100], shares.loc["three", "aic", 1000]
    assert (bic["right"], bic["too_few"], bic["too_many"]) == (0.75, 0.25, 0)
    assert (aic["right"], aic["too_few"], aic["too_many"]) == (0, 0, 1)
    z, n, p = 1.959964, 4, 0.75
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert bic["low"] == pytest.approx(centre - half, abs=1e-6)  # z to seven digits
    assert bic["high"] == pytest.approx(centre + half, abs=1e-6)


def test_the_figure_comes_with_its_table(study, tmp_path):
    failed = {"arm": "two-bic", "n": 100, "replicate": 9, "status": "failed"}
    table = pd.concat([made_rows(study), pd.DataFrame([failed])], ignore_index=True)
    rendered = figure.render(study, "quick", table, {"one_fewer": {"two": 0.3}}, tmp_path)
    assert {p.suffix for p in rendered.files} == {".pdf", ".png", ".csv"}
    assert all(p.stem == "quick-selection" and p.stat().st_size > 0 for p in rendered.files)
    written = pd.read_csv(tmp_path / "quick-selection.csv")
    assert len(written) == 2 * 4 * 2
    assert written["replicates"].sum() == len(table) - 1  # not the failed cell
    assert {"right", "95% interval", "too_few", "too_many"} <= set(rendered.summary.columns)
    assert "2 experts; one fewer stays 0.3 away" in rendered.headline
    assert "1 of 65 cells failed" in rendered.headline


def test_a_panel_for_each_true_number_and_a_style_for_each_method(study):
    drawn = figure.selection_figure(figure.success(made_rows(study)), METHODS, "t")
    assert [ax.get_title() for ax in drawn.axes] == ["2 true experts", "3 true experts"]
    shown = [line for line in drawn.axes[0].get_lines() if line.get_marker() in "os^D"]
    assert len({(line.get_color(), line.get_marker()) for line in shown}) == len(METHODS)

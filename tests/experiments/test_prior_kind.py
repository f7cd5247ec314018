"""The kind of studies of priors: rows, purity, bad settings; figures from made-up tables."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

import paper_figures
from experiments.datasets import DataError
from experiments.kinds import Batch, Cell, get_kind
from experiments.study import StudyError, load_study, study_from_document
from paper_figures import functional_prior as figure
from paper_figures import functional_prior_distances as judged
from paper_figures import functional_prior_pictures as pictures

KIND = get_kind("functional_prior")
STUDIES = ["toy", "boston", "uci", "convergence", "banana", "digits"]


def small(at_most=(), **changes):
    """A study of seconds: a grid, eight hidden units, an RBF process."""
    profile = {"minutes": 0.1, "steps": [2, 6], "replicates": 2, "at_most": dict(at_most)}
    setting = {
        "n_measurement": 10,
        "data": {"source": "grid", "low": -2.0, "high": 2.0, "n_points": 30},
        "network": {"hidden": [8]},
        "target": {"law": "rbf", "lengthscale": 1.0, "variance": 2.0},
        "evaluation": {"n_functions": 60, "n_measurement": 12, "n_repeats": 3},
        "arms": {
            "fg": {"family": "gaussian"},
            "gpi-g": {
                "family": "gaussian",
                "methods": [
                    {"name": "moments", "n_steps": 5},
                    {"name": "energy", "n_functions": 32},
                ],
            },
        },
    } | changes
    return study_from_document(
        {
            "name": "prior-small", "kind": "functional_prior", "title": "t", "verifies": "v",
            "reference": "r", "seed": 3, "setting": setting,
            "profiles": {"smoke": profile},
        },
        "test",
    )  # fmt: skip


def run(study, arm, n=0, replicate=0):
    cell = Cell(arm, n, replicate)
    return KIND.run_batch(study, Batch(cell.key, (cell,)))[0]


@pytest.mark.parametrize("name", STUDIES)
def test_shipped_studies_load(name):
    study = load_study(f"prior-{name}")
    assert {"smoke", "quick", "paper"} <= set(study.profiles)
    arms = {cell.arm for batch in study.batches("quick") for cell in batch.cells}
    several = len(study.setting.data.names) > 1
    for profile in study.profiles.values():
        halves = profile.at_most_half_of
        for arm in [*profile.at_most, *halves, *(arm for arms in halves.values() for arm in arms)]:
            assert arm in study.setting.arms
            assert (f"{study.setting.data.names[0]}-{arm}" if several else arm) in arms


def test_cells_are_arms_and_steps():
    cells = [cell.key for batch in small().batches("smoke") for cell in batch.cells]
    assert cells == [
        "gp-n0-r0", "gp-n0-r1", "fg-n0-r0", "fg-n0-r1",
        "gpi-g-n2-r0", "gpi-g-n2-r1", "gpi-g-n6-r0", "gpi-g-n6-r1",
    ]  # fmt: skip


def test_a_last_method_with_its_own_steps_has_one_cell():
    arms = {"moments": {"family": "gaussian", "methods": [{"name": "moments", "n_steps": 4}]}}
    keys = [cell.key for batch in small(arms=arms).batches("smoke") for cell in batch.cells]
    assert keys[2:] == ["moments-n4-r0", "moments-n4-r1"]


def test_a_row_is_a_pure_function_of_the_cell():
    study = small()
    first, again, other = run(study, "gpi-g", 4), run(study, "gpi-g", 4), run(study, "gpi-g", 4, 1)
    assert first.pop("seconds") > 0
    again.pop("seconds")
    assert first == again
    assert other["energy_distance"] != first["energy_distance"]  # control
    assert "functions" not in other
    position, functions = json.loads(first["position"]), json.loads(first["functions"])
    assert np.shape(functions) == (5, len(position))
    assert position == sorted(position)
    assert (position[0], position[-1]) == (-2, 2)


def test_arms_are_judged_at_the_same_points_and_by_the_report():
    """The target's columns are those of the report, the same for families that draw more or fewer
    numbers; only its own arm has them on both sides."""
    study = small(arms={"fg": {"family": "gaussian"}, "fh": {"family": "hierarchical"}})
    target, fg, fh = (run(study, arm) for arm in ("gp", "fg", "fh"))
    assert target["energy_distance"] == fg["energy_distance_target"]
    assert target["marginal_variance"] == fg["marginal_variance_target"]
    assert fh["energy_distance_target"] == fg["energy_distance_target"]
    assert fh["energy_distance"] != fg["energy_distance"]
    assert abs(fg["marginal_variance"] - fg["marginal_variance_target"]) > 0.1
    assert fg["seconds"] == 0
    assert fg["data_sha256"] == target["data_sha256"]


@pytest.mark.parametrize("law", ["hierarchical-rbf", "softplus-rbf"])
@pytest.mark.parametrize("method", ["wasserstein", "published"])
def test_other_targets_and_both_critics(law, method):
    methods = [{"name": method, "n_functions": 16, "n_critic_steps": 3}]
    study = small(
        target={"law": law}, arms={"critic": {"family": "hierarchical", "methods": methods}}
    )
    row = run(study, "critic", 2)
    assert np.isfinite(row["energy_distance"])
    assert row["status_of_fit"].startswith(f"{method}: all steps taken, 2 of 2")


def test_images():
    study = small(
        data={"source": "scikit-learn", "names": ["digits"]},
        network={"image_shape": [1, 8, 8], "channels": [2], "n_outputs": 3, "activation": "relu"},
        arms={"gpi-nf": {"family": "flow", "methods": [{"name": "energy", "n_functions": 8}]}},
    )
    assert np.isfinite(run(study, "gpi-nf", 1)["sliced_w1"])


def test_class_probabilities_stand_beside_the_logits():
    study = small(
        network={"hidden": [8], "n_outputs": 2},
        evaluation={
            "class_probabilities": True, "n_functions": 60, "n_measurement": 12, "n_repeats": 3
        },
        arms={"fg": {"family": "gaussian"}},
    )  # fmt: skip
    rows = [run(study, arm) for arm in ("gp", "fg")]
    for row in rows:
        probabilities = np.array(json.loads(row["class_functions"]))
        assert probabilities.min() >= 0
        assert probabilities.max() <= 1
        assert row["class_marginal_variance_target"] < row["marginal_variance_target"]
    assert not any(name.startswith("class_") for name in run(small(), "fg"))  # control
    table = pd.DataFrame([{"arm": a, "n": 0, "replicate": 0} | r for a, r in zip(
        ("gp", "fg"), rows, strict=True)])  # fmt: skip
    named = judged.named(table, ["fg"])
    assert "class_energy_distance" in judged.measured(judged.summarised(named, 3))
    drawn = pictures.functions_figure(named, "t", "class_functions")
    assert all(ax.get_ylim() == (-0.02, 1.02) for ax in drawn.axes)


def test_data_that_are_missing_or_others_are_refused(monkeypatch, tmp_path):
    monkeypatch.delenv("MOEBIUS_UCI", raising=False)
    with pytest.raises(DataError, match="MOEBIUS_UCI"):
        KIND.prepare(load_study("prior-boston"))
    other = small(
        data={"source": "scikit-learn", "names": ["wine"], "sha256": {"wine": "0123456789abcdef"}}
    )
    with pytest.raises(DataError, match="'wine' are not those of the study: their hash is cc69"):
        run(other, "fg")
    some = small(data={"source": "uci", "names": ["a", "b"], "folder": str(tmp_path)})
    (tmp_path / "b").mkdir()
    np.savetxt(tmp_path / "b" / "data.txt", np.eye(4))
    np.savetxt(tmp_path / "b" / "index_features.txt", [0, 1], fmt="%d")
    np.savetxt(tmp_path / "b" / "index_train_0.txt", range(4), fmt="%d")
    prepared = KIND.prepare(some)
    assert list(prepared["data"]) == ["b"]
    assert "b: 4 x 2" in KIND.describe(prepared)
    assert "there is no" in KIND.describe(prepared)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"arms": {"gp": {"family": "gaussian"}}}, "no arm may be called 'gp'"),
        ({"network": {"hidden": [3], "channels": [2]}}, "must have 'hidden', or 'image_shape'"),
        ({"network": {}}, "must have 'hidden', or 'image_shape'"),
        ({"data": {"source": "web"}}, "source"),
        (
            {"arms": {"a": {"family": "gaussian", "methods": [
                {"name": "energy", "n_critic_steps": 3}]}}},
            "a method has no such option",
        ),
        ({"arms": {"a": {"family": "laplace"}}}, "family"),
    ],
)  # fmt: skip
def test_an_impossible_setting_is_refused(changes, match):
    with pytest.raises(StudyError, match=match):
        small(**changes)


def made_table(distances, replicates=1, error=0.01):
    """A stored table: energy distances by arm and steps, the floor at 0."""
    line = json.dumps([0.0, 1.0])
    rows = []
    for (arm, n), mean in distances.items():
        for r in range(replicates):
            row = {"arm": arm, "data": "grid", "n": n, "replicate": r, "status": "ok", "error": ""}
            row |= {"seconds": 0.1 * n, "position": line, "functions": json.dumps([[0.0, 1.0]] * 5)}
            for name in judged.DISTANCES:
                shift = error * (2 * (r % 2) - 1)
                row |= {name: mean + shift, f"{name}_error": error}
                row |= {f"{name}_target": 0.001, f"{name}_target_error": 0.002}
            for name in judged.STATISTICS:
                row |= {name: 1.0, f"{name}_target": 1.1}
            rows.append(row)
    return pd.DataFrame(rows)


MADE = {("gp", 0): 0.0, ("fg", 0): 0.5, ("gpi-g", 2): 0.3, ("gpi-g", 6): 0.1}


def test_intervals_are_students():
    one = judged.summarised(judged.named(made_table(MADE), ["fg", "gpi-g"]), 3).iloc[-1]
    assert one["energy_distance_high"] - one["energy_distance"] == pytest.approx(
        0.01 * t.ppf(0.975, 2)
    )
    several = judged.summarised(judged.named(made_table(MADE, 4), ["fg", "gpi-g"]), 3).iloc[-1]
    error = np.std([-0.01, 0.01, -0.01, 0.01], ddof=1) / 2
    assert several["energy_distance_error"] == pytest.approx(error)
    assert several["energy_distance_low"] == pytest.approx(0.1 - error * t.ppf(0.975, 3))


def test_verdicts_by_a_number_and_by_another_arm():
    """The control, FG, is above the bound that the fitted arm keeps."""
    distances = judged.summarised(judged.named(made_table(MADE), ["fg", "gpi-g"]), 5)
    bounds = {"fg": 0.2, "gpi-g": 0.2}
    found = dict(
        zip(
            zip(distances["label"], distances["n"], strict=True),
            judged.verdicts(distances, bounds, {"gpi-g": ("fg",)}),
            strict=True,
        )
    )
    assert found["gp", 0] == ""
    assert found["fg", 0] == "above 0.2"
    assert found["gpi-g", 2] == "above 0.2; above half of FG"
    assert found["gpi-g", 6] == "at most 0.2; at most half of FG"
    close = judged.verdicts(distances, {"gpi-g": 0.09}, {})
    assert close[-1] == "inconclusive (0.09)"


def test_figures_come_with_their_tables(tmp_path):
    study = small(at_most={"gpi-g": 0.2})
    table = made_table(MADE)
    failed = pd.DataFrame([{"arm": "fg", "n": 0, "replicate": 1, "status": "failed", "error": "x"}])
    rendered = figure.render(study, "smoke", pd.concat([table, failed]), {}, tmp_path)
    stems = {path.stem for path in rendered.files}
    assert stems == {"smoke-functions", "smoke-distances", "smoke-seconds"}
    assert all(path.stat().st_size > 0 for path in rendered.files)
    assert len(pd.read_csv(tmp_path / "smoke-functions.csv")) == 3 * 5 * 2
    assert list(rendered.summary["prior"]) == ["GP", "FG", "GPi-G"]
    assert "0.047 to 0.133, after 0.6 CPU s: at most 0.2.\n" in rendered.headline
    assert rendered.headline.endswith("1 of 5 cells failed.\nx")
    assert list(pd.read_csv(tmp_path / "smoke-distances.csv")["bound"].dropna()) == [0.2]
    with pytest.raises(ValueError, match="a cell that did not fail; got none"):
        paper_figures.render(study, "smoke", table.assign(status="failed"), {}, tmp_path)


def test_several_data_sets_have_a_row_each():
    table = made_table(MADE)
    both = pd.concat([table.assign(data=d, arm=d + "-" + table["arm"]) for d in ("a", "b")])
    named = judged.named(both, ["fg", "gpi-g"])
    assert list(named["label"].unique()) == ["gp", "fg", "gpi-g"]
    last = named.loc[named.groupby(["data", "label"], observed=True)["n"].idxmax()]
    drawn = pictures.functions_figure(last.reset_index(drop=True), "t")
    assert [ax.get_title() for ax in drawn.axes] == ["GP", "FG", "GPi-G", "", "", ""]
    assert drawn.axes[0].get_ylabel() == "a\nf(x), output units"
    assert drawn.axes[3].get_ylabel() == "b\nf(x), output units"

"""Figures: drawn from a made table, saved with the table they show."""

import numpy as np
import pandas as pd
import pytest

import paper_figures
from experiments.study import load_study
from paper_figures.estimators import comparison

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
        for name in names:
            frame[name] = np.sqrt(rng.chisquare(6, len(n)) / 6 / n)
        frame["cell_sizes"] = "1,2" if study.name.endswith("over") else "1,1"
        frame["n_single"], frame["n_empty"] = 1, 0
        frame["least_weight"], frame["gain"] = rng.uniform(0, 0.3, len(n)), rng.chisquare(5, len(n))
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


@pytest.mark.parametrize("name", ["topk-exact", "softmax-over"])
def test_every_figure_comes_with_its_table(name, tmp_path):
    study = load_study(name)
    rendered = paper_figures.render(study, "quick", made_rows(study), {"sentence": "S."}, tmp_path)
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
        kind = "posterior"

    with pytest.raises(ValueError, match="posterior"):
        paper_figures.render(Other(), "quick", pd.DataFrame(), {}, "x")

"""The `coverage` kind: a batch end to end, what its settings refuse, and its figure."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, binomtest, norm

import paper_figures
from experiments.kinds import Batch, Cell, get_kind
from experiments.kinds.coverage import Intervals, in_order_of
from experiments.simulation import design, truth
from experiments.study import StudyError, list_studies, load_study, study_from_document
from moe_stats import GaussianMoE, LinearExperts, TopKGate, fit_mle
from moe_stats.inference import interval
from paper_figures import coverage as figure

FALSE_ALARM = 1e-5  # of the random check below; the suite's budget is 1e-3

SOFTMAX = ["gate_intercept_0", "gate_slope_0_0"] + [
    f"{name}_{e}{d}"
    for e in (0, 1)
    for name, d in (("slope", "_0"), ("intercept", ""), ("scale", ""))
]
ARMS = [(method, factor) for method in ("observed", "sandwich") for factor in (1, 0.8)]


@pytest.fixture(scope="module")
def study():
    return load_study("coverage")


def batch_of(case, n, replicates, arms=ARMS):
    cells = (Cell(f"{case}-{m}-x{f:g}", n, r) for m, f in arms for r in range(replicates))
    return Batch("b", tuple(cells))


def small(study, **fit):
    """The study with few starts."""
    document = study.document()
    document["setting"]["fit"].update({"n_init": 2, **fit})
    return study_from_document(document, "test")


def data_of(study, case, n, replicate):
    """The data that a cell of the study sees, (1, N, D) and (1, N)."""
    setting = study.setting.cases[case]
    X = design(setting).sample(n, study.seed_of(n, replicate, "X", case))
    return X[None], truth(setting).sample(X, study.seed_of(n, replicate, "y", case))[None]


def test_the_study_is_shipped(study):
    assert "coverage" in [s.name for s in list_studies()]
    gates = {name: case.truth.gate.name for name, case in study.setting.cases.items()}
    assert gates == {"softmax": "softmax", "topk": "topk"}


@pytest.mark.parametrize("profile", ["smoke", "quick", "paper", "beyond"])
def test_batches_cover_every_cell_once_and_are_shared_by_profiles(study, profile):
    wanted = study.profile(profile)
    cells = [cell for batch in study.batches(profile) for cell in batch.cells]
    assert len(cells) == 2 * len(ARMS) * len(wanted.sizes) * wanted.replicates
    by_key = {batch.key: batch.cells for p in study.profiles for batch in study.batches(p)}
    assert all(by_key[batch.key] == batch.cells for batch in study.batches(profile))


def test_a_batch_gives_a_row_a_cell_and_the_same_ones_again(study):
    made, batch = small(study), batch_of("softmax", 400, 2)
    rows = get_kind("coverage").run_batch(made, batch)
    arms = [f"{row['case']}-{row['method']}-x{row['factor']:g}" for row in rows]
    assert arms == [cell.arm for cell in batch.cells]
    assert all(row["converged"] and row["flags"] == "" for row in rows)
    for row in rows:  # the last expert's gate is pinned: no interval, no column
        assert [c.removeprefix("width_") for c in row if c.startswith("width_")] == SOFTMAX
        for name in SOFTMAX:
            inside = abs(row[f"deviation_{name}"]) <= row[f"width_{name}"] / 2
            assert row[f"covered_{name}"] is inside
    whole, short = rows[0], rows[2]
    for name in SOFTMAX:
        assert short[f"width_{name}"] == pytest.approx(0.8 * whole[f"width_{name}"], rel=1e-12)
        assert short[f"deviation_{name}"] == whole[f"deviation_{name}"]  # the same fit
    sandwich = [row["width_slope_0_0"] for row in rows if row["method"] == "sandwich"]
    assert sandwich[0] != whole["width_slope_0_0"]
    assert rows == get_kind("coverage").run_batch(made, batch)


@pytest.mark.parametrize(
    ("case", "parameter", "column"),
    [
        ("softmax", "gate slope[0, 0]", "gate_slope_0_0"),
        ("topk", "gate intercept[1]", "gate_intercept_1"),
        ("topk", "slope[2, 0]", "slope_2_0"),
    ],
)
def test_a_row_tells_of_the_interval_that_a_user_gets(study, case, parameter, column):
    """The other route: one fit started at the truth, one interval, the truth by hand."""
    row = get_kind("coverage").run_batch(small(study), batch_of(case, 600, 1, ARMS[:1]))[0]
    true = truth(study.setting.cases[case])
    X, y = data_of(study, case, 600, 0)
    fit = fit_mle(X, y, n_experts=true.n_experts, gate=true.gate, init=true, n_rounds=0)
    got = interval(fit, parameter)
    by_hand = {"gate slope[0, 0]": 5.0, "gate intercept[1]": 0.3, "slope[2, 0]": 1.0}[parameter]
    # two fits end at different points inside the tolerance, 1e-6 standard errors
    near = pytest.approx(0, abs=1e-5 * row[f"width_{column}"])
    assert row[f"width_{column}"] - (got.high - got.low) == near
    assert row[f"deviation_{column}"] - (got.estimate - by_hand) == near
    assert row[f"covered_{column}"] == (got.low <= by_hand <= got.high)


def test_experts_are_put_in_the_order_of_the_truth(study):
    true = truth(study.setting.cases["topk"])
    gate, experts, order = true.gate, true.experts, [2, 0, 1]
    shuffled = GaussianMoE(
        TopKGate(gate.intercept[order], gate.slope[order], top_k=2, rank="slope"),
        LinearExperts(experts.slope[order], experts.intercept[order], experts.scale[order]),
    )
    X, y = data_of(study, "topk", 600, 0)
    fits = [
        fit_mle(X, y, n_experts=3, gate=gate, init=start, n_rounds=0) for start in (true, shuffled)
    ]
    straight, crossed = (Intervals.of(fit, true, 0.95, "observed") for fit in fits)
    mended = Intervals.of(in_order_of(true, fits[1]), true, 0.95, "observed")
    # as above; the pinned gate is another expert's until the order is mended
    units = straight.reach.clamp(min=1e-3)
    assert float(((mended.deviation - straight.deviation) / units).abs().max()) < 1e-5
    assert float(((mended.reach - straight.reach) / units).abs().max()) < 1e-5
    assert float(((crossed.deviation - straight.deviation) / units).abs().max()) > 10  # control
    before, after = (
        m.log_prob(y, X).sum() for m in (fits[1].model, in_order_of(true, fits[1]).model)
    )
    assert float(after - before) == pytest.approx(0, abs=1e-9)  # rounding of a sum of 600 terms


def test_a_parameter_on_a_bound_has_no_interval(study):
    made = small(study, gate_bound=1.0)  # the true gate slope is 5 / 2 from the middle
    row = get_kind("coverage").run_batch(made, batch_of("softmax", 400, 1, ARMS[:1]))[0]
    assert row["covered_gate_slope_0_0"] is None
    assert row["width_gate_slope_0_0"] is None
    assert row["deviation_gate_slope_0_0"] < -1
    assert "gate slope[0, 0]: on a bound" in row["flags"]
    assert row["covered_slope_1_0"] in (True, False)


@pytest.mark.slow
def test_intervals_cover_as_often_as_they_say_and_short_ones_do_not(study):
    """H0: the mean share of 8 parameters covered in a replicate is .95; t statistic."""
    rows = pd.DataFrame(
        get_kind("coverage").run_batch(small(study), batch_of("softmax", 500, 200, ARMS[:2]))
    )
    shares = rows[[f"covered_{name}" for name in SOFTMAX]].astype(float).mean(axis=1)
    reach = norm.isf(FALSE_ALARM / 2)
    for factor, share in shares.groupby(rows["factor"]):
        statistic = (share.mean() - 0.95) / (share.std() / math.sqrt(len(share)))
        assert abs(statistic) < reach if factor == 1 else statistic < -reach, factor


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ({"factors": [0.8]}, "factors must be positive and hold 1; got \\[0.8\\]"),
        ({"factors": [1, -1]}, "factors must be positive"),
        ({"methods": ["bootstrap"]}, "methods"),
        ({"level": 1.0}, "level"),
        ({"fit": {"init": "oracle"}}, "init"),
    ],
)
def test_an_impossible_setting_is_refused(study, setting, match):
    document = study.document()
    document["setting"].update(setting)
    with pytest.raises(StudyError, match=match):
        study_from_document(document, "test")


def test_an_impossible_truth_is_refused(study):
    document = study.document()
    document["setting"]["cases"]["topk"]["truth"]["gate"]["name"] = "nearest"
    with pytest.raises(StudyError, match="gate name must be one of"):
        study_from_document(document, "test")


def made_rows(covered, replicates=1000):
    """A stored table: by case, parameter and factor, how many of the replicates are covered."""
    rows = []
    for (case, factor), counts in covered.items():
        for r in range(replicates):
            row = {"case": case, "method": "observed", "factor": factor, "n": 500, "replicate": r}
            for name, count in counts.items():
                row[f"deviation_{name}"] = norm.ppf((r + 0.5) / replicates)
                row[f"width_{name}"] = 2 * factor * norm.isf(0.025)
                row[f"covered_{name}"] = r < count
            rows.append({**row, "status": "ok", "converged": True})
    table = pd.DataFrame(rows)  # missing where a parameter is another case's
    return table.astype({c: "boolean" for c in table if c.startswith("covered_")})


GOOD = {
    ("softmax", 1.0): {"slope_0_0": 950, "scale_0": 928},
    ("softmax", 0.8): {"slope_0_0": 880, "scale_0": 945},
    ("topk", 1.0): {"gate_slope_0_1": 890},
}


def test_coverage_has_wilson_intervals_and_a_verdict():
    shares = figure.coverages(made_rows(GOOD), 0.95)
    assert len(shares) == 5  # a parameter of one case only is not counted in the other
    shares = shares.set_index(["case", "factor", "parameter"])
    slope = shares.loc["softmax", 1, "slope[0, 0]"]
    z, n, p = norm.isf(0.025), 1000, 0.95
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert (slope["low"], slope["high"]) == pytest.approx((centre - half, centre + half))
    assert (slope["coverage"], slope["intervals"], slope["without"]) == (0.95, 1000, 0)
    # of 1,000 quantiles, the standard deviation falls short of the law's by the tails cut off
    assert slope["relative_width"] == pytest.approx(1, abs=0.005)
    assert shares.loc["softmax", 0.8, "scale[0]"]["relative_width"] == pytest.approx(0.8, abs=0.005)
    assert shares["verdict"].to_dict() == {
        ("softmax", 0.8, "scale[0]"): "consistent",  # a control that is not told apart
        ("softmax", 0.8, "slope[0, 0]"): "inconsistent",
        ("softmax", 1.0, "scale[0]"): "inconclusive",
        ("softmax", 1.0, "slope[0, 0]"): "consistent",
        ("topk", 1.0, "gate slope[0, 1]"): "inconsistent",
    }


def test_fits_without_an_interval_are_counted_apart():
    table = made_rows({("softmax", 1.0): {"slope_0_0": 10, "scale_0": 10}}, replicates=10)
    table.loc[:3, ["covered_slope_0_0", "width_slope_0_0"]] = None
    table[["covered_scale_0", "width_scale_0"]] = None
    shares = figure.coverages(table, 0.95).set_index("parameter")
    assert shares.loc["slope[0, 0]", ["intervals", "without", "coverage"]].tolist() == [6, 4, 1]
    silent = shares.loc["scale[0]"]
    assert (silent["intervals"], silent["without"], silent["verdict"]) == (0, 10, "inconclusive")
    assert math.isnan(silent["coverage"])


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
def test_the_edge_of_the_band_is_inside_it(level):
    for share in (round(level - 0.02, 2), round(level + 0.02, 2)):
        assert figure.judge(share, share - 0.01, share + 0.01, level) == "consistent"
    assert figure.judge(level - 0.021, level - 0.03, level, level) == "inconclusive"
    assert figure.judge(level, level - 0.021, level + 0.021, level) == "inconclusive"
    for low in (level - 0.1, level + 0.021):
        assert figure.judge(low, low, low + 0.07, level) == "inconsistent"


def test_verdicts_err_as_rarely_as_the_docstring_says():
    """Probabilities of each verdict by enumeration of 1,000 replicates."""
    chances = {
        true: dict.fromkeys(("consistent", "inconsistent", "inconclusive"), 0.0)
        for true in (0.95, 0.88)
    }
    for count in range(800, 1001):  # fewer have a chance below 1e-12
        low, high = binomtest(count, 1000).proportion_ci(method="wilson")
        for true, chance in chances.items():
            chance[figure.judge(count / 1000, low, high, 0.95)] += binom.pmf(count, 1000, true)
    assert chances[0.95]["inconsistent"] < 2e-6
    assert chances[0.95]["consistent"] == pytest.approx(0.997, abs=5e-4)
    assert chances[0.88]["inconsistent"] > 0.999


def test_the_figure_comes_with_its_table(study, tmp_path):
    failed = {"case": "softmax", "n": 500, "replicate": 1000, "status": "failed"}
    table = pd.concat([made_rows(GOOD), pd.DataFrame([failed])], ignore_index=True)
    rendered = figure.render(study, "quick", table, {}, tmp_path)
    assert {p.suffix for p in rendered.files} == {".pdf", ".png", ".csv"}
    assert all(p.stem == "quick-coverage" and p.stat().st_size > 0 for p in rendered.files)
    assert len(pd.read_csv(tmp_path / "quick-coverage.csv")) == 5
    shown = rendered.summary.set_index("parameter")
    assert list(shown) == ["case", "n", "observed", "control: observed x 0.8"]
    assert shown.loc["slope[0, 0]", "observed"] == "consistent, 93.5-96.2%"
    softmax, topk, last = rendered.headline.split("\n")
    assert "1 of 2 parameters covered 93-97% of the time (1 consistent, 0 incons" in softmax
    assert "controls: 1 of 2 outside, 1 of them inconsistent" in softmax
    assert "0 of 1 parameters covered" in topk
    assert "1 of 3001 cells failed, 0 rest on a fit that did not converge" in last


def test_a_table_of_failures_is_refused(study, tmp_path):
    table = made_rows(GOOD, replicates=10).assign(status="failed")
    with pytest.raises(ValueError, match="a cell that did not fail; got none"):
        paper_figures.render(study, "quick", table, {}, tmp_path)


def test_a_panel_for_each_case_and_size_and_a_style_for_each_kind_of_interval(study):
    table = made_rows(GOOD, replicates=10)
    table = pd.concat([table, table.assign(n=2000)], ignore_index=True)
    drawn = figure.coverage_figure(figure.coverages(table, 0.95), 0.95, "t")
    titles = [f"{case}, $n$ = {n}" for case in ("softmax", "topk") for n in (500, 2000)]
    assert [ax.get_title() for ax in drawn.axes] == titles
    names = [text.get_text() for text in drawn.axes[0].get_yticklabels()]
    assert names == ["scale[0]", "slope[0, 0]"]
    points = [line for line in drawn.axes[0].get_lines() if line.get_marker() in "os^D"]
    assert len({(line.get_color(), line.get_marker()) for line in points}) == 2
    shown = {float(np.asarray(line.get_xdata())[0]) for line in points}
    assert shown == {1.0}  # ten replicates of ten

"""Figures of forecasts: intervals with closed forms, verdicts that are known, pictures drawn."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, norm, ttest_1samp

import paper_figures
from experiments.study import load_study
from paper_figures import forecast, forecast_scores
from paper_figures.forecast_verdicts import (
    block_sums,
    differences,
    positive_interval,
    ratio,
    scores,
    share_error,
    share_interval,
    verdict_of_coverage,
)

LEVELS = [0.025, *(np.arange(1, 20) / 20), 0.975]


def row(task, model, crps, covered=0.95, replicate=0, data="city", n_days=30, step=1.0):
    """A cell whose CRPS varies from day to day; arms share what is common to a day."""
    common = np.random.default_rng(replicate).gamma(20, size=n_days)
    rng = np.random.default_rng([len(model), replicate])
    n = np.full(n_days, 100)
    values = common + crps + 0.05 * rng.normal(size=n_days)
    days = {
        "day": list(range(18_999, 18_999 + n_days)), "n": n.tolist(), "mae": (n * values).tolist(),
        "crps": (n * values).tolist(), "covered95": np.rint(n * covered).astype(int).tolist(),
        "interval_score95": (10 * n * values).tolist(),
    }  # fmt: skip
    groups = {
        "by": ["horizon", "horizon", "gap", "gap"], "rank": [5, 10, 5, 7],
        "group": ["(12, 24]", "no end", "(12, 24]", "(48, 72]"],
        "n": [100, 200, 100, 200], "crps": [crps, 2 * crps] * 2, "crps_se": [0.1, None] * 2,
        "coverage95": [0.9, 1.0] * 2, "coverage95_se": [0.04, 0.0] * 2,
    }  # fmt: skip
    observed = {"level": LEVELS, "observed": LEVELS, "standard_error": [0.01] * 21}
    times = pd.date_range("2024-01-01", periods=6, freq="h")
    series = {
        "sensor": "S01", "hidden_at": [t.isoformat() for t in times[[1, 2, 4]]],
        "hidden": [1.0, 2.0, 3.0], "quantiles": np.arange(15.0).reshape(3, 5).tolist(),
        "seen_at": [t.isoformat() for t in times[[0, 3]]], "seen": [1.0, 2.0],
    }  # fmt: skip
    places = {
        "axes": ["latitude", "longitude"], "place": [[48.0, 11.0], [48.1, 11.1]],
        "truth": [10.0, 20.0], "median": [11.0, 19.0], "width": [5.0, 8.0],
        "observed": [[48.05, 11.2]],
    }  # fmt: skip
    texts = {"days": days, "groups": groups, "levels": observed}
    if replicate == 0:
        texts |= {"series": series, "places": places}
    return {
        "task": task, "model": model, "replicate": replicate, "data": data, "status": "ok",
        "step": step, "fit_seconds": 1.0, "predict_seconds": 0.5,
        **{name: json.dumps(value) for name, value in texts.items()},
    }  # fmt: skip


def proportion_confint(count, n):
    return tuple(binomtest(count, n).proportion_ci(0.95, method="wilson"))


def test_the_interval_of_equal_blocks_is_students():
    values = np.random.default_rng(0).normal(3, 1, 12)
    mean, _, low, high = ratio(100 * values, np.full(12, 100))
    expected = ttest_1samp(values, 0).confidence_interval(0.95)
    assert (mean, low, high) == pytest.approx((values.mean(), *expected))


def test_intervals_of_dependent_rows_hold_their_level():
    """Null: the mean is 0. Rows of a block share a number; blocks differ in size. Statistic: the
    count of 400 intervals that miss 0, binomial(400, about .05): 45 or more has probability 6e-7.
    Control: intervals by rows, as if independent, miss it far more often."""
    rng = np.random.default_rng(1)
    missed = missed_by_rows = 0
    for _ in range(400):
        counts = rng.integers(10, 30, 15)
        rows = np.repeat(rng.normal(size=15), counts) + 0.3 * rng.normal(size=counts.sum())
        block = np.repeat(np.arange(15), counts)
        _, _, low, high = ratio(np.bincount(block, rows), counts)
        missed += not low <= 0 <= high
        _, _, low, high = ratio(rows, np.ones(len(rows)))
        missed_by_rows += not low <= 0 <= high
    assert missed < 45
    assert missed_by_rows > 100


def test_full_coverage_keeps_a_standard_error():
    mean, error, low, high = ratio(np.full(8, 50), np.full(8, 50), "share")
    assert (mean, high) == (1.0, 1.0)
    assert error == pytest.approx(np.sqrt(402 / 404 * (2 / 404) / 404))
    assert low < 1


@pytest.mark.parametrize("share", [0.0, 0.04, 0.5, 0.95, 1.0])
def test_the_interval_of_a_share_of_independent_rows_is_wilsons(share):
    """With the error of n rows; a larger one stands for fewer and gives a wider interval. Control:
    the symmetric interval leaves [0, 1]."""
    n = 200
    error = np.sqrt((share * n + 2) / (n + 4) * (1 - (share * n + 2) / (n + 4)) / n)
    expected = proportion_confint(round(share * n), n)
    assert share_interval(share, error, n, norm.ppf(0.975)) == pytest.approx(expected)
    low, high = share_interval(share, 3 * error, n, norm.ppf(0.975))
    assert -1e-12 < low <= share <= high < 1 + 1e-12
    assert high - low > 2 * (expected[1] - expected[0])
    assert share == 0.5 or share - 6 * error < 0 or share + 6 * error > 1


def test_the_interval_of_a_score_is_symmetric_in_logarithms():
    low, high = positive_interval(4.0, 3.0, 2.0)
    assert low * high == pytest.approx(16.0)
    assert 0 < low < 4.0 - 2 * 3.0 + 3.0
    assert positive_interval(4.0, 1e-4, 2.0) == pytest.approx((4 - 2e-4, 4 + 2e-4), abs=1e-8)
    assert share_error(0.5, 0.2, 100) == 0.2
    assert share_error(0.5, 0.0, 100) == pytest.approx(np.sqrt(0.25 / 104))


def test_pairing_takes_out_what_is_common_to_a_day():
    table = pd.DataFrame([row("a", "first", 1.0), row("a", "other", 1.5)])
    sums = block_sums(table)
    gap = differences(sums, "first").iloc[0]
    own = scores(sums).set_index("model")
    assert gap["crps"] == pytest.approx(0.5, abs=0.05)
    assert gap["crps"] == pytest.approx(own["crps"]["other"] - own["crps"]["first"])
    assert gap["crps_percent"] == pytest.approx(100 * gap["crps"] / own["crps"]["first"])
    assert gap["crps_se"] < own["crps_se"].min() / 10
    assert gap["blocks"] == 10


@pytest.mark.parametrize(("data", "blocks"), [("city", 20), ("town", 10)])
def test_replicates_on_one_record_share_their_blocks(data, blocks):
    table = pd.DataFrame([row("a", "first", 1.0, replicate=r, data=data) for r in (0, 1)])
    assert scores(block_sums(table))["blocks"].item() == blocks


def test_blocks_of_daily_values_are_longer():
    table = pd.DataFrame([row("a", "first", 1.0, step=24.0, n_days=28)])
    assert scores(block_sums(table))["blocks"].item() in (2, 3)


@pytest.mark.parametrize(
    ("gap", "n_days", "verdict"),
    [
        (0.5, 30, "consistent"),
        (-0.5, 30, "inconsistent"),
        (0.0, 30, "inconclusive"),
        (0.5, 6, "inconclusive"),
    ],
)
def test_verdicts_on_differences(gap, n_days, verdict):
    rows = [row("a", "one", 1.0, n_days=n_days), row("a", "seven", 1.0 + gap, n_days=n_days)]
    found = differences(block_sums(pd.DataFrame(rows)), "one")
    assert found["crps_verdict"].item() == verdict


@pytest.mark.parametrize(
    ("covered", "verdict"), [(0.95, "consistent"), (0.8, "inconsistent"), (0.97, "inconclusive")]
)
def test_verdicts_on_coverage(covered, verdict):
    found = scores(block_sums(pd.DataFrame([row("a", "one", 1.0, covered)]))).iloc[0]
    ends = found["coverage95_low"], found["coverage95_high"]
    assert verdict_of_coverage(*ends, found["blocks"], (0.93, 0.97)) == verdict
    assert verdict_of_coverage(*ends, 4, (0.93, 0.97)) == "inconclusive"


def test_a_study_is_drawn(tmp_path):
    study = load_study("forecast-beijing")
    table = pd.DataFrame(
        [
            row(task, model, crps, replicate=r)
            for task in ("forecast168", "block30")
            for model, crps in (("climatology", 2.0), ("cglubnf", 1.0))
            for r in (0, 1)
        ]
    )
    rendered = paper_figures.render(study, "quick", table, {}, tmp_path)
    names = {path.stem.removeprefix("quick-") for path in rendered.files}
    assert names == {"scores", "worth", "reliability", "horizon", "gap", "series", "places"}
    assert all(path.stat().st_size for path in rendered.files)
    assert "within their bounds: 2 consistent" in rendered.headline
    told = rendered.summary[["task", "model", "1st better"]].to_numpy().tolist()
    assert told == [
        ["block30", "cglubnf", ""],
        ["block30", "climatology", "consistent"],
        ["forecast168", "cglubnf", ""],
        ["forecast168", "climatology", "consistent"],
    ]
    series = pd.read_csv(tmp_path / "quick-series.csv")
    assert series.groupby("task")["hidden"].sum().to_dict() == {"block30": 3, "forecast168": 3}
    places = pd.read_csv(tmp_path / "quick-places.csv")
    assert places["x"].between(11, 11.2).all()


def test_rates_are_drawn(tmp_path):
    study = load_study("forecast-rates")
    table = pd.DataFrame(
        [
            row(f"{pattern}{rate}", model, rate / 100, replicate=1)
            for pattern in ("point", "outage")
            for rate in (10, 50)
            for model in ("cglubnf", "climatology")
        ]
    )
    rendered = paper_figures.render(study, "quick", table, {}, tmp_path)
    shown = pd.read_csv(tmp_path / "quick-rates.csv")
    assert shown.groupby("pattern")["rate"].unique().map(list).to_dict() == {
        "point": [0.1, 0.5],
        "outage": [0.1, 0.5],
    }
    assert {path.stem for path in rendered.files} == {"quick-rates"}


def test_groups_are_averaged_over_replicates():
    study = load_study("forecast-beijing")
    rows = [row("block30", "cglubnf", crps, replicate=r) for r, crps in enumerate((1.0, 3.0))]
    found = forecast_scores.grouped(pd.DataFrame(rows), "gap", study.setting.tasks)
    assert found["group"].tolist() == ["(12, 24]", "(48, 72]"]
    assert found["crps"].tolist() == pytest.approx([2.0, 4.0])
    assert found["coverage95_se"].tolist() == pytest.approx([0.04 / np.sqrt(2), 0.0])
    assert found["coverage95_high"].between(found["coverage95"], 1.0).all()
    assert found["coverage95_low"].lt(found["coverage95"]).all()
    nothing = forecast_scores.grouped(pd.DataFrame(rows), "horizon", study.setting.tasks)
    assert nothing.empty


def test_bounds_on_scores_are_of_the_first_model():
    found = pd.DataFrame(
        {"task": ["a", "a", "b"], "model": ["ours", "other", "ours"], "mae": [2.0, 9.0, 9.0],
         "crps": [1.5, 9.0, 9.0]}
    )  # fmt: skip
    bounds = {"a": {"mae": 2.0, "crps": 1.4}}
    assert forecast.told_bounds(found, bounds) == ["MAE 2 met, CRPS 1.4 missed", "", ""]


@pytest.mark.parametrize(("data", "told"), [("beijing", True), ("city", False)])
def test_bounds_on_scores_are_for_tables(tmp_path, data, told):
    """A mean CRPS of about 20.2 lies between the bounds of gaps, 20.5 and 16.5."""
    table = pd.DataFrame([row("block30", "cglubnf", 0.3, data=data, n_days=400)])
    good = forecast.render(load_study("forecast-protocol"), "paper", table, {}, tmp_path)
    assert ("Its bounds on scores: 1 met, 1 missed." in good.headline) == told


def test_a_table_without_results_is_refused(tmp_path):
    table = pd.DataFrame([row("point30", "cglubnf", 1.0) | {"status": "failed"}])
    with pytest.raises(ValueError, match="must have a cell that did not fail"):
        paper_figures.render(load_study("forecast-beijing"), "quick", table, {}, tmp_path)

"""Figures of posteriors and samplers: tables that are made, verdicts that are known."""

import json

import numpy as np
import pandas as pd
import pytest

import paper_figures
from experiments.study import load_study
from paper_figures import posterior, sampler_speed, samplers


def scores(shift=0.0, splits=10):
    """fg is 0.3 worse than gpi-g on each split, and published scores are ours less a shift."""
    published = load_study("uci-posterior").profile("paper").published
    rows = [
        {
            "arm": arm,
            "prior": arm,
            "n": 200,
            "replicate": r,
            "status": "ok",
            "rmse": published[arm].rmse[r] + shift + 0.01 * (-1) ** r,
            "nll": published[arm].nll[r] + shift + 0.002 * (-1) ** r,
            "rhat": 1.01,
        }
        for arm in ("fg", "gpi-g")
        for r in range(splits)
    ]
    return pd.DataFrame(rows)


def test_paired_differences_are_those_of_scipy():
    from scipy.stats import ttest_rel

    table = scores()
    published = load_study("uci-posterior").profile("paper").published
    found = posterior.paired(table, {k: v.model_dump() for k, v in published.items()})
    row = found[(found["arm"] == "gpi-g") & (found["score"] == "rmse") & (found["against"] == "fg")]
    wide = table.pivot(index="replicate", columns="arm", values="rmse")
    expected = ttest_rel(wide["gpi-g"], wide["fg"])
    low, high = expected.confidence_interval(0.9)
    assert row["p"].item() == pytest.approx(expected.pvalue)
    assert (row["low"].item(), row["high"].item()) == pytest.approx((low, high))


@pytest.mark.parametrize(("shift", "verdict"), [(-0.1, "met"), (0.0, "met"), (0.03, "missed")])
def test_published_scores_are_met_or_missed(shift, verdict):
    """0.03 above on each split is within 0.05, but its interval does not hold 0."""
    published = load_study("uci-posterior").profile("paper").published
    found = posterior.paired(scores(shift), {k: v.model_dump() for k, v in published.items()})
    told = found.loc[found["against"] == "published", "verdict"]
    assert len(told) == 4
    assert set(told) == {verdict}


@pytest.mark.parametrize("splits", [1, 10])
def test_scores_are_drawn(splits, tmp_path):
    study = load_study("uci-posterior")
    rendered = paper_figures.render(study, "paper", scores(splits=splits), {}, tmp_path)
    assert {p.suffix for p in rendered.files} == {".pdf", ".png", ".csv"}
    assert "gpi-g: root mean squared error" in rendered.headline


def band_row(arm, mean, spread):
    x = np.linspace(-6, 6, 50)
    values = {
        "position": x,
        "truth": np.sin(x),
        "low": mean - 1.6 * spread,
        "middle": mean,
        "high": mean + 1.6 * spread,
        "mean": mean,
        "spread": spread,
        "X": x[::10],
        "y": np.sin(x[::10]),
    }
    drawn = {k: json.dumps(list(v)) for k, v in values.items()}
    return {"arm": arm, "prior": arm, "n": 8, "replicate": 0, "status": "ok", "rhat": 1.0, **drawn}


def test_bands_are_compared_with_the_exact_posterior(tmp_path):
    x = np.linspace(-6, 6, 50)
    table = pd.DataFrame(
        [
            band_row("gp", np.sin(x), np.full(50, 0.5)),
            band_row("fg", np.sin(x) + 0.3, np.full(50, 0.25)),
        ]
    )
    rendered = paper_figures.render(load_study("toy-posterior"), "quick", table, {}, tmp_path)
    found = rendered.summary.set_index("arm")
    assert found.loc["fg", "mean_gap"] == pytest.approx(0.3)
    assert found.loc["fg", "spread_ratio"] == pytest.approx(0.5)
    assert found.loc["gp", "mean_gap"] == 0
    assert "fg 0.30" in rendered.headline


def biases(law, order=1, predicted=True, error=1e-3):
    steps = [0.4, 0.2, 0.1]
    return pd.DataFrame(
        [
            {
                "arm": "a", "target": "gaussian" if predicted else "tanh", "sampler": "sgld",
                "noise_variance": 0.0, "order": order, "step_size": h, "bias": law(h),
                "standard_error": error, "predicted": h / 2 if predicted else None, "status": "ok",
                "n": k, "replicate": 0,
            }
            for k, h in enumerate(steps)
        ]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("table", "verdict"),
    [
        (biases(lambda h: h / 2), "consistent"),
        (biases(lambda h: h), "inconsistent"),
        (biases(lambda h: h / 2, error=1.0), "inconclusive"),
        (biases(lambda h: 3 * h**2, 2, False), "consistent"),
        (biases(lambda h: 3 * h, 2, False), "inconsistent"),
        (biases(lambda h: 0.02 + 3 * h**2, 2, False), "inconsistent"),
        (biases(lambda h: 3 * h**2, 2, False, error=1.0), "inconclusive"),
    ],
)
def test_verdicts_on_bias(table, verdict):
    assert samplers.judged(samplers.combined(table))["verdict"].item() == verdict


@pytest.mark.parametrize("power", [1, 2])
def test_the_order_of_a_bias_is_seen(power):
    """Without noise the fit is exact; where biases are within theirs, nothing is said."""
    table = biases(lambda h: 3 * h**power, 2, False)
    seen = samplers.judged(samplers.combined(table)).loc[0]
    assert seen["order_seen"] == pytest.approx(power)
    assert 0 < seen["order_error"] < 0.02
    noisy = samplers.combined(biases(lambda h: 3 * h**power, 2, False, error=10.0))
    assert np.isnan(samplers.judged(noisy).loc[0, "order_seen"])


def test_bias_is_drawn(tmp_path):
    table = pd.concat([biases(lambda h: h / 2), biases(lambda h: 3 * h**2, 2, False)])
    table["arm"] = ["one"] * 3 + ["two"] * 3
    rendered = paper_figures.render(load_study("sampler-exactness"), "quick", table, {}, tmp_path)
    assert len(rendered.files) == 3
    assert "2 are consistent" in rendered.headline


def test_rates_are_drawn(tmp_path):
    table = pd.DataFrame(
        [
            {"arm": arm, "n": n, "replicate": r, "status": "ok", "rate": 100 * n**0.8 + r}
            for arm in ("sgld", "sghmc")
            for n in (1, 8)
            for r in range(3)
        ]
    )
    rendered = paper_figures.render(load_study("sampler-speed"), "quick", table, {}, tmp_path)
    gain = sampler_speed.medians(table).query("chains == 8")["gain"]
    assert gain.to_numpy() == pytest.approx([(100 * 8**0.8 + 1) / 101] * 2)
    assert len(rendered.files) == 3

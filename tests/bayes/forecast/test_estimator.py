"""The estimator: what goes in, what comes out, and what it must never look at."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from bayes.forecast.estimator import CGLUBNF
from bayes.forecast.records import read_records
from bayes.storage import StorageError

FAST = {"n_updates": 20, "ensemble_size": 2, "width": 16, "random_state": 0}


def table(n_hours: int = 150, n_sensors: int = 4, seed: int = 0) -> pd.DataFrame:
    """Positive values that share a slow signal and the hour of the day."""
    rng = np.random.default_rng(seed)
    hours = np.arange(n_hours)
    shared = np.convolve(rng.normal(size=n_hours + 20), np.ones(21) / 5, "valid")
    rows = [
        pd.DataFrame(
            {
                "time": pd.date_range("2024-03-01", periods=n_hours, freq="h"),
                "x": 3.0 * s,
                "y": float(s % 2),
                "wind": rng.normal(size=n_hours),
                "pm": np.exp(
                    3 + 0.3 * shared + 0.2 * np.sin(2 * np.pi * hours / 24) + 0.1 * s
                    + 0.05 * rng.normal(size=n_hours)
                ),
            }
        )
        for s in range(n_sensors)
    ]  # fmt: skip
    return pd.concat(rows, ignore_index=True)


@pytest.fixture(scope="module")
def split() -> tuple[pd.DataFrame, pd.DataFrame]:
    df = table()
    hidden = np.random.default_rng(1).random(len(df)) < 0.3
    df.index = pd.Index([f"r{i}" for i in range(len(df))], name="row")
    return df[~hidden], df[hidden].sample(frac=1, random_state=0)


@pytest.fixture(scope="module", autouse=True)
def few_steps():
    """Kriging is fitted quickly: nothing here asks for its best parameters."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bayes.forecast.fitting.KRIGING_STEPS", 10)
        yield


@pytest.fixture(scope="module")
def model(split) -> CGLUBNF:
    return CGLUBNF("time", ["x", "y"], "pm", covariates=["wind"], **FAST).fit(split[0])


def test_it_beats_the_mean_and_covers(model, split):
    """The median errs less than half as much as the overall median; a 90 % interval covers more
    than .8 of 182 rows and a 50 % one less than .8: four standard errors, and some for dependence.
    """
    test = split[1]
    error = (model.predict(test) - test.pm).abs().mean()
    assert error < 0.5 * (split[0].pm.median() - test.pm).abs().mean()
    interval = model.predict_interval(test, coverage=[0.5, 0.9])
    assert test.pm.between(interval[(0.9, "low")], interval[(0.9, "high")]).mean() > 0.8
    assert test.pm.between(interval[(0.5, "low")], interval[(0.5, "high")]).mean() < 0.8
    assert model.score(test) > -error


def test_intervals_are_the_quantiles_at_their_ends(model, split):
    interval = model.predict_interval(split[1], [0.95])
    ends = model.predict_quantiles(split[1], [0.025, 0.975])
    np.testing.assert_array_equal(interval.to_numpy(), ends.to_numpy())
    for wrong in (1.0, 0.0, 95, "most"):
        with pytest.raises(ValueError, match="'coverage' parameter"):
            model.predict_interval(split[1], [wrong])


def test_index_and_names_come_back(model, split):
    test = split[1]
    assert model.predict(test).index.equals(test.index)
    assert model.predict(test).name == "pm"
    quantiles = model.predict_quantiles(test, [0.9, 0.1])
    assert quantiles.columns.tolist() == [0.9, 0.1]
    assert (quantiles[0.9] > quantiles[0.1]).all()
    alone = model.predict(test.iloc[[5]])
    assert alone.iloc[0] == pytest.approx(model.predict(test).iloc[5], rel=1e-5)


def test_targets_of_the_table_are_not_looked_at(model, split):
    test = split[1]
    expected = model.predict(test)
    pd.testing.assert_series_equal(model.predict(test.drop(columns="pm")), expected)
    pd.testing.assert_series_equal(model.predict(test.assign(pm=1e3)), expected)


def test_observed_rows_are_looked_at_but_never_a_rows_own(model, split):
    test = split[1]
    half, other = test.iloc[::2], test.iloc[1::2]
    with_more = model.predict(half, observed=other)
    assert (with_more - half.pm).abs().mean() < (model.predict(half) - half.pm).abs().mean()
    everything = model.predict(half, observed=test)
    poisoned = model.predict(half.iloc[[0]], observed=test.assign(pm=test.pm.where(
        test.index != half.index[0], 1e4)))  # fmt: skip
    assert poisoned.iloc[0] == pytest.approx(everything.iloc[0], rel=1e-6)


def test_a_training_row_is_predicted_without_its_own_value(model, split):
    """The value of one training row changes: its own prediction stays, others move."""
    fitted = model.model_
    target = fitted.records.target.copy()
    target[40] *= 1.5
    changed = replace(fitted, records=replace(fitted.records, target=target))
    own = fitted.records.take(np.array([40]))
    others = read_records(split[1], fitted.records.reference.schema, fitted.records.reference)
    levels = np.array([0.1, 0.5, 0.9])
    before, after = (m.predict(own).quantile(levels) for m in (fitted, changed))
    np.testing.assert_array_equal(after, before)
    before, after = (m.predict(others).quantile(levels) for m in (fitted, changed))
    assert (after != before).any(1).sum() >= 3


def test_positive_data_stay_positive(model, split):
    assert (model.predict_quantiles(split[1], [0.0001, 0.01]) >= 0).all().all()
    assert (model.sample(split[1], 20, random_state=0) >= 0).all().all()


def test_exceedance_agrees_with_quantiles(model, split):
    test = split[1].iloc[:20]
    threshold = float(test.pm.median())
    chance = model.predict_exceedance(test, threshold)
    for i in range(20):
        if 0.02 < chance.iloc[i] < 0.98:
            back = model.predict_quantiles(test.iloc[[i]], [1 - chance.iloc[i]]).iloc[0, 0]
            assert back == pytest.approx(threshold, rel=1e-4)
    assert ((chance > 0.02) & (chance < 0.98)).any()
    assert (model.predict_exceedance(test, -5.0) == 1).all()


def test_samples_have_the_marginals_and_depend_on_each_other(model):
    """Two sensors near each other in the future: 2000 draws give each quantile within three
    standard errors, .005, and a correlation between consecutive hours above .3."""
    later = pd.DataFrame(
        {"time": pd.date_range("2024-03-07 12:00", periods=12, freq="h"), "x": 0.0, "y": 0.0}
    ).assign(wind=np.nan)
    draws = model.sample(later, 2000, random_state=0)
    assert draws.index.equals(later.index)
    quantiles = model.predict_quantiles(later, [0.1, 0.5, 0.9]).to_numpy()
    shares = (draws.to_numpy()[:, :, None] <= quantiles[:, None, :]).mean(1)
    assert np.abs(shares - [0.1, 0.5, 0.9]).max() < 0.04
    steps = np.corrcoef(np.log(draws.to_numpy()))
    assert np.diag(steps, 1).mean() > 0.3
    assert steps[0, 11] < np.diag(steps, 1).mean()


def test_a_forecast_widens_with_its_horizon(model):
    later = pd.DataFrame({"time": pd.date_range("2024-03-07 06:00", periods=30, freq="h")})
    later = later.assign(x=0.0, y=0.0, wind=np.nan)
    interval = model.predict_interval(later, [0.9])
    width = np.log(interval[(0.9, "high")] / interval[(0.9, "low")])
    assert width.iloc[-6:].mean() > 1.2 * width.iloc[0]


def test_saving_and_loading(model, split, tmp_path):
    path = tmp_path / "model"
    model.save(path)
    loaded = CGLUBNF.load(path)
    assert json.dumps(loaded.get_params()) == json.dumps(model.get_params())  # tuples are lists
    pd.testing.assert_frame_equal(
        loaded.predict_quantiles(split[1]), model.predict_quantiles(split[1])
    )
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(StorageError):
        CGLUBNF.load(path)


def test_calibrating_on_new_rows_moves_intervals(model, split, tmp_path):
    test = split[1]
    model.save(tmp_path / "m")
    other = CGLUBNF.load(tmp_path / "m")
    biased = test.assign(pm=2 * test.pm)
    other.calibrate(biased)
    low = other.predict_quantiles(test, [0.5])[0.5]
    assert (low > model.predict_quantiles(test, [0.5])[0.5]).mean() > 0.9


@pytest.mark.parametrize(
    "settings",
    [
        {"context": False, "recalibrate": False},
        {"inference": "mle"},
        {"inference": "vi"},
        {"inference": "laplace"},
        {"inference": "sgmcmc"},
        {"likelihood": "gamma", "attention": False},
        {"likelihood": "truncated-normal", "gating": False, "degree": 0},
    ],
    ids=str,
)
def test_other_ways_run(split, settings):
    model = CGLUBNF("time", ["x", "y"], "pm", **{**FAST, **settings}).fit(split[0])
    quantiles = model.predict_quantiles(split[1], [0.05, 0.5, 0.95])
    assert np.isfinite(quantiles.to_numpy()).all()
    assert (quantiles[0.95] > quantiles[0.05]).all()
    variance = model.predict_variance(split[1])
    assert (variance.aleatoric > 0).all()
    assert (variance.epistemic > 0).all()


@pytest.mark.parametrize("likelihood", ["negative-binomial", "zero-inflated"])
def test_counts(split, likelihood):
    counts = split[0].assign(pm=split[0].pm.round())
    model = CGLUBNF("time", ["x", "y"], "pm", likelihood=likelihood, **FAST).fit(counts)
    quantiles = model.predict_quantiles(split[1], [0.05, 0.5, 0.95])
    assert (quantiles == quantiles.round()).all().all()


def test_the_same_seed_gives_the_same_model(split):
    model = CGLUBNF("time", ["x", "y"], "pm", **{**FAST, "n_updates": 5})
    first, second = (clone(model).fit(split[0]).predict(split[1]) for _ in range(2))
    pd.testing.assert_series_equal(first, second)
    shuffled = clone(model).fit(split[0].sample(frac=1, random_state=3)).predict(split[1])
    pd.testing.assert_series_equal(first, shuffled)
    other = clone(model).set_params(random_state=1).fit(split[0]).predict(split[1])
    assert not first.equals(other)


def test_validation_rows_recalibrate(split):
    model = CGLUBNF("time", ["x", "y"], "pm", **FAST)
    model.fit(split[0], validation=split[1].assign(pm=2 * split[1].pm))
    plain = clone(model).fit(split[0], validation=split[1])
    assert (model.predict(split[1]) > plain.predict(split[1])).mean() > 0.9


def test_a_bayesian_neural_field_has_none_of_the_new_parts():
    model = CGLUBNF.bayesnf("time", ["x"], "pm")
    assert not (model.context)
    assert not (model.attention)
    assert not (model.gating)
    assert not (model.heteroscedastic)
    assert (model.likelihood, tuple(model.activations)) == ("normal", ("elu", "tanh"))
    assert CGLUBNF.bayesnf("time", ["x"], "pm", width=8).width == 8


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("likelihood", "poisson"),
        ("inference", "hmc"),
        ("ensemble_size", 0),
        ("seasonality", "daily"),
        ("seasonality", [0.5]),
        ("activations", ["relu"]),
        ("random_state", -1),
    ],
)
def test_bad_settings_are_named(split, setting, value):
    model = CGLUBNF("time", ["x", "y"], "pm").set_params(**{setting: value})
    with pytest.raises(ValueError, match=setting):
        model.fit(split[0])


def test_bad_tables(model, split):
    train = split[0]
    with pytest.raises(ValueError, match="once"):
        CGLUBNF("time", ["x", "y"], "pm").fit(pd.concat([train, train.iloc[[3]]]))
    with pytest.raises(ValueError, match="NaN alone"):
        CGLUBNF("time", ["x", "y"], "pm").fit(train.assign(pm=np.nan))
    with pytest.raises(ValueError, match="vary"):
        CGLUBNF("time", ["x", "y"], "pm").fit(train.assign(pm=3.0))
    with pytest.raises(ValueError, match="finite"):
        CGLUBNF("time", ["x", "y"], "pm").fit(train.assign(pm=np.inf))
    with pytest.raises(ValueError, match="greater than 0"):
        CGLUBNF("time", ["x", "y"], "pm", likelihood="gamma").fit(train.assign(pm=-train.pm))
    with pytest.raises(ValueError, match="time zone"):
        model.predict(split[1].assign(time=split[1].time.dt.tz_localize("UTC")))
    with pytest.raises(ValueError, match="unknown for now may be NaN"):
        model.predict(split[1].drop(columns="wind"))
    with pytest.raises(NotFittedError):
        CGLUBNF("time", ["x", "y"], "pm").predict(train)


def test_irregular_times_of_one_instrument_and_negative_targets():
    """The median errs less than half as much as the overall one on a wave with little noise."""
    rng = np.random.default_rng(0)
    hours = np.sort(rng.uniform(0, 300, 300))
    df = pd.DataFrame({"time": pd.Timestamp("2024-01-01") + pd.to_timedelta(hours, "h"), "x": 0.0})
    df["y"] = np.sin(hours / 8) + 0.1 * rng.normal(size=300) - 0.5
    hidden = rng.random(300) < 0.3
    model = CGLUBNF("time", ["x"], "y", **FAST).fit(df[~hidden].sample(frac=1, random_state=0))
    error = (model.predict(df[hidden]) - df.y[hidden]).abs().mean()
    assert error < 0.5 * (df.y[~hidden].median() - df.y[hidden]).abs().mean()


def test_the_climate_moves_far_forecasts_only(split):
    """A share is given by age: a forecast of 12 days leans on it more than a gap of an hour."""
    train, test = split
    with_it, without = (
        CGLUBNF("time", ["x", "y"], "pm", climate=climate, **FAST).fit(train)
        for climate in (True, False)
    )
    later = test.assign(time=test.time + pd.Timedelta(days=12))
    moved = [
        np.abs(np.log(with_it.predict(df) / without.predict(df))).mean() for df in (later, test)
    ]
    assert (with_it.model_.climate.share > 0).any()
    assert not (without.model_.climate.share > 0).any()
    assert moved[0] > 3 * moved[1]


def test_new_sensors_and_missing_covariates_are_fine(model, split):
    new = split[1].assign(x=split[1].x + 1.7, wind=np.nan)
    quantiles = model.predict_quantiles(new, [0.05, 0.95])
    known = model.predict_quantiles(split[1], [0.05, 0.95])
    assert np.isfinite(quantiles.to_numpy()).all()
    width = [np.log(q[0.95] / q[0.05]).mean() for q in (quantiles, known)]
    assert width[0] > width[1]

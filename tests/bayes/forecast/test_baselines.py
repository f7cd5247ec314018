"""Baselines: exact on data made for them, honest intervals, one protocol."""

import importlib
import os
import pathlib

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from bayes.forecast import baselines
from bayes.forecast.baselines import base, series
from bayes.forecast.baselines.inverse_distance import Neighbours
from bayes.forecast.city import SCHEMA, synthetic_city
from bayes.forecast.gaps import isolation
from bayes.forecast.masks import make_mask
from bayes.forecast.records import Schema, read_records
from bayes.forecast.scores import LEVELS

CHEAP = ["Climatology", "Interpolation", "InverseDistance", "Persistence"]
PLAIN = Schema("time", ["x", "y"], "pm25", sensor="station")


@pytest.fixture(scope="module")
def city():
    return synthetic_city(n_sensors=10, days=30, random_state=0, n_vehicles=0)


def grid(value, n_hours=24 * 14, n_stations=6):
    """A table of value(hour, x, y) at fixed stations."""
    hour, station = np.divmod(np.arange(n_hours * n_stations), n_stations)
    place = np.random.default_rng(0).uniform(0, 20, (n_stations, 2))[station]
    time = pd.Timestamp("2024-01-01") + pd.to_timedelta(hour, unit="h")
    df = pd.DataFrame({"time": time, "station": station, "x": place[:, 0], "y": place[:, 1]})
    return df.assign(pm25=value(hour, place[:, 0], place[:, 1]))


def make(name, schema=PLAIN):
    return getattr(baselines, name)(**vars(schema))


def misses(name, df, hidden, asked=None):
    asked = hidden if asked is None else asked
    model = make(name).fit(df[~hidden])
    return np.abs(model.predict(df[asked].drop(columns="pm25")) - df.pm25[asked]).max()


def test_each_is_exact_on_data_made_for_it():
    """Lines in time, values alike everywhere at a time, daily cycles; and not on another's."""
    hidden_block = pd.Series(False, index=range(24 * 14 * 6))
    df = grid(lambda t, x, y: 100 + 0.3 * t + x)
    hidden_block[(df.station == 2) & df.time.between("2024-01-05", "2024-01-06 12:00")] = True
    assert misses("Interpolation", df, hidden_block) < 1e-9
    assert misses("Climatology", df, hidden_block) > 5
    noise = np.random.default_rng(1).normal(size=24 * 14)
    df = grid(lambda t, x, y: 50 + 10 * noise[t])
    assert misses("InverseDistance", df, hidden_block) < 1e-9
    assert misses("Interpolation", df, hidden_block) > 5
    df = grid(lambda t, x, y: 50 + 30 * np.sin(2 * np.pi * t / 24) + x)
    last = df.time >= "2024-01-12"
    assert misses("Persistence", df, last, df.time > "2024-01-12 11:00") < 1e-9
    assert misses("Interpolation", df, last) > 5
    shrinkage = 30 / (1 + 66) + 10 * 24 / (24 + 264)  # of 66 rows an hour and 264 a sensor
    assert misses("Climatology", df, last) < shrinkage


def test_interpolation_in_time_by_hand():
    df = grid(lambda t, x, y: t**2 + x, n_stations=2)
    records = read_records(df, PLAIN)
    hidden = (records.sensor == 0) & (records.hours % 24 >= 5) & (records.hours % 24 < 8)
    bracket = series.own(records.hide(hidden), records.take(hidden))
    hours = records.hours[hidden] - records.hours[0]
    left, right = hours // 24 * 24 + 4, hours // 24 * 24 + 8
    x = records.position[hidden, 0]
    weight = (hours - left) / 4
    expected = (1 - weight) * (left**2 + x) + weight * (right**2 + x)
    np.testing.assert_allclose(bracket.interpolate(), expected)
    np.testing.assert_array_equal(bracket.since, hours - left)
    np.testing.assert_array_equal(bracket.until, right - hours)


def test_inverse_distance_by_hand():
    df = grid(lambda t, x, y: np.sin(t) * x + y)
    records = read_records(df, PLAIN)
    asked = (records.sensor == 3) & (records.hours == records.hours[90])
    one = records.take(asked)
    for context in (records, records.hide(asked)):  # its own value is no neighbour
        got = Neighbours(context).find(one).estimate(2.0)[0]
        now = (records.hours == one.hours[0]) & (records.sensor != 3)
        d = np.linalg.norm(records.position[now] - one.position, axis=1)
        expected = np.sum(records.target[now] / d**2) / np.sum(1 / d**2)
        assert got == pytest.approx(expected, rel=1e-9)


def test_isolation_is_what_a_loop_finds():
    rng = np.random.default_rng(0)
    df = grid(lambda t, x, y: rng.normal(size=len(t)), n_hours=60, n_stations=4)
    records = read_records(df, PLAIN)
    hidden = rng.random(len(records)) < 0.6
    hidden |= (records.hours > records.hours[0] + 20) & (records.hours < records.hours[0] + 30)
    hidden |= records.sensor == 3
    context, asked = records.hide(hidden), records.take(np.arange(0, len(records), 3))
    got = isolation(context, asked)
    seen = context.observed
    for i in range(len(asked)):
        gap = asked.hours[i] - context.hours[seen]
        own = context.sensor[seen] == asked.sensor[i]
        others = ~(own & (gap == 0))
        assert got.since[i] == gap[own & (gap > 0)].min(initial=np.inf)
        assert got.until[i] == (-gap[own & (gap < 0)]).min(initial=np.inf)
        assert got.simultaneous[i] == (gap[others] == 0).any()
        assert got.horizon[i] == gap[others & (gap >= 0)].min(initial=np.inf)


@pytest.mark.parametrize("name", CHEAP)
def test_protocol(city, name):
    """The caller's index and columns; independence of row order; targets of asked rows unused."""
    hidden = make_mask(city, "block", 0.2, 0, schema=SCHEMA)
    train, test = city[~hidden], city[hidden].sample(frac=1, random_state=0)
    model = make(name, SCHEMA)
    assert clone(model).get_params() == model.get_params()
    model.fit(train)
    q = model.predict_quantiles(test, [0.9, 0.1, 0.33])
    assert q.index.equals(test.index)
    assert q.columns.tolist() == [0.9, 0.1, 0.33]
    assert ((q[0.1] <= q[0.33]) & (q[0.33] <= q[0.9])).all()
    assert model.predict(test).index.equals(test.index)
    np.testing.assert_allclose(model.predict(test), model.predict_quantiles(test, [0.5])[0.5])
    levels = np.round(np.arange(0.005, 0.9955, 0.001), 3)  # with all the fitted ones
    fine = model.predict_quantiles(test, levels).to_numpy()
    whole = np.trapezoid(fine, levels) + 0.005 * (fine[:, 0] + fine[:, -1])
    np.testing.assert_allclose(model.predict(test, "mean"), whole, rtol=1e-9)
    again = make(name, SCHEMA).fit(train.sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(again.predict_quantiles(test, [0.9, 0.1, 0.33]), q)
    blind = model.predict_quantiles(test.drop(columns="pm25"), [0.9, 0.1, 0.33])
    pd.testing.assert_frame_equal(blind, q)
    interval = model.predict_interval(test, [0.8])
    np.testing.assert_array_equal(interval[0.8, "low"], q[0.1])
    with pytest.raises(ValueError, match="'alpha' parameter must be a real number in"):
        model.predict_quantiles(test, [0.001])


@pytest.mark.parametrize("name", CHEAP)
def test_intervals_cover_under_each_pattern(city, name):
    """95% intervals on rows hidden by keys that calibration did not use cover 85 to 99.5%: rows are
    dependent (ten sensors, 30 days), so that binomial errors do not apply; the keys are fixed.
    A third of the width must fail."""
    scale = base.log_scale(city.pm25.to_numpy())
    for pattern, rate in (("point", 0.3), ("block", 0.3), ("outage", 0.2)):
        hidden = make_mask(city, pattern, rate, 99, schema=SCHEMA)
        test = city[hidden]
        q = make(name, SCHEMA).fit(city[~hidden]).predict_quantiles(test)
        z = scale.forward(q.to_numpy())
        y = scale.forward(test.pm25.to_numpy())
        assert 0.85 < np.mean((y >= z[:, 0]) & (y <= z[:, -1])) < 0.995
        middle, part = z[:, 10], 1 / 3
        low, high = middle + part * (z[:, 0] - middle), middle + part * (z[:, -1] - middle)
        assert np.mean((y >= low) & (y <= high)) < 0.85
        assert q.to_numpy().min() >= 0


def test_unseen_sensors_and_negative_targets_are_forecast(city):
    df = city.assign(pm25=city.pm25 - 80)
    new = df.sensor.isin(["S01", "S05"])
    for name in CHEAP:
        q = make(name, SCHEMA).fit(df[~new]).predict_quantiles(df[new])
        assert np.isfinite(q.to_numpy()).all()
        assert q.to_numpy().min() < 0


def test_standard_makes_all():
    models = baselines.standard(SCHEMA, random_state=4)
    assert sorted(models) == sorted([*CHEAP, "Boosting", "SVGP"])
    assert all(model.random_state == 4 and model.target == "pm25" for model in models.values())


@pytest.mark.slow
def test_boosting_beats_what_it_is_made_of(city):
    hidden = make_mask(city, "point", 0.3, 99, schema=SCHEMA)
    test = city[hidden]
    miss = {}
    for name in ("Boosting", "Interpolation", "InverseDistance"):
        model = make(name, SCHEMA).fit(city[~hidden])
        q = model.predict_quantiles(test)
        miss[name] = np.abs(q[0.5] - test.pm25).mean()
        if name == "Boosting":
            inside = (test.pm25 >= q[0.025]) & (test.pm25 <= q[0.975])
            assert 0.92 < inside.mean() < 0.99  # calibrated on one fold's model, used as three
    assert miss["Boosting"] < min(miss["Interpolation"], miss["InverseDistance"])


@pytest.mark.slow
def test_svgp_learns(city, monkeypatch):
    from bayes.forecast.baselines import svgp

    monkeypatch.setattr(svgp, "N_STEPS", 100)
    few = city[city.time < "2024-01-15"]
    hidden = make_mask(few, "point", 0.3, 99, schema=SCHEMA)
    test = few[hidden]
    miss = {
        name: np.abs(make(name, SCHEMA).fit(few[~hidden]).predict(test) - test.pm25).mean()
        for name in ("SVGP", "Climatology")
    }
    assert miss["SVGP"] < 0.8 * miss["Climatology"]


TASKS = os.environ.get("MOEBIUS_AIR_TASKS")


@pytest.mark.slow
@pytest.mark.skipif(TASKS is None, reason="MOEBIUS_AIR_TASKS names no file of air-quality tasks")
def test_real_tasks_are_as_good_as_measured():
    """MAE of medians and CRPS on Beijing, November and December 2016, may not get worse."""
    spec = importlib.util.spec_from_file_location("air_tasks", pathlib.Path(str(TASKS)))
    tasks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tasks)
    df = tasks.load()
    schema = Schema("datetime", ["latitude", "longitude"], "y", sensor="station")
    from bayes.forecast.scores import score_table

    for task, name, mae, crps in (
        ("point30", "Interpolation", 10.4, 8.9),
        ("block30", "InverseDistance", 21.1, 16.8),
        ("station3", "InverseDistance", 23.5, 18.6),
        ("outage20", "Interpolation", 32.2, 25.0),
        ("forecast168", "Climatology", 89.8, 61.0),
    ):
        train, test = tasks.make_split(df, task)
        model = make(name, schema).fit(train)
        q = model.predict_quantiles(test.drop(columns="y"), LEVELS)
        scores = score_table(test.y, q, n_bootstrap=0).iloc[0]
        assert scores.mae < mae
        assert scores.crps < crps

"""Evaluation hides, fits, asks and scores without letting a target through."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator

from bayes.forecast import baselines
from bayes.forecast.city import SCHEMA, synthetic_city
from bayes.forecast.evaluation import ForecastTask, MaskTask, RowsTask, evaluate
from bayes.forecast.scores import LEVELS, score_table


@pytest.fixture(scope="module")
def city():
    return synthetic_city(n_sensors=6, days=20, random_state=0, n_vehicles=0)


class Honest(BaseEstimator):
    """Quantiles of all it was trained on; notes what it is shown."""

    shown = None

    def __init__(self, time="time", coords=("latitude", "longitude"), target="pm25"):
        self.time, self.coords, self.target = time, coords, target
        self.covariates, self.sensor, self.freq = (), "sensor", "h"

    def fit(self, df):
        self.values_ = df[self.target].dropna()
        return self

    def predict_quantiles(self, df, alpha):
        type(self).shown = df
        q = np.tile(self.values_.quantile(alpha), (len(df), 1))
        return pd.DataFrame(q, index=df.index, columns=alpha)

    def predict(self, df, statistic):
        assert statistic == "mean"
        return pd.Series(self.values_.mean(), index=df.index)


def test_scores_are_those_of_the_hidden_rows(city):
    task = MaskTask("block", 0.2, random_state=1)
    train, test = task.split(city, SCHEMA)
    table = evaluate(Honest(), city, [task], n_bootstrap=20)
    assert Honest.shown.pm25.isna().all()
    test = test.dropna(subset="pm25")
    model = Honest().fit(train)
    own = score_table(
        test.pm25,
        model.predict_quantiles(test, list(LEVELS)),
        model.predict(test, "mean"),
        n_bootstrap=0,
    ).iloc[0]
    whole = table[table.by == "all"].iloc[0]
    assert whole.task == "block20"
    assert whole.model == "Honest"
    for column in own.index:
        assert whole[column] == pytest.approx(own[column])
    assert whole.crps_se > 0
    assert whole.fit_seconds >= 0
    for by in ("horizon", "gap", "sensor", "hour"):
        part = table[table.by == by]
        assert part.n.sum() == len(test)
        assert np.average(part.crps, weights=part.n) == pytest.approx(own.crps)
    by_sensor = table[table.by == "sensor"].set_index("group")
    one = test[test.sensor == "S03"]
    own = score_table(one.pm25, model.predict_quantiles(one, list(LEVELS)), n_bootstrap=0)
    assert by_sensor.crps["S03"] == pytest.approx(own.crps.iloc[0])


def test_horizon_and_gap_are_those_of_the_rows(city):
    table = evaluate(Honest(), city, [ForecastTask(30)], n_bootstrap=0)
    known = city.pm25.notna()
    hours = (city.time.max() - city.time) / pd.Timedelta("1h")
    horizon = 30 - hours[known & (hours < 30)]
    got = table[table.by == "horizon"].set_index("group").n
    assert got["(24, 48]"] == (horizon > 24).sum()
    assert got["(3, 6]"] == horizon.between(4, 6).sum()
    assert table[table.by == "gap"].group.tolist() == ["no end"]
    outage = evaluate(Honest(), city, [MaskTask("point", 0.1)], n_bootstrap=0)
    assert outage[outage.by == "horizon"].group.tolist()[0] == "0"


def test_baselines_stand_beside_the_model(city):
    others = {
        "climate": baselines.Climatology(**vars(SCHEMA)),
        "line": baselines.Interpolation(**vars(SCHEMA)),
    }
    tasks = [MaskTask("point", 0.2), MaskTask("outage", 0.2, name="dark")]
    table = evaluate(Honest(), city, tasks, others, n_bootstrap=0)
    whole = table[table.by == "all"].set_index(["task", "model"])
    assert len(whole) == 6
    assert whole.crps["point20", "line"] < whole.crps["point20", "Honest"]
    assert whole.crps["dark", "line"] > whole.crps["point20", "line"]


def test_rows_of_ones_own(city):
    test = (city.sensor == "S01").to_numpy()
    train = (city.sensor == "S02").to_numpy()
    table = evaluate(Honest(), city, [RowsTask("own", test, train)], n_bootstrap=0)
    assert table[table.by == "sensor"].group.tolist() == ["new"]
    a, b = RowsTask("rest", test).split(city, SCHEMA)
    assert len(a) + len(b) == len(city)
    with pytest.raises(ValueError, match="disjoint masks"):
        evaluate(Honest(), city, [RowsTask("same", test, test)])
    with pytest.raises(ValueError, match="must hide a known target"):
        evaluate(Honest(), city, [RowsTask("none", city.pm25.isna())])

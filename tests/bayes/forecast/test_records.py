"""Tables become arrays; doubtful input is refused or treated as documented."""

import numpy as np
import pandas as pd
import pytest

from bayes.forecast import places
from bayes.forecast.records import Schema, check_target_above, read_records, step_of

SCHEMA = Schema("time", ["latitude", "longitude"], "pm25", sensor="station")


def table(n_hours=30, stations=("a", "b", "c")):
    times = pd.date_range("2024-03-01", periods=n_hours, freq="h")
    place = {"a": (48.0, 11.0), "b": (48.1, 11.2), "c": (48.2, 11.1)}
    rows = [(t, s, *place[s]) for t in times for s in stations]
    df = pd.DataFrame(rows, columns=["time", "station", "latitude", "longitude"])
    df["pm25"] = np.random.default_rng(0).gamma(2, 10, len(df))
    return df


def refuses(df, words, schema=SCHEMA, fitted=None):
    with pytest.raises(ValueError, match=words):
        read_records(df, schema, fitted)


def test_rows_are_sorted_inside_and_given_back_in_the_callers_order():
    df = table()
    shuffled = df.sample(frac=1, random_state=1)
    a, b = read_records(df, SCHEMA), read_records(shuffled, SCHEMA)
    for field in ("hours", "position", "target", "sensor"):
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field))
    assert (np.diff(b.hours) >= 0).all()
    np.testing.assert_array_equal(b.restore(b.target), shuffled.pm25)
    np.testing.assert_array_equal(b.restore(b.target[None], axis=1)[0], shuffled.pm25)
    assert b.index.equals(shuffled.index)
    assert not np.array_equal(b.target, shuffled.pm25)  # restoring is needed


def test_take_and_hide_keep_rows_together():
    records = read_records(table().sample(frac=1, random_state=1), SCHEMA)
    hidden = records.target > 20
    assert records.hide(hidden).observed.sum() == (~hidden).sum()
    part = records.take(hidden)
    np.testing.assert_array_equal(part.target, records.target[hidden])
    np.testing.assert_array_equal(part.restore(part.target), table().pm25.loc[part.index])


def test_hours_are_those_of_the_clock_and_of_utc_for_aware_times():
    df = table()
    naive = read_records(df, SCHEMA)
    assert naive.hours[0] == (pd.Timestamp("2024-03-01") - pd.Timestamp(0)) / pd.Timedelta("1h")
    as_text = read_records(df.assign(time=df.time.astype(str)), SCHEMA)
    np.testing.assert_array_equal(naive.hours, as_text.hours)
    berlin = read_records(df.assign(time=df.time.dt.tz_localize("Europe/Berlin")), SCHEMA)
    np.testing.assert_array_equal(berlin.hours, naive.hours - 1)


def test_mixed_time_zones_are_refused():
    df = table()
    texts = df.time.astype(str).tolist()
    refuses(df.assign(time=[texts[0] + "+01:00", *texts[1:]]), "time zone")
    aware = [pd.Timestamp(t, tz="UTC") for t in texts]
    refuses(df.assign(time=pd.Series([texts[0], *aware[1:]], dtype=object)), "time zone")
    fitted = read_records(df, SCHEMA).reference
    refuses(
        df.assign(time=df.time.dt.tz_localize("UTC")), "no time zone as in training", fitted=fitted
    )


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("time", pd.NaT, "no missing times"),
        ("latitude", np.nan, "'latitude' must be finite"),
        ("pm25", np.inf, "'pm25' must be finite or NaN; got inf in 1 rows, first row 0"),
        ("latitude", 116.4, r"within \[-90, 90\]; got 116.4"),
        ("longitude", 4e6, r"within \[-360, 360\]"),
        ("latitude", 0.84, "must not jump"),  # radians among degrees
        ("station", None, "must name a sensor"),
    ],
)
def test_one_bad_value_is_refused(column, value, words):
    df = table()
    df.loc[0, column] = value
    refuses(df, words)


def test_bad_columns_are_refused():
    df = table()
    refuses(df.assign(pm25=np.nan), "must be known somewhere")
    refuses(df.assign(pm25=7.0), "must vary; got 7 in all 90 rows")
    refuses(df.assign(pm25="high"), "must be numeric")
    refuses(df.assign(time=np.arange(len(df))), "must hold dates")
    refuses(df.drop(columns="latitude"), r"got none named \['latitude'\]")
    refuses(df.iloc[:0], "a row at least")
    refuses(df.to_numpy(), "must be a pandas DataFrame")
    refuses(pd.concat([df, df[["pm25"]]], axis=1), "must be distinct")


def test_repeated_rows_are_refused_unless_at_most_one_is_observed():
    df = table()
    refuses(pd.concat([df, df.iloc[[4]]]), "1 rows that repeat another, first .*2024-03-01 01:00")
    again = pd.concat([df, df.iloc[[4]].assign(pm25=np.nan)])
    assert len(read_records(again, SCHEMA)) == len(df) + 1
    beside = pd.concat([df, df[df.station == "a"].assign(station="d")])  # two at one place
    assert read_records(beside, SCHEMA).n_sensors == 4


def test_swapped_coordinates_of_later_rows_are_refused():
    df = table()
    fitted = read_records(df, SCHEMA).reference
    swapped = df.rename(columns={"latitude": "longitude", "longitude": "latitude"})
    refuses(swapped, "only when they are swapped", fitted=fitted)
    elsewhere = df.assign(latitude=df.latitude + 3)  # far away, but no better swapped
    assert len(read_records(elsewhere.assign(station="new"), SCHEMA, fitted)) == len(df)


def test_a_vehicle_with_a_name_may_move():
    df = table(stations=("a",))
    df["latitude"] = np.linspace(48, 50, len(df))
    assert read_records(df, SCHEMA).n_sensors == 1


def test_sensors_are_labels_or_places():
    df = table()
    named = read_records(df, SCHEMA)
    assert named.reference.sensors == ("a", "b", "c")
    later = read_records(df.assign(station="z"), SCHEMA, named.reference)
    assert (later.sensor == -1).all()
    by_place = read_records(df, Schema("time", ["latitude", "longitude"], "pm25"))
    assert by_place.n_sensors == 3
    pairs = set(zip(by_place.restore(by_place.sensor), df.station, strict=True))
    assert len(pairs) == 3
    moving = df.assign(latitude=np.linspace(48, 48.5, len(df)))
    assert read_records(moving, Schema("time", ["latitude", "longitude"], "pm25")).n_sensors == 0


def test_positions_are_kilometres():
    def distance(a, b):  # on the sphere
        (p, q), (r, s) = np.radians(a), np.radians(b)
        h = np.sin((r - p) / 2) ** 2 + np.cos(p) * np.cos(r) * np.sin((s - q) / 2) ** 2
        return 2 * places.EARTH_RADIUS * np.arcsin(np.sqrt(h))

    rng = np.random.default_rng(0)
    raw = rng.uniform([47.5, 10.5], [48.5, 12.0], (50, 2))
    names = ["latitude", "longitude"]
    km = places.project(names, raw, places.middle(names, raw))
    truth = np.array([distance(raw[0], other) for other in raw[1:]])
    # cos(latitude) changes by less than 1% within half a degree at 48 degrees
    np.testing.assert_allclose(np.linalg.norm(km[1:] - km[0], axis=1), truth, rtol=0.01)
    plain = places.project(["x", "y"], raw, places.middle(["x", "y"], raw))
    np.testing.assert_array_equal(plain, raw)
    assert np.abs(np.linalg.norm(plain[1:] - plain[0], axis=1) / truth - 1).min() > 0.5


def test_a_region_across_the_date_line_is_whole():
    raw = np.array([[-17.0, 179.5], [-17.0, -179.5]])
    names = ["lat", "lon"]
    km = places.project(names, raw, places.middle(names, raw))
    assert abs(km[1, 1] - km[0, 1]) < 110


def test_where_no_distance_repeats_the_step_is_their_median():
    hours = np.cumsum([0.0, 0.001, 1.0, 1.5, 2.0, 7.0])
    times = pd.Timestamp("2024-01-01") + pd.to_timedelta(hours, unit="h")
    df = pd.DataFrame({"time": times, "x": 0.0, "y": np.arange(6.0)})
    assert read_records(df, Schema("time", ["x"], "y")).reference.step == pytest.approx(1.5)


def test_irregular_times_are_kept_and_the_step_is_the_commonest():
    df = table(40, ("a",))
    kept = df[~df.index.isin([3, 4, 11])]
    kept = kept.assign(time=kept.time + pd.to_timedelta(np.where(kept.index == 20, 17, 0), "min"))
    records = read_records(kept, SCHEMA)
    assert records.reference.step == 1.0
    assert (records.hours % 1 > 0).sum() == 1
    daily = Schema("time", ["latitude", "longitude"], "pm25", sensor="station", freq="D")
    assert read_records(kept, daily).reference.step == 24.0


def test_wind_directions_are_angles_and_other_text_is_refused():
    df = table(16, ("a",)).assign(wind=list(" ".join(["N", "E", "S", "W"] * 4).split()))
    schema = Schema("time", ["latitude", "longitude"], "pm25", ["wind"], "station")
    records = read_records(df, schema)
    assert records.covariate_names == ("wind_sin", "wind_cos")
    np.testing.assert_allclose(
        records.covariates[:4], [[0, 1], [1, 0], [0, -1], [-1, 0]], atol=1e-15
    )
    missing = read_records(df.assign(wind=None), schema, records.reference)
    assert np.isnan(missing.covariates).all()
    refuses(df.assign(wind="breezy"), "16-point wind direction such as 'NNW'; got 'breezy'", schema)
    refuses(
        df.drop(columns="wind"), "that is unknown for now may be NaN", schema, records.reference
    )


def test_later_tables_may_lack_the_target():
    df = table()
    fitted = read_records(df, SCHEMA).reference
    later = read_records(df.drop(columns="pm25"), SCHEMA, fitted)
    assert not later.observed.any()
    refuses(df.drop(columns="pm25"), "none named")


def test_schema_checks_itself():
    with pytest.raises(ValueError, match="sequence of column names"):
        Schema("time", "latitude", "pm25")
    with pytest.raises(ValueError, match="distinct"):
        Schema("time", ["x"], "x")
    with pytest.raises(ValueError, match="fixed pandas frequency"):
        Schema("time", ["x"], "pm25", freq="MS")
    with pytest.raises(ValueError, match="name a column"):
        Schema("time", [], "pm25")
    assert step_of("30min") == 0.5


def test_a_target_out_of_a_likelihoods_support_is_refused():
    df = table()
    df.loc[5, "pm25"] = 0.0
    records = read_records(df, SCHEMA)
    check_target_above(records, 0, strict=False, why="for a count")
    with pytest.raises(ValueError, match="greater than 0 for likelihood 'gamma'; got 0 in 1 rows"):
        check_target_above(records, 0, strict=True, why="for likelihood 'gamma'")

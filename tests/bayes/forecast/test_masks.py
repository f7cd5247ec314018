"""Masks meet their rate, have their shape, and depend on the key alone."""

import numpy as np
import pandas as pd
import pytest

from bayes.forecast.masks import make_mask
from bayes.forecast.records import Schema

SCHEMA = Schema("time", ["x", "y"], "pm25", sensor="station")
N_HOURS, N_STATIONS = 400, 10
PATTERNS = ["point", "block", "sensor", "outage", "trajectory"]


@pytest.fixture(scope="module")
def df():
    rng = np.random.default_rng(0)
    place = rng.uniform(0, 30, (N_STATIONS, 2))
    hour, station = np.divmod(np.arange(N_HOURS * N_STATIONS), N_STATIONS)
    df = pd.DataFrame(
        {
            "time": pd.Timestamp("2024-01-01") + pd.to_timedelta(hour, unit="h"),
            "station": station,
            "x": place[station, 0],
            "y": place[station, 1],
            "pm25": rng.gamma(2, 10, len(hour)),
        }
    )
    df.loc[rng.random(len(df)) < 0.1, "pm25"] = np.nan
    return df


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("rate", [0.1, 0.37, 0.9])
def test_rate_is_met_as_promised(df, pattern, rate):
    """To 1 row (rounding), 1 a sensor, half a sensor or one time, as the pattern says."""
    hidden = make_mask(df, pattern, rate, 3, schema=SCHEMA)
    known = df.pm25.notna()
    assert not hidden[~known].any()
    per_sensor = known.groupby(df.station).sum().max()
    allowed = {"block": N_STATIONS / 2, "sensor": per_sensor / 2, "outage": N_STATIONS / 2}
    assert abs(hidden.sum() - rate * known.sum()) <= allowed.get(pattern, 0.5) + 1e-9


@pytest.mark.parametrize("pattern", PATTERNS)
def test_mask_is_a_function_of_the_key_and_the_set_of_rows(df, pattern):
    before = df.copy()
    one = make_mask(df, pattern, 0.4, 7, schema=SCHEMA)
    shuffled = df.sample(frac=1, random_state=0)
    again = make_mask(shuffled, pattern, 0.4, 7, schema=SCHEMA)
    pd.testing.assert_series_equal(again.sort_index(), one)
    other = make_mask(df, pattern, 0.4, 8, schema=SCHEMA)
    assert (one != other).any()
    pd.testing.assert_frame_equal(df, before)


def shapes(df, hidden):
    """Mean run of hidden rows in a sensor's record; shares of times and sensors wholly hidden."""
    known = df[df.pm25.notna()].assign(hidden=hidden)
    runs = []
    for _, own in known.groupby("station"):
        edges = np.flatnonzero(np.diff(np.r_[False, own.hidden, False].astype(int)))
        runs.extend(edges[1::2] - edges[::2])
    whole = [known.groupby(key).hidden.mean() == 1 for key in ("time", "station")]
    return np.mean(runs), whole[0].mean(), whole[1].mean()


def test_each_pattern_has_its_shape(df):
    """At rate .4 points run 1/(1 - .4) = 1.7 long, blocks 20 rows or more; each is another's
    negative control."""
    shape = {p: shapes(df, make_mask(df, p, 0.4, 0, schema=SCHEMA)) for p in PATTERNS}
    assert shape["point"][0] == pytest.approx(1 / 0.6, rel=0.1)
    assert shape["block"][0] > 15 > 5 > shape["point"][0]
    assert shape["sensor"][2] == 0.4
    assert shape["outage"][1] == pytest.approx(0.4, abs=0.01)
    for other in ("point", "block", "trajectory"):
        assert shape[other][1] < 0.05
        assert shape[other][2] == 0
    assert shape["sensor"][1] == shape["outage"][2] == 0


def test_gap_lengths_are_as_asked(df):
    short = shapes(df, make_mask(df, "block", 0.1, 0, schema=SCHEMA, gap=(2, 4)))[0]
    long = shapes(df, make_mask(df, "block", 0.1, 0, schema=SCHEMA, gap=(30, 40)))[0]
    assert short < 6 < 15 < long


def test_vehicles_see_what_is_near_and_move_on(df):
    """What one vehicle sees at a time lies closer together than stations at random, and the place
    it sees moves over the day: the centre's spread over hours is that of a moving point."""
    hidden = make_mask(df, "trajectory", 0.8, 1, schema=SCHEMA, n_vehicles=1)
    random = make_mask(df, "point", 0.8, 1, schema=SCHEMA)

    def spread_within_hours(mask):
        seen = df[~mask & df.pm25.notna()].groupby("time")[["x", "y"]]
        return seen.std().mean().mean()

    assert spread_within_hours(hidden) < 0.8 * spread_within_hours(random)
    seen = df[~hidden & df.pm25.notna()]
    assert seen.groupby("time").x.mean().std() > 3
    assert seen.station.nunique() > N_STATIONS / 2


def test_blocks_favour_no_time():
    """Share hidden of the first and last tenth of the time against the middle, over 200 keys.

    Null: each step is hidden with probability .3; a tenth of 100 steps of 10 sensors over 200 keys
    has at least 200 x 10 independent gaps: standard error below .011. Bound: 6 of them
    (false alarm below 1e-8)."""
    hour, station = np.divmod(np.arange(1000), 10)
    table = pd.DataFrame({"time": pd.Timestamp("2024-01-01") + pd.to_timedelta(hour, unit="h")})
    table = table.assign(station=station, x=station * 1.0, y=0.0, pm25=np.arange(1000.0))
    share = np.zeros(100)
    for key in range(40):
        hidden = make_mask(table, "block", 0.3, key, schema=SCHEMA, gap=(5, 10))
        share += hidden.groupby(hour).mean().to_numpy() / 40
    ends = (share[:10].mean() + share[-10:].mean()) / 2
    assert abs(ends - share[10:90].mean()) < 0.066


def test_bad_input_is_refused(df):
    for pattern, rate, words in (
        ("hole", 0.3, "'pattern' parameter must be one of"),
        ("point", 0.0, r"'rate' parameter must be a real number in \(0"),
        ("point", 1.5, "got 1.5"),
    ):
        with pytest.raises(ValueError, match=words):
            make_mask(df, pattern, rate, 0, schema=SCHEMA)
    with pytest.raises(ValueError, match="two sensors at least"):
        make_mask(df[df.station == 0], "sensor", 0.5, 0, schema=SCHEMA)
    with pytest.raises(ValueError, match="two places at least"):
        make_mask(df[df.station == 0], "trajectory", 0.5, 0, schema=SCHEMA)
    with pytest.raises(ValueError, match="'gap' parameter must be an int"):
        make_mask(df, "block", 0.5, 0, schema=SCHEMA, gap=(9, 3))

"""The kind of forecast studies: rows, records, shared masks, bad settings."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from experiments.datasets import DataError, read_table
from experiments.kinds import Batch, Cell, KindError, get_kind
from experiments.kinds import forecast as kind
from experiments.kinds._forecast_data import TableSetting, load_city, load_table
from experiments.kinds._forecast_masks import redrawable_mask
from experiments.kinds._forecast_rows import Forecast, drawn, scored
from experiments.study import StudyError, load_study, study_from_document

STUDIES = (
    "beijing", "protocol", "kolkata", "germany", "rates", "horizons", "ablation", "covariates",
)  # fmt: skip
TABLE = {
    "name": "town", "file": "town.csv", "places": {"file": "places.csv", "by": "station"},
    "time": "at", "coords": ["lat", "lon"], "target": "y", "unit": "K", "sensor": "station",
    "freq": "h", "last": "2024-01-10 23:00", "rows": {"use": "yes"}, "mobile": {"kind": "bus"},
    "covariates": {"weather": ["warmth"]},
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_folder(monkeypatch):
    monkeypatch.delenv("MOEBIUS_AIR", raising=False)


def small(setting=None, **profile):
    """A study of seconds on a city of four sensors and a vehicle."""
    document = {
        "name": "forecast-small", "kind": "forecast", "title": "t", "verifies": "v",
        "reference": "r", "seed": 3,
        "setting": {
            "city": {"n_vehicles": 1},
            "tasks": {
                "block30": {"pattern": "block", "rate": 0.3},
                "forecast24": {"pattern": "forecast", "hours": 24.0},
                "bus": {"pattern": "mobile"},
            },
            "arms": {
                "climatology": {"model": "climatology"},
                "nearby": {"model": "inverse-distance", "covariates": ["weather"]},
            },
            "sizes": [{"days": 8, "sensors": 4, "members": 1, "updates": 0.02}],
        } | (setting or {}),
        "profiles": {"smoke": {"minutes": 0.1, "days": 8, "replicates": 2} | profile},
    }  # fmt: skip
    return study_from_document(document, "test")


def run(study, arm, replicate=0):
    cell = Cell(arm, 8, replicate)
    (row,) = get_kind("forecast").run_batch(study, Batch(cell.key, (cell,)))
    return row


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    """Ten days of five stations and some buses, a day of which is of no use."""
    home = tmp_path_factory.mktemp("air")
    rng = np.random.default_rng(0)
    times = pd.date_range("2024-01-01", periods=240, freq="h")
    table = pd.DataFrame({"at": np.repeat(times, 5), "station": np.tile(np.arange(5), 240)})
    table = table.assign(kind="post", use="yes", warmth=rng.normal(size=1200))
    table["y"] = 20 + table["station"] + rng.normal(size=1200)
    table.loc[table["station"] == 2, "kind"] = "bus"
    table.loc[table["at"] < "2024-01-02", "use"] = "no"
    table.loc[:3, "y"] = np.nan
    table.to_csv(home / "town.csv", index=False)
    places = {"station": np.arange(5), "lat": 48 + np.arange(5) / 100, "lon": 11.0}
    pd.DataFrame(places).to_csv(home / "places.csv", index=False)
    return home


@pytest.mark.parametrize("name", STUDIES)
def test_shipped_studies_are_cut_into_cells(name):
    study = load_study(f"forecast-{name}")
    for profile in ("smoke", "quick", "paper"):
        cells = [cell for batch in study.batches(profile) for cell in batch.cells]
        assert {cell.arm.split("-")[0] for cell in cells} == {"city"}
    assert set(study.profile("paper").coverage) <= set(study.setting.tasks)


def test_rows_hold_scores_and_what_figures_need():
    study = small()
    row = run(study, "city-block30-nearby")
    assert row["data"] == "city"
    assert (row["task"], row["model"]) == ("block30", "nearby")
    numbers = {k: v for k, v in row.items() if not isinstance(v, str)}
    assert all(math.isfinite(v) for v in numbers.values())
    days = pd.DataFrame(json.loads(row["days"]))
    assert days["n"].sum() == row["n_test"]
    for name, column in (
        ("mae", "mae"),
        ("crps", "crps"),
        ("coverage95", "covered95"),
        ("interval_score95", "interval_score95"),
    ):
        assert days[column].sum() / days["n"].sum() == pytest.approx(row[name], abs=1e-6)
    groups = pd.DataFrame(json.loads(row["groups"]))
    assert groups.groupby("by")["rank"].apply(lambda rank: rank.is_monotonic_increasing).all()
    for _, part in groups.groupby("by"):
        assert (part["n"] * part["crps"]).sum() / row["n_test"] == pytest.approx(row["crps"])
    levels = json.loads(row["levels"])
    covered = levels["observed"][-1] - levels["observed"][0]
    assert covered == pytest.approx(row["coverage95"])
    assert {len(v) for k, v in json.loads(row["places"]).items() if k not in ("axes", "observed")}
    again = run(study, "city-block30-nearby")
    assert {k: v for k, v in row.items() if "seconds" not in k} == {
        k: v for k, v in again.items() if "seconds" not in k
    }
    assert "series" not in run(study, "city-block30-nearby", 1)


def test_arms_of_a_replicate_share_their_mask_and_replicates_do_not():
    study = small()
    cells = [Cell(arm, 8, r) for arm, r in (("a", 0), ("b", 0), ("a", 1))]
    hidden, records = [], []
    for cell in cells:
        record = kind.load(study, "city", "block30", cell)
        records.append(record.sha256)
        hidden.append(kind.split(study, record, "block30", cell)[1]["pm25"].tolist())
    assert hidden[0] == hidden[1]
    assert hidden[0] != hidden[2]
    assert records[0] == records[1] != records[2]  # a city each


def test_a_mask_seed_fixes_mask_and_record_for_model_seeds(town, monkeypatch):
    """On a table replicates differ by the model's seed alone; without a mask seed (the control)
    by their mask, and forecasts by their record."""
    monkeypatch.setenv("MOEBIUS_AIR", str(town))
    drawn_anew = {
        "block30": {"pattern": "block", "rate": 0.3},
        "forecast24": {"pattern": "forecast", "hours": 24.0},
    }
    fixed = {name: task | {"mask_seed": 0} for name, task in drawn_anew.items()}
    table = TABLE | {"mobile": {}}
    for tasks, same in ((fixed, True), (drawn_anew, False)):
        study = small({"table": table, "tasks": tasks})
        for task in tasks:
            hidden = []
            for r in (0, 1):
                cell = Cell("a", 8, r)
                record = kind.load(study, "town", task, cell)
                hidden.append(kind.split(study, record, task, cell)[1].index.tolist())
            first, second = hidden
            ends = [kind.load(study, "town", task, Cell("a", 8, r)).sha256 for r in (0, 1)]
            assert (first == second and ends[0] == ends[1]) is same


def test_redrawable_masks_do_not_depend_on_the_order_of_rows():
    """As written down in a few lines for sorted rows; another seed (the control) hides others."""
    times = pd.date_range("2024-01-01", periods=300, freq="h")
    frame = pd.DataFrame({"t": np.tile(times, 3), "s": np.repeat(["b", "a", "c"], 300)})
    ordered = frame.sort_values(["s", "t"])
    rng = np.random.default_rng(4)
    expected = {"point": rng.random(900) < 0.3}
    rng, blocks = np.random.default_rng(4), []
    for _ in range(3):
        h = np.zeros(300, bool)
        while h.mean() < 0.3:
            length = rng.integers(24, 73)
            start = rng.integers(0, 300 - length)
            h[start : start + length] = True
        blocks.append(h)
    expected["block"] = np.concatenate(blocks)
    for pattern, mask in expected.items():
        found = redrawable_mask(frame, pattern, 0.3, 4, sensor="s", time="t")
        assert (found[ordered.index] == mask).all()
        assert (found != redrawable_mask(frame, pattern, 0.3, 5, sensor="s", time="t")).any()
    dark = redrawable_mask(frame, "outage", 0.2, 4, sensor="s", time="t")
    by_time = pd.Series(dark).groupby(frame["t"]).agg(["min", "max"])
    assert (by_time["min"] == by_time["max"]).all()
    assert 0.2 <= dark.mean() < 0.2 + 18 / 300


def test_named_sensors_are_hidden(town, monkeypatch):
    task = {"pattern": "sensor", "sensors": ["1", "3"], "mask_seed": 0}
    study = small({"table": TABLE | {"mobile": {}}, "tasks": {"two": task}})
    cell = Cell("a", 8, 0)
    stand_in = kind.split(study, kind.load(study, "city", "two", cell), "two", cell)[1]
    assert set(stand_in["sensor"]) == {"S00", "S01"}  # the city has no sensors of these names
    monkeypatch.setenv("MOEBIUS_AIR", str(town))
    sizes = [{"days": 8, "sensors": 5}]
    study = small({"table": TABLE | {"mobile": {}}, "tasks": {"two": task}, "sizes": sizes})
    test = kind.split(study, kind.load(study, "town", "two", cell), "two", cell)[1]
    assert set(test["station"]) == {"1", "3"}
    lost = {"two": task | {"sensors": ["1", "9"]}}
    study = small({"table": TABLE | {"mobile": {}}, "tasks": lost, "sizes": sizes})
    with pytest.raises(DataError, match=r"no sensors \('1', '9'\); it has: 0, 1"):
        kind.split(study, kind.load(study, "town", "two", cell), "two", cell)


def test_vehicles_are_forecast_from_fixed_sensors():
    study = small()
    cell = Cell("a", 8, 0)
    train, test = kind.split(study, kind.load(study, "city", "bus", cell), "bus", cell)
    assert set(train["kind"]) == {"fixed"}
    assert set(test["kind"]) == {"vehicle"}


def test_networks_take_their_share_of_updates_and_their_options():
    study = small({"arms": {"field": {"model": "bayesnf", "options": {"width": 8}}}})
    size = study.setting.sizes[0]
    from bayes.forecast.city import SCHEMA

    model = study.setting.arms["field"].build(SCHEMA, size, 1)
    assert (model.n_updates, model.ensemble_size, model.width) == (40, 1, 8)
    assert not model.context
    row = run(study, "city-forecast24-field")
    assert row["fit_seconds"] > 0
    assert {g for g, by in zip(*(json.loads(row["groups"])[k] for k in ("group", "by")),
            strict=True) if by == "horizon"} == {
                "(0, 1]", "(1, 3]", "(3, 6]", "(6, 12]", "(12, 24]"}  # fmt: skip


def test_the_forecaster_takes_covariates():
    field = {"model": "cglubnf", "options": {"context": False, "seasonality": []}}
    arms = {"none": field, "all": field | {"covariates": ["weather", "wind"]}}
    none, both = (run(small({"arms": arms}), f"city-block30-{arm}") for arm in arms)
    assert none["record_sha256"] == both["record_sha256"]
    assert none["crps"] != both["crps"]


def test_a_folder_replaces_the_city(town, monkeypatch):
    study = small({"table": TABLE})
    prepared = get_kind("forecast").prepare(study)
    assert "stands in for town" in get_kind("forecast").describe(prepared)
    city = {batch.key for batch in study.batches("smoke")}
    monkeypatch.setenv("MOEBIUS_AIR", str(town))
    assert f"town, from {town}" in get_kind("forecast").describe(prepared)
    assert get_kind("forecast").prepare(study) == prepared
    own = {batch.key for batch in study.batches("smoke")}
    assert not city & own
    assert run(study, "town-block30-nearby")["data"] == "town"
    assert run(study, "city-block30-nearby")["data"] == "city"  # whatever the environment


def test_records_of_a_table(town, monkeypatch):
    monkeypatch.setenv("MOEBIUS_AIR", str(town))
    setting = TableSetting(**TABLE)
    record = load_table(setting, days=4, n_sensors=2, seed=0)
    assert record.schema.coords == ("lat", "lon")
    assert record.frame["at"].min() == pd.Timestamp("2024-01-07 00:00")
    assert len(record.frame) == 96 * 3  # two stations, and the bus
    assert record.mobile.sum() == 96
    assert set(record.frame["station"][record.mobile]) == {"2"}
    drawn_sensors = {
        tuple(load_table(setting, 4, 2, s).frame["station"].unique()) for s in range(9)
    }
    assert len(drawn_sensors) > 1
    earlier = load_table(setting, 4, 2, 0, earlier=48.0)
    assert earlier.frame["at"].max() == pd.Timestamp("2024-01-08 23:00")
    assert load_table(setting, 30, 9, 0).frame["at"].min() == pd.Timestamp("2024-01-02")
    with pytest.raises(DataError, match=r"no known 'y' in the 1 days up to 2023-12-30 23"):
        load_table(setting, 1, 2, 0, earlier=264.0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"file": "city.csv"}, "there is no file"),
        ({"target": "z"}, "town.csv lacks the columns z; it has: at, station"),
        ({"covariates": {"weather": ["cold"]}}, "lacks the columns cold"),
        ({"places": {"file": "places.csv", "by": "name"}}, "lacks the columns name"),
        ({"time": "kind"}, "column 'kind'"),
    ],
)
def test_a_table_that_is_not_what_it_should_be(town, monkeypatch, change, sentence):
    monkeypatch.setenv("MOEBIUS_AIR", str(town))
    study = small({"table": TABLE | change})
    with pytest.raises(DataError, match=sentence):
        get_kind("forecast").prepare(study)


def test_the_folder_must_be_named():
    with pytest.raises(DataError, match=r"set the environment variable MOEBIUS_AIR to the folder"):
        load_table(TableSetting(**TABLE), 4, 2, 0)


def test_tables_are_read_from_parquet_and_csv(tmp_path):
    table = pd.DataFrame({"name": ["01", "02"], "y": [1.5, 2.5]})
    table.to_csv(tmp_path / "a.csv.gz", index=False)
    table.to_parquet(tmp_path / "a.parquet")
    for ending in ("csv.gz", "parquet"):
        pd.testing.assert_frame_equal(read_table(tmp_path / f"a.{ending}", ["name"]), table)
    (tmp_path / "b.parquet").write_bytes(b"no")
    with pytest.raises(DataError, match="cannot be read as a table"):
        read_table(tmp_path / "b.parquet")


def test_daily_cities_are_means_of_days():
    city = load_city(kind.CitySetting(n_vehicles=1, daily=True), 12, 3, 0)
    assert city.schema.freq == "D"
    assert len(city.frame) == 36
    assert not city.mobile.any()
    hourly = load_city(kind.CitySetting(), 12, 3, 0).frame
    one = hourly[(hourly["sensor"] == "S01") & (hourly["time"].dt.day == 3)]["pm25"]
    found = city.frame[(city.frame["sensor"] == "S01") & (city.frame["time"].dt.day == 3)]["pm25"]
    assert one.notna().sum() >= 18
    assert found.item() == pytest.approx(one.mean())


def test_series_and_places_of_a_known_forecast():
    """One sensor is hidden on the third day; the forecast is off by one."""
    from bayes.forecast import Schema
    from bayes.forecast.scores import LEVELS

    times = pd.date_range("2024-01-01", periods=96, freq="h")
    table = pd.DataFrame({"t": np.tile(times, 2), "x": np.repeat([0.0, 3.0], 96)})
    table = table.assign(s=np.repeat(["a", "b"], 96), y=np.arange(192.0))
    hidden = (table["s"] == "b") & (table["t"].dt.day == 3)
    test = table[hidden]
    spread = test["y"].to_numpy()[:, None] + 1 + 10 * (LEVELS - 0.5)
    forecast = Forecast(Schema("t", ["x"], "y", (), "s", "h"), table[~hidden], test, spread,
                        spread[:, 10])  # fmt: skip
    row = drawn(forecast)
    series = json.loads(row["series"])
    assert series["sensor"] == "b"
    assert series["hidden"] == test["y"].tolist()
    assert len(series["seen"]) == 72
    assert np.array(series["quantiles"])[:, 2] == pytest.approx(test["y"] + 1)
    places = json.loads(row["places"])
    assert places["place"] == [[3.0]]
    assert places["width"] == pytest.approx([9.0])
    assert places["observed"] == [[0.0], [3.0]]
    found = scored(forecast, 0)
    assert (found["mae"], found["coverage95"], found["step"]) == (1.0, 1.0, 1.0)
    assert found["width90"] == pytest.approx(9.0)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"tasks": {"a": {"pattern": "block"}}}, "'rate' is for masks; got None"),
        ({"tasks": {"a": {"pattern": "forecast", "rate": 0.1}}}, "'rate' is for masks"),
        ({"tasks": {"a": {"pattern": "forecast"}}}, "'hours' is for forecasts"),
        ({"tasks": {"a": {"pattern": "point", "rate": 0.1, "gap": [1, 2]}}}, "'gap' is for"),
        (
            {"tasks": {"a": {"pattern": "trajectory", "rate": 0.1, "mask_seed": 1}}},
            "'mask_seed' is",
        ),
        ({"tasks": {"a": {"pattern": "sensor", "rate": 0.1, "mask_seed": 1}}}, "'sensors' is for"),
        ({"arms": {"a": {"model": "cglubnf", "options": {"widht": 3}}}}, "no option 'widht'"),
        ({"arms": {"a": {"model": "svgp", "options": {"width": 3}}}}, "options are for cglubnf"),
        ({"arms": {"a": {"model": "svgp", "covariates": ["smell"]}}}, "no data have the covar"),
        ({"city": {}}, "a task 'mobile' needs city.n_vehicles"),
        ({"table": TABLE | {"mobile": {}}}, "a task 'mobile' needs"),
        ({"table": TABLE | {"name": "a-b"}}, "pattern"),
        ({"sizes": [{"days": 8, "sensors": 4}] * 2}, "'sizes' must have different days"),
    ],
)
def test_bad_settings(setting, sentence):
    with pytest.raises(StudyError, match=sentence):
        small(setting)


@pytest.mark.parametrize(
    ("profile", "sentence"),
    [
        ({"days": 9}, r"'days' must be among \[8\]; got 9"),
        ({"arms": ["svgp"]}, "'arms' must be among"),
        ({"tasks": ["b"]}, "'tasks' must be among"),
        ({"at_most": {"b": {"mae": 1.0}}}, "'at_most' must be among"),
    ],
)
def test_bad_profiles(profile, sentence):
    with pytest.raises(KindError, match=sentence):
        small(**profile).batches("smoke")


def test_arms_whose_covariates_the_data_lack_are_left_out(town, monkeypatch):
    arms = {"a": {"model": "climatology", "covariates": ["traffic"]}, "b": {"model": "climatology"}}
    study = small({"arms": arms, "table": TABLE}, tasks=["bus"], replicates=1)
    assert [batch.key for batch in study.batches("smoke")] == [
        "city-bus-a-n8-r0",
        "city-bus-b-n8-r0",
    ]
    monkeypatch.setenv("MOEBIUS_AIR", str(town))
    assert [batch.key for batch in study.batches("smoke")] == ["town-bus-b-n8-r0"]

"""`moebius forecast` end to end on a city with holes, and one red line for bad input."""

import json

import numpy as np
import pandas as pd
import pytest

from experiments import cli

COLUMNS = ("--time", "time", "--coords", "latitude,longitude", "--target", "pm25")
SENSOR = ("--sensor", "sensor", "--freq", "h")
SMALL = ("--members", 1, "--updates", 4)
FIELD = ("--field", *SMALL)


@pytest.fixture
def moebius(capsys, monkeypatch):
    """Run the command line here; return exit code, output, errors."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*args):
        with pytest.raises(SystemExit) as stop:
            cli.main(["forecast", *(str(arg) for arg in args)])
        return (stop.value.code or 0, *capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def city():
    from bayes.forecast import synthetic_city

    return synthetic_city(3, 6, 0, n_vehicles=0).drop(columns="truth")


@pytest.fixture
def csv(city, tmp_path):
    path = tmp_path / "data.csv"
    city.to_csv(path, index=False)
    return path


def test_fit_then_predict(moebius, city, csv, tmp_path):
    """Holes are filled; the last day is forecast, alone and after two sensors told of it, at ten
    times the usual values."""
    model, rows, out, news = (tmp_path / n for n in ("model", "rows.csv", "out.csv", "news.csv"))
    late = city["time"] >= city["time"].max() - pd.Timedelta(hours=23)
    city[~late].to_csv(csv, index=False)
    options = ("--covariates", "temperature,wind_direction", *SENSOR, *SMALL)
    code, printed, errors = moebius("fit", csv, *COLUMNS, "--out", model, *options)
    assert (code, errors) == (0, "")
    known = city["pm25"][~late].notna().sum()
    assert f"Trained on {known} of {(~late).sum()} rows, 3 sensors" in printed
    assert printed.endswith(f"{model / 'forecaster.safetensors'}\n")
    assert [path.name for path in model.iterdir()] == ["forecaster.safetensors"]
    again = tmp_path / "again"
    code, printed, _ = moebius("fit", csv, *COLUMNS, "--out", again, *options, "--json")
    told = json.loads(printed)
    assert told.pop("cpu_seconds") > 0
    file = str(again / "forecaster.safetensors")
    assert told == {"model": file, "rows": (~late).sum(), "known": known, "sensors": 3}

    asked = city[~late & city["pm25"].isna()].drop(columns="pm25")
    asked.to_csv(rows, index=False)
    code, printed, errors = moebius("predict", model, rows, "--out", out)
    assert (code, errors) == (0, "")
    found = pd.read_csv(out)
    levels = [f"pm25_q{level}" for level in ("0.05", "0.5", "0.95")]
    assert list(found.columns) == [*asked.columns, *levels]
    assert (np.diff(found[levels]) > 0).all()
    assert (found[levels] >= 0).all(axis=None)
    assert found["sensor"].tolist() == asked["sensor"].tolist()
    code, printed, _ = moebius("predict", model, rows, "--out", out, "--coverage", ".9", "--json")
    columns = ["pm25_low90", "pm25_high90"]
    assert json.loads(printed) == {"file": str(out), "rows": len(asked), "columns": columns}
    ends = pd.read_csv(out)[["pm25_low90", "pm25_high90"]].to_numpy()
    assert (code, ends.tolist()) == (0, found[levels[::2]].to_numpy().tolist())

    told = city["sensor"] != "S02"
    city[late & ~told].to_csv(rows, index=False)
    city[late & told].assign(pm25=10 * city["pm25"]).to_csv(news, index=False)
    medians = []
    for more in ((), ("--observed", news)):
        assert moebius("predict", model, rows, "--out", out, "--levels", ".5", *more)[0] == 0
        medians.append(pd.read_csv(out)["pm25_q0.5"].mean())
    assert medians[1] > 1.5 * medians[0]


def test_evaluate(moebius, csv):
    options = ("--pattern", "block", "--rate", ".2", "--baselines", "climatology", *FIELD)
    code, printed, _ = moebius("evaluate", csv, *COLUMNS, *SENSOR, *options)
    assert code == 0
    assert "coverage95" in printed
    lines = [line.split()[:2] for line in printed.splitlines() if line.startswith("block20")]
    assert lines == [["block20", "CGLUBNF"], ["block20", "climatology"]]
    more = ("--pattern", "forecast", "--hours", 12, "--by", "horizon", "--json", *FIELD)
    code, printed, _ = moebius("evaluate", csv, *COLUMNS, *SENSOR, *more)
    rows = json.loads(printed)
    assert code == 0
    assert {row["model"] for row in rows} == {"CGLUBNF", "climatology", "inverse-distance"}
    assert {row["task"] for row in rows} == {"forecast12"}
    assert sum(row["n"] for row in rows if row["model"] == "CGLUBNF") <= 36


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--target", "ozone"], "got none named ['ozone']"),
        (["--coords", "latitude,height"], "got none named ['height']"),
        (["--coords", ","], "The 'coords' parameter must name a column at least"),
        (["--freq", "fortnight"], "'freq' parameter must be a fixed pandas frequency"),
        (["--covariates", "kind"], "kind"),
        (["--members", "0"], "The 'ensemble_size' parameter must be an int"),
        (["--likelihood", "cauchy"], "The 'likelihood' parameter must be"),
        (["--out", "DATA"], "--out must be a folder; DATA is a file"),
        (["--out", "DATA/no/model"], "--out must be in a folder that is there"),
    ],
)
def test_bad_options_are_one_red_line(moebius, csv, tmp_path, options, sentence):
    out = tmp_path / "model"
    options = [option.replace("DATA", str(csv)) for option in options]
    code, printed, errors = moebius("fit", csv, *COLUMNS, "--out", out, *SMALL, *options)
    assert (code, errors.count("\n")) == (2, 1)
    assert errors.startswith("Error: ")
    assert sentence.replace("DATA", str(csv)) in errors
    assert "Traceback" not in printed + errors
    assert not out.exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "cannot be read as a table"),
        ("time,latitude,longitude,pm25\n", "must have a row at least"),
        ("time,latitude,longitude,pm25\n2024-01-01,1,2,\n", "must be known somewhere"),
        ("time,latitude,longitude,pm25\nmonday,1,2,3\n", "must hold dates"),
        ("time,latitude,longitude,pm25\n2024-01-01,91,2,3\n2024-01-02,1,2,4\n", "latitude"),
    ],
)
def test_bad_tables_are_one_red_line(moebius, tmp_path, content, sentence):
    path = tmp_path / "data.csv"
    path.write_text(content)
    code, _, errors = moebius("fit", path, *COLUMNS, "--out", tmp_path / "model", *SMALL)
    assert (code, errors.count("\n")) == (2, 1)
    assert sentence in errors


def test_bad_predictions_are_one_red_line(moebius, csv, tmp_path):
    model, out = tmp_path / "model", tmp_path / "out.csv"
    call = ("predict", model, csv, "--out", out)
    assert "first: moebius forecast fit" in moebius(*call)[2]
    assert moebius("fit", csv, *COLUMNS, "--out", model, *SENSOR, *FIELD)[0] == 0
    for options, sentence in (
        (("--levels", ".5,1"), "--levels must be different numbers in (0, 1)"),
        (("--coverage", "x"), "--coverage must be different numbers in (0, 1)"),
        (("--levels", ".5", "--coverage", ".5"), "one of --levels and --coverage"),
        (("--observed", tmp_path / "none.csv"), "there is no file"),
    ):
        code, _, errors = moebius(*call, *options)
        assert (code, errors.count("\n")) == (2, 1)
        assert sentence in errors
        assert not out.exists()
    assert moebius(*call)[0] == 0
    code, _, errors = moebius("predict", model, out, "--out", tmp_path / "again.csv")
    assert (code, "has a column 'pm25_q0.05' already" in errors) == (2, True)
    file = model / "forecaster.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    code, _, errors = moebius(*call)
    assert (code, errors.count("\n")) == (2, 1)


def test_unknown_baselines_are_named(moebius, csv):
    code, _, errors = moebius("evaluate", csv, *COLUMNS, "--baselines", "magic")
    assert (code, "--baselines must be among boosting, climatology" in errors) == (2, True)

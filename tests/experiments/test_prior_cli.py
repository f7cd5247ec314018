"""`moebius prior fit` and `moebius prior report`: files, words, and one red line for bad input."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from experiments import cli

REPORT = ["prior", "report", "--functions", "50"]
FIT = ["prior", "fit", "--target", "y", "--method", "moments", "--net"]


@pytest.fixture
def moebius(capsys, monkeypatch):
    """Run the command line here; return exit code, output, errors."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*args):
        with pytest.raises(SystemExit) as stop:
            cli.main([str(arg) for arg in args])
        return (stop.value.code or 0, *capsys.readouterr())

    return call


@pytest.fixture
def csv(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal([5, -1], [3, 0.1], (30, 2))
    path = tmp_path / "data.csv"
    pd.DataFrame({"a": X[:, 0], "y": X.sum(1), "b": X[:, 1]}).to_csv(path, index=False)
    return path


def test_fit_then_report(moebius, csv, tmp_path):
    out = tmp_path / "prior.safetensors"
    options = ("--data", csv, "--out", out, "--kernel", "matern-32", "--activation", "relu")
    code, printed, errors = moebius(*FIT, "mlp:2-20-1", *options)
    assert (code, errors) == (0, "")
    found = re.search(r"distance ([\d.]+) before, ([\d.]+) after", printed)
    assert found
    assert float(found[2]) < float(found[1])
    assert printed.endswith(f"{out}\n")

    figure = tmp_path / "functions.png"
    code, printed, errors = moebius(*REPORT, out, "--data", csv, "--figure", figure)
    assert (code, errors) == (0, "")
    assert "energy distance" in printed
    assert figure.stat().st_size > 0


def test_for_machines(moebius, csv, tmp_path):
    out = tmp_path / "prior.safetensors"
    code, printed, _ = moebius(*FIT, "mlp:2-3-1", "--data", csv, "--out", out, "--json")
    found = json.loads(printed)
    assert (code, found["prior"], found["net"]) == (0, str(out), [2, 3, 1])
    assert found["held_out_after"] <= found["held_out_before"]
    code, printed, _ = moebius(*REPORT, out, "--data", csv, "--json")
    found = json.loads(printed)
    assert (code, found["prior"], found["figure"]) == (0, str(out), None)
    rows = {row["quantity"]: row for row in found["quantities"]}
    assert rows["energy distance"]["prior"] > rows["energy distance"]["target"]


def test_a_file_says_what_it_was_fitted_to(moebius, csv, tmp_path):
    """Inputs in other units and order of columns are the same inputs; of other places, others."""
    out = tmp_path / "prior.safetensors"
    assert moebius(*FIT, "mlp:2-5-1", "--data", csv, "--out", out)[0] == 0
    table = pd.read_csv(csv)
    table[["b", "a"]].to_csv(tmp_path / "again.csv", index=False)
    table.assign(a=table["a"] + 30).to_csv(tmp_path / "moved.csv", index=False)
    reports = [
        moebius(*REPORT, out, "--data", tmp_path / f"{name}.csv")[1]
        for name in ("data", "again", "moved")
    ]
    assert reports[0] == reports[1]
    assert reports[0] != reports[2]


@pytest.mark.parametrize(
    ("net", "content", "sentence"),
    [
        ("cnn:2-1", "a,y\n1,2\n2,3\n", "--net must be mlp: and the widths"),
        ("mlp:1", "a,y\n1,2\n2,3\n", "--net must be mlp: and the widths"),
        ("mlp:1-0-1", "a,y\n1,2\n2,3\n", "--net must be mlp: and the widths"),
        ("mlp:2-5-1", "a,y\n1,2\n2,3\n", "takes 2 inputs; DATA has 1 columns beside 'y': a"),
        ("mlp:1-5-1", "a,b\n1,2\n2,3\n", "has no column 'y'; it has: a, b"),
        ("mlp:1-5-1", "a,y\nred,2\nblue,3\n", "the columns a are not numbers"),
        (
            "mlp:1-5-1",
            "a,y\n1,2\n,3\n3,4\n",
            "missing or infinite inputs in 1 rows, first on line 3",
        ),
        ("mlp:1-5-1", "a,y\n1,2\n", "at least two rows of data; it has 1"),
        ("mlp:1-5-1", "a,y\n", "at least two rows of data; it has 0"),
        ("mlp:1-5-1", "a,y\n3,2\n3,4\n", "at least two different rows; all 2 are equal"),
        ("mlp:1-5-1", "", "cannot be read as CSV"),
    ],
)
def test_bad_data_are_one_red_line(moebius, tmp_path, net, content, sentence):
    path, out = tmp_path / "data.csv", tmp_path / "prior.safetensors"
    path.write_text(content)
    code, printed, errors = moebius(*FIT, net, "--data", path, "--out", out)
    assert code == 2
    assert errors.startswith("Error: ")
    assert errors.count("\n") == 1
    assert sentence.replace("DATA", str(path)) in errors
    assert "Traceback" not in printed + errors
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--lengthscale", 2], "not for rbf-ard"),
        (["--kernel", "rbf", "--lengthscale", -2], "'lengthscale'"),
        (["--kernel", "rbf", "--variance", 0], "'variance'"),
        (["--seed", -1], "'random_state'"),
    ],
)
def test_bad_options_are_one_red_line(moebius, csv, tmp_path, options, sentence):
    out = tmp_path / "prior.safetensors"
    code, _, errors = moebius(*FIT, "mlp:2-3-1", "--data", csv, "--out", out, *options)
    assert (code, errors.count("\n")) == (2, 1)
    assert sentence in errors
    assert not out.exists()


def test_bad_files_are_one_red_line(moebius, csv, tmp_path):
    from bayes.priors import MLP, fixed_gaussian

    bare = fixed_gaussian(MLP(2, [3], 1)).save(tmp_path / "bare.safetensors")
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(bare.read_bytes()[:50])
    for path, sentence in (
        (tmp_path / "none.safetensors", "There is no file"),
        (bare, "does not say what it was fitted to"),
        (torn, "torn or not a safetensors file"),
    ):
        code, _, errors = moebius(*REPORT, path, "--data", csv)
        assert (code, errors.count("\n")) == (2, 1)
        assert sentence in errors
    code, _, errors = moebius(*FIT, "mlp:2-3-1", "--data", tmp_path / "no.csv", "--out", bare)
    assert (code, "there is no file" in errors) == (2, True)
    fitted = tmp_path / "prior.safetensors"
    assert moebius(*FIT, "mlp:2-3-1", "--data", csv, "--out", fitted)[0] == 0
    pd.read_csv(csv)[["a"]].to_csv(csv, index=False)
    code, _, errors = moebius(*REPORT, fitted, "--data", csv)
    assert (code, "lacks the columns b" in errors) == (2, True)
    code, _, errors = moebius(*FIT, "mlp:2-3-1", "--data", csv, "--out", tmp_path / "no" / "x")
    assert code == 2

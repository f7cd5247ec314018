"""The command line: what it prints and the codes it exits with."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

import experiments
import paper_figures
from experiments import cli
from experiments.study import list_studies

SHOWN = ["cell", "estimate"]


@pytest.fixture
def toml(tmp_path, helpers):
    path = tmp_path / "mine.toml"
    path.write_text(helpers.toml_text(helpers.toy_document()))
    return path


@pytest.fixture
def moebius(capsys, monkeypatch):
    """Run the command line here; return exit code, output, errors."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*args):
        with pytest.raises(SystemExit) as stop:
            cli.main([str(arg) for arg in args])
        return (stop.value.code or 0, *capsys.readouterr())

    return call


def test_list(moebius):
    code, out, _ = moebius("list")
    assert code == 0
    for study in list_studies():
        assert study.name in out


def test_list_for_machines(moebius):
    code, out, _ = moebius("list", "--json")
    assert code == 0
    listed = {entry["study"]: entry for entry in json.loads(out)}
    assert set(listed) == {study.name for study in list_studies()}
    assert listed["topk-exact"]["kind"] == "rates"
    assert listed["topk-exact"]["minutes"]["quick"] > 0


def test_exit_codes_are_in_the_help(moebius):
    code, out, _ = moebius("--help")
    assert code == 0
    assert cli.EXIT_CODES in " ".join(out.split())


def test_list_does_not_wait_for_torch():
    code = "import sys; from experiments.cli import app; app(['list'], standalone_mode=False);"
    code += "print(*sys.modules)"
    listed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"torch", "pandas", "pyarrow", "scipy"} & set(listed.stdout.split())


def test_run_status_figures(moebius, toml, tmp_path, monkeypatch):
    out_dir = tmp_path / "out"
    where = ("--profile", "smoke", "--out", out_dir)
    code, out, err = moebius("figures", toml, *where)
    assert code == 2
    assert "no cell of toy-study smoke is stored" in err

    code, out, err = moebius("run", toml, *where, "--jobs", 1)
    assert (code, err) == (0, "")
    assert out.startswith("normals of scale 1.3\n")
    assert "12/12 cells" in out
    assert "toy-study smoke: 12 cells, 0 found, 12 computed in" in out

    code, out, err = moebius("status", "--out", out_dir)
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines() if "toy-study" in line]
    assert [line[1:4] for line in lines] == [["smoke", "12/12", "0"], ["quick", "12/36", "0"]]
    assert moebius("status", toml, "--out", out_dir) == (code, out, err)
    stored = json.loads(moebius("status", "--out", out_dir, "--json")[1])
    counts = [(entry["profile"], entry["stored"], entry["cells"]) for entry in stored]
    assert counts == [("smoke", 12, 12), ("quick", 12, 36)]

    def render(study, profile, table, prepared, folder, beside):
        assert (study.name, profile, len(table)) == ("toy-study", "smoke", 12)
        assert prepared["scale"] == 1.3
        summary = pd.DataFrame({"claim": ["slope [-1/2]"], "estimate": [-0.51234567]})
        return SimpleNamespace(files=[Path(folder) / "a.pdf"], summary=summary, headline="Done.")

    monkeypatch.setattr(paper_figures, "render", render, raising=False)
    code, out, err = moebius("figures", toml, *where)
    assert (code, err) == (0, "")
    assert "slope [-1/2]" in out
    assert "-0.5123 " in out
    assert out.endswith(f"Done.\n{out_dir / 'toy-study' / 'figures' / 'a.pdf'}\n")


def test_failed_cells_are_announced(moebius, tmp_path, helpers):
    path = tmp_path / "bad.toml"
    trouble = {"trouble": [{"n": 30, "how": "raise"}]}
    path.write_text(helpers.toml_text(helpers.toy_document(setting=trouble)))
    where = ("--profile", "smoke", "--out", tmp_path / "out", "--jobs", 1)
    code, out, _ = moebius("run", path, *where)
    assert code == 0
    assert "6 failed" in out
    assert "--retry-failed" in out
    code, out, _ = moebius("run", path, *where, "--retry-failed")
    assert "6 found, 6 computed" in out


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["run", "topk-exakt"], "unknown study 'topk-exakt'"),
        (["run", "../x"], "'../x' is not a study"),
        (["run", "TOML", "--profile", "paper"], "has no profile 'paper'; it has: smoke, quick"),
        (["run", "TOML", "--jobs", "0"], "at least 1; got 0"),
        (["run", "TOML", "--out", "/dev/null"], "Not a directory"),
        (["status", "BAD"], "unknown key, did you mean 'scale'?; got 1.0"),
        (["figures", "BAD"], "unknown key"),
    ],
)
def test_user_errors_are_one_line(moebius, toml, tmp_path, helpers, args, sentence):
    bad = tmp_path / "bad.toml"
    bad.write_text(helpers.toml_text(helpers.toy_document(setting={"scael": 1.0})))
    names = {"TOML": toml, "BAD": bad}
    code, out, err = moebius(*[names.get(arg, arg) for arg in args])
    assert code == 2
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert sentence in err
    assert "Traceback" not in out + err


@pytest.mark.parametrize("args", [["run"], ["run", "x", "--profile", "huge"], ["fly"]])
def test_usage_errors(moebius, args):
    assert moebius(*args)[0] == 2


def test_public_names_are_there():
    for name in experiments.__all__:
        assert getattr(experiments, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = experiments.nothing

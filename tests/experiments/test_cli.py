"""The command line: what it prints and the codes it exits with."""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

import experiments
import paper_figures
from experiments import UserError, cli
from experiments.commands.output import print_table
from experiments.runner import RunSummary
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


def test_version(moebius):
    assert moebius("--version") == (0, f"moebius {version('moebius')}\n", "")


def test_exit_codes_are_in_the_help_and_the_documentation(moebius):
    code, out, _ = moebius("--help")
    assert code == 0
    page = Path(__file__).parents[2] / "docs" / "command_line.md"
    documented = " ".join(page.read_text(encoding="utf-8").split())
    for number, words in cli.EXIT_CODES.items():
        assert f"{number} {words}" in " ".join(out.split())
        assert f"| {number} | {words}" in documented


def commands():
    return [
        ["list"], ["run"], ["status"], ["figures"], ["claims"], ["verify"], ["report"],
        ["prior", "fit"], ["prior", "report"],
        ["forecast", "fit"], ["forecast", "predict"], ["forecast", "evaluate"],
    ]  # fmt: skip


def test_these_are_all_commands():
    groups = {(): cli.app, ("prior",): cli.prior.app, ("forecast",): cli.forecast.app}
    found = [
        [*group, command.name or command.callback.__name__]
        for group, app in groups.items()
        for command in app.registered_commands
    ]
    assert sorted(found) == sorted(commands())


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_help_has_examples_json_and_fits_80_columns(moebius, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = moebius(*command, "--help")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert f"Examples:\n $ moebius {' '.join(command)}" in re.sub(r" +\n", "\n", out)
    assert "--json" in out


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
    assert "Nothing is stored in" in moebius("status", "--out", tmp_path / "none")[1]
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
    assert code == 1
    assert "6 failed" in out
    assert "--retry-failed" in out
    code, out, _ = moebius("run", path, *where)
    assert (code, "12 found, 0 computed" in out) == (1, True)
    code, out, _ = moebius("run", path, *where, "--retry-failed")
    assert (code, "6 found, 6 computed" in out) == (1, True)


def test_run_and_figures_for_machines(moebius, toml, tmp_path, monkeypatch):
    where = ("--profile", "smoke", "--out", tmp_path / "out")
    code, out, err = moebius("run", toml, *where, "--jobs", 1, "--json")
    found = json.loads(out)
    assert code == 0
    assert err.startswith("normals of scale 1.3\n")
    assert "12/12 cells" in err
    assert found.pop("seconds") > 0
    store = (
        tmp_path
        / "out"
        / "toy-study"
        / json.loads(moebius("status", "--out", tmp_path / "out", "--json")[1])[0]["store"].rsplit(
            "/", 1
        )[1]
    )
    counts = {"cells": 12, "found": 0, "computed": 12, "stored": 12, "failed": 0}
    expected = {"study": "toy-study", "profile": "smoke", "store": str(store)}
    assert found == {**expected, **counts, "interrupted": False}

    def render(study, profile, table, prepared, folder, beside):
        summary = pd.DataFrame({"claim": ["a", None], "estimate": [float("nan"), float("inf")]})
        return SimpleNamespace(files=[Path(folder) / "a.pdf"], summary=summary, headline="Done.")

    monkeypatch.setattr(paper_figures, "render", render)
    next((store / "batches").glob("*r0-2.parquet")).unlink()
    code, out, err = moebius("figures", toml, *where, "--json")
    found = json.loads(out)
    assert (code, err) == (0, "Only 6 of 12 cells are stored; the figures show these\n")
    nothing = {"claim": None, "estimate": None}
    assert found == {
        "study": "toy-study", "profile": "smoke", "config_hash": store.name, "stored": 6,
        "cells": 12, "headline": "Done.", "summary": [nothing | {"claim": "a"}, nothing],
        "files": [str(tmp_path / "out" / "toy-study" / "figures" / "a.pdf")],
    }  # fmt: skip


def test_an_interrupted_run_for_machines(moebius, toml, tmp_path, monkeypatch):
    summary = RunSummary("toy-study", "smoke", tmp_path, 12, 0, 6, 6, 0, True, 1.0)
    monkeypatch.setattr("experiments.runner.run", lambda *_, **__: summary)
    code, out, err = moebius("run", toml, "--json")
    assert (code, json.loads(out)["interrupted"]) == (130, True)
    assert "Interrupted: 6 of 12 cells are stored" in err


def test_what_cannot_be_drawn_is_one_line(moebius, toml, tmp_path):
    """There is no figure for the toy's kind."""
    where = ("--profile", "smoke", "--out", tmp_path / "out")
    moebius("run", toml, *where, "--jobs", 1)
    code, _, err = moebius("figures", toml, *where)
    assert (code, err.count("\n"), "to be drawn; got 'toy'" in err) == (2, 1, True)


@pytest.mark.parametrize("width", [34, 36, 60, 200])
def test_tables_lose_nothing(capsys, monkeypatch, width):
    """On a terminal of any width every word and number is there whole, and lines fit."""
    monkeypatch.setenv("COLUMNS", str(width))
    head = ["study", "what it verifies", "estimate"]
    rows = [["dense-to-sparse", "that it is so", "-0.5123"], ["b", "", "1.25e-07"]]
    print_table(head, rows)
    out = capsys.readouterr().out
    assert {word for row in (head, *rows) for cell in row for word in cell.split()} <= set(
        out.split()
    )
    assert max(len(line.rstrip()) for line in out.splitlines()) <= width


def test_tables_that_are_piped_are_as_wide_as_they_need_be(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    print_table(["verifies", "n"], [["word " * 60, "12"]])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "12" in line]
    assert line.count("word") == 60


def fail_with(error):
    def fail(*_, **__):
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (KeyboardInterrupt(), 130, ""),
        (UserError("no\n  such thing"), 2, "Error: no such thing\n"),
        (PermissionError(13, "Permission denied", "x/y"), 2, "Error: x/y: Permission denied\n"),
        (OSError(28, "No space left on device"), 2, "the output: No space left on device\n"),
    ],
)
def test_how_commands_end(moebius, monkeypatch, error, code, sentence):
    monkeypatch.setattr("paper_figures.report.write_report", fail_with(error))
    found, out, err = moebius("report")
    assert (found, out, sentence in err) == (code, "", True)
    assert err.count("\n") == (code == 2)


def test_a_mistake_of_ours_is_not_hidden(moebius, monkeypatch):
    monkeypatch.setattr("paper_figures.report.write_report", fail_with(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        cli.main(["report"])


MOEBIUS = [sys.executable, "-c", "from experiments.cli import main; main()"]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_full_disk_for_the_output(options):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*MOEBIUS, "list", *options], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "Error: the output: No space left on device" in done.stderr


@pytest.mark.parametrize("options", [["list"], ["list", "--json"]])
def test_a_closed_pipe_ends_quietly(options):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as pipe:
        done = subprocess.run([*MOEBIUS, *options], stdout=pipe, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "")


def test_no_colour_where_none_is_wanted():
    wanted = {"FORCE_COLOR": "1", "TERM": "xterm-256color"}
    plain, coloured = (
        subprocess.run(
            [*MOEBIUS, "run", "nothing"],
            env={**os.environ, **wanted, **more},
            capture_output=True,
            text=True,
        ).stderr
        for more in ({"NO_COLOR": "1"}, {})
    )
    assert "\x1b[31m" in coloured
    assert "\x1b[3" not in plain


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["run", "topk-exakt"], "unknown study 'topk-exakt'"),
        (["run", "../x"], "'../x' is not a study"),
        (["run", "TOML", "--profile", "paper"], "has no profile 'paper'; it has: smoke, quick"),
        (["run", "studi\u00e9 \u65e5.toml"], "is not a study: there is no .toml file of that name"),
        (["run", "--", "-x.toml"], "'-x.toml' is not a study"),
        (["run", "FOLDER"], "is not a study"),
        (["run", "BYTES"], "not UTF-8 text"),
        (["run", "TOML", "--jobs", "0"], "--jobs must be -1 (one per core) or in [1,"),
        (["run", "TOML", "--jobs", "-7"], "a core); got -7"),
        (["run", "TOML", "--jobs", "1000000000"], "a core); got 1000000000"),
        (["run", "TOML", "--jobs", "1e9"], "Invalid value for '--jobs'"),
        (["run", "TOML", "--profile", "smoek"], "'beyond'; did you mean 'smoke'? (moebius run"),
        (["run", "TOML", "--out", "/dev/null"], "--out must be a folder; /dev/null is a file"),
        (["run", "TOML", "--out", ""], "--out must name a folder; got an empty text"),
        (["report", "--out", "/proc/none"], "/proc/none: No such file or directory"),
        (["status", "BAD"], "unknown key, did you mean 'scale'?; got 1.0"),
        (["figures", "BAD"], "unknown key"),
    ],
)
def test_user_errors_are_one_line(moebius, toml, tmp_path, helpers, args, sentence):
    bad = tmp_path / "bad.toml"
    bad.write_text(helpers.toml_text(helpers.toy_document(setting={"scael": 1.0})))
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "bytes.toml").write_bytes(bytes(range(256)))
    names = {"TOML": toml, "BAD": bad}
    names |= {"FOLDER": tmp_path / "folder.toml", "BYTES": tmp_path / "bytes.toml"}
    code, out, err = moebius(*[names.get(arg, arg) for arg in args])
    assert code == 2
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert sentence in err
    assert "Traceback" not in out + err


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["run"], "Missing argument 'STUDY' (moebius run --help)"),
        (["run", "-x"], "No such option: -x"),
        (["run", "x", "--jbos", "2"], "--jobs"),
        (["fly"], "No such command 'fly' (moebius --help)"),
        (["forecast", "fti"], "No such command 'fti'"),
    ],
)
def test_usage_errors_are_one_line(moebius, args, sentence):
    code, out, err = moebius(*args)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("Error: ")
    assert sentence in err


def test_public_names_are_there():
    for name in experiments.__all__:
        assert getattr(experiments, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = experiments.nothing

"""SIGKILL and Ctrl-C at random moments, in processes of their own."""

import os
import random
import signal
import time

import pytest

from experiments.runner import run
from experiments.store import Store
from experiments.study import load_study

SLOW = {"setting": {"delay": 0.2}, "profiles": {"smoke": {"minutes": 0.1, "sizes": [5, 9, 20],
        "replicates": 12}}}  # fmt: skip


@pytest.fixture
def toml(tmp_path, helpers):
    path = tmp_path / "slow.toml"
    path.write_text(helpers.toml_text(helpers.toy_document(**SLOW)))
    return path


def wait_until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_kill_and_go_on(tmp_path, toml, helpers):
    rng = random.Random(3)
    study = load_study(toml)
    store = Store(tmp_path / "killed", study)
    pids = tmp_path / "pids"
    pids.mkdir()
    batches = len(study.batches("smoke"))
    for wanted in (1, 4, 8):
        process = helpers.start_cli(
            "run", toml, "--profile", "smoke", "--out", tmp_path / "killed", "--jobs", 2, pids=pids
        )
        wait_until(lambda n=wanted: len(list(store.path.glob("batches/*.parquet"))) >= n)
        time.sleep(rng.uniform(0, 0.1))
        process.kill()
        process.communicate()
        assert 0 < len(store.done()) < batches
    workers = [int(path.name) for path in pids.iterdir()]
    assert workers
    wait_until(lambda: not any(map(alive, workers)))  # they end with their parent
    found = len(store.done())
    summary = run(study, "smoke", tmp_path / "killed", n_jobs=2)
    assert summary.found == 6 * found
    run(study, "smoke", tmp_path / "whole", n_jobs=1)
    whole = Store(tmp_path / "whole", study).table()
    assert helpers.results(store.table()).equals(helpers.results(whole))
    assert not list(store.path.rglob("*.corrupt"))
    assert not list(store.path.rglob("*.tmp"))


@pytest.mark.slow
def test_killed_again_and_again(tmp_path, helpers):
    """At moments drawn over start, preparation and cells; nothing is lost, nothing wrong stored."""
    kills = 50 if os.environ.get("MOEBIUS_LONG") == "1" else 6
    profile = {"minutes": 0.1, "sizes": [5, 9, 20, 31], "replicates": 360}
    document = helpers.toy_document(setting={"delay": 0.5}, profiles={"smoke": profile})
    path = tmp_path / "many.toml"
    path.write_text(helpers.toml_text(document))
    study, rng = load_study(path), random.Random(5)
    store, before, startup = Store(tmp_path / "killed", study), set(), None
    for _ in range(kills):
        began = time.monotonic()
        process = helpers.start_cli(
            "run", path, "--profile", "smoke", "--out", tmp_path / "killed", "--jobs", 2
        )
        if startup is None:
            wait_until(lambda: any(store.path.glob("batches/*.parquet")), 60)
            startup = time.monotonic() - began
        else:
            time.sleep(rng.uniform(0.1, 2) * startup)
        process.kill()
        process.communicate()
        stored = store.done()
        assert before <= stored
        before = stored
    assert 0 < len(before) < len(study.batches("smoke"))
    assert not list(store.path.rglob("*.corrupt"))
    at_once = helpers.toy_study(profiles={"smoke": profile})
    run(at_once, "smoke", tmp_path / "whole", n_jobs=2)
    whole = Store(tmp_path / "whole", at_once).table(before)
    found, expected = (  # the hash tells of the delay
        helpers.results(table).drop(columns="config_hash") for table in (store.table(), whole)
    )
    assert found.equals(expected)


def test_a_worker_killed_from_outside_costs_nothing(tmp_path, toml, helpers):
    study = load_study(toml)
    store = Store(tmp_path / "out", study)
    pids = tmp_path / "pids"
    pids.mkdir()
    process = helpers.start_cli(
        "run", toml, "--profile", "smoke", "--out", tmp_path / "out", "--jobs", 2, pids=pids
    )
    wait_until(lambda: len(store.done()) >= 2)
    os.kill(int(next(pids.iterdir()).name), signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "72 computed" in out
    assert ", 0 failed" in out
    run(study, "smoke", tmp_path / "whole", n_jobs=2)
    whole = Store(tmp_path / "whole", study).table()
    assert helpers.results(store.table()).equals(helpers.results(whole))


@pytest.mark.parametrize("to_group", [True, False], ids=["terminal", "process"])
def test_ctrl_c(tmp_path, toml, helpers, to_group):
    study = load_study(toml)
    store = Store(tmp_path / "out", study)
    pids = tmp_path / "pids"
    pids.mkdir()
    process = helpers.start_cli(
        "run", toml, "--profile", "smoke", "--out", tmp_path / "out", "--jobs", 2, pids=pids
    )
    wait_until(lambda: len(store.done()) >= 2)
    if to_group:  # as a terminal does: the workers get it too
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    stored = len(store.done())
    assert f"Interrupted: {6 * stored} of 72 cells are stored in" in out
    assert "the same command continues from there" in out
    assert "Traceback" not in out + err
    wait_until(lambda: not any(alive(int(path.name)) for path in pids.iterdir()))
    process = helpers.start_cli("run", toml, "--profile", "smoke", "--out", tmp_path / "out")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert f"72 cells, {6 * stored} found, {72 - 6 * stored} computed" in out
    assert err == ""

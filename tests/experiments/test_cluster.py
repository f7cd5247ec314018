"""A real Dask cluster, its scheduler and workers in processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.runner import run
from experiments.store import Store
from experiments.workers import WorkersError

pytest.importorskip("distributed")
HERE = Path(__file__).parent


class Cluster:
    """A scheduler on a free port, and the workers that were started; killed at the end."""

    def __init__(self, folder, allowed_failures=3):
        self.folder, self.workers = folder, []
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(HERE),
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(allowed_failures),
        }
        where = folder / "scheduler.json"
        self.scheduler = self._start(
            "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
            "--scheduler-file", where,
        )  # fmt: skip
        until(where.exists)
        self.address = json.loads(where.read_text())["address"]

    def add_worker(self, *options, threads=1):
        self.workers.append(
            self._start(
                "worker", self.address, "--nthreads", str(threads), "--no-dashboard",
                "--local-directory", self.folder, *options,
            )
        )  # fmt: skip

    def _start(self, *arguments):
        log = (self.folder / "log.txt").open("a")
        command = [sys.executable, "-m", "dask", *map(str, arguments)]
        return subprocess.Popen(
            command, env=self.environment, stdout=log, stderr=log, start_new_session=True
        )

    def close(self):
        for process in [*self.workers, self.scheduler]:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            process.wait()


@pytest.fixture
def cluster(tmp_path):
    """Two workers."""
    made = Cluster(tmp_path)
    try:
        made.add_worker("--no-nanny")
        made.add_worker("--no-nanny")
        yield made
    finally:
        made.close()


def until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def whole(study, folder, helpers):
    """What one machine gives."""
    run(study, "smoke", folder, n_jobs=2)
    return helpers.results(Store(folder, study).table())


@pytest.mark.slow
def test_a_killed_worker_changes_nothing(cluster, tmp_path, helpers):
    """One of two workers is killed in mid-run; the rows are those of one machine, bit for bit."""
    profile = {"minutes": 0.1, "sizes": [5, 9, 20], "replicates": 12}
    study = helpers.toy_study(setting={"delay": 0.2}, profiles={"smoke": profile})
    killed = []

    def kill(now):
        if now.cells_done >= 18 and not killed:
            cluster.workers[0].kill()
            killed.append(now.cells_done)

    out = tmp_path / "out"
    summary = run(study, "smoke", out, cluster=cluster.address, progress=kill)
    assert killed
    assert killed[0] < summary.computed == summary.stored == 72
    assert summary.failed == 0
    cluster.workers[0].wait(timeout=5)
    assert cluster.workers[1].poll() is None
    table = helpers.results(Store(out, study).table())
    assert table.equals(whole(study, tmp_path / "whole", helpers))


@pytest.mark.slow
def test_a_batch_that_kills_its_worker_is_failed(tmp_path, helpers):
    """A nanny gives the cluster another worker; the batch is tried alone and then given up."""
    study = helpers.toy_study(setting={"trouble": [{"n": 30, "how": "die"}]})
    cluster = Cluster(tmp_path, allowed_failures=0)
    try:
        cluster.add_worker("--nanny")
        summary = run(study, "smoke", tmp_path / "out", cluster=cluster.address)
    finally:
        cluster.close()
    table = Store(tmp_path / "out", study).table()
    assert summary.failed == 6
    assert set(table[table["status"] == "failed"]["n"]) == {30}
    assert table[table["n"] == 30]["error"].str.contains("worker process died").all()


@pytest.mark.slow
def test_from_the_command_line(cluster, tmp_path, helpers):
    toml = tmp_path / "toy.toml"
    toml.write_text(helpers.toml_text(helpers.toy_document()))
    options = ("--profile", "smoke", "--out", tmp_path / "out", "--dask", cluster.address)
    process = helpers.start_cli("run", toml, *options)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "12 computed" in out


def test_what_is_no_cluster(tmp_path, study, monkeypatch):
    monkeypatch.setattr("experiments.workers.PATIENCE", 0.5)
    with pytest.raises(WorkersError, match=r"No Dask scheduler answers at 'tcp://127.0.0.1:1'"):
        run(study, "smoke", tmp_path, cluster="tcp://127.0.0.1:1")
    with pytest.raises(WorkersError, match="No Dask scheduler answers at 'nowhere"):
        run(study, "smoke", tmp_path, cluster="nowhere://there")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(WorkersError, match="pip install 'moebius\\[cluster\\]'"):
        run(study, "smoke", tmp_path, cluster="tcp://127.0.0.1:1")


@pytest.mark.slow
def test_workers_that_could_change_results_are_refused(tmp_path, study, monkeypatch):
    cluster = Cluster(tmp_path)
    try:
        with monkeypatch.context() as patience:
            patience.setattr("experiments.workers.PATIENCE", 1.0)
            with pytest.raises(WorkersError, match="has no worker after 1 s"):
                run(study, "smoke", tmp_path, cluster=cluster.address)
        cluster.add_worker("--no-nanny", threads=2)
        with pytest.raises(WorkersError, match=r"one thread each .* got 2 in tcp"):
            run(study, "smoke", tmp_path, cluster=cluster.address)
        cluster.workers[0].kill()
        cluster.workers[0].wait()
        cluster.add_worker("--no-nanny")
        monkeypatch.setattr("experiments.workers.moebius_version", lambda: "9.9")
        with pytest.raises(WorkersError, match=r"versions, moebius 9.9, .* got moebius 0"):
            run(study, "smoke", tmp_path, cluster=cluster.address)
    finally:
        cluster.close()

"""A real Dask cluster, its scheduler and workers in processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from joblib import delayed

from experiments.runner import run
from experiments.store import Store, StoreLockedError
from experiments.workers import WorkersError, cluster_workers

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
        command = [sys.executable, "-m", "dask", *map(str, arguments)]
        with (self.folder / "log.txt").open("a") as log:
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


SLOW = {
    "setting": {"delay": 0.2},
    "profiles": {"smoke": {"minutes": 0.1, "sizes": [5, 9, 20], "replicates": 12}},
}


@pytest.mark.slow
def test_a_killed_worker_changes_nothing(tmp_path, helpers, monkeypatch):
    """One of two workers is killed while the parent writes, and another joins late; the rows are
    those of one machine, bit for bit."""
    study = helpers.toy_study(**SLOW)
    pids, out, killed = tmp_path / "pids", tmp_path / "out", []
    pids.mkdir()
    monkeypatch.setenv("TOY_PIDS", str(pids))
    cluster = Cluster(tmp_path)
    write = Store.write

    def kill_and_write(store, table):
        if not killed and len(list(pids.iterdir())) == 2:
            cluster.workers[0].kill()
            cluster.add_worker("--no-nanny")
            killed.append(len(list(store.path.glob("batches/*"))))
        write(store, table)

    try:
        cluster.add_worker("--no-nanny")
        cluster.add_worker("--no-nanny")
        with monkeypatch.context() as patch:
            patch.setattr(Store, "write", kill_and_write)
            summary = run(study, "smoke", out, cluster=cluster.address)
        assert killed
        assert killed[0] < 24
        assert (summary.computed, summary.stored, summary.failed) == (72, 72, 0)
        assert len(list(pids.iterdir())) == 3  # the late one took part
        cluster.workers[0].wait(timeout=5)
        assert [worker.poll() for worker in cluster.workers[1:]] == [None, None]
    finally:
        cluster.close()
    table = helpers.results(Store(out, study).table())
    assert table.equals(whole(study, tmp_path / "whole", helpers))


@pytest.mark.slow
def test_what_a_dead_worker_had_given_is_not_made_again(cluster, tmp_path):
    """Of 30 calls 20 are done when one of two workers is killed; at most its own two, and those
    that were done but not fetched, are made again. Were results kept there, so would ten."""
    log = tmp_path / "calls"
    with cluster_workers(cluster.address) as workers:
        calls = {str(i): delayed(os.system)(f"echo >> {log}; sleep 0.1") for i in range(30)}
        results = workers.results(calls)
        names = [next(results)[0] for _ in range(20)]
        cluster.workers[0].kill()
        names += [name for name, _ in results]
    assert sorted(names) == sorted(calls)
    assert 30 <= len(log.read_text().splitlines()) <= 34


@pytest.mark.slow
def test_a_scheduler_that_goes_away(cluster, tmp_path, helpers, monkeypatch):
    study, out, seen = helpers.toy_study(**SLOW), tmp_path / "out", []

    def kill(now):
        seen.append(now.cells_done)
        if now.cells_done >= 18:
            cluster.scheduler.kill()

    with pytest.raises(WorkersError, match=r"tcp://.*was lost; what was computed is stored"):
        run(study, "smoke", out, cluster=cluster.address, progress=kill)
    assert 6 * len(Store(out, study).done()) == seen[-1]
    assert 18 <= seen[-1] < 72
    summary = run(study, "smoke", out, n_jobs=2)
    assert (summary.found, summary.stored) == (seen[-1], 72)
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
def test_workers_that_could_change_results_are_refused(tmp_path, study, helpers, monkeypatch):
    """At the start, and one that joins in mid-run; a second run on the store is refused as well."""
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
        late = helpers.toy_study(**SLOW)

        def join(now):
            if now.cells_done == 0:
                with pytest.raises(StoreLockedError, match="another run"):
                    run(late, "smoke", tmp_path, cluster=cluster.address)
                cluster.add_worker("--no-nanny", threads=2)

        with pytest.raises(WorkersError, match=r"one thread each .* got 2 in tcp"):
            run(late, "smoke", tmp_path, cluster=cluster.address, progress=join)
        assert 0 < len(Store(tmp_path, late).done()) < 24
        cluster.workers[-1].kill()
        cluster.workers[-1].wait()
        monkeypatch.setattr("experiments.workers.moebius_version", lambda: "9.9")
        with pytest.raises(WorkersError, match=r"versions, moebius 9.9, .* got moebius 0"):
            run(study, "smoke", tmp_path, cluster=cluster.address)
    finally:
        cluster.close()

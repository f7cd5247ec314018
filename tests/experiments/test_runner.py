"""The runner: the same rows whatever happens, and failures as rows."""

import os
import platform
import subprocess
import sys

import pytest
from toy_kinds import TOY, Toy

from experiments import kinds
from experiments.runner import Progress, RunError, _tables, run
from experiments.store import Store, StoreFullError, StoreLockedError, StoreWarning
from experiments.workers import WorkerDiedError, WorkersError


@pytest.fixture(scope="module")
def reference(tmp_path_factory, study, helpers):
    """The quick profile, computed at one go by one worker."""
    out = tmp_path_factory.mktemp("reference")
    summary = run(study, "quick", out, n_jobs=1)
    assert (summary.cells, summary.computed, summary.found, summary.failed) == (36, 36, 0, 0)
    assert not summary.interrupted
    return helpers.results(Store(out, study).table())


def test_the_rows_are_those_of_the_kind(reference):
    assert len(reference) == 36
    assert set(reference["status"]) == {"ok"}
    by_arm = reference.pivot(index=["n", "replicate"], columns="arm", values="first")
    assert (by_arm["mean"] == by_arm["median"]).all()  # arms share the data of a replicate
    assert reference["estimate"].is_unique


def test_two_workers_give_the_same_bits(tmp_path, study, reference, helpers):
    run(study, "quick", tmp_path, n_jobs=2)
    assert helpers.results(Store(tmp_path, study).table()).equals(reference)


def test_stops_and_goes_on(tmp_path, study, reference, helpers):
    def interrupt(now: Progress) -> None:
        if now.cells_done > 6:
            raise KeyboardInterrupt

    stopped = run(study, "quick", tmp_path, n_jobs=2, progress=interrupt)
    assert stopped.interrupted
    assert 6 < stopped.computed == stopped.stored < 36
    resumed = run(study, "quick", tmp_path, n_jobs=2)
    assert (resumed.found, resumed.computed) == (stopped.computed, 36 - stopped.computed)
    assert resumed.stored == 36
    assert helpers.results(Store(tmp_path, study).table()).equals(reference)


def test_profiles_share_batches_and_a_finished_cell_is_not_computed_again(
    tmp_path, study, reference, helpers
):
    assert run(study, "smoke", tmp_path, n_jobs=1).computed == 12
    store = Store(tmp_path, study)
    before = {path: path.stat().st_mtime_ns for path in store.path.glob("batches/*")}
    said, seen = [], []
    summary = run(study, "quick", tmp_path, n_jobs=1, announce=said.append, progress=seen.append)
    assert (summary.found, summary.computed) == (12, 24)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert helpers.results(store.table()).equals(reference)
    assert said == ["normals of scale 1.3"]
    assert seen[0] == Progress(12, 36, 0, 0, 90 * 12 + 30 * 6 + 7 * 6)
    assert [now.cells_done for now in seen] == [12, 18, 24, 30, 36]
    assert [now.weight_done for now in seen] == [0, 540, 1080, 1260, 1302]  # the largest first
    again = run(study, "quick", tmp_path, n_jobs=1, announce=said.append)
    assert (again.found, again.computed) == (36, 0)
    assert len(said) == 2


def test_preparation_is_computed_once_in_a_worker(tmp_path, study, monkeypatch):
    run(study, "smoke", tmp_path, n_jobs=1)
    store = Store(tmp_path, study)
    assert store.prepared() == {"scale": 1.3, "threads": "1"}
    with store.lock():
        store.write_prepared({"scale": 99})
    said = []
    run(study, "smoke", tmp_path, n_jobs=1, announce=said.append)
    assert said == ["normals of scale 99"]


def test_failures_are_rows(tmp_path, helpers, reference):
    how = {7: "cell", 30: "raise", 90: "short", 91: "mixed", 92: "exit"}
    study = helpers.toy_study(
        setting={"trouble": [{"n": n, "how": word} for n, word in how.items()]},
        profiles={"quick": {"minutes": 1, "sizes": [6, *how], "replicates": 3}},
    )
    summary = run(study, "quick", tmp_path, n_jobs=2)
    assert (summary.computed, summary.failed) == (36, 2 + 4 * 6)
    table = Store(tmp_path, study).table()
    bad = table[table["status"] == "failed"].groupby("n")["error"].agg(["size", "first"])
    assert bad["size"].to_dict() == {7: 2, 30: 6, 90: 6, 91: 6, 92: 6}
    assert bad.loc[7, "first"] == "one bad cell"
    assert bad.loc[30, "first"].startswith(
        "FloatingPointError: the \\udcff toy broke (toy_kinds.py:"
    )
    assert bad.loc[90, "first"].startswith("RowError: 5 rows for the 6 cells of batch")
    assert bad.loc[91, "first"].startswith("RowError: column 'estimate' of batch")
    assert bad.loc[92, "first"].startswith("SystemExit: 3")
    good = table[table["status"] == "ok"]
    assert (good["error"] == "").all()
    key = ["arm", "n", "replicate"]
    both = good.merge(reference, on=key, suffixes=("", "_reference"))
    assert (both["estimate"] == both["estimate_reference"]).all()
    assert len(both) == 4


def test_failed_cells_are_retried_when_asked(tmp_path, helpers, reference, study, monkeypatch):
    broken = helpers.toy_study(setting={"trouble": [{"n": 30, "how": "raise"}]})
    assert run(broken, "quick", tmp_path, n_jobs=1).failed == 12
    again = run(broken, "quick", tmp_path, n_jobs=1)
    assert (again.computed, again.found, again.failed) == (0, 36, 12)
    retried = run(broken, "quick", tmp_path, n_jobs=1, retry_failed=True)
    assert (retried.computed, retried.found, retried.failed) == (12, 24, 12)


def test_a_batch_that_kills_its_worker(tmp_path, helpers, reference):
    study = helpers.toy_study(setting={"trouble": [{"n": 30, "how": "die"}]})
    summary = run(study, "quick", tmp_path, n_jobs=2)
    assert (summary.computed, summary.failed) == (36, 12)
    table = helpers.results(Store(tmp_path, study).table())
    bad = table["status"] == "failed"
    assert set(table.loc[bad, "n"]) == {30}
    assert table.loc[bad, "error"].str.contains("the worker process died of this batch").all()
    columns = ["arm", "n", "replicate", "seed", "estimate", "first"]
    good = table.loc[~bad, columns].reset_index(drop=True)
    assert good.equals(reference.loc[reference["n"] != 30, columns].reset_index(drop=True))


def test_only_suspects_are_computed_alone(study):
    """Where it is known of which batch a worker died, no other one has to wait for itself."""
    batches = study.batches("quick")
    bad, groups = batches[2].key, []

    class Workers:
        def results(self, calls):
            groups.append(list(calls))
            for name, (function, arguments, _) in calls.items():
                if name == bad:
                    raise WorkerDiedError([name])
                yield name, function(*arguments)

    tables = {batch.key: table for batch, table in _tables(TOY, study, batches, Workers())}
    keys = [batch.key for batch in batches]
    assert groups == [keys, [bad], keys[3:]]
    assert sorted(tables) == sorted(keys)
    status = {key: set(table["status"].to_pylist()) for key, table in tables.items()}
    assert status == {key: {"failed" if key == bad else "ok"} for key in keys}


FAULTS = """
import resource, sys, numpy
from experiments.workers import _keep_memory
if sys.argv[1] == "keep":
    _keep_memory()
numpy.ones(2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    numpy.ones(2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these bounds")
def test_workers_keep_the_memory_that_they_free():
    """Under the bound that Dask's nannies set, each of 50 arrays of 2048 pages would fault anew."""
    faults = {}
    for how in ("keep", "let go"):
        faults[how] = int(
            subprocess.run(
                [sys.executable, "-c", FAULTS, how],
                env={**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536"},
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
    huge_pages_at_most = 50 * 2048 / 512  # a fault each, where the system hands out 2 MB at once
    assert faults["let go"] >= huge_pages_at_most
    assert faults["keep"] < huge_pages_at_most


def test_a_torn_file_is_computed_again(tmp_path, study, reference, helpers):
    run(study, "quick", tmp_path, n_jobs=1)
    store = Store(tmp_path, study)
    path = store.path / "batches" / "n30-r0-2.parquet"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.warns(StoreWarning, match="torn"):
        summary = run(study, "quick", tmp_path, n_jobs=1)
    assert (summary.found, summary.computed) == (30, 6)
    assert helpers.results(store.table()).equals(reference)


def test_a_full_disk_stops_the_run_and_keeps_what_there_is(
    tmp_path, study, reference, helpers, monkeypatch
):
    write, written = Store.write, []

    def full_after_two(store, table):
        if len(written) == 2:
            raise StoreFullError("no space left")
        written.append(table)
        write(store, table)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", full_after_two)
        with pytest.raises(StoreFullError):
            run(study, "quick", tmp_path, n_jobs=2)
    assert len(Store(tmp_path, study).done()) == 2
    assert run(study, "quick", tmp_path, n_jobs=2).found == 12
    assert helpers.results(Store(tmp_path, study).table()).equals(reference)


def test_two_runs_at_once(tmp_path, study):
    def second(now: Progress) -> None:
        with pytest.raises(StoreLockedError, match="another run"):
            run(study, "smoke", tmp_path)

    assert run(study, "smoke", tmp_path, n_jobs=1, progress=second).computed == 12


def test_workers_have_one_thread_and_the_parent_keeps_its_own(tmp_path, helpers):
    study = helpers.toy_study(kind="one-thread")
    threads = os.environ.get("OMP_NUM_THREADS")
    run(study, "smoke", tmp_path, n_jobs=1)
    table = Store(tmp_path, study).table()
    assert set(table["threads"]) == {1}
    assert os.getpid() not in set(table["pid"])
    assert os.environ.get("OMP_NUM_THREADS") == threads


def test_what_cannot_start(tmp_path, study, monkeypatch):
    for n_jobs in (0, -2):
        with pytest.raises(WorkersError, match=f"at least 1; got {n_jobs}"):
            run(study, "smoke", tmp_path, n_jobs=n_jobs)

    class Unprepared(Toy):
        name = "unprepared"

        def prepare(self, study):
            return {"h": float("nan")}

    kind = kinds.register(Unprepared())
    monkeypatch.setitem(sys.modules, "test_runner", sys.modules[__name__])
    try:
        document = {**study.document(), "kind": kind.name}
        from experiments.study import study_from_document

        with pytest.raises(
            RunError, match="the preparation of study 'toy-study' failed: ValueError"
        ):
            run(study_from_document(document), "smoke", tmp_path, n_jobs=1)
    finally:
        del kinds._registered[kind.name]

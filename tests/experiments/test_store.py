"""The store: what it keeps, and that neither accident nor stranger gets wrong rows out of it."""

import errno
import json
import os
import pickle
import shutil
import subprocess
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.kinds import Batch, Cell
from experiments.rows import FORMAT, RowError, failed_rows, metadata, moebius_version, tabulate
from experiments.store import (
    Store,
    StoreError,
    StoreFullError,
    StoreLockedError,
    StoreVersionError,
    StoreWarning,
    stores_in,
)

ONE = Batch("one", (Cell("mle", 5, 0), Cell("mle", 5, 1)))
TWO = Batch("two", (Cell("em", 5, 0),))


@pytest.fixture
def store(tmp_path, study):
    """A store with two batches in it, its lock free."""
    store = Store(tmp_path / "out", study)
    with store.lock():
        store.write(tabulate(study, ONE, [{"h": 0.1, "k": 3, "ok": True}, {"h": 0.2}], 1.0))
        store.write(tabulate(study, TWO, [{"h": np.float64(1 / 3), "word": "w"}], 1.0))
    return store


def batch_file(store, key="one"):
    return store.path / "batches" / f"{key}.parquet"


def test_one_row_per_cell(store, study):
    table = store.table()
    assert table[["arm", "n", "replicate", "batch"]].values.tolist() == [
        ["em", 5, 0, "two"],
        ["mle", 5, 0, "one"],
        ["mle", 5, 1, "one"],
    ]
    assert set(table["config_hash"]) == {study.config_hash}
    assert set(table["study"]) == {"toy-study"}
    assert set(table["version"]) == {moebius_version()}
    assert table["seed"].tolist() == [f"{study.seed_of(5, r):032x}" for r in (0, 0, 1)]
    assert table["seconds"].tolist() == [1.0, 0.5, 0.5]
    assert table["h"].tolist() == [1 / 3, 0.1, 0.2]
    assert table["k"].isna().tolist() == [True, False, True]
    dtypes = {name: str(table[name].dtype) for name in ("n", "replicate", "h", "k", "ok")}
    assert dtypes == {"n": "int64", "replicate": "int64", "h": "float64", "k": "Int64",
                      "ok": "boolean"}  # fmt: skip
    assert store.done() == {"one", "two"}
    assert store.table({"two", "absent"})["batch"].tolist() == ["two"]


def test_an_absent_store_is_empty(tmp_path, study):
    store = Store(tmp_path / "nowhere", study)
    assert store.table().empty
    assert store.table()["n"].dtype == np.int64
    assert store.done() == store.failed() == set()
    assert store.prepared() is None
    assert not (tmp_path / "nowhere").exists()
    assert stores_in(tmp_path / "nowhere") == []


def test_failed_rows(store, study):
    with store.lock():
        store.write(tabulate(study, TWO, failed_rows(TWO, "why \udcff"), 2.0))
    table = store.table({"two"})
    assert table["status"].tolist() == ["failed"]
    assert table["error"].tolist() == ["why \\udcff"]
    assert store.failed() == {"two"}
    assert store.failed({"one"}) == set()


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([{}], "1 rows for the 2 cells of batch 'one'"),
        ([{"n": 3}, {}], "column 'n' is reserved"),
        ([{"version": "x"}, {}], "column 'version' is reserved"),
        ([{"a b": 1}, {}], "column 'a b' is reserved or not an identifier"),
        ([{"a": [1]}, {}], r"column 'a' must hold str, bool, int, float or None; got \[1\]"),
        ([{"a": b"x"}, {}], "column 'a' must hold"),
        ([{"a": np.zeros(2)}, {}], "column 'a' must hold"),
        ([{"a": 1}, {"a": "x"}], "column 'a' of batch 'one'"),
        ([{"a": 2**63}, {}], "column 'a' of batch 'one'"),
        ([{"a": "\udcff"}, {}], "column 'a' of batch 'one'"),
        ([{"status": 3}, {}], "column 'status' of batch 'one'"),
    ],
)
def test_rows_that_cannot_be_stored(study, rows, sentence):
    with pytest.raises(RowError, match=sentence):
        tabulate(study, ONE, rows, 1.0)


VALUES = st.lists(
    st.tuples(*[st.none() | st.integers(-(2**63), 2**63 - 1)] * 2)
    | st.tuples(*[st.none() | st.floats()] * 2)
    | st.tuples(*[st.none() | st.booleans()] * 2)
    | st.tuples(*[st.none() | st.text(st.characters(codec="utf-8"))] * 2),
    max_size=4,
)


@settings(max_examples=50, deadline=None)
@given(VALUES)
def test_values_come_back_bit_for_bit(tmp_path_factory, study, columns):
    store = Store(tmp_path_factory.mktemp("values"), study)
    rows = [{f"c{i}": column[r] for i, column in enumerate(columns)} for r in range(2)]
    with store.lock():
        store.write(tabulate(study, ONE, rows, 0.0))
        assert store.done([ONE]) == {"one"}
    table = pq.read_table(batch_file(store))
    for i, column in enumerate(columns):
        if any(value is not None for value in column):
            assert repr(table[f"c{i}"].to_pylist()) == repr(list(column))
        else:
            assert f"c{i}" not in table.column_names


def test_columns_of_batches_may_differ_in_integer_and_float(store, study):
    with store.lock():
        store.write(tabulate(study, TWO, [{"k": 2.5}], 1.0))
        assert store.table()["k"].tolist()[:2] == [2.5, 3.0]
        store.write(tabulate(study, TWO, [{"k": "x"}], 1.0))
    with pytest.raises(StoreError, match="batches disagree on a column's type"):
        store.table()


def test_prepared(store):
    assert store.prepared() is None
    with store.lock():
        store.write_prepared({"h": 0.25, "list": [1, None]})
    assert store.prepared() == {"h": 0.25, "list": [1, None]}
    (store.path / "prepared.json").write_text('{"config_hash": "other", "prepared": {}}')
    with pytest.warns(StoreWarning, match="not of this configuration; ignored"):
        assert store.prepared() is None


def truncate(path, helpers):
    path.write_bytes(path.read_bytes()[:-7])


def empty(path, helpers):
    path.write_bytes(b"")


def garbage(path, helpers):
    path.write_bytes(os.urandom(500))


def pickled(path, helpers):
    path.write_bytes(pickle.dumps({"mle": 1}))


def foreign_parquet(path, helpers):
    pq.write_table(pa.table({"a": [1]}), path)


def other_configuration(path, helpers):
    pq.write_table(tabulate(helpers.toy_study(seed=12), ONE, [{"h": 1.0}, {"h": 2.0}], 1.0), path)


def other_batch(path, helpers):
    shutil.copy(path.with_name("two.parquet"), path)


def other_version(path, helpers):
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({**metadata(table), "moebius": "99.0.0"}), path)


def changed_value(path, helpers):
    table = pq.read_table(path)
    column = table.column_names.index("h")
    pq.write_table(table.set_column(column, "h", pa.array([0.1, 0.3])), path)


def other_cells(path, helpers):
    batch = Batch("one", (Cell("mle", 5, 0), Cell("mle", 5, 2)))
    pq.write_table(tabulate(helpers.toy_study(), batch, [{"h": 1.0}, {"h": 2.0}], 1.0), path)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, "is torn or not a batch"),
        (empty, "is torn or not a batch"),
        (garbage, "is torn or not a batch"),
        (pickled, "is torn or not a batch"),
        (foreign_parquet, "is not this batch's file"),
        (other_batch, "is not this batch's file"),
        (other_configuration, "is of another configuration"),
        (other_version, "was written by moebius 99.0.0"),
        (changed_value, "does not have the rows that were written"),
        (other_cells, "has other cells than the kind now gives"),
    ],
)
def test_a_bad_file_is_moved_aside(store, study, helpers, damage, reason):
    path = batch_file(store)
    damage(path, helpers)
    content = path.read_bytes()
    with pytest.warns(StoreWarning, match=f"one.parquet {reason}.*; ignored"):
        assert store.done([ONE, TWO]) == {"two"}
    assert path.read_bytes() == content  # a reader moves nothing
    with store.lock():
        with pytest.warns(StoreWarning, match=f"{reason}.*; moved aside to one.parquet.corrupt"):
            assert store.done([ONE, TWO]) == {"two"}
        assert path.with_name("one.parquet.corrupt").read_bytes() == content
        store.write(tabulate(study, ONE, [{"h": 0.1}, {"h": 0.2}], 1.0))
        assert store.done([ONE, TWO]) == {"one", "two"}
        path.write_bytes(b"again")
        with pytest.warns(StoreWarning, match=r"moved aside to one\.parquet\.2\.corrupt"):
            assert store.done() == {"two"}


def test_no_flipped_bit_changes_a_result(store):
    path = batch_file(store)
    good = path.read_bytes()
    before = store.table({"one"})
    rng = np.random.default_rng(5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StoreWarning)
        for position in rng.integers(len(good), size=150):
            bad = bytearray(good)
            bad[position] ^= 1 << int(rng.integers(8))
            path.write_bytes(bad)
            table = store.table({"one"})
            assert table.empty or table.equals(before)


def test_torn_json(store):
    (store.path / "store.json").write_bytes(b'{"format": 1, "moe')
    with pytest.warns(StoreWarning, match=r"store\.json is torn"), store.lock():
        assert json.loads((store.path / "store.json").read_text())["format"] == FORMAT
    assert (store.path / "store.json.corrupt").exists()
    assert store.done() == {"one", "two"}


@pytest.mark.parametrize(
    "change", [{"format": FORMAT + 1}, {"moebius": "99.1.2"}, {"moebius": None}, {"format": None}]
)
def test_another_version(store, study, change):
    path = store.path / "store.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    for action in (lambda: Store(store.path.parents[1], study), lambda: store.lock().__enter__()):
        with pytest.raises(StoreVersionError, match="choose another --out, or move that folder"):
            action()
    assert store.done() == {"one", "two"}


def test_another_patch_release_is_the_same_version(store, study):
    path = store.path / "store.json"
    newer = ".".join([*moebius_version().split(".")[:2], "999"])
    path.write_text(json.dumps({**json.loads(path.read_text()), "moebius": newer}))
    assert Store(store.path.parents[1], study).done() == {"one", "two"}


def test_two_runners(store, study):
    other = Store(store.path.parents[1], study)
    with store.lock():
        with pytest.raises(StoreLockedError, match=f"another run .process {os.getpid()} on "):
            other.lock().__enter__()
        assert other.done() == {"one", "two"}  # reading needs no lock
    with other.lock():
        pass


def test_writing_needs_the_lock_and_the_right_table(store, study, helpers):
    table = tabulate(study, TWO, [{}], 1.0)
    with pytest.raises(StoreError, match="needs its lock"):
        store.write(table)
    with store.lock():
        with pytest.raises(StoreError, match="is of another configuration"):
            store.write(tabulate(helpers.toy_study(seed=3), TWO, [{}], 1.0))
        with pytest.raises(StoreError, match="does not have the rows"):
            store.write(table.slice(1))


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk(store, study, monkeypatch, step, number):
    def full(*_):
        raise OSError(number, os.strerror(number))

    before = store.table()
    with store.lock():
        with monkeypatch.context() as patch:
            patch.setattr(os, step, full)
            error = StoreError if number == errno.EIO else StoreFullError
            with pytest.raises(error, match="nput/output" if number == errno.EIO else "no space"):
                store.write(tabulate(study, ONE, [{"h": 9.0}, {"h": 9.0}], 1.0))
        assert store.table().equals(before)
        assert not list(store.path.rglob("*.tmp"))
        store.write(tabulate(study, ONE, [{"h": 9.0}, {"h": 9.0}], 1.0))
    assert store.table({"one"})["h"].tolist() == [9.0, 9.0]


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a tmpfs cannot be mounted here; a monkeypatched disk is tested in any case")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_really_full_disk(small_disk, study):
    store = Store(small_disk, study)
    written = set()

    def fill():
        for i in range(100):
            batch = Batch(f"b{i}", (Cell("mle", 5, i),))
            store.write(tabulate(study, batch, [{"h": 0.1}], 1.0))
            written.add(batch.key)

    with store.lock():
        with pytest.raises(StoreFullError, match="no space left"):
            fill()
        assert written
        assert store.done() == written
        assert not list(store.path.rglob("*.tmp"))


def test_a_really_read_only_disk(small_disk, study):
    store = Store(small_disk, study)
    with store.lock():
        store.write(tabulate(study, TWO, [{"h": 0.1}], 1.0))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreError, match="Read-only file system"), store.lock():
        pass
    assert store.done() == {"two"}


def test_where_nothing_can_be_written(tmp_path, study):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="Not a directory"):
        Store(tmp_path / "file", study)
    if os.path.isdir("/proc/self"):
        with pytest.raises(StoreError, match="/proc/"):
            Store("/proc/self", study).lock().__enter__()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to a read-only folder")
def test_a_read_only_folder(store):
    os.chmod(store.path, 0o555)
    try:
        with pytest.raises(StoreError, match="Permission denied"), store.lock():
            pass
        assert store.done() == {"one", "two"}
    finally:
        os.chmod(store.path, 0o755)


def test_what_a_killed_run_left_is_cleaned_up(store):
    left = batch_file(store).with_name("three.parquet.123.tmp")
    left.write_bytes(b"half")
    assert store.done() == {"one", "two"}
    with store.lock():
        assert not left.exists()


def test_stores_in(store, helpers, monkeypatch):
    out = store.path.parents[1]
    with Store(out, helpers.toy_study(seed=12)).lock():
        pass
    assert sorted(one.study.seed for one in stores_in(out)) == [11, 12]
    bad = out / "bad" / "x" / "store.json"
    bad.parent.mkdir(parents=True)
    good = json.loads((store.path / "store.json").read_text())
    for content in ("{", "[]", "{}", '{"study": {"kind": "absent"}}', json.dumps(good)):
        bad.write_text(content)
        with pytest.warns(StoreWarning, match=r"bad/x/store\.json was ignored"):
            assert len(stores_in(out)) == 2
    bad.unlink()
    (store.path / "store.json").write_text(json.dumps({**good, "moebius": "99.0.0"}))
    with pytest.warns(StoreWarning, match="was ignored: .* was written by moebius 99"):
        assert len(stores_in(out)) == 1
    monkeypatch.setattr("toy_kinds.Toy.revision", 2)
    with pytest.warns(StoreWarning, match="another revision of its kind"):
        assert stores_in(out) == []


def test_hostile_study_name(tmp_path, study):
    with pytest.raises(ValueError, match="A name must have"):
        Store(tmp_path, study.model_copy(update={"name": "../../x"}))

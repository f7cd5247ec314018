"""Studies and tables that no one should have written: one clear error, never something served."""

import os

import pandas as pd
import pytest

from experiments import UserError, load_study
from experiments.datasets import DataError, read_table

STUDIES = {
    "empty": b"",
    "torn": b'name = "a',
    "not UTF-8": b'name = "\xff\xfe"',
    "NUL": b"name = \x00",
    "a list": b"[1, 2]",
    "deep": b"a = " + b"[" * 20_000 + b"]" * 20_000,
    "twice": b'name = "a"\nname = "b"',
    "JSON": b'{"name": "a"}',
    "unknown kind": b'name = "a"\nkind = "../rates"',
    "words for tables": b'name = "a"\nkind = "rates"\nsetting = 3\nprofiles = "x"',
    "a number that overflows": b"seed = 1e999999",
}


@pytest.mark.parametrize("content", STUDIES.values(), ids=STUDIES.keys())
def test_studies(content, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(UserError) as stop:
        load_study(path)
    assert "mine.toml" in str(stop.value)


def test_a_study_that_is_no_file(tmp_path):
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "loop.toml").symlink_to(tmp_path / "loop.toml")
    os.mkfifo(tmp_path / "pipe.toml")  # opening it would wait for ever
    for name in ("folder.toml", "loop.toml", "pipe.toml", "nothing.toml"):
        with pytest.raises(UserError, match=name):
            load_study(tmp_path / name)


TABLES = {
    "empty.csv": b"",
    "ragged.csv": b"a,b\n1,2\n1,2,3,4\n",
    "nul.csv": b"\xff\xfe\x00a,b\n\x00\x80",
    "empty.parquet": b"",
    "text.parquet": b"a,b\n1,2\n",
    "magic.parquet": b"PAR1" + b"\xff" * 40 + b"PAR1",
    "footer.parquet": b"PAR1" + b"\0" * 8 + b"\xff\xff\xff\x7fPAR1",
}


@pytest.mark.parametrize("name", TABLES)
def test_tables(name, tmp_path):
    (tmp_path / name).write_bytes(TABLES[name])
    with pytest.raises(DataError, match=name):
        read_table(tmp_path / name)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_truncated_parquet(share, tmp_path):
    path = tmp_path / "x.parquet"
    pd.DataFrame({"a": range(1000)}).to_parquet(path)
    assert len(read_table(path)) == 1000
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match=r"x\.parquet"):
        read_table(path)


@pytest.mark.parametrize("name", ["folder.csv", "folder.parquet", "nothing.csv", "nothing.parquet"])
def test_a_table_that_is_no_file(name, tmp_path):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(DataError, match=name):
        read_table(tmp_path / name)

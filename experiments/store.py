"""The store: one Parquet file per batch, one row per cell, written whole or not at all.

Layout::

    OUT/<study>/<config hash>/
        store.json              format, version of moebius, the study as run
        prepared.json           what the kind computed before the first cell
        batches/<key>.parquet   the rows of a batch
        lock                    held by the one runner that may write

A file is written under a temporary name in its own folder, synced, renamed into place, and the
folder is synced; so a reader sees a whole file or none, whenever the writer was killed. Each batch
file carries the configuration hash, its key and a digest of its rows. A file that cannot be read or
does not agree with them is moved aside to ``*.corrupt`` by the runner and its batch computed again.
Reading involves Parquet and JSON only, never pickle.
"""

import errno
import fcntl
import json
import os
import warnings
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bayes import files

from . import UserError
from .keys import checked_name
from .kinds import Batch
from .rows import COLUMNS, FORMAT, disagreement, metadata, moebius_version, same_version
from .study import Study, study_from_document


class StoreError(UserError):
    """The store cannot be read or written; the message says why and what to do."""


class StoreVersionError(StoreError):
    """The store was written by another version."""


class StoreLockedError(StoreError):
    """Another run is writing to the store."""


class StoreFullError(StoreError):
    """No space is left on the device; what was written before is intact."""


class StoreWarning(UserWarning):
    """A file of the store is not what it should be and was not used."""


class Store:
    """The results of one configuration of a study.

    Reading needs nothing but the folder. Writing needs the lock.

    Parameters
    ----------
    out : path
        The folder that holds all studies' results.
    study : Study

    Attributes
    ----------
    path : Path
        ``out / study.name / study.config_hash``; made by the first `lock`.

    Raises
    ------
    StoreVersionError
        If the folder has a store of another format or another version (major.minor) of moebius.
    StoreError
        If what is there cannot be read.

    Examples
    --------
    >>> Store("results", study).table().groupby("n")["error_abs"].median()  # doctest: +SKIP
    """

    def __init__(self, out: str | PathLike[str], study: Study) -> None:
        self.study = study
        self.path = Path(out) / checked_name(study.name) / study.config_hash
        self._batches = self.path / "batches"
        self._holds_lock = False
        self._check_version()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Make the store if need be and hold the right to write to it.

        The right ends with the process, however that ends.

        Raises
        ------
        StoreLockedError
            If another run holds it.
        StoreError
            If the folder cannot be made or written to.
        """
        with clear_errors(self.path):
            self._batches.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            with clear_errors(self.path):
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    holder = os.pread(lock, 200, 0).decode(errors="replace")
                    raise StoreLockedError(
                        f"another run ({holder}) is writing to {self.path}; "
                        f"wait for it to end, or choose another --out"
                    ) from None
                self._holds_lock = True
                os.ftruncate(lock, 0)
                os.pwrite(lock, f"process {os.getpid()} on {os.uname().nodename}".encode(), 0)
                for folder in (self.path, self._batches):
                    for left_by_a_killed_run in folder.glob("*.tmp"):
                        left_by_a_killed_run.unlink()
            self._check_version()
            self._write_json(
                "store.json",
                {
                    "format": FORMAT,
                    "moebius": moebius_version(),
                    "config_hash": self.study.config_hash,
                    "study": self.study.document(),
                },
            )
            yield
        finally:
            self._holds_lock = False
            os.close(lock)

    def write(self, table: pa.Table) -> None:
        """Store a batch made by `experiments.rows.tabulate`, in place of what may be there.

        Raises
        ------
        StoreFullError
            If no space is left; the store is as it was before.
        StoreError
            If the lock is not held, the table is not of this study, or writing fails.
        """
        if not self._holds_lock:
            raise StoreError("writing to a store needs its lock: `with store.lock(): ...`")
        key = checked_name(metadata(table).get("batch", ""))
        reason = disagreement(table, key, self.study.config_hash)
        if reason:
            raise StoreError(f"batch {key!r} {reason}; it was not stored")
        buffer = BytesIO()
        pq.write_table(table, buffer)
        write_whole(self._batches / f"{key}.parquet", buffer.getvalue())

    def done(self, batches: Iterable[Batch] | None = None) -> set[str]:
        """Return the keys of the stored batches.

        Parameters
        ----------
        batches : iterable of Batch, optional
            Only look for these, and count one only if it is stored with exactly these cells.
        """
        if batches is None:
            return {key for key in self._keys() if self._read(key) is not None}
        return {batch.key for batch in batches if self._read(batch.key, batch) is not None}

    def failed(self, keys: Collection[str] | None = None) -> set[str]:
        """Return the keys of the stored batches (of these `keys`) with a failed cell."""
        table = self.table(keys)
        return set(table.loc[table["status"] == "failed", "batch"])

    def table(self, keys: Collection[str] | None = None) -> pd.DataFrame:
        """Return the stored rows, one per cell, sorted by arm, n, replicate and batch.

        Parameters
        ----------
        keys : collection of str, optional
            Only the batches of these keys, such as those of one profile.

        Returns
        -------
        pandas.DataFrame
            The columns of `experiments.rows`, then the kind's own. Where rows lack a column, floats
            are NaN; integers and booleans have a nullable type.
        """
        wanted = self._keys() if keys is None else sorted(set(keys) & set(self._keys()))
        tables = [table for key in wanted if (table := self._read(key)) is not None]
        try:
            joined = pa.concat_tables(
                tables or [pa.schema(COLUMNS).empty_table()], promote_options="permissive"
            )
        except pa.ArrowException as error:
            raise StoreError(f"{self.path}: batches disagree on a column's type: {error}") from None
        joined = joined.sort_by(
            [(name, "ascending") for name in ("arm", "n", "replicate", "batch")]
        )
        return pd.DataFrame({name: _series(joined[name]) for name in joined.column_names})

    def prepared(self) -> dict[str, Any] | None:
        """Return what the kind prepared, or None if that is still to be computed."""
        path = self.path / "prepared.json"
        document = self._read_json(path)
        if document is None:
            return None
        prepared = document.get("prepared")
        if document.get("config_hash") == self.study.config_hash and isinstance(prepared, dict):
            return prepared
        self._put_aside(path, "is not of this configuration")
        return None

    def write_prepared(self, prepared: dict[str, Any]) -> None:
        """Store what the kind prepared: a dict of JSON's types and finite numbers."""
        document = {"config_hash": self.study.config_hash, "prepared": prepared}
        self._write_json("prepared.json", document)

    def _keys(self) -> list[str]:
        with clear_errors(self._batches), suppress(FileNotFoundError):
            return sorted(
                path.stem for path in self._batches.iterdir() if path.suffix == ".parquet"
            )
        return []

    def _read(self, key: str, batch: Batch | None = None) -> pa.Table | None:
        """Return a batch if its file is whole and its own, else None."""
        path = self._batches / f"{key}.parquet"
        content = _content(path)
        if content is None:
            return None
        try:
            table = pq.ParquetFile(BytesIO(content)).read()
            reason = disagreement(table, key, self.study.config_hash)
        except Exception as error:  # whatever the bytes of a torn file make the reader raise
            reason = f"is torn or not a batch ({type(error).__name__})"
        if not reason and batch is not None:
            columns = (table[name].to_pylist() for name in ("arm", "n", "replicate"))
            cells = [(cell.arm, cell.n, cell.replicate) for cell in batch.cells]
            if list(zip(*columns, strict=True)) != cells:
                reason = "has other cells than the kind now gives this batch"
        if reason:
            self._put_aside(path, reason)
            return None
        return table

    def _put_aside(self, path: Path, reason: str) -> None:
        """Warn of a bad file, and rename it if we may."""
        action = "ignored"
        if self._holds_lock:
            aside, number = path.with_name(f"{path.name}.corrupt"), 1
            while aside.exists():
                number += 1
                aside = path.with_name(f"{path.name}.{number}.corrupt")
            with clear_errors(path):
                os.replace(path, aside)
            action = f"moved aside to {aside.name} and made again"
        warnings.warn(f"{path} {reason}; {action}", StoreWarning, stacklevel=4)

    def _check_version(self) -> None:
        document = self._read_json(self.path / "store.json")
        if document is None:
            return
        form, written = document.get("format"), str(document.get("moebius"))
        if form != FORMAT or not same_version(written):
            raise StoreVersionError(
                f"{self.path} was written by moebius {written} (store format {form}); this is "
                f"moebius {moebius_version()} (store format {FORMAT}): choose another --out, or "
                f"move that folder away"
            )

    def _read_json(self, path: Path) -> dict[str, Any] | None:
        content = _content(path)
        if content is None:
            return None
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            self._put_aside(path, "is torn or not a JSON object")
            return None
        return document

    def _write_json(self, name: str, document: dict[str, Any]) -> None:
        text = json.dumps(document, indent=1, allow_nan=False) + "\n"
        write_whole(self.path / name, text.encode("utf-8"))


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it appears whole or not at all.

    Raises
    ------
    StoreError
        If the file system refuses; `StoreFullError` if there is no space left.
    """
    with clear_errors(path):
        files.write_whole(path, content)


def stores_in(out: str | PathLike[str]) -> list[Store]:
    """Return all stores in a folder, each with the study as it was last run, sorted by folder.

    One that cannot be used (another version, an unknown kind, another revision of a kind) gives a
    warning.
    """
    stores = []
    for path in sorted(Path(out).glob("*/*/store.json")):
        try:
            document = json.loads(_content(path) or b"")
            store = Store(out, study_from_document(document["study"], str(path)))
        except (ValueError, KeyError, TypeError, UserError) as error:
            warnings.warn(f"{path} was ignored: {error}", StoreWarning, stacklevel=2)
            continue
        if store.path == path.parent:
            stores.append(store)
        else:
            reason = "moved, or run with another revision of its kind"
            warnings.warn(f"{path} was ignored: {reason}", StoreWarning, stacklevel=2)
    return stores


def _content(path: Path) -> bytes | None:
    with clear_errors(path):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None


@contextmanager
def clear_errors(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFullError(
                f"no space left for {path}; what was stored before is intact: free some space and "
                f"give the same command again"
            ) from None
        raise StoreError(f"{error.filename or path}: {error.strerror or error}") from None


def _series(column: pa.ChunkedArray) -> pd.Series:
    """Convert a column to pandas, keeping integers and booleans exact where values are missing."""
    nullable = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    return column.to_pandas(types_mapper=nullable.get if column.null_count else None)

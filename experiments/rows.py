"""Rows: what is kept of a cell, as one Arrow table per batch that can prove what it is.

Every row has key columns (study, config_hash, batch, arm, n, replicate, seed), outcome columns
(status, error, seconds, version) and the kind's own columns. `seed` is the cell's base seed in
hexadecimal, ``study.seed_of(n, replicate)``; `status` is "ok", "failed" or a word of the kind.
"""

import hashlib
import re
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

import pyarrow as pa

from .keys import canonical_json
from .kinds import Batch
from .study import Study

FORMAT = 1

KEY_COLUMNS = {
    "study": pa.string(),
    "config_hash": pa.string(),
    "batch": pa.string(),
    "arm": pa.string(),
    "n": pa.int64(),
    "replicate": pa.int64(),
    "seed": pa.string(),
}
OUTCOME_COLUMNS = {
    "status": pa.string(),
    "error": pa.string(),
    "seconds": pa.float64(),
    "version": pa.string(),
}
COLUMNS = {**KEY_COLUMNS, **OUTCOME_COLUMNS}

_IDENTIFIER = re.compile(r"[A-Za-z]\w{0,99}", flags=re.ASCII)


class RowError(ValueError):
    """Rows of a kind that cannot be stored."""


@cache
def moebius_version() -> str:
    """Return the version of the installed distribution."""
    return version("moebius")


def same_version(written: str) -> bool:
    """Whether results of that version of moebius may stand beside ours: same major.minor.

    Examples
    --------
    >>> same_version(moebius_version()), same_version("999.1.0")
    (True, False)
    """
    return written.split(".")[:2] == moebius_version().split(".")[:2]


def tabulate(
    study: Study, batch: Batch, rows: Sequence[dict[str, Any]], seconds: float
) -> pa.Table:
    """Complete a batch's rows with key and outcome columns and return them as one table.

    Parameters
    ----------
    study : Study
    batch : Batch
    rows : sequence of dict
        One per cell, in the order of `batch.cells`: columns of the kind, and optionally `status`,
        `error` and `seconds`. Values are str, bool, int, float or None, or NumPy scalars of these.
    seconds : float
        What the batch took; shared equally among rows that do not say.

    Returns
    -------
    pyarrow.Table
        Integers as int64, floats as float64. Its metadata identify the batch. A column without any
        value is left out.

    Raises
    ------
    RowError
        If there are more or fewer rows than cells, or a row has a reserved or badly named column
        or a value that fits no column.
    """
    if len(rows) != len(batch.cells):
        raise RowError(f"{len(rows)} rows for the {len(batch.cells)} cells of batch {batch.key!r}")
    config_hash = study.config_hash
    complete = []
    for cell, row in zip(batch.cells, rows, strict=True):
        values = {column: _scalar(column, value) for column, value in row.items()}
        complete.append(
            {
                "study": study.name,
                "config_hash": config_hash,
                "batch": batch.key,
                "arm": cell.arm,
                "n": cell.n,
                "replicate": cell.replicate,
                "seed": f"{study.seed_of(cell.n, cell.replicate):032x}",
                "status": values.pop("status", None) or "ok",
                "error": values.pop("error", None) or "",
                "seconds": values.pop("seconds", seconds / len(rows)),
                "version": moebius_version(),
                **values,
            }
        )
    arrays = {}
    for name in dict.fromkeys(name for row in complete for name in row):
        try:
            array = pa.array([row.get(name) for row in complete], type=COLUMNS.get(name))
        except (pa.ArrowException, OverflowError, UnicodeError) as error:
            raise RowError(f"column {name!r} of batch {batch.key!r}: {error}") from None
        if name in COLUMNS or array.null_count < len(array):
            arrays[name] = array
    table = pa.table(arrays)
    return table.replace_schema_metadata(
        {
            "moebius_format": str(FORMAT),
            "moebius": moebius_version(),
            "config_hash": config_hash,
            "batch": batch.key,
            "digest": _digest(table),
        }
    )


def failed_rows(batch: Batch, error: str) -> list[dict[str, Any]]:
    """Return the rows of a batch that failed as a whole."""
    text = error.encode("utf-8", errors="backslashreplace").decode()
    return [{"status": "failed", "error": text} for _ in batch.cells]


def metadata(table: pa.Table) -> dict[str, str]:
    """Return what `tabulate` wrote about the table."""
    return {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}


def disagreement(table: pa.Table, key: str, config_hash: str) -> str:
    """Say how a table is not the batch `key` as it was written, "" if it is."""
    meta = metadata(table)
    if meta.get("moebius_format") != str(FORMAT) or meta.get("batch") != key:
        return "is not this batch's file"
    if meta.get("config_hash") != config_hash:
        return f"is of another configuration ({meta.get('config_hash')})"
    if not same_version(meta.get("moebius", "")):
        return f"was written by moebius {meta.get('moebius')}"
    if meta.get("digest") != _digest(table):
        return "does not have the rows that were written"
    return ""


def _digest(table: pa.Table) -> str:
    columns = {
        name: [repr(v) if isinstance(v, float) else v for v in table[name].to_pylist()]
        for name in table.column_names
    }
    return hashlib.sha256(canonical_json(columns).encode("ascii")).hexdigest()


def _scalar(column: str, value: Any) -> str | bool | int | float | None:
    reserved = column in KEY_COLUMNS or column == "version"
    if reserved or not _IDENTIFIER.fullmatch(column):
        raise RowError(f"column {column!r} is reserved or not an identifier")
    plain = value.item() if getattr(value, "ndim", None) == 0 else value
    if plain is None or type(plain) in (str, bool, int, float):
        return plain
    raise RowError(
        f"column {column!r} must hold str, bool, int, float or None; got {repr(value)[:80]}"
    )

"""Where claims and stored results meet: checks are run, findings kept beside the studies.

A claim (`theory.claims`) knows nothing of the store. Here a check that speaks of a study is handed
the study's stored table, and what was found is written to ``OUT/claims/<claim>.json``, whole or not
at all: one record a check, the last one found. A check that cannot be run leaves the record of an
earlier run as it is.
"""

from __future__ import annotations

import dataclasses
import json
import math
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any

from theory.claims import ROUTES, Check, Claim, ClaimError, Data, Finding, claim_names, get_claim

from . import UserError
from .plain import plain
from .rows import moebius_version, same_version
from .store import Store, StoreWarning, clear_errors, write_whole
from .study import load_study

FORMAT = 1
"""Raise it when the numbers of findings change their form: those of another are not read."""

_VERSIONED = ("torch", "numpy", "scipy", "mpmath", "sympy")


class UnknownClaimError(UserError, ClaimError):
    """There is no claim of that name."""


@dataclass(frozen=True)
class Record:
    """A finding and where it comes from.

    Attributes
    ----------
    finding : Finding
    source : dict
        "study", "profile", "config_hash" and "cells" of simulated data; empty for calculations.
    at : str
        When, in UTC; empty if the check was never run.
    versions : dict of str to str
        Of moebius, Python and the packages that compute.
    """

    finding: Finding
    source: Mapping[str, Any] = field(default_factory=dict)
    at: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether the check broke off with an error."""
        return self.finding.verdict == "not run" and bool(self.at)


def chosen(name: str | None) -> list[Claim]:
    """The claim of that name, or all.

    Raises
    ------
    UnknownClaimError
        If there is none; the message names the nearest.
    """
    try:
        return [get_claim(n) for n in (claim_names() if name is None else [name])]
    except ClaimError as error:
        raise UnknownClaimError(str(error)) from None


def verify(
    claims: Sequence[Claim],
    out: str | PathLike[str],
    *,
    profile: str,
    route: str | None = None,
    longest: float = math.inf,
    begin: Callable[[Claim, Check], None] = lambda claim, check: None,
) -> Iterator[tuple[Claim, Record]]:
    """Run the checks of claims, one after the other, and store each finding as it comes.

    Parameters
    ----------
    claims : sequence of Claim
    out : path
        The folder of all results.
    profile : str
        Of the studies whose tables are used.
    route : str or None
        Only checks of this route; all by default.
    longest : float
        Checks expected to take longer, in seconds, are left out and say so.
    begin : callable
        Told of each check before it is run.

    Yields
    ------
    tuple of (Claim, Record)
        What was just found; "not run" where data are missing.

    Raises
    ------
    UserError
        If there is no such route, or a store or a file of findings cannot be used.
    """
    if route is not None and route not in ROUTES:
        raise UserError(f"unknown route {route!r}; routes: {', '.join(ROUTES)}")
    tables: dict[str, _Stored] = {}
    for claim in claims:
        for check in claim.checks:
            if route is not None and check.route != route:
                continue
            if check.seconds > longest:
                words = f"it takes minutes; run it by moebius verify {claim.name}"
                yield claim, Record(check.not_run(words))
                continue
            begin(claim, check)
            if check.study is not None and check.study not in tables:
                tables[check.study] = _read(check.study, profile, out)
            record = _run(check, tables.get(check.study or ""))
            if record.at:
                _keep(claim, record, out)
            yield claim, record


def records(claim: Claim, out: str | PathLike[str]) -> list[Record]:
    """What is stored of a claim, one record a check, in the claim's order.

    Records of another version (major.minor) of moebius, or of another `FORMAT`, count as not
    there.
    """
    stored = {(r.finding.route, r.finding.question): r for r in _stored(claim, out)}
    return [
        stored.get((check.route, check.question), Record(check.not_run("never run")))
        for check in claim.checks
    ]


def tally(found: Sequence[Record]) -> dict[str, dict[str, int]]:
    """Routes, in the order of `ROUTES`, to the number of each verdict."""
    verdicts = {
        route: [str(r.finding.verdict) for r in found if r.finding.route == route]
        for route in ROUTES
    }
    return {
        route: {v: given.count(v) for v in dict.fromkeys(given)}
        for route, given in verdicts.items()
        if given
    }


def by_route(found: Sequence[Record]) -> dict[str, str]:
    """Routes to their verdicts in words.

    Examples
    --------
    >>> once = Finding("algebra", "q?", "consistent", "s")
    >>> by_route([Record(once), Record(dataclasses.replace(once, verdict="not run"))])
    {'algebra': '1 consistent, 1 not run'}
    """
    return {
        route: ", ".join(f"{n} {v}" if len(counts) > 1 else v for v, n in counts.items())
        for route, counts in tally(found).items()
    }


def document(claim: Claim, found: Sequence[Record]) -> dict[str, Any]:
    """A claim and its records as plain JSON."""
    return {
        "claim": claim.name,
        "statement": claim.statement,
        "source": claim.source,
        "assumptions": claim.assumptions,
        "standing": claim.standing,
        "routes": by_route(found),
        "findings": [plain(dataclasses.asdict(r)) for r in found],
    }


@dataclass(frozen=True)
class _Stored:
    """The data of a study with their source, or what is lacking."""

    data: Data | None
    source: Mapping[str, Any]
    lacking: str = ""


def _run(check: Check, stored: _Stored | None) -> Record:
    if stored is not None and stored.data is None:
        return Record(check.not_run(stored.lacking))
    try:
        finding = check.run(None if stored is None else stored.data)
    except Exception as error:  # a check that fails is a finding, not the end of the others
        finding = check.not_run(f"failed: {type(error).__name__}: {error}")
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return Record(finding, stored.source if stored else {}, at, _versions())


def _read(name: str, profile: str, out: str | PathLike[str]) -> _Stored:
    study = load_study(name)
    store = Store(out, study)
    batches = study.batches(profile)
    table = store.table(store.done(batches))
    cells = sum(len(batch.cells) for batch in batches)
    source = {
        "study": name,
        "profile": profile,
        "config_hash": study.config_hash,
        "cells": cells,
    }
    if len(table) < cells:
        lacking = f"{len(table)} of {cells} cells are stored"
        again = f"moebius run {name} --profile {profile} --out {out}"
        return _Stored(None, source, f"{lacking}; first: {again}")
    return _Stored(Data(table, store.prepared() or {}, study.seed), source)


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in _VERSIONED}
    return {"moebius": moebius_version(), "python": platform.python_version(), **packages}


def _path(claim: Claim, out: str | PathLike[str]) -> Path:
    return Path(out) / "claims" / f"{claim.name}.json"


def _stored(claim: Claim, out: str | PathLike[str]) -> Iterator[Record]:
    path = _path(claim, out)
    if not path.exists():
        return
    try:
        with clear_errors(path):
            stored = json.loads(path.read_bytes())
        entries = stored["findings"] if stored["format"] == FORMAT else []
        found = [Record(**{**entry, "finding": Finding(**entry["finding"])}) for entry in entries]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        warnings.warn(
            f"{path} is torn or not a list of findings ({type(error).__name__}); ignored",
            StoreWarning,
            stacklevel=3,
        )
        return
    yield from (r for r in found if same_version(r.versions.get("moebius", "")))


def _keep(claim: Claim, record: Record, out: str | PathLike[str]) -> None:
    """Put a record in the place of the last one of its check."""
    place = (record.finding.route, record.finding.question)
    others = [r for r in _stored(claim, out) if (r.finding.route, r.finding.question) != place]
    entries = [plain(dataclasses.asdict(r)) for r in (*others, record)]
    kept = {"format": FORMAT, "claim": claim.name, "findings": entries}
    text = json.dumps(kept, indent=1, allow_nan=False)
    path = _path(claim, out)
    with clear_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, f"{text}\n".encode())

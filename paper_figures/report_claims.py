"""The report on claims: verdicts by route first; each claim, a figure a route and versions last."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from experiments.claims import Record, chosen, records, tally
from experiments.rows import moebius_version
from theory.claims import ROUTES, Claim

from .report_page import VERDICTS, Picture, Section, shown, svg
from .style import save

_FIGURES = {route: f"paper_figures.claims_{route.replace('-', '_')}" for route in ROUTES}
"""Route to the module with its ``table``, ``figure`` and ``CAPTION``."""


Findings = Sequence[tuple[Claim, Sequence[Record]]]
"""Claims, each with its records."""


def findings(out: Path) -> Findings:
    """What is stored of every claim."""
    return [(claim, records(claim, out)) for claim in chosen(None)]


def verdicts_section(found: Findings) -> Section:
    """Verdicts counted, by claim and route."""
    claims = [{"claim": claim, "routes": tally(stored)} for claim, stored in found]
    content = {"routes": ROUTES, "claims": claims, "counts": _counts(found)}
    return Section("verdicts", "Verdicts on claims", content)


def claims_section(found: Findings, out: Path) -> Section:
    """Each claim with its findings, a figure a route, configuration and versions."""
    pictures, files = _pictures(found, out)
    content = {
        "claims": found,
        "pictures": pictures,
        "studies": _studies(found),
        "versions": _versions(found),
    }
    entries = [(f"claim-{claim.name}", claim.name) for claim, _ in found]
    return Section("claims", "Claims in full", content, files, entries)


def _pictures(found: Findings, out: Path) -> tuple[list[Picture], list[Path]]:
    """A figure of each route of which there is something to draw, and the files it was saved to."""
    pictures, files = [], []
    for route, home in _FIGURES.items():
        numbers = [
            {**r.finding.numbers, **r.source}
            for _, stored in found
            for r in stored
            if r.finding.route == route
        ]
        module = import_module(home)
        table = module.table(numbers)
        if table.empty:
            continue
        figure = module.figure(table)
        source = svg(figure)
        stamp = f"moebius {moebius_version()}, route {route}"
        files += save(figure, table, out / "claims" / "figures", route, stamp)
        pictures.append(Picture(f"Route: {route}", source, module.CAPTION, shown(table)))
    return pictures, files


def _counts(found: Findings) -> dict[str, int]:
    verdicts: list[str] = [r.finding.verdict for _, stored in found for r in stored]
    return {verdict: verdicts.count(verdict) for verdict in VERDICTS}


def _studies(found: Findings) -> list[dict[str, Any]]:
    """The configurations whose data were used."""
    used = {
        (r.source["study"], r.source["profile"], r.source["config_hash"]): dict(r.source)
        for _, stored in found
        for r in stored
        if r.source
    }
    return [used[key] for key in sorted(used)]


def _versions(found: Findings) -> list[dict[str, str]]:
    """Every set of versions that findings come from."""
    used = {tuple(r.versions.items()) for _, stored in found for r in stored if r.versions}
    return [dict(versions) for versions in sorted(used)]

"""The report: one self-contained HTML page of what is stored. Nothing is computed or simulated.

A page is a list of sections, each with a template of its own; figures travel inside the page as
SVG. Whoever adds a section adds a template and an entry of `SECTIONS`.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from experiments.claims import Record, chosen, records, tally
from experiments.rows import moebius_version
from experiments.store import write_whole
from theory.claims import ROUTES, Claim

from .style import save, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FIGURES = {route: f"paper_figures.claims_{route.replace('-', '_')}" for route in ROUTES}
"""Route to the module with its ``table``, ``figure`` and ``CAPTION``."""

_SYMBOLS = {"consistent": "✓", "inconsistent": "✗", "inconclusive": "?", "not run": "–"}


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes
    ----------
    name : str
        What links to it, and the stem of its template, ``<name>.html.jinja``.
    title : str
    content : dict
        What the template is given.
    files : list of Path
        What was written beside the page.
    """

    name: str
    title: str
    content: Mapping[str, Any]
    files: Sequence[Path] = ()


@dataclass(frozen=True)
class Picture:
    """A figure inside the page.

    Attributes
    ----------
    title : str
    source : str
        A data URI of the SVG.
    caption : str
    table : DataFrame
        What it shows.
    """

    title: str
    source: str
    caption: str
    table: pd.DataFrame


def write_report(out: str | os.PathLike[str]) -> list[Path]:
    """Write ``OUT/report.html``, and its figures with their tables beside the findings.

    Parameters
    ----------
    out : path
        The folder of all results.

    Returns
    -------
    list of Path
        The page first.
    """
    folder = Path(out)
    sections = [make(folder) for make in SECTIONS]
    page = folder / "report.html"
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(page, render_page(sections).encode())
    return [page, *(path for section in sections for path in section.files)]


def render_page(sections: Sequence[Section]) -> str:
    """The page as HTML."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("paper_figures", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["symbol"] = _SYMBOLS
    return environment.get_template("report.html.jinja").render(
        sections=sections,
        version=moebius_version(),
        made=datetime.now(UTC).isoformat(sep=" ", timespec="minutes"),
    )


def claims_section(out: Path) -> Section:
    """Claims with their verdicts by route, a figure a route, configuration and versions."""
    found = [(claim, records(claim, out)) for claim in chosen(None)]
    pictures, files = _pictures(found, out)
    content = {
        "routes": ROUTES,
        "claims": [
            {"claim": claim, "records": stored, "routes": tally(stored)} for claim, stored in found
        ],
        "counts": _counts(found),
        "pictures": pictures,
        "studies": _studies(found),
        "versions": _versions(found),
    }
    return Section("claims", "Claims and verdicts", content, files)


SECTIONS: tuple[Callable[[Path], Section], ...] = (claims_section,)
"""What the page consists of."""


def _pictures(
    found: Sequence[tuple[Claim, Sequence[Record]]], out: Path
) -> tuple[list[Picture], list[Path]]:
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
        source = _svg(figure)
        stamp = f"moebius {moebius_version()}, route {route}"
        files += save(figure, table, out / "claims" / "figures", route, stamp)
        pictures.append(Picture(f"Route: {route}", source, module.CAPTION, table))
    return pictures, files


def _svg(figure: Figure) -> str:
    buffer = BytesIO()
    with style():
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _counts(found: Sequence[tuple[Claim, Sequence[Record]]]) -> dict[str, int]:
    verdicts: list[str] = [r.finding.verdict for _, stored in found for r in stored]
    return {verdict: verdicts.count(verdict) for verdict in _SYMBOLS}


def _studies(found: Sequence[tuple[Claim, Sequence[Record]]]) -> list[dict[str, Any]]:
    """The configurations whose data were used."""
    used = {
        (r.source["study"], r.source["profile"], r.source["config_hash"]): dict(r.source)
        for _, stored in found
        for r in stored
        if r.source
    }
    return [used[key] for key in sorted(used)]


def _versions(found: Sequence[tuple[Claim, Sequence[Record]]]) -> list[dict[str, str]]:
    """Every set of versions that findings come from."""
    used = {tuple(r.versions.items()) for _, stored in found for r in stored if r.versions}
    return [dict(versions) for versions in sorted(used)]

"""A page of sections, each with a template of its own; figures travel inside the page."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from experiments.rows import moebius_version

from .style import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VERDICTS = {"consistent": "✓", "inconsistent": "✗", "inconclusive": "?", "not run": "–"}
"""Verdicts with the symbols that stand for them without colour."""


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
    environment.globals["symbol"] = VERDICTS
    return environment.get_template("report.html.jinja").render(
        sections=sections,
        version=moebius_version(),
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )


def svg(figure: Figure) -> str:
    """A figure as a data URI."""
    buffer = BytesIO()
    with style():
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"

"""A page of sections, each with a template of its own; figures travel inside the page."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from experiments.rows import moebius_version

from .style import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_ROWS = 100
"""Of a table that the page holds; longer ones are in the file beside the figure alone."""

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
    entries : list of (str, str)
        What the list of contents names below it: ids and words.
    """

    name: str
    title: str
    content: Mapping[str, Any]
    files: Sequence[Path] = ()
    entries: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Picture:
    """A figure inside the page.

    Attributes
    ----------
    title : str
    source : str
        A data URI.
    caption : str
        What is drawn, in which units.
    table : DataFrame
        What it shows, in words.
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
    environment.globals |= {"symbol": VERDICTS, "most_rows": MOST_ROWS}
    return environment.get_template("report.html.jinja").render(
        sections=sections,
        version=moebius_version(),
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """A table's cells as words, floats to four digits and nothing where a value is missing.

    Examples
    --------
    >>> shown(pd.DataFrame({"a": [0.123456, float("nan")]}))["a"].tolist()
    ['0.1235', '']
    """
    return table.map(_cell)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if isnan(value) else f"{value:.4g}"
    return "" if value is None else str(value)


def svg(figure: Figure) -> str:
    """A figure as a data URI."""
    buffer = BytesIO()
    with style():
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"

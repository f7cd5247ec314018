"""Figures: stored results in, picture and table out. One file a figure, none simulates.

`render` draws what belongs to a study's kind; `RENDERERS` says which function that is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


RENDERERS = {
    "coverage": "paper_figures.coverage",
    "forecast": "paper_figures.forecast",
    "functional_prior": "paper_figures.functional_prior",
    "likelihood": "paper_figures.likelihood",
    "posterior": "paper_figures.posterior",
    "rates": "paper_figures.study_rates",
    "sampler_bias": "paper_figures.samplers",
    "sampler_speed": "paper_figures.sampler_speed",
    "selection": "paper_figures.selection",
}
"""Kind of study to the module whose ``render`` draws it."""


@dataclass(frozen=True)
class Stored:
    """A study with what is stored of it.

    Attributes
    ----------
    study : Study
    table : DataFrame
        One row a cell.
    prepared : dict
        What the study's kind prepared.
    """

    study: Any
    table: pd.DataFrame
    prepared: dict[str, Any]


@dataclass(frozen=True)
class Rendered:
    """What was drawn.

    Attributes
    ----------
    files : list of Path
    summary : DataFrame
        One row a verdict.
    headline : str
        The outcome in a sentence or two.
    """

    files: list[Path]
    summary: pd.DataFrame
    headline: str


def render(
    study: Any,
    profile: str,
    table: pd.DataFrame,
    prepared: dict[str, Any],
    folder: Path,
    beside: Stored | None = None,
) -> Rendered:
    """Draw the figures of a study from its stored table.

    Parameters
    ----------
    beside : Stored or None
        Another study to draw beside this one, where the figures of its kind can.

    Raises
    ------
    ValueError
        If there is no figure for the study's kind, no such figure with another study beside it, or
        the table has no cell that did not fail, or is too small to fit a rate.
    """
    if study.kind not in RENDERERS:
        raise ValueError(
            f"The study's kind must be one of {sorted(RENDERERS)} to be drawn; got {study.kind!r}."
        )
    if not (table["status"] == "ok").any():
        raise ValueError("The 'table' parameter must have a cell that did not fail; got none.")
    draw: Callable[..., Rendered] = import_module(RENDERERS[study.kind]).render
    if beside is None:
        return draw(study, profile, table, prepared, Path(folder))
    if not all("profile" in stored.prepared for stored in (beside, Stored(study, table, prepared))):
        raise ValueError(
            "Only studies of a gate with a temperature are drawn beside another; got "
            f"{study.name!r} and {beside.study.name!r}."
        )
    return draw(study, profile, table, prepared, Path(folder), beside)

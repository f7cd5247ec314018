"""One style for all figures, and the one way they are saved.

Colours and markers are those of `moe_stats.plots`: told apart by the colour-blind, and markers
repeat what colour says.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_SHEET = Path(__file__).with_name("moebius.mplstyle")


@contextmanager
def style() -> Iterator[None]:
    """Draw inside this context: the project's style sheet on a canvas without a display."""
    import matplotlib.style

    with matplotlib.style.context(_SHEET):
        yield


def stamp_of(study: Any, profile: str) -> str:
    """What a figure was drawn from, for `save`."""
    return f"{study.name} {profile}, configuration {study.config_hash}"


def save(figure: Figure, table: pd.DataFrame, folder: Path, name: str, stamp: str) -> list[Path]:
    """Write a figure as PDF and PNG and the table it shows as CSV; the stamp goes below
    all that is drawn.

    Returns
    -------
    list of Path
        The three files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.{ending}" for ending in ("pdf", "png", "csv")]
    with style():  # for its resolution, and its tight box, which takes in the stamp
        figure.draw_without_rendering()  # sets the layout, which the stamp shall not change:
        figure.set_layout_engine("none")
        for legend in figure.legends:  # else at the edge of the file, where the stamp is
            legend.set_bbox_to_anchor((0, 0, 1, 1), figure.transFigure)
        drawn = figure.get_tightbbox()  # inches
        width, height = figure.get_size_inches()
        figure.text(
            drawn.x1 / width,
            (drawn.y0 - 0.05) / height,
            stamp,
            ha="right",
            va="top",
            fontsize=6,
            color="0.4",
        )
        for path in files[:2]:
            figure.savefig(path)
    table.to_csv(files[2], index=False, float_format="%.8g")
    return files

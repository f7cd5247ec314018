"""Route algebra: how well the Gauss-Hermite rule solves the system of m atoms, order by order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from moe_stats.plots import COLOURS, MARKERS

from .style import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTION = (
    "Left side of equation s of the system at the m-point Gauss-Hermite rule, in float64: rounding "
    "up to order 2m - 1, m!/(2m)! at order 2m (ringed). Exact arithmetic gives 0 where rounding is "
    "shown; residuals below 1e-18 are drawn there."
)

_LEAST = 1e-18


def table(numbers: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """m, order, residual."""
    return pd.DataFrame([row for n in numbers for row in n.get("residuals", ())])


def figure(shown: pd.DataFrame) -> Figure:
    """Residuals over order, one line a number of atoms."""
    from matplotlib.figure import Figure

    with style():
        drawn = Figure(figsize=(6.4, 3.6))
        ax = drawn.subplots()
        for (m, rows), colour, marker in zip(shown.groupby("m"), COLOURS, MARKERS, strict=False):
            y = rows["residual"].clip(lower=_LEAST)
            ax.plot(rows["order"], y, color=colour, marker=marker, label=f"m = {m}")
            last = rows["order"] == rows["order"].max()
            ax.plot(rows["order"][last], y[last], "o", ms=10, mfc="none", mec=colour)
        ax.axhspan(_LEAST / 3, 1e-14, color="0.9", zorder=0)
        ax.text(
            shown["order"].max() - 0.9, 3e-15, "rounding", ha="right", va="center", color="0.35"
        )
        ax.set_yscale("log")
        ax.set_ylim(_LEAST / 3, 1)
        ax.set_xticks(range(1, int(shown["order"].max()) + 1))
        ax.set_xlabel("order s")
        ax.set_ylabel("|left side of equation s|")
        ax.set_title("The system of m atoms is solved up to order 2m - 1")
        ax.legend(ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.17))
    return drawn

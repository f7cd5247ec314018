"""Route simulation: fitted slopes with their intervals beside the predicted ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from moe_stats.plots import COLOURS

from .style import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTION = (
    "Slope of the median error, or of the .9 quantile where it says so, on sample size, both "
    "logarithmic, with its 95% interval, beside the predicted slopes: diamonds where a prediction "
    "is sharp, triangles where it is a bound, which slopes to the left obey. Filled where "
    "consistent, crossed out where inconsistent, open where inconclusive."
)

_ROLES = {"published": COLOURS[1], "derived": COLOURS[2]}
_MARKERS = {"sharp": "D", "bound": "<"}


def table(numbers: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """study, quantity, role, question, predicted, slope, low, high, verdict, and the control."""
    rows = [
        {"study": f"{n['study']} {n['profile']}", **row}
        for n in numbers
        for row in n.get("rates", ())
    ]
    return pd.DataFrame(rows).drop_duplicates()


def figure(shown: pd.DataFrame) -> Figure:
    """Intervals and predictions, one line a quantity, a panel a study."""
    from matplotlib.figure import Figure

    studies = list(dict.fromkeys(shown["study"]))
    counts = [shown[shown["study"] == s]["quantity"].nunique() for s in studies]
    with style():
        drawn = Figure(figsize=(6.4, 0.8 + 0.55 * len(studies) + 0.24 * sum(counts)))
        axes = drawn.subplots(
            len(studies), 1, squeeze=False, sharex=True, height_ratios=[c + 1 for c in counts]
        )[:, 0]
        for ax, study in zip(axes, studies, strict=True):
            rows = shown[shown["study"] == study]
            quantities = list(dict.fromkeys(rows["quantity"]))
            for k, quantity in enumerate(quantities):
                same = rows[rows["quantity"] == quantity]
                one = same.iloc[0]
                error = [[one["slope"] - one["low"]], [one["high"] - one["slope"]]]
                ax.errorbar(one["slope"], -k, xerr=error, color=COLOURS[0], marker="o", capsize=3)
                for row in same.itertuples():
                    _prediction(ax, -k, row)
            ax.set_yticks([-k for k in range(len(quantities))], quantities)
            ax.set_ylim(0.5 - len(quantities), 0.5)
            ax.set_title(study, fontsize=8.5, loc="left")
        axes[-1].set_xlabel("slope of log error on log n")
        _legend(drawn)
    return drawn


def _prediction(ax: Any, place: int, row: Any) -> None:
    colour = _ROLES[row.role]
    face = colour if row.verdict == "consistent" else "none"
    shape = _MARKERS[row.question]
    ax.plot(row.predicted, place, shape, ms=8, mfc=face, mec=colour, alpha=0.8, zorder=1)
    if row.verdict == "inconsistent":
        ax.plot(row.predicted, place, "x", ms=10, color=colour, zorder=1)


def _legend(figure: Figure) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], ls="", marker=marker, mfc="none", mec=colour, label=f"{role}, {question}")
        for role, colour in _ROLES.items()
        for question, marker in _MARKERS.items()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=4)

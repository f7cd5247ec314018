"""Route calculus: what tells a relation between functions from none, with the gap between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from moe_stats.plots import COLOURS

from .style import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTION = (
    "Singular values of the Gram matrix of a gate's derivatives (independence), or distances of a "
    "derivative from the span of simpler ones (searches: the nearest that is independent, the "
    "largest that is not), functions of length 1, in 120 digits. Squares are relations; what is 0 "
    "or below 1e-60 is drawn there. Nothing lies in the gap."
)

_LEAST = 1e-60
_RELATION = 1e-40


def table(numbers: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """family, value, related; one row a singular value or distance."""
    rows: list[dict[str, Any]] = []
    for n in numbers:
        for search in n.get("searches", ()):
            name = f"search: {search['family']}"
            rows.append({"family": name, "value": search["nearest"], "related": False})
            if search["relations"]:
                rows.append({"family": name, "value": search["largest_null"], "related": True})
        for report in n.get("reports", ()):
            rows += [
                {"family": report["family"], "value": value, "related": value < _RELATION}
                for value in report["singular_values"]
            ]
    return pd.DataFrame(rows).drop_duplicates()


def figure(shown: pd.DataFrame) -> Figure:
    """Values on a logarithmic axis, one line a family."""
    from matplotlib.figure import Figure

    families = list(dict.fromkeys(shown["family"]))
    with style():
        drawn = Figure(figsize=(6.4, 0.9 + 0.22 * len(families)))
        ax = drawn.subplots()
        place = shown["family"].map({f: -k for k, f in enumerate(families)})
        value = shown["value"].clip(lower=_LEAST)
        for related, colour, marker, label in (
            (False, COLOURS[0], "o", "independent"),
            (True, COLOURS[1], "X", "a relation"),
        ):
            here = shown["related"] == related
            ax.plot(value[here], place[here], marker, color=colour, ls="", label=label, alpha=0.8)
        edges = value[shown["related"]].max(), value[~shown["related"]].min()
        if shown["related"].any():
            ax.axvspan(*edges, color="0.92", zorder=0)
            middle = (edges[0] * edges[1]) ** 0.5
            ax.text(middle, 0.6, f"gap {edges[1] / edges[0]:.0e}", ha="center", color="0.35")
        ax.set_xscale("log")
        ax.set_ylim(-len(families) + 0.4, 1.2)
        ax.set_yticks([-k for k in range(len(families))], families, fontsize=7)
        ax.set_xlabel("singular value, or distance as a fraction of length")
        ax.set_title("Relations between derivatives are told from none beyond doubt")
        ax.legend(loc="center")
    return drawn

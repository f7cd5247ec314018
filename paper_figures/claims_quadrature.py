"""Route quadrature: how the smallest distance falls with a deviation, and the exponents it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from moe_stats.plots import COLOURS, MARKERS

from .style import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTION = (
    "Left of each row: smallest distance h over all models near the truth with one deviation fixed "
    "at delta, relative to its value at the largest delta. Right: the extrapolated exponent with "
    "its error, the published power (square) and the derived one (diamond)."
)


def table(numbers: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """setting, group, delta, h, exponent, error, published, derived; one row a size."""
    rows: dict[tuple[str, float], dict[str, Any]] = {}
    for n in numbers:
        for curve in n.get("exponents", ()):
            setting, _, group = curve["name"].rpartition(": ")
            for delta, h in zip(curve["deltas"], curve["values"], strict=True):
                rows[curve["name"], delta] = {
                    "setting": setting or curve["name"],
                    "group": group,
                    "delta": delta,
                    "h": h,
                    "exponent": curve["exponent"],
                    "error": curve["error"],
                    "published": curve["predicted"].get("published", np.nan),
                    "derived": curve["predicted"].get("derived", np.nan),
                }
    return pd.DataFrame(rows.values())


def figure(shown: pd.DataFrame) -> Figure:
    """A row a setting: curves, and their exponents."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import NullFormatter

    settings = list(dict.fromkeys(shown["setting"]))
    with style():
        drawn = Figure(figsize=(6.4, 2.1 * len(settings) + 0.4))
        axes = drawn.subplots(len(settings), 2, squeeze=False, width_ratios=[1, 1])
        for (left, right), setting in zip(axes, settings, strict=True):
            rows = shown[shown["setting"] == setting]
            groups = list(dict.fromkeys(rows["group"]))
            for k, (group, colour, marker) in enumerate(
                zip(groups, COLOURS, MARKERS, strict=False)
            ):
                one = rows[rows["group"] == group].sort_values("delta")
                first = one.iloc[-1]
                left.loglog(
                    one["delta"], one["h"] / first["h"], color=colour, marker=marker, ms=3.5
                )
                label = f"{first['exponent']:.3f} ± {first['error']:.3f}"
                right.errorbar(
                    first["exponent"],
                    -k,
                    xerr=first["error"],
                    color=colour,
                    marker=marker,
                    capsize=3,
                )
                right.annotate(
                    label,
                    (first["exponent"], -k),
                    xytext=(0, 8),
                    textcoords="offset points",
                    ha="center",
                    fontsize=6.5,
                )
                right.plot(first["published"], -k, "s", ms=9, mfc="none", mec="0.45")
                right.plot(first["derived"], -k, "D", ms=9, mfc="none", mec="0.1")
            left.xaxis.set_minor_formatter(NullFormatter())
            left.set_ylabel("h / h(largest)")
            left.set_title(setting, fontsize=8.5, loc="left")
            right.set_yticks([-k for k in range(len(groups))], groups)
            right.set_ylim(0.6 - len(groups), 0.8)
            largest = rows[["exponent", "published", "derived"]].max(axis=None)
            right.set_xlim(0, 1.25 * largest)
        axes[-1, 0].set_xlabel("deviation delta")
        axes[-1, 1].set_xlabel("exponent of h in delta")
        handles = [
            Line2D([], [], ls="", marker=marker, ms=9, mfc="none", mec=edge, label=label)
            for marker, edge, label in (("s", "0.45", "published power"), ("D", "0.1", "derived"))
        ]
        drawn.legend(handles=handles, loc="outside upper right", ncols=2)
    return drawn

"""Route two-point: lower bounds on every estimator's risk, from pairs that data cannot tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from moe_stats.plots import COLOURS, MARKERS

from .style import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTION = (
    "Le Cam's bound on the worst risk of any estimator from pairs of measures whose affinity stays "
    "fixed as n grows; below, that affinity. Dashed: the predicted exponent, through the last "
    "point."
)


def table(numbers: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """name, n, distance, affinity, lower_bound, exponent, error, predicted; one row a pair."""
    rows = []
    for n in numbers:
        for pairs in n.get("pairs", ()):
            columns = ("n", "distance", "affinity", "lower_bound")
            common = {k: pairs[k] for k in ("name", "exponent", "error", "predicted")}
            rows += [
                {**common, **dict(zip(columns, values, strict=True))}
                for values in zip(*(pairs[c] for c in columns), strict=True)
            ]
    return pd.DataFrame(rows)


def figure(shown: pd.DataFrame) -> Figure:
    """Lower bounds over n, and affinities."""
    from matplotlib.figure import Figure

    with style():
        drawn = Figure(figsize=(6.4, 4.4))
        top, bottom = drawn.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        for (name, rows), colour, marker in zip(
            shown.groupby("name", sort=False), COLOURS, MARKERS, strict=False
        ):
            last = rows.iloc[-1]
            label = f"{name}: $n^{{-a}}$, a = {last['exponent']:.4f} ± {last['error']:.4f}"
            top.loglog(rows["n"], rows["lower_bound"], color=colour, marker=marker, label=label)
            line = last["lower_bound"] * (rows["n"] / last["n"]) ** -last["predicted"]
            top.loglog(rows["n"], line, "--", color=colour, lw=0.9)
            bottom.semilogx(rows["n"], rows["affinity"], color=colour, marker=marker)
        top.set_ylabel("lower bound on the risk")
        top.set_title("No estimator is faster")
        top.legend()
        bottom.set_ylabel("affinity")
        bottom.set_ylim(0, 1)
        bottom.set_xlabel("observations n")
    return drawn

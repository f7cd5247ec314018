"""Truths that move with n: errors of the experts that move beside those of the experts that stay.

Medians and .9 quantiles over replicates, with fitted power laws; dashed the rate at a fixed truth,
dotted the one at which the truth moves, below which the larger errors cannot fall.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from moe_stats.plots import COLOURS, MARKERS
from theory.rates import Rate, fit_rate

from .rates import finish
from .style import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

QUANTITIES = {
    "intercept": "intercept",
    "variance": "variance",
    "slope": "slope",
    "gate_slope": "gate slope",
}
STATISTICS = ("median", "quantile90")


def moving_rates(table: pd.DataFrame, random_state: int) -> dict[tuple[str, str], Rate]:
    """The rate of each (group, "moving" or "staying") that one arm's rows measure."""
    return {
        (group, which): fit_rate(table["n"], table[column], random_state=random_state)
        for group in QUANTITIES
        for which in ("moving", "staying")
        if (column := f"{group}_{which}_deviation") in table
    }


def moving_table(rates: dict[tuple[str, str], Rate]) -> pd.DataFrame:
    """group, experts, statistic, slope, low, high."""
    rows = [
        (group, which, statistic, curve.slope, *curve.interval)
        for (group, which), rate in rates.items()
        for statistic, curve in zip(STATISTICS, (rate.median, rate.quantile90), strict=True)
    ]
    return pd.DataFrame(rows, columns=["group", "experts", "statistic", "slope", "low", "high"])


def moving_figure(rates: dict[tuple[str, str], Rate], exponent: float, title: str) -> Figure:
    """A panel a group of parameters; ``exponent`` is that at which intercepts of the truth move."""
    from matplotlib.figure import Figure

    groups = list(dict.fromkeys(group for group, _ in rates))
    with style():
        figure = Figure(figsize=(3.3 * len(groups), 5.0))
        axes = figure.subplots(1, len(groups), squeeze=False)[0]
        for ax, group in zip(axes, groups, strict=True):
            own = {which: rate for (g, which), rate in rates.items() if g == group}
            for i, (which, rate) in enumerate(own.items()):
                _draw(ax, rate, which, i)
            first = next(iter(own.values())).quantile90
            _guide(ax, first.sizes, first.values[0], 0.5, "--", "fixed truth")
            if group in ("intercept", "variance"):
                power = exponent * (2 if group == "variance" else 1)
                _guide(ax, first.sizes, first.values[0], power, ":", "truth moves")
            finish(ax, QUANTITIES[group], "largest error (own units)")
        figure.suptitle(title, fontsize=11)
    return figure


def _draw(ax: Axes, rate: Rate, which: str, i: int) -> None:
    shown = (("-", "full", "median", rate.median), ("-.", "none", ".9 quantile", rate.quantile90))
    for line, fill, words, curve in shown:
        low, high = curve.interval
        label = f"{which}, {words}: {curve.slope:z.2f} [{low:z.2f}, {high:z.2f}]"
        sizes = np.array(curve.sizes, dtype=float)
        ax.plot(sizes, curve.values, MARKERS[i], color=COLOURS[i], ms=4, fillstyle=fill)
        fitted = np.exp(curve.intercept) * sizes**curve.slope
        ax.plot(sizes, fitted, line, color=COLOURS[i], label=label)


def _guide(
    ax: Axes, sizes: tuple[float, ...], start: float, power: float, dash: str, words: str
) -> None:
    at = np.array(sizes, dtype=float)
    label = f"{words}: $n^{{-{power:.3g}}}$"
    ax.plot(at, start * (at / at[0]) ** -power, dash, color="0.25", lw=1, label=label)

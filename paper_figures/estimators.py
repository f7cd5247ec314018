"""Ways of fitting compared on the same data: near-truth EM, unconstrained and constrained MLE.

A published protocol that starts EM beside the truth shows its initialiser; an unconstrained MLE
spends the extra expert on a few observations. The theorems speak of neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from moe_stats.plots import COLOURS, MARKERS

from .style import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def estimators_figure(table: pd.DataFrame, supposed_weight: float, title: str) -> Figure:
    """Likelihood, mass of the lightest expert, share as supposed, and a deviation, by size.

    Parameters
    ----------
    table : DataFrame
        All arms of a study.
    supposed_weight : float
        Mass that the theorem's compact set leaves every atom.
    """
    from matplotlib.figure import Figure

    compared = comparison(table, supposed_weight)
    with style():
        figure = Figure(figsize=(9.0, 6.3))
        axes = figure.subplots(2, 2)
        panels = (
            ("gain", "Log-likelihood above the truth's", "nats", "linear"),
            ("least_weight", "Mass of the lightest expert", "mean gate probability", "log"),
            (
                "intercept_multi_largest",
                "Largest intercept deviation, shared cell",
                "units of y",
                "log",
            ),
        )
        for ax, (column, heading, unit, scale) in zip(axes.flat, panels, strict=False):
            _draw(ax, compared, column)
            ax.set(xscale="log", yscale=scale, title=heading, xlabel="sample size $n$", ylabel=unit)
        axes[0, 1].axhline(
            supposed_weight, color="0.25", ls="--", lw=1, label="lower bound supposed"
        )
        _draw(axes[1, 1], compared, "as_supposed")
        axes[1, 1].set(
            xscale="log",
            ylim=(-0.03, 1.03),
            title="Share of fits with cells as supposed",
            xlabel="sample size $n$",
            ylabel="share, 95% interval",
        )
        for ax in axes.flat:
            ax.xaxis.set_minor_formatter("")
        handles, labels = axes[0, 1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        figure.suptitle(title, fontsize=11)
    return figure


def comparison(table: pd.DataFrame, supposed_weight: float) -> pd.DataFrame:
    """Arm, n, quantity, centre, low and high: what the figure shows.

    Centres are medians and ends the middle 80% of replicates; for the share of fits whose cells
    are as the theorem supposes (no true atom without a fitted one, no mass below the bound) they
    are the share and its Wilson interval.
    """
    from scipy.stats import binomtest

    rows = []
    columns = [c for c in ("gain", "least_weight", "intercept_multi_largest") if c in table]
    for (arm, n), group in table.groupby(["arm", "n"], sort=True):
        for column in columns:
            low, centre, high = group[column].quantile([0.1, 0.5, 0.9])
            rows.append((arm, n, column, centre, low, high))
        good = (group["n_empty"] == 0) & (group["least_weight"] >= supposed_weight * (1 - 1e-6))
        share = binomtest(int(good.sum()), len(good)).proportion_ci(method="wilson")
        rows.append((arm, n, "as_supposed", good.mean(), share.low, share.high))
    return pd.DataFrame(rows, columns=["arm", "n", "quantity", "centre", "low", "high"])


def _draw(ax: Axes, compared: pd.DataFrame, quantity: str) -> None:
    part = compared[compared["quantity"] == quantity]
    for i, (arm, rows) in enumerate(part.groupby("arm", sort=True)):
        shift = 1.04 ** (i - 1)  # keep bars of different arms apart
        bars = np.clip([rows["centre"] - rows["low"], rows["high"] - rows["centre"]], 0, None)
        ax.errorbar(
            rows["n"] * shift,
            rows["centre"],
            bars,
            fmt=f"{MARKERS[i]}-",
            color=COLOURS[i],
            lw=1,
            elinewidth=0.7,
            label=str(arm),
        )

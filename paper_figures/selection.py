"""How often each method finds the number of experts, by sample size: one panel a truth.

Points are shares of replicates, bars their 95% Wilson intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from moe_stats.plots import COLOURS, MARKERS

from . import Rendered
from .style import save, stamp_of, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELS = {"bic": "BIC", "aic": "AIC", "icl": "ICL", "dendrogram": "dendrogram"}
"""Methods by name, in the order of their colours."""


def render(
    study: Any, profile: str, table: pd.DataFrame, prepared: dict[str, Any], folder: Path
) -> Rendered:
    """Draw a selection study; see `paper_figures.render`."""
    stamp = stamp_of(study, profile)
    good = table[table["status"] == "ok"]
    shares = success(good)
    figure = selection_figure(shares, study.setting.methods, study.title)
    files = save(figure, shares, folder, f"{profile}-selection", stamp)
    last = shares[shares["n"] == shares.groupby("case")["n"].transform("max")]
    shown = last.assign(
        **{
            "95% interval": [
                f"{low:.2f}, {high:.2f}"
                for low, high in zip(last["low"], last["high"], strict=True)
            ]
        }
    )[["case", "n_true", "method", "n", "right", "95% interval", "too_few", "too_many"]]
    return Rendered(files, shown.reset_index(drop=True), _headline(study, last, table, prepared))


def success(table: pd.DataFrame) -> pd.DataFrame:
    """Shares of replicates by case, method and size, and what the figure shows of them.

    Returns
    -------
    DataFrame
        Columns case, method, n, n_true, replicates, right with its Wilson interval (low, high),
        too_few and too_many.
    """
    from scipy.stats import binomtest

    rows = []
    for (case, method, n), group in table.groupby(["case", "method", "n"], sort=True):
        excess = group["n_chosen"] - group["n_true"]
        interval = binomtest(int((excess == 0).sum()), len(group)).proportion_ci(method="wilson")
        rows.append(
            {
                "case": case,
                "method": method,
                "n": n,
                "n_true": int(group["n_true"].iloc[0]),
                "replicates": len(group),
                "right": (excess == 0).mean(),
                "low": interval.low,
                "high": interval.high,
                "too_few": (excess < 0).mean(),
                "too_many": (excess > 0).mean(),
            }
        )
    return pd.DataFrame(rows)


def selection_figure(shares: pd.DataFrame, methods: Sequence[str], title: str) -> Figure:
    """Success rates with intervals, a panel for each true number of experts.

    Parameters
    ----------
    shares : DataFrame
        As `success` returns it.
    methods : sequence of str
        Those to show, in the order of the legend.
    """
    from matplotlib.figure import Figure

    cases = shares[["case", "n_true"]].drop_duplicates().sort_values(["n_true", "case"])
    with style():
        figure = Figure(figsize=(3.6 * len(cases) + 0.4, 3.6))
        axes = figure.subplots(1, len(cases), sharey=True, squeeze=False)[0]
        for ax, (case, n_true) in zip(axes, cases.itertuples(index=False), strict=True):
            part = shares[shares["case"] == case]
            for place, method in enumerate(methods):
                i = list(LABELS).index(method)
                rows = part[part["method"] == method]
                shift = 1.05 ** (
                    place - (len(methods) - 1) / 2
                )  # keep bars of different methods apart
                bars = [rows["right"] - rows["low"], rows["high"] - rows["right"]]
                ax.errorbar(
                    rows["n"] * shift,
                    rows["right"],
                    bars,
                    fmt=f"{MARKERS[i]}-",
                    color=COLOURS[i],
                    lw=1.1,
                    elinewidth=0.7,
                    label=LABELS[method],
                )
            ax.set(xscale="log", ylim=(-0.03, 1.05), xlabel="sample size $n$")
            ax.set_title(f"{n_true} true experts")
            ax.xaxis.set_minor_formatter("")
        axes[0].set_ylabel("share of data sets with the true\nnumber chosen, 95% interval")
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(methods))
        figure.suptitle(title, fontsize=11)
    return figure


def _headline(study: Any, last: pd.DataFrame, table: pd.DataFrame, prepared: dict[str, Any]) -> str:
    distances = prepared.get("one_fewer", {})
    lines = []
    for (case, n_true, n), rows in last.groupby(["case", "n_true", "n"], sort=False):
        rates = ", ".join(
            f"{LABELS[method]} {share:.0%}"
            for method, share in zip(rows["method"], rows["right"], strict=True)
        )
        far = f"; one fewer stays {distances[case]:.2g} away" if case in distances else ""
        lines.append(f"{study.name} ({n_true} experts{far}): right at n = {n}: {rates}.")
    failed = int((table["status"] != "ok").sum())
    unsettled = int((table["converged"] == False).sum())  # noqa: E712 - failed cells have none
    lines.append(
        f"{failed} of {len(table)} cells failed, {unsettled} rest on a fit that did not converge."
    )
    return "\n".join(lines)

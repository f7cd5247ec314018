"""What a temperature costs: tau, gate slopes and their quotient apart, for one gate or for two.

A row a study, a line a way of fitting. Points are medians over replicates, bars hold the middle
80%; the legend names the law that fits best, among n^-a, (log n)^(1/2) n^-a, 1/log n and a
constant, and the others that the data do not rule out. The last panel is the profile likelihood of
log tau on one data set: flat where the temperature is not identified.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from moe_stats.plots import COLOURS, MARKERS
from theory.rates import Rate, fit_rate

from . import Stored
from .style import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

QUANTITIES = {
    "temperature_deviation": r"temperature $\tau$",
    "raw_gate_slope_deviation": r"gate slopes $\beta_1$",
    "scaled_gate_slope_deviation": r"quotients $\beta_1/\tau$",
}
"""Column to what it is the error of."""

LAWS = {
    "power": "$n^{-a}$",
    "log_power": r"$(\log n)^{1/2} n^{-a}$",
    "inverse_log": r"$1/\log n$",
    "constant": "constant",
}


def temperature_figure(studies: Sequence[Stored], title: str) -> Figure:
    """Errors over n, those that some study measures, and a profile likelihood; one row a study.

    With an expert too many only the temperature is measured: slopes are compared between cells of
    one atom.
    """
    from matplotlib.figure import Figure

    measured = {c: name for c, name in QUANTITIES.items() if any(_rates(s, c) for s in studies)}
    n_panels = len(measured) + 1
    with style():
        figure = Figure(figsize=(3.4 * n_panels, 4.6 * len(studies)))
        axes = figure.subplots(len(studies), n_panels, squeeze=False)
        for row, stored in zip(axes, studies, strict=True):
            for ax, (column, heading) in zip(row, measured.items(), strict=False):
                _draw_errors(ax, stored, column)
                ax.set_title(f"Error of {heading}")
            _draw_profile(row[-1], stored.prepared["profile"], stored.study.setting.truth)
            row[0].set_ylabel(f"{stored.study.name}\n\nabsolute error")
        figure.suptitle(title, fontsize=11)
    return figure


def laws(studies: Sequence[Stored]) -> pd.DataFrame:
    """Study, arm, quantity and law: exponent with standard error, and BIC above the best."""
    rows = [
        (stored.study.name, arm, column, law.name, law.exponent, law.standard_error, law.delta)
        for stored in studies
        for column in QUANTITIES
        for arm, rate in _rates(stored, column).items()
        for law in rate.shapes
    ]
    names = ["study", "arm", "quantity", "law", "exponent", "standard_error", "delta_bic"]
    return pd.DataFrame(rows, columns=names)


def _rates(stored: Stored, column: str) -> dict[str, Rate]:
    """The rate of each arm that measures a quantity at every size."""
    found = {}
    good = stored.table[stored.table["status"] == "ok"]
    for arm, rows in good.groupby("arm", sort=True):
        if column in rows and (rows.groupby("n")[column].count() >= 5).all():
            found[str(arm)] = fit_rate(rows["n"], rows[column], random_state=stored.study.seed)
    return found


def _draw_errors(ax: Axes, stored: Stored, column: str) -> None:
    rates = _rates(stored, column)
    for i, (arm, rate) in enumerate(rates.items()):
        curve = rate.median
        sizes, values = np.array(curve.sizes), np.array(curve.values)
        good = stored.table[(stored.table["status"] == "ok") & (stored.table["arm"] == arm)]
        groups = good.groupby("n")[column]
        low, high = groups.quantile(0.1)[sizes], groups.quantile(0.9)[sizes]
        bars = np.clip([values - low, high - values], 0, None)
        ax.errorbar(
            sizes * 1.03 ** (i - (len(rates) - 1) / 2),
            values,
            bars,
            fmt=f"{MARKERS[i]}-",
            color=COLOURS[i],
            lw=1,
            elinewidth=0.7,
            label=_legend(arm, rate),
        )
    if rates:
        first = next(iter(rates.values())).median
        sizes = np.array(first.sizes, dtype=float)
        guide = first.values[0] * (sizes / sizes[0]) ** -0.5
        ax.plot(sizes, guide, "--", color="0.25", lw=1, label="$n^{-1/2}$")
    ax.set(xscale="log", yscale="log", xlabel="sample size $n$", ylabel="absolute error")
    ax.xaxis.set_minor_formatter("")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2))


def _legend(arm: str, rate: Rate) -> str:
    slope = rate.median.stability[0]
    others = [LAWS[name] for name in rate.plausible_shapes if name != rate.best_shape]
    beside = f" (or {', '.join(others)})" if others else ""
    return f"{arm}: slope {slope.slope:z.2f}\n{LAWS[rate.best_shape]}{beside}"


def _draw_profile(ax: Axes, profile: dict[str, Any], truth: Any) -> None:
    tau = np.exp(profile["log_temperature"])
    ax.plot(tau, profile["log_likelihood"], f"{MARKERS[0]}-", color=COLOURS[0], ms=3)
    ax.axvline(truth.temperature, color="0.25", ls="--", lw=1, label=r"true $\tau$")
    ax.axhspan(-1.92, 0, color=COLOURS[1], alpha=0.18, lw=0, label="95% likelihood ratio")
    ax.set(
        xscale="log",
        ylim=(-12, 1),
        title=f"Profile likelihood, n = {profile['n']}",
        xlabel=r"temperature $\tau$",
        ylabel="nats below the maximum",
    )
    ax.xaxis.set_minor_formatter("")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2))

"""Convergence rates of one arm: density distance, Voronoi loss, parameter deviations.

Points are medians over replicates, bands (bars) hold the middle 80% of replicates; solid lines
are fitted power laws with slope and 95% interval in the legend, dashed lines what was predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from moe_stats.plots import COLOURS, MARKERS
from theory.assessment import Assessment
from theory.exponents import BOUNDARY

from .style import style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


UNITS = "share, radians, ratio"
"""Of selection, direction and length."""


def rates_figure(
    assessments: Sequence[Assessment],
    table: pd.DataFrame,
    title: str,
    stated: str = "published",
) -> Figure:
    """Density, loss and parameters, in panels of their own those of cells with several atoms and
    those of selection boundaries. `stated` is what published exponents of the former are called."""
    from matplotlib.figure import Figure

    names = {"density": "Hellinger distance", "loss": "Voronoi loss"}
    whole = [a for a in assessments if a.quantity.group in names]
    rest = [a for a in assessments if a not in whole]
    edges = [a for a in rest if a.quantity.group in (*BOUNDARY, "length")]
    multi = [a for a in rest if a.quantity.column.endswith("multi_largest")]
    single = [a for a in rest if a not in edges and a not in multi]
    size = max((a.quantity.cell_size for a in multi), default=1)
    headings = {
        "Largest deviation: cells with one atom, mass" if multi else "Largest deviation": single,
        f"Largest deviation: cells with {size} atoms": multi,
        "Selection boundaries": edges,
    }
    panels = {heading: panel for heading, panel in headings.items() if panel}
    with style():
        n_panels = len(whole) + len(panels)
        figure = Figure(figsize=(3.3 * n_panels, 4.2))
        axes = figure.subplots(1, n_panels, squeeze=False)[0]
        for ax, a in zip(axes, whole, strict=False):
            draw_rate(ax, table, a, COLOURS[0], MARKERS[0], band=True)
            draw_prediction(ax, a)
            finish(ax, names[a.quantity.group], "error")
        for ax, (heading, panel) in zip(axes[len(whole) :], panels.items(), strict=True):
            for a, colour, marker in zip(panel, COLOURS, MARKERS, strict=False):
                draw_rate(ax, table, a, colour, marker, name=a.quantity.group.replace("_", " "))
            for chosen in {p: a for a in panel for _, p in predictions(a)}.values():
                draw_prediction(ax, chosen, stated if panel is multi else "published")
            unit = "own units" if panel is not edges else UNITS
            finish(ax, heading, f"deviation ({unit})")
        longest = max(len(ax.get_legend().get_texts()) for ax in axes)
        figure.set_figheight(4.2 + 0.25 * max(0, longest - 5))  # legends stand below the axes
        figure.suptitle(title, fontsize=11)
    return figure


def draw_rate(
    ax: Axes,
    table: pd.DataFrame,
    assessment: Assessment,
    colour: str,
    marker: str,
    *,
    name: str = "median",
    band: bool = False,
) -> None:
    """Medians with the middle 80% of replicates, and the fitted power law."""
    curve = assessment.rate.median
    sizes = np.array(curve.sizes)
    groups = table.groupby("n")[assessment.quantity.column]
    low, high = groups.quantile(0.1)[sizes], groups.quantile(0.9)[sizes]
    values = np.array(curve.values)
    if band:
        ax.fill_between(sizes, low, high, color=colour, alpha=0.18, lw=0, label="middle 80%")
        ax.plot(sizes, values, marker, color=colour)
    else:
        bars = np.clip([values - low, high - values], 0, None)
        ax.errorbar(sizes, values, bars, fmt=marker, color=colour, lw=0.6, alpha=0.9)
    fitted = np.exp(curve.intercept) * sizes.astype(float) ** curve.slope
    label = f"{name}: {curve.slope:.2f} [{curve.interval[0]:.2f}, {curve.interval[1]:.2f}]"
    ax.plot(sizes, fitted, "-", color=colour, marker=marker, markevery=[], label=label)


def predictions(assessment: Assessment) -> list[tuple[str, float]]:
    """(role, exponent) of what was predicted, controls left out."""
    found = {v.predicted: role for role, v in assessment.verdicts if role != "control"}
    return [(role, exponent) for exponent, role in found.items()]


def draw_prediction(ax: Axes, assessment: Assessment, stated: str = "published") -> None:
    """Dashed reference lines through the first fitted point."""
    curve = assessment.rate.median
    sizes = np.array(curve.sizes, dtype=float)
    start = np.exp(curve.intercept) * sizes[0] ** curve.slope
    known = {line.get_label() for line in ax.get_lines()}
    for (role, exponent), dash in zip(predictions(assessment), ("--", ":"), strict=False):
        word = stated if role == "published" else role
        label = f"{word}: $n^{{-{exponent:.3g}}}$"
        if label not in known:
            values = start * (sizes / sizes[0]) ** -exponent
            ax.plot(sizes, values, dash, color="0.25", lw=1.0, label=label)


def finish(ax: Axes, title: str, ylabel: str) -> None:
    """Logarithmic axes, labels, legend."""
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.xaxis.set_minor_formatter("")
    ax.set_title(title)
    ax.set_xlabel("sample size $n$")
    ax.set_ylabel(ylabel)
    # below the axes, where it hides no data
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), borderaxespad=0.0)

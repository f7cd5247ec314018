"""Pictures of priors over functions: functions side by side, distances beside their floor, and
distance against seconds of matching."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Literal

import pandas as pd

from moe_stats.plots import COLOURS, MARKERS

from .functional_prior_distances import TARGET, label_of, measured
from .style import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def functions_figure(table: pd.DataFrame, title: str, column: str = "functions") -> Figure:
    """Functions of every arm along a line: a row a data set, or six arms of the only one.

    Parameters
    ----------
    table : DataFrame
        A row an arm and data set, with ``position`` and the column.
    column : {"functions", "class_functions"}
        Function values, or probabilities of the first class.
    """
    from matplotlib.figure import Figure

    names = list(table["data"].unique())
    labels = list(table["label"].unique())
    n_rows = len(names) if len(names) > 1 else math.ceil(len(labels) / 6)
    per_row = len(labels) if len(names) > 1 else math.ceil(len(labels) / n_rows)
    with style():
        figure = Figure(figsize=(1.75 * per_row + 0.6, 1.6 * n_rows + 0.7))
        axes = figure.subplots(n_rows, per_row, sharex="row", sharey="row", squeeze=False)
        panels = dict(zip([(d, a) for d in names for a in labels], axes.flat, strict=False))
        for ax in axes.flat:
            ax.set_visible(False)
        for row in table.to_dict("records"):
            ax = panels[row["data"], row["label"]]
            ax.set_visible(True)
            for i, values in enumerate(json.loads(row[column])):
                ax.plot(json.loads(row["position"]), values, color=COLOURS[i], lw=0.9)
            reach = 4.5 * math.sqrt(row["marginal_variance_target"])
            ax.set_ylim(*((-reach, reach) if column == "functions" else (-0.02, 1.02)))
            if len(names) == 1 or row["data"] == names[0]:
                ax.set_title(label_of(row["label"]))
        for first, name in zip(axes[:, 0], names if len(names) > 1 else [""] * n_rows, strict=True):
            words = "f(x), output units" if column == "functions" else "P(first class | x)"
            first.set_ylabel(f"{name}\n{words}" if name else words)
        units = "" if names == ["grid"] else " (standard deviations)"
        figure.supxlabel(f"position x on a line through the inputs{units}", size=9)
        figure.suptitle(title, fontsize=11)
    return figure


def distances_figure(distances: pd.DataFrame, title: str) -> Figure:
    """Every distance of every arm with its 95% interval, and the floor's upper end.

    Parameters
    ----------
    distances : DataFrame
        As `summarised` returns it, one row an arm and data set, and ``bound``, missing where the
        study has none.
    """
    from matplotlib.figure import Figure

    shown = distances[distances["label"] != TARGET]
    several = shown["data"].nunique() > 1
    names = [
        f"{data}, {label_of(label)}" if several else label_of(label)
        for data, label in zip(shown["data"], shown["label"], strict=True)
    ]
    with style():
        kinds = measured(shown)
        figure = Figure(figsize=(2.2 * len(kinds) + 1.6, 0.26 * len(shown) + 1.5))
        axes = figure.subplots(1, len(kinds), sharey=True)
        for ax, (name, words) in zip(axes, kinds.items(), strict=True):
            _draw_distances(ax, shown, name)
            ax.set_xlabel(words if name.startswith("class") else f"{words}\n(output units)")
        figure.axes[0].set_yticks(range(len(shown)), names)
        figure.axes[0].invert_yaxis()
        figure.legend(
            *figure.axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=3
        )
        figure.suptitle(title, fontsize=11)
    return figure


def seconds_figure(distances: pd.DataFrame, title: str) -> Figure:
    """Energy distance against CPU seconds of matching, a line an arm, a panel a data set."""
    from matplotlib.figure import Figure

    names = list(distances["data"].unique())
    with style():
        figure = Figure(figsize=(4.2 * len(names) + 2.2, 3.6))
        for ax, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
            _draw_seconds(ax, distances[distances["data"] == name])
            ax.set_title(name if len(names) > 1 else "")
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right center")
        figure.suptitle(title, fontsize=11)
    return figure


def long(table: pd.DataFrame, column: str = "functions") -> pd.DataFrame:
    """The functions that are drawn, a row a point."""
    rows = []
    for row in table.to_dict("records"):
        keys = {name: row[name] for name in ("data", "label", "n")}
        position = json.loads(row["position"])
        for i, values in enumerate(json.loads(row[column])):
            rows += [
                {**keys, "function": i, "x": x, "f": f}
                for x, f in zip(position, values, strict=True)
            ]
    return pd.DataFrame(rows)


def _draw_distances(ax: Axes, shown: pd.DataFrame, name: str) -> None:
    floor = shown[f"{name}_floor_high"].clip(lower=0).to_numpy()
    for place, row in enumerate(shown.to_dict("records")):
        ax.errorbar(
            row[name],
            place,
            xerr=row[f"{name}_high"] - row[name],
            fmt=MARKERS[0],
            color=COLOURS[0],
            ms=4,
            elinewidth=1.0,
            label="prior, 95% interval" if place == 0 else None,
        )
        ax.plot(
            floor[place],
            place,
            "|",
            color=COLOURS[1],
            ms=9,
            mew=1.5,
            label="target against itself, upper 95% limit" if place == 0 else None,
        )
    if name == "energy_distance" and bool(shown["bound"].notna().any()):
        places = [place for place, bound in enumerate(shown["bound"]) if bound == bound]
        ax.plot(
            shown["bound"].dropna(),
            places,
            "<",
            color="black",
            mfc="none",
            ms=6,
            label="bound of the study",
        )
    _logarithmic(ax, "x", float(floor.max()), float(shown[f"{name}_high"].max()))
    ax.grid(visible=False, axis="y")


def _draw_seconds(ax: Axes, distances: pd.DataFrame) -> None:
    from matplotlib.ticker import LogLocator

    floor = float(distances["energy_distance_floor_high"].clip(lower=0).max())
    ax.axhspan(0, floor, color="0.9", lw=0, label="target against itself,\nto the upper 95% limit")
    matched = distances[distances["n"] > 0].groupby("label", observed=True)
    for i, (label, arm) in enumerate(matched):
        ax.errorbar(
            arm["seconds"],
            arm["energy_distance"],
            yerr=arm["energy_distance_high"] - arm["energy_distance"],
            fmt=MARKERS[i % len(MARKERS)] + "-",
            color=COLOURS[i % len(COLOURS)],
            ms=4,
            elinewidth=0.8,
            label=label_of(label),
        )
    still = distances[(distances["n"] == 0) & (distances["label"] != TARGET)]
    for line, row in zip(("--", ":", "-."), still.to_dict("records"), strict=False):
        label = f"{label_of(row['label'])}, not matched"
        ax.axhline(row["energy_distance"], color="0.25", ls=line, lw=1, label=label)
    ax.set_xscale("log", subs=[])
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    _logarithmic(ax, "y", floor, float(distances["energy_distance_high"].max()))
    lowest = float(distances.loc[distances["n"] > 0, "energy_distance_low"].min())
    ax.set_ylim(bottom=min(0.0, lowest) - floor / 2)
    ax.set_xlabel("CPU seconds of matching, one thread")
    ax.set_ylabel("energy distance (output units)")


def _logarithmic(ax: Axes, which: Literal["x", "y"], floor: float, largest: float) -> None:
    """Logarithmic from the first of 1, 2, 5, 10, ... above the floor on, linear below it, where
    noise is."""
    least = max(floor, 1e-6)
    steps = [m * 10.0**k for k in range(-6, 7) for m in (1, 2, 5)]
    start = next(i for i, step in enumerate(steps) if step >= least)
    end = max(next(i for i, step in enumerate(steps) if step >= largest), start + 2)
    ticks = steps[start : end + 1]
    getattr(ax, f"set_{which}scale")("symlog", linthresh=ticks[0], linscale=0.5)
    if len(ticks) > 6:
        ticks = [tick for tick in ticks if f"{tick:e}".startswith("1")]
    getattr(ax, f"set_{which}ticks")([0.0, *ticks], ["0", *(f"{tick:g}" for tick in ticks)])
    getattr(ax, f"set_{which}ticks")([], minor=True)

"""Scores of forecasters as pictures: by model, by rate, by horizon or gap, by level.

Error bars are 95% intervals of `forecast_verdicts`: of scores on a logarithmic scale, of coverages
Wilson's. Those by horizon or gap rest on standard errors by bootstrap. Models keep colour and
marker throughout.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from moe_stats.plots import COLOURS, MARKERS

from .forecast_verdicts import positive_interval, share_error, share_interval
from .style import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = {
    "crps": "CRPS",
    "interval_score95": "95% interval score",
    "coverage95": "coverage of 95% intervals",
}
NOMINAL = 0.95
EXTRA = ("#666666",)
"""For the eighth model."""

AXES = {
    "horizon": "hours since the last observation",
    "gap": "length of the gap in hours",
}


def scores_figure(found: pd.DataFrame, title: str, unit: str) -> Figure:
    """A row a task: CRPS, interval score and coverage of every model with their 95% intervals.

    Parameters
    ----------
    found : DataFrame
        As `forecast_verdicts.scores` returns it.
    unit : str
        Of the target.
    """
    from matplotlib.figure import Figure

    tasks, models = _unique(found, "task"), _unique(found, "model")
    with style():
        height = max(0.2 * len(models) + 0.45, 0.85)  # a task's name fits
        figure = Figure(figsize=(8.6, height * len(tasks) + 0.9))
        axes = figure.subplots(len(tasks), len(PANELS), squeeze=False, sharey="row")
        for row, task in zip(axes, tasks, strict=True):
            part = found[found["task"] == task]
            for ax, name in zip(row, PANELS, strict=True):
                for place, model in enumerate(models):
                    for entry in part[part["model"] == model].to_dict("records"):
                        _error_bar(ax, entry, name, place, models)
                if name == "coverage95":
                    ax.axvline(NOMINAL, color="0.25", ls="--", lw=1)
                    ax.set_xlim(max(0.0, float(part[name].min()) - 0.2), 1.02)
                else:
                    _logarithmic(ax, "x", part[name])
            row[0].set_yticks(range(len(models)), models)
            row[0].set_ylim(len(models) - 0.5, -0.5)
            row[0].set_ylabel(task)
        for ax, words in zip(axes[0], PANELS.values(), strict=True):
            ax.set_title(words)
        for ax, words in zip(axes[-1], (unit, unit, "share"), strict=True):
            ax.set_xlabel(f"{words}, with 95% interval")
        figure.suptitle(title, fontsize=11)
    return figure


def worth_figure(worth: pd.DataFrame, reference: str, title: str) -> Figure:
    """How far the CRPS of every other model is above the reference's, in percent, a panel a task.

    The scale is linear up to 1% and logarithmic beyond.

    Parameters
    ----------
    worth : DataFrame
        As `forecast_verdicts.differences` returns it.
    """
    from matplotlib.figure import Figure

    tasks, models = _unique(worth, "task"), _unique(worth, "model")
    n_columns = min(3, len(tasks))
    n_rows = math.ceil(len(tasks) / n_columns)
    with style():
        size = (2.6 * n_columns + 1.4, (0.24 * len(models) + 0.7) * n_rows + 0.7)
        figure = Figure(figsize=size)
        axes = figure.subplots(n_rows, n_columns, squeeze=False, sharey=True)
        for ax, task in zip(axes.flat, tasks, strict=False):
            part = worth[worth["task"] == task].set_index("model").reindex(models)
            error = part["crps_percent_se"].fillna(0)
            ax.barh(
                range(len(models)),
                part["crps_percent"],
                xerr=error,
                color=COLOURS[5],
                edgecolor=COLOURS[0],
                error_kw={"elinewidth": 1, "capsize": 2, "ecolor": "0.2"},
            )
            ax.axvline(0, color="0.25", lw=1)
            ax.set_xscale("symlog", linthresh=1)
            ax.xaxis.set_major_formatter("{x:g}")
            ax.set_title(task)
            ax.set_xlabel("% above, with standard error")
        for ax in axes.flat[len(tasks) :]:
            ax.set_visible(False)
        axes[0, 0].set_yticks(range(len(models)), models)
        axes[0, 0].set_ylim(len(models) - 0.5, -0.5)
        figure.suptitle(f"{title}\nCRPS above that of {reference}", fontsize=11)
    return figure


def rates_figure(found: pd.DataFrame, title: str, unit: str) -> Figure:
    """CRPS and coverage against the rate of missing values, a column a pattern, a line a model.

    Parameters
    ----------
    found : DataFrame
        As `forecast_verdicts.scores` returns it, with columns pattern and rate.
    unit : str
        Of the target.
    """
    from matplotlib.figure import Figure

    patterns, models = _unique(found, "pattern"), _unique(found, "model")
    with style():
        figure = Figure(figsize=(2.2 * len(patterns) + 1.9, 4.6))
        axes = figure.subplots(2, len(patterns), squeeze=False, sharey="row", sharex=True)
        for column, pattern in zip(axes.T, patterns, strict=True):
            for ax, name in zip(column, ("crps", "coverage95"), strict=True):
                for i, model in enumerate(models):
                    part = found[(found["pattern"] == pattern) & (found["model"] == model)]
                    part = part.sort_values("rate")
                    shift = 0.006 * (i - (len(models) - 1) / 2)
                    _line(ax, part["rate"] + shift, part, name, model, models)
            column[0].set_title(pattern)
            column[1].axhline(NOMINAL, color="0.25", ls="--", lw=1)
            column[1].set_xlabel("share of values hidden")
        _within_range(axes[0, 0], axes[1, 0], found)
        axes[0, 0].set_ylabel(f"CRPS ({unit}),\n95% interval")
        axes[1, 0].set_ylabel("coverage of 95% intervals,\n95% interval")
        _legend(figure, axes[0, 0])
        figure.suptitle(title, fontsize=11)
    return figure


def grouped(table: pd.DataFrame, by: str, tasks: dict[str, Any]) -> pd.DataFrame:
    """Scores by horizon of forecasts or by gap of masks, averaged over replicates.

    Parameters
    ----------
    table : DataFrame
        Rows of the store.
    by : {"horizon", "gap"}
    tasks : dict
        The study's tasks; forecasts have horizons, blocks and outages have gaps.

    Returns
    -------
    DataFrame
        Columns task, model, rank and group (of the bin), n, crps and coverage95 with their standard
        errors and the ends of intervals of two; without tasks of a single bin.
    """
    wanted = {"horizon": ("forecast",), "gap": ("block", "outage")}[by]
    rows = []
    for row in table.to_dict("records"):
        if tasks[row["task"]].pattern in wanted:
            groups = pd.DataFrame(json.loads(row["groups"]))
            keys = {name: row[name] for name in ("task", "model", "replicate")}
            rows.append(groups[groups["by"] == by].assign(**keys))
    if not rows:
        return pd.DataFrame()
    found = pd.concat(rows, ignore_index=True)
    for name in ("crps", "coverage95"):
        found[name] = found[name].astype(float) * found["n"]
        found[f"{name}_se"] = (found[f"{name}_se"].astype(float) * found["n"]) ** 2
    names = ["crps", "crps_se", "coverage95", "coverage95_se"]
    bin_of = ["task", "model", "rank", "group"]
    out = found.groupby(bin_of, sort=False)[["n", *names]].sum(min_count=1)
    for name in ("crps", "coverage95"):
        out[name] /= out["n"]
        out[f"{name}_se"] = np.sqrt(out[f"{name}_se"].astype(float)) / out["n"]
    out = out.reset_index().astype(dict.fromkeys(("n", *names), float))
    ends = [
        (
            *positive_interval(row["crps"], row["crps_se"], 2.0),
            *share_interval(
                row["coverage95"],
                share_error(row["coverage95"], row["coverage95_se"], row["n"]),
                row["n"],
                2.0,
            ),
        )
        for row in out.to_dict("records")
    ]
    out[["crps_low", "crps_high", "coverage95_low", "coverage95_high"]] = ends
    bins = out.groupby("task")["rank"].transform("nunique")
    place = out["task"].map(list(tasks).index)
    order = out.assign(place=place)[bins > 1].sort_values(["place", "rank"], kind="stable").index
    return out.loc[order].reset_index(drop=True)


def groups_figure(found: pd.DataFrame, by: str, title: str, unit: str) -> Figure:
    """CRPS and coverage by horizon or gap, a column a task, a line a model.

    Parameters
    ----------
    found : DataFrame
        As `grouped` returns it.
    by : {"horizon", "gap"}
    unit : str
        Of the target.
    """
    from matplotlib.figure import Figure

    tasks, models = _unique(found, "task"), _unique(found, "model")
    bins = dict(sorted(zip(found["rank"], found["group"], strict=True)))
    ranks = list(bins)
    with style():
        figure = Figure(figsize=(2.9 * len(tasks) + 1.9, 4.6))
        axes = figure.subplots(2, len(tasks), squeeze=False, sharey="row", sharex=True)
        for column, task in zip(axes.T, tasks, strict=True):
            for ax, name in zip(column, ("crps", "coverage95"), strict=True):
                for i, model in enumerate(models):
                    part = found[(found["task"] == task) & (found["model"] == model)]
                    shift = 0.08 * (i - (len(models) - 1) / 2)
                    place = np.array([ranks.index(rank) for rank in part["rank"]])
                    _line(ax, place + shift, part, name, model, models)
            column[0].set_title(task)
            column[1].axhline(NOMINAL, color="0.25", ls="--", lw=1)
            column[1].set_xticks(range(len(bins)), list(bins.values()), rotation=45, ha="right")
        _within_range(axes[0, 0], axes[1, 0], found)
        figure.supxlabel(AXES[by], fontsize=9)
        axes[0, 0].set_ylabel(f"CRPS ({unit}),\n95% interval")
        axes[1, 0].set_ylabel("coverage of 95% intervals,\n95% interval")
        _legend(figure, axes[0, 0])
        figure.suptitle(title, fontsize=11)
    return figure


def reliability_table(table: pd.DataFrame) -> pd.DataFrame:
    """The share of hidden values below each quantile, averaged over replicates.

    Returns
    -------
    DataFrame
        Columns task, model, level, observed, standard_error.
    """
    keys = ["task", "model", "level"]
    parts = [
        pd.DataFrame(json.loads(row["levels"])).assign(task=row["task"], model=row["model"])
        for row in table.to_dict("records")
    ]
    found = pd.concat(parts, ignore_index=True)
    found["variance"] = found["standard_error"] ** 2
    grouped = found.groupby(keys, sort=False)
    out = grouped["observed"].mean().to_frame()
    out["standard_error"] = np.sqrt(grouped["variance"].sum()) / grouped.size()
    return out.reset_index()


def reliability_figure(levels: pd.DataFrame, title: str) -> Figure:
    """How far the share below a quantile is from its level, a panel a task, a line a model.

    Parameters
    ----------
    levels : DataFrame
        As `reliability_table` returns it; the band of two standard errors is the first model's.
    """
    from matplotlib.figure import Figure

    tasks, models = _unique(levels, "task"), _unique(levels, "model")
    n_columns = min(3, len(tasks))
    n_rows = math.ceil(len(tasks) / n_columns)
    with style():
        figure = Figure(figsize=(2.5 * n_columns + 1.9, 2.1 * n_rows + 0.9))
        axes = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True)
        for ax, task in zip(axes.flat, tasks, strict=False):
            for i, model in enumerate(models):
                part = levels[(levels["task"] == task) & (levels["model"] == model)]
                gap = part["observed"] - part["level"]
                colour = _colour(model, models)
                ax.plot(
                    part["level"],
                    gap,
                    color=colour,
                    lw=1.8 if i == 0 else 0.9,
                    marker=MARKERS[i % len(MARKERS)],
                    ms=3 if i == 0 else 2,
                    label=model,
                )
                if i == 0:
                    reach = 2 * part["standard_error"]
                    ax.fill_between(
                        part["level"], gap - reach, gap + reach, color=colour, alpha=0.2, lw=0
                    )
            ax.axhline(0, color="0.25", ls="--", lw=1)
            ax.set_title(task)
        for ax in axes.flat[len(tasks) :]:
            ax.set_visible(False)
        for ax in axes[:, 0]:
            ax.set_ylabel("share below less level")
        figure.supxlabel("level of the quantile", fontsize=9)
        _legend(figure, axes[0, 0])
        figure.suptitle(title, fontsize=11)
    return figure


def _error_bar(
    ax: Axes, entry: dict[Any, Any], name: str, place: float, models: Sequence[str]
) -> None:
    ends = [entry[name] - entry[f"{name}_low"], entry[f"{name}_high"] - entry[name]]
    ax.errorbar(
        entry[name],
        place,
        xerr=np.nan_to_num(ends)[:, None],
        fmt=MARKERS[models.index(entry["model"]) % len(MARKERS)],
        color=_colour(entry["model"], models),
        ms=4,
        elinewidth=1,
    )


def _line(
    ax: Axes, x: Any, part: pd.DataFrame, name: str, model: str, models: Sequence[str]
) -> None:
    ends = [part[name] - part[f"{name}_low"], part[f"{name}_high"] - part[name]]
    ax.errorbar(
        x,
        part[name],
        yerr=np.nan_to_num(ends),
        fmt=MARKERS[models.index(model) % len(MARKERS)] + "-",
        color=_colour(model, models),
        ms=4,
        elinewidth=0.8,
        label=model,
    )


def _logarithmic(ax: Axes, name: str, values: pd.Series) -> None:
    """A logarithmic axis that ends where scores do, whatever their intervals."""
    from matplotlib.ticker import LogLocator, NullLocator

    low, high = float(values.min()) / 1.6, float(values.max()) * 1.6
    ax.set(**{f"{name}scale": "log", f"{name}lim": (low, high)})
    axis = ax.xaxis if name == "x" else ax.yaxis
    decades = math.log10(high / low)
    subs = (1, 1.5, 2, 3, 5, 7) if decades < 0.8 else (1, 2, 5) if decades < 1.7 else (1,)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter("{x:g}")


def _within_range(crps: Axes, coverage: Axes, found: pd.DataFrame) -> None:
    """Axes that end where scores do, whatever their intervals."""
    _logarithmic(crps, "y", found["crps"])
    coverage.set_ylim(max(0.0, float(found["coverage95"].min()) - 0.1), 1.02)


def _legend(figure: Figure, ax: Axes) -> None:
    handles, names = ax.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center")


def _colour(model: str, models: Sequence[str]) -> str:
    colours = [*COLOURS, *EXTRA]
    return colours[list(models).index(model) % len(colours)]


def _unique(table: pd.DataFrame, name: str) -> list[str]:
    return list(table[name].unique())

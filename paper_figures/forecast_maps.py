"""What forecasts look like: a sensor's days with bands, and a map of places with their widths.

Both show the first arm's forecasts of replicate 0.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from moe_stats.plots import COLOURS

from .style import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BANDS = ((0.05, 0.95, 0.2), (0.25, 0.75, 0.35))
"""Levels of a band and how opaque it is."""

LEVELS = ("0.05", "0.25", "0.5", "0.75", "0.95")


def series_of(table: pd.DataFrame) -> pd.DataFrame:
    """The stored days of a sensor, a row a measurement.

    Parameters
    ----------
    table : DataFrame
        Rows of the store, one a task.

    Returns
    -------
    DataFrame
        Columns task, sensor, time, value, hidden (bool) and the quantiles by their level, NaN where
        the value was not hidden.
    """
    parts = []
    for row in table[table["series"].notna()].to_dict("records"):
        found = json.loads(row["series"])
        hidden = pd.DataFrame(found["quantiles"], columns=list(LEVELS))
        hidden = hidden.assign(time=found["hidden_at"], value=found["hidden"], hidden=True)
        seen = pd.DataFrame({"time": found["seen_at"], "value": found["seen"]})
        both = pd.concat([hidden, seen.assign(hidden=False)]) if len(seen) else hidden
        both = both.assign(task=row["task"], sensor=found["sensor"])
        parts.append(both.assign(time=pd.to_datetime(both["time"])).sort_values("time"))
    return pd.concat(parts, ignore_index=True)


def series_figure(found: pd.DataFrame, title: str, unit: str) -> Figure:
    """Fans over what was hidden, a row a task.

    Parameters
    ----------
    found : DataFrame
        As `series_of` returns it.
    unit : str
        Of the target.
    """
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(found["task"]))
    with style():
        figure = Figure(figsize=(9.0, 1.75 * len(tasks) + 0.6))
        axes = figure.subplots(len(tasks), 1, squeeze=False)[:, 0]
        for ax, task in zip(axes, tasks, strict=True):
            own = found[found["task"] == task]
            hidden, seen = own[own["hidden"]], own[~own["hidden"]]
            step = own["time"].drop_duplicates().diff().min()
            stretch = (hidden["time"].diff() > 1.5 * step).cumsum()
            for number, part in hidden.groupby(stretch):
                for low, high, opacity in BANDS:
                    label = f"{100 * (high - low):.0f}% interval" if number == 0 else None
                    ax.fill_between(
                        part["time"] if len(part) > 1 else _wide(part["time"], step),
                        np.resize(part[str(low)], max(len(part), 2)),
                        np.resize(part[str(high)], max(len(part), 2)),
                        color=COLOURS[0],
                        alpha=opacity,
                        lw=0,
                        label=label,
                    )
                ax.plot(
                    part["time"],
                    part["0.5"],
                    "-" if len(part) > 1 else "_",
                    color=COLOURS[0],
                    lw=1.2,
                    label="median" if number == 0 else None,
                )
            ax.plot(hidden["time"], hidden["value"], ".", color=COLOURS[1], ms=3, label="hidden")
            ax.plot(seen["time"], seen["value"], ".", color="0.35", ms=3, label="observed")
            locator = AutoDateLocator(minticks=3, maxticks=9)
            ax.xaxis.set_major_locator(locator)
            ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))
            ax.set_title(f"{task}, sensor {own['sensor'].iloc[0]}")
            ax.set_ylabel(unit)
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside right center")
        figure.suptitle(title, fontsize=11)
    return figure


def places_of(table: pd.DataFrame) -> pd.DataFrame:
    """The stored averages of places, a row a place.

    Parameters
    ----------
    table : DataFrame
        Rows of the store, one a task.

    Returns
    -------
    DataFrame
        Columns task, x_name, y_name, x, y, truth, median, width; places that were only observed
        have NaN for the last three.
    """
    parts = []
    for row in table[table["places"].notna()].to_dict("records"):
        found = json.loads(row["places"])
        axes = [*found["axes"], ""][:2]
        x, y = (1, 0) if axes[1] and "lat" in axes[0].lower() else (0, 1)
        means = {name: found[name] for name in ("truth", "median", "width")}
        for places, values in ((found["place"], means), (found["observed"], {})):
            at = np.array([[*place, 0.0][:2] for place in places]).reshape(-1, 2)
            part = pd.DataFrame({"x": at[:, x], "y": at[:, y], **values})
            parts.append(part.assign(task=row["task"], x_name=axes[x], y_name=axes[y]))
    return pd.concat([part for part in parts if len(part)], ignore_index=True)


def map_figure(found: pd.DataFrame, title: str, unit: str) -> Figure:
    """Mean truth, mean median and mean width of the 90% interval of every place, a row a task.

    Parameters
    ----------
    found : DataFrame
        As `places_of` returns it.
    unit : str
        Of the target.
    """
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(found["task"]))
    panels = {"truth": "truth", "median": "forecast median", "width": "width of 90% interval"}
    with style():
        figure = Figure(figsize=(7.2, 1.75 * len(tasks) + 0.7))
        axes = figure.subplots(len(tasks), 3, squeeze=False, sharex=True, sharey=True)
        centre, half, aspect = _frame(found)
        for row, task in zip(axes, tasks, strict=True):
            own = found[found["task"] == task]
            hidden, seen = own[own["width"].notna()], own[own["width"].isna()]
            both = hidden[["truth", "median"]]
            for ax, (name, words) in zip(row, panels.items(), strict=True):
                common = (both.min().min(), both.max().max())
                low, high = (None, None) if name == "width" else common
                ax.plot(seen["x"], seen["y"], "^", ms=3, mfc="white", mec="0.4", mew=0.7)
                drawn = ax.scatter(
                    hidden["x"],
                    hidden["y"],
                    c=hidden[name],
                    s=60 if len(hidden) <= 40 else 12,
                    cmap="viridis" if name == "width" else "cividis",
                    vmin=low,
                    vmax=high,
                    edgecolor="0.2",
                    linewidth=0.4,
                    zorder=3,
                )
                figure.colorbar(drawn, ax=ax, shrink=0.85)
                ax.locator_params(nbins=4)
                ax.set_title(f"{task}: {words}", fontsize=8)
                ax.set_xlim(centre[0] - half * aspect, centre[0] + half * aspect)
                ax.set_ylim(centre[1] - half, centre[1] + half)
                ax.set_aspect(aspect)
            row[0].set_ylabel(own["y_name"].iloc[0])
        for ax in axes[-1]:
            ax.set_xlabel(found["x_name"].iloc[0])
        figure.suptitle(
            f"{title}\nmeans over hidden values in {unit}; triangles were observed",
            fontsize=10,
        )
    return figure


def _frame(found: pd.DataFrame) -> tuple[np.ndarray, float, float]:
    """The middle of all places, half the height of a square around them, and a degree of latitude
    in degrees of longitude, or 1 if these are no degrees."""
    at = found[["x", "y"]].to_numpy()
    low, high = at.min(axis=0), at.max(axis=0)
    degrees = "lat" in found["y_name"].iloc[0].lower()
    aspect = 1 / math.cos(math.radians(at[:, 1].mean())) if degrees else 1.0
    spans = (high - low) / np.array([aspect, 1.0])
    return (low + high) / 2, 0.56 * max(float(spans.max()), 1e-6), aspect


def _wide(times: pd.Series, step: pd.Timedelta) -> list[pd.Timestamp]:
    """A time as a stretch of the width of a sampling step."""
    only = times.iloc[0]
    return [only - 0.4 * step, only + 0.4 * step]

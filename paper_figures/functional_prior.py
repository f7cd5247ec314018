"""How close matched priors come to a law of functions: functions side by side, distances beside
their floor, and distance against seconds of matching where a profile has several numbers of steps.

Intervals are Student's 95% ones: over replicates where there are several, each with a fit and
measurement sets of its own, over the measurement sets of the only fit otherwise. The floor is the
same distance between the target and itself. A profile may bound the energy distance of an arm, by a
number or by half that of another arm:

============ ====================================================
verdict      rule
============ ====================================================
at most ...  the interval ends below the bound
above ...    the interval begins above it
inconclusive the interval straddles it
============ ====================================================
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from moe_stats.plots import COLOURS, MARKERS

from . import Rendered
from .style import save, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TARGET = "gp"
DISTANCES = {
    "energy_distance": "energy distance",
    "sliced_w1": "sliced $W_1$",
    "bures_w2": "Bures-$W_2$ a point",
    "class_energy_distance": "energy distance of\nclass probabilities",
}
"""Those that a study has, by their column."""
STATISTICS = ("marginal_variance", "excess_kurtosis", "correlation_length")
LABELS = {
    TARGET: "GP",
    "fg": "FG",
    "fh": "FH",
    "gpi-g": "GPi-G",
    "gpi-h": "GPi-H",
    "gpi-nf": "GPi-NF",
    "published-critic": "published critic",
}
"""Arms as the figures write them; others by their own name."""


def render(
    study: Any, profile: str, table: pd.DataFrame, prepared: dict[str, Any], folder: Path
) -> Rendered:
    """Draw a study of priors; see `paper_figures.render`."""
    stamp = f"{study.name} {profile}, configuration {study.config_hash}"
    good = named(table[table["status"] == "ok"], list(study.setting.arms))
    if good.empty:
        raise ValueError("The 'table' parameter must have a cell that did not fail; got none.")
    distances = summarised(good, study.setting.evaluation.n_repeats)
    wanted = study.profile(profile)
    distances["verdict"] = verdicts(distances, wanted.at_most, wanted.at_most_half_of)
    last = distances.loc[distances.groupby(["data", "label"], observed=True)["n"].idxmax()]
    files: list[Path] = []
    for column, stem in (("functions", "functions"), ("class_functions", "classes")):
        drawn = good[good[column].notna()] if column in good else good.iloc[:0]
        if len(drawn):
            kept = drawn.loc[drawn.groupby(["data", "label"], observed=True)["n"].idxmax()]
            figure = functions_figure(kept, study.title, column)
            files += save(figure, long(kept, column), folder, f"{profile}-{stem}", stamp)
    files += save(distances_figure(last, study.title), last, folder, f"{profile}-distances", stamp)
    if len(wanted.steps) > 1:
        figure = seconds_figure(distances, study.title)
        files += save(figure, distances, folder, f"{profile}-seconds", stamp)
    return Rendered(files, _shown(last), _headline(study, last, table))


def named(table: pd.DataFrame, arms: list[str]) -> pd.DataFrame:
    """Rows with their arm's name without the data set's, ``label``, in the order of the study."""
    labels = [
        arm.removeprefix(f"{data}-") for arm, data in zip(table["arm"], table["data"], strict=True)
    ]
    order = pd.Categorical(labels, [TARGET, *arms], ordered=True)
    keys = ["data", "label", "n", "replicate"]
    return table.assign(label=order).sort_values(keys, ignore_index=True)


def summarised(table: pd.DataFrame, n_repeats: int) -> pd.DataFrame:
    """Distances and statistics of every arm at every number of steps.

    Parameters
    ----------
    table : DataFrame
        As `named` returns it.
    n_repeats : int
        Measurement sets behind a row's errors.

    Returns
    -------
    DataFrame
        Columns data, label, n, replicates, seconds; for each distance its mean with the standard
        error and the 95% interval (``_low``, ``_high``), and the same of its floor
        (``_floor``, ``_floor_high``); each statistic beside the target's.
    """
    rows = []
    for (data, label, n), group in table.groupby(["data", "label", "n"], observed=True):
        row: dict[str, Any] = {
            "data": data,
            "label": label,
            "n": n,
            "replicates": len(group),
            "seconds": group["seconds"].mean(),
        }
        for name in measured(table):
            mean, error, reach = _interval(group[name], group[f"{name}_error"], n_repeats)
            row |= {name: mean, f"{name}_error": error}
            row |= {f"{name}_low": mean - reach, f"{name}_high": mean + reach}
            floor, _, above = _interval(
                group[f"{name}_target"], group[f"{name}_target_error"], n_repeats
            )
            row |= {f"{name}_floor": floor, f"{name}_floor_high": floor + above}
        for name in STATISTICS:
            row |= {column: _mean(group, column) for column in (name, f"{name}_target")}
        rows.append(row)
    order = pd.CategoricalDtype(table["label"].cat.categories, ordered=True)
    return pd.DataFrame(rows).astype({"label": order})


def measured(table: pd.DataFrame) -> dict[str, str]:
    """The part of `DISTANCES` that a table has."""
    return {name: words for name, words in DISTANCES.items() if name in table}


def verdicts(
    distances: pd.DataFrame, at_most: dict[str, float], at_most_half_of: dict[str, str]
) -> list[str]:
    """What to say of the energy distance of each row of `summarised`; "" where nothing bounds it.

    Half of another arm's distance is subtracted with its error, as if both were independent.
    """
    rows = distances.to_dict("records")
    last = {(row["data"], row["label"]): row for row in rows}  # of the most steps
    words = []
    for row in rows:
        told = []
        distance, high = row["energy_distance"], row["energy_distance_high"]
        if row["label"] in at_most:
            bound = at_most[row["label"]]
            told.append(judge(row["energy_distance_low"] - bound, high - bound, f"{bound:.3g}"))
        other = last.get((row["data"], at_most_half_of.get(row["label"])))
        if other is not None:
            gap = distance - other["energy_distance"] / 2
            wide = (other["energy_distance_high"] - other["energy_distance"]) / 2
            reach = math.hypot(high - distance, wide)
            told.append(judge(gap - reach, gap + reach, f"half of {_label(other['label'])}"))
        words.append("; ".join(told))
    return words


def judge(low: float, high: float, bound: str) -> str:
    """The verdict on the interval of a difference from a bound; see the module's docstring.

    Examples
    --------
    >>> judge(-0.02, -0.01, "0.08"), judge(0.01, 0.02, "0.08"), judge(-0.01, 0.01, "0.08")
    ('at most 0.08', 'above 0.08', 'inconclusive (0.08)')
    """
    if high <= 0:
        return f"at most {bound}"
    return f"above {bound}" if low > 0 else f"inconclusive ({bound})"


def functions_figure(table: pd.DataFrame, title: str, column: str = "functions") -> Figure:
    """Functions of every arm along a line: a row a data set; many arms of one in rows of five.

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
    per_row = len(labels) if len(names) > 1 or len(labels) <= 6 else 5
    n_rows = len(names) if len(names) > 1 else math.ceil(len(labels) / per_row)
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
            ax.set_title(_label(row["label"]))
        for first, name in zip(axes[:, 0], names if len(names) > 1 else [""] * n_rows, strict=True):
            words = "f(x)" if column == "functions" else "P(first class | x)"
            first.set_ylabel(f"{name}\n{words}" if name else words)
        figure.supxlabel("position x on a line through the inputs (standard deviations)", size=9)
        figure.suptitle(title, fontsize=11)
    return figure


def distances_figure(distances: pd.DataFrame, title: str) -> Figure:
    """Every distance of every arm with its 95% interval, and the floor's upper end.

    Parameters
    ----------
    distances : DataFrame
        As `summarised` returns it, one row an arm and data set.
    """
    from matplotlib.figure import Figure

    shown = distances[distances["label"] != TARGET]
    several = shown["data"].nunique() > 1
    names = [
        f"{data}, {_label(label)}" if several else _label(label)
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
            *figure.axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=2
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
            label=_label(label),
        )
    still = distances[(distances["n"] == 0) & (distances["label"] != TARGET)]
    for line, row in zip(("--", ":", "-."), still.to_dict("records"), strict=False):
        label = f"{_label(row['label'])}, not matched"
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
    """Logarithmic from the power of ten above the floor on, linear below it, where noise is."""
    first = math.ceil(math.log10(max(floor, 1e-6)))
    last = max(math.ceil(math.log10(largest)), first + 1)
    decades = [10.0**k for k in range(first, last + 1)]
    ticks = decades if last > first + 2 else [m * d for d in decades[:-1] for m in (1, 2, 5)]
    getattr(ax, f"set_{which}scale")("symlog", linthresh=decades[0], linscale=0.5)
    getattr(ax, f"set_{which}ticks")([0.0, *ticks], ["0", *(f"{tick:g}" for tick in ticks)])
    getattr(ax, f"set_{which}ticks")([], minor=True)


def _interval(values: pd.Series, errors: pd.Series, n_repeats: int) -> tuple[float, float, float]:
    """Mean, standard error and half the width of the 95% interval."""
    from scipy.stats import t

    n = len(values)
    error = float(errors.iloc[0] if n == 1 else values.std() / math.sqrt(n))
    draws = n_repeats if n == 1 else n
    return float(values.mean()), error, error * float(t.ppf(0.975, draws - 1))


def _mean(group: pd.DataFrame, column: str) -> float:
    """Infinite if it is in any replicate: stored as missing."""
    missing = column not in group or bool(group[column].isna().any())
    return math.inf if missing else float(group[column].mean())


def _label(name: Any) -> str:
    return LABELS.get(str(name), str(name))


def _shown(last: pd.DataFrame) -> pd.DataFrame:
    """The table for the terminal."""
    rows = [
        {
            "data": row["data"],
            "prior": _label(row["label"]),
            "steps": row["n"],
            "CPU s": f"{row['seconds']:.1f}",
            "energy distance": f"{row['energy_distance']:z.4f}",
            "error": f"{row['energy_distance_error']:.4f}",
            "floor": f"{row['energy_distance_floor']:z.4f}",
            "sliced W1": f"{row['sliced_w1']:.3f}",
            "variance": f"{row['marginal_variance']:.3g}",
            "kurtosis": f"{row['excess_kurtosis']:z.2f}",
            "verdict": row["verdict"],
        }
        for row in last.to_dict("records")
    ]
    shown = pd.DataFrame(rows)
    silent = [] if (shown["verdict"] != "").any() else ["verdict"]
    return shown.drop(columns=silent + (["data"] if shown["data"].nunique() == 1 else []))


def _headline(study: Any, last: pd.DataFrame, table: pd.DataFrame) -> str:
    lines = [
        f"{study.name} ({row['data']}, {_label(row['label'])}): energy distance "
        f"{row['energy_distance']:z.3f}, 95% interval {row['energy_distance_low']:z.3f} to "
        f"{row['energy_distance_high']:z.3f}, after {row['seconds']:.1f} CPU s: {row['verdict']}."
        for row in last[last["verdict"] != ""].to_dict("records")
    ]
    failed = table[table["status"] != "ok"]
    lines.append(f"{len(failed)} of {len(table)} cells failed.")
    lines += sorted(set(failed["error"]))
    return "\n".join(lines)

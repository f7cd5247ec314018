"""How often nominal intervals hold the truth: a panel for each truth and size, a row a parameter.

Points are shares of replicates, bars their 95% Wilson intervals. Coverage is judged by a band of
two points around the nominal level:

============ ======================================================================================
verdict      rule
============ ======================================================================================
consistent   the share is in the band, and its interval is no wider than the band
inconsistent the interval misses the band
inconclusive anything else: replicates are too few to tell
============ ======================================================================================

At a level of 95% and with 1,000 replicates a coverage of exactly 95% is called inconsistent with
probability 1e-6 and consistent with 99.7%; one of 88%, that of standard errors 20% short, is called
inconsistent with 99.9%.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from moe_stats.plots import COLOURS, MARKERS

from . import Rendered
from .style import save, stamp_of, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TOLERANCE = 0.02
"""Half the width of the band."""

SERIES = ["factor", "method"]


def render(
    study: Any, profile: str, table: pd.DataFrame, prepared: dict[str, Any], folder: Path
) -> Rendered:
    """Draw a coverage study; see `paper_figures.render`."""
    stamp = stamp_of(study, profile)
    good = table[table["status"] == "ok"]
    level = study.setting.level
    shares = coverages(good, level)
    figure = coverage_figure(shares, level, study.title)
    files = save(figure, shares, folder, f"{profile}-coverage", stamp)
    last = shares[shares["n"] == shares.groupby("case")["n"].transform("max")]
    return Rendered(files, _shown(last), _headline(study, last, table))


def coverages(table: pd.DataFrame, level: float) -> pd.DataFrame:
    """Coverage of every parameter by case, size, method and factor.

    Parameters
    ----------
    table : DataFrame
        Cells of a study that did not fail.
    level : float
        Nominal coverage.

    Returns
    -------
    DataFrame
        Columns case, n, factor, method, parameter, intervals, without (fits that give no interval
        for the parameter), coverage with its Wilson interval (low, high), verdict, and
        relative_width: mean width over that of an interval made with the standard deviation of the
        estimates, which is the factor where standard errors are right.
    """
    from scipy.special import ndtri
    from scipy.stats import binomtest

    columns = [str(column) for column in table if str(column).startswith("deviation_")]
    names = sorted(column.removeprefix("deviation_") for column in columns)
    rows = []
    for (case, n, factor, method), group in table.groupby(["case", "n", *SERIES], sort=True):
        for name in names:
            deviations = group[f"deviation_{name}"].dropna()
            if deviations.empty:
                continue  # a parameter of another case
            covered, widths = group[f"covered_{name}"].dropna(), group[f"width_{name}"]
            share, low, high = float("nan"), 0.0, 1.0
            if len(covered):
                share = float(covered.mean())
                low, high = binomtest(int(covered.sum()), len(covered)).proportion_ci(
                    method="wilson"
                )
            rows.append(
                {
                    "case": case,
                    "n": n,
                    "factor": factor,
                    "method": method,
                    "parameter": _label(name),
                    "intervals": len(covered),
                    "without": len(group) - len(covered),
                    "coverage": share,
                    "low": low,
                    "high": high,
                    "verdict": judge(share, low, high, level),
                    "relative_width": widths.mean()
                    / (2 * ndtri((1 + level) / 2) * deviations.std()),
                }
            )
    return pd.DataFrame(rows)


def judge(share: float, low: float, high: float, level: float) -> str:
    """The verdict on a coverage with its interval; see the module's docstring.

    Examples
    --------
    >>> judge(0.948, 0.932, 0.960, 0.95), judge(0.88, 0.86, 0.90, 0.95), judge(0.9, 0.6, 1.0, 0.95)
    ('consistent', 'inconsistent', 'inconclusive')
    """
    if high < level - TOLERANCE or low > level + TOLERANCE:
        return "inconsistent"
    if _in_band(share, level) and high - low <= 2 * TOLERANCE:
        return "consistent"
    return "inconclusive"


def coverage_figure(shares: pd.DataFrame, level: float, title: str) -> Figure:
    """Coverage with intervals, a row of panels for each case, a column for each size.

    Parameters
    ----------
    shares : DataFrame
        As `coverages` returns it.
    level : float
        Nominal coverage: a line, with the band around it.
    """
    from matplotlib.figure import Figure

    cases, sizes = list(shares["case"].unique()), sorted(shares["n"].unique())
    n_parameters = shares.groupby("case")["parameter"].nunique()
    heights = [int(n_parameters[case]) for case in cases]
    with style():
        figure = Figure(figsize=(3.1 * len(sizes) + 1.4, 0.3 * sum(heights) + 1.6))
        axes = figure.subplots(
            len(cases),
            len(sizes),
            sharex=True,
            sharey="row",
            squeeze=False,
            height_ratios=heights,
        )
        for row, case in zip(axes, cases, strict=True):
            for ax, n in zip(row, sizes, strict=True):
                _draw(ax, shares[(shares["case"] == case) & (shares["n"] == n)], level)
                ax.set_title(f"{case}, $n$ = {n}")
            row[0].invert_yaxis()  # shared by the row
        for ax in axes[-1]:
            ax.set_xlabel("share of intervals that hold\nthe truth, 95% interval")
        handles, names = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=3)
        figure.suptitle(title, fontsize=11)
    return figure


def _draw(ax: Axes, shares: pd.DataFrame, level: float) -> None:
    """One panel: every series of one case and size, in the order controls last."""
    ax.axvspan(
        level - TOLERANCE, level + TOLERANCE, color="0.9", lw=0, label=f"{_band(level)} band"
    )
    ax.axvline(level, color="0.25", ls="--", lw=1, label=f"nominal {level:.0%}")
    names = sorted(shares["parameter"].unique())
    series = _series(shares)
    for i, (factor, method) in enumerate(series):
        part = shares[(shares["factor"] == factor) & (shares["method"] == method)]
        place = part["parameter"].map(names.index) + 0.18 * (i - (len(series) - 1) / 2)
        ax.errorbar(
            part["coverage"],
            place,
            xerr=[part["coverage"] - part["low"], part["high"] - part["coverage"]],
            fmt=MARKERS[i],
            color=COLOURS[i],
            ms=3.5,
            elinewidth=0.8,
            label=_name(factor, method),
        )
    ax.set_yticks(range(len(names)), names)
    ax.grid(visible=False, axis="y")
    ax.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.4g}%")


def _shown(last: pd.DataFrame) -> pd.DataFrame:
    """The table for the terminal: one row a parameter, a column each kind of interval."""
    told = last.assign(
        series=[_name(*pair) for pair in last[SERIES].itertuples(index=False)],
        told=[
            f"{verdict}, {100 * low:.1f}-{100 * high:.1f}%"
            for verdict, low, high in last[["verdict", "low", "high"]].itertuples(index=False)
        ],
    )
    wide = told.pivot(index=["case", "n", "parameter"], columns="series", values="told")
    order = [_name(factor, method) for factor, method in _series(last)]
    return wide[order].reset_index().rename_axis(columns=None)


def _headline(study: Any, last: pd.DataFrame, table: pd.DataFrame) -> str:
    level = study.setting.level
    inside = _in_band(last["coverage"], level)
    lines = []
    for (case, n), rows in last.groupby(["case", "n"], sort=False):
        parts = []
        for method, part in rows[rows["factor"] == 1].groupby("method"):
            verdicts = part["verdict"].value_counts()
            parts.append(
                f"{method}: {inside[part.index].sum()} of {len(part)} parameters covered "
                f"{_band(level)} of the time ({verdicts.get('consistent', 0)} consistent, "
                f"{verdicts.get('inconsistent', 0)} inconsistent, "
                f"{verdicts.get('inconclusive', 0)} inconclusive)"
            )
        control = rows[rows["factor"] != 1]
        parts.append(
            f"controls: {(~inside[control.index]).sum()} of {len(control)} outside, "
            f"{(control['verdict'] == 'inconsistent').sum()} of them inconsistent"
        )
        lines.append(
            f"{study.name} ({case}, n = {n}, {rows['intervals'].max()} replicates): "
            f"{'; '.join(parts)}."
        )
    failed = int((table["status"] != "ok").sum())
    unsettled = int((table["converged"] == False).sum())  # noqa: E712 - failed cells have none
    lines.append(
        f"{failed} of {len(table)} cells failed, {unsettled} rest on a fit that did not converge; "
        f"{last['without'].sum()} intervals could not be given at the largest size."
    )
    return "\n".join(lines)


def _series(shares: pd.DataFrame) -> list[tuple[float, str]]:
    """Kinds of intervals, (factor, method): those as they are first, then controls."""
    found = shares[SERIES].drop_duplicates().itertuples(index=False, name=None)
    return sorted(found, key=lambda pair: (pair[0] != 1, *pair))


def _name(factor: float, method: str) -> str:
    return method if factor == 1 else f"control: {method} x {factor:g}"


def _in_band(share: Any, level: float) -> Any:
    return abs(share - level) <= TOLERANCE + 1e-9  # decimal levels are rounded in binary


def _band(level: float) -> str:
    return f"{100 * (level - TOLERANCE):g}-{100 * (level + TOLERANCE):g}%"


def _label(name: str) -> str:
    """A parameter's name from its column's: "gate_slope_0_1" stands for "gate slope[0, 1]"."""
    words, places = re.fullmatch(r"([a-z_]+?)((?:_\d+)+)", name).groups()  # type: ignore[union-attr]
    return f"{words.replace('_', ' ')}[{', '.join(places[1:].split('_'))}]"

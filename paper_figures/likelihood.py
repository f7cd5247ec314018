"""Likelihood at scale: score and Hessian against the Fisher information, as n grows.

Left and middle, medians over replicates with bars that hold their middle 80%, fitted power laws,
and n^(-1/2) dashed. Right, the mean of n s'I^+s over its degrees of freedom d with 95% intervals:
1 where the covariance of the score is the information. Pooled over sizes it is judged:

============ ======================================================================================
verdict      rule
============ ======================================================================================
consistent   the 95% interval holds 1 and stays within a quarter of it
inconsistent the 99% interval misses 1
inconclusive anything else
============ ======================================================================================

The sum of R statistics has, up to the factor sought, the chi-squared law with R d degrees of
freedom, so a covariance that is the information is called inconsistent with probability 1%.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from experiments.kinds import get_kind
from moe_stats.plots import COLOURS, MARKERS
from theory.rates import Rate, fit_rate
from theory.verdict import verdict

from . import Rendered
from .rates import finish
from .style import save, stamp_of, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TOLERANCE = 0.25

QUANTITIES = {"score_error": "mean score", "hessian_error": "mean Hessian plus I"}

EXPONENTS = {"predicted": 0.5, "control": 0.25}
"""Roles, and the exponents that they ask about."""


def render(
    study: Any, profile: str, table: pd.DataFrame, prepared: dict[str, Any], folder: Path
) -> Rendered:
    """Draw a study of kind `likelihood`; see `paper_figures.render`."""
    stamp = stamp_of(study, profile)
    good = table[table["status"] == "ok"]
    rates = likelihood_rates(good, study.seed)
    ratios = covariance_ratios(good)
    verdicts = pd.concat([rate_verdicts(rates), covariance_verdicts(good)], ignore_index=True)
    figure = likelihood_figure(good, rates, ratios, study.title)
    files = save(figure, verdicts, folder, f"{profile}-likelihood", stamp)
    path = folder / f"{profile}-likelihood-ratios.csv"
    ratios.to_csv(path, index=False, float_format="%.8g")
    return Rendered([*files, path], verdicts, _headline(study, verdicts, table, prepared))


def likelihood_rates(table: pd.DataFrame, random_state: int) -> dict[tuple[str, str], Rate]:
    """The rate of each (arm, quantity), the truth's first."""
    return {
        (str(arm), column): fit_rate(part["n"], part[column], random_state=random_state)
        for arm, part in sorted(table.groupby("arm"), key=lambda pair: pair[0] != "truth")
        for column in QUANTITIES
    }


def rate_verdicts(rates: dict[tuple[str, str], Rate]) -> pd.DataFrame:
    """Whether each is of exact order n^(-1/2), and, as a control, of order n^(-1/4)."""
    rows = []
    for (arm, column), rate in rates.items():
        for role, exponent in EXPONENTS.items():
            if arm != "truth" and role == "control":
                continue  # the arm is a control itself
            found = verdict(rate, exponent, question="sharp")
            rows.append(
                {
                    "arm": arm,
                    "quantity": QUANTITIES[column],
                    "role": role,
                    "predicted": -exponent,
                    "found": found.slope,
                    "low": found.interval[0],
                    "high": found.interval[1],
                    "verdict": found.status,
                }
            )
    return pd.DataFrame(rows)


def covariance_ratios(table: pd.DataFrame) -> pd.DataFrame:
    """Mean statistic over its degrees of freedom by arm and size, with 95% intervals."""
    groups = table.groupby(["arm", "n"], sort=False)
    rows = [(arm, n, *_ratio(part, 0.95)) for (arm, n), part in groups]
    return pd.DataFrame(rows, columns=["arm", "n", "ratio", "low", "high"])


def covariance_verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """The same over all sizes of an arm, judged."""
    rows = []
    for arm, part in table.groupby("arm", sort=False):
        ratio, low, high = _ratio(part, 0.95)
        _, least, most = _ratio(part, 0.99)
        rows.append(
            {
                "arm": arm,
                "quantity": "covariance of the score over I/n",
                "role": "predicted",
                "predicted": 1.0,
                "found": ratio,
                "low": low,
                "high": high,
                "verdict": judge((low, high), (least, most)),
            }
        )
    return pd.DataFrame(rows)


def judge(narrow: tuple[float, float], wide: tuple[float, float]) -> str:
    """The verdict on a ratio with its 95% and 99% intervals; see the module's docstring.

    Examples
    --------
    >>> judge((0.9, 1.1), (0.8, 1.2)), judge((1.1, 1.2), (1.05, 1.3)), judge((0.7, 1.2), (0.6, 1.3))
    ('consistent', 'inconsistent', 'inconclusive')
    """
    if wide[0] > 1 or wide[1] < 1:
        return "inconsistent"
    near = narrow[0] >= 1 - TOLERANCE and narrow[1] <= 1 + TOLERANCE
    return "consistent" if near and narrow[0] <= 1 <= narrow[1] else "inconclusive"


def likelihood_figure(
    table: pd.DataFrame, rates: dict[tuple[str, str], Rate], ratios: pd.DataFrame, title: str
) -> Figure:
    """Two panels of rates and one of the score's covariance."""
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(10.5, 4.4))
        axes = figure.subplots(1, 3)
        arms = list(dict.fromkeys(arm for arm, _ in rates))
        for ax, column in zip(axes, QUANTITIES, strict=False):
            for i, arm in enumerate(arms):
                _draw(ax, table[table["arm"] == arm], rates[arm, column], column, arm, i)
            curve = rates["truth", column].median
            sizes = np.array(curve.sizes)
            guide = curve.values[0] * (sizes / sizes[0]) ** -0.5
            ax.plot(sizes, guide, "--", color="0.25", lw=1, label="$n^{-1/2}$")
            finish(ax, QUANTITIES[column], "size in units of $I$")
        for i, arm in enumerate(arms):
            part = ratios[ratios["arm"] == arm]
            bars = [part["ratio"] - part["low"], part["high"] - part["ratio"]]
            axes[2].errorbar(
                part["n"], part["ratio"], bars, fmt=MARKERS[i], color=COLOURS[i], label=arm
            )
        axes[2].axhline(1.0, color="0.25", ls="--", lw=1, label="information equality")
        finish(axes[2], "covariance of the score over $I/n$", "ratio, 95% interval")
        figure.suptitle(title, fontsize=11)
    return figure


def _draw(ax: Axes, table: pd.DataFrame, rate: Rate, column: str, arm: str, i: int) -> None:
    curve = rate.median
    sizes, values = np.array(curve.sizes), np.array(curve.values)
    groups = table.groupby("n")[column]
    bars = [values - groups.quantile(0.1)[sizes], groups.quantile(0.9)[sizes] - values]
    ax.errorbar(sizes, values, np.clip(bars, 0, None), fmt=MARKERS[i], color=COLOURS[i], lw=0.6)
    low, high = curve.interval
    label = f"{arm}: {curve.slope:z.3f} [{low:z.3f}, {high:z.3f}]"
    ax.plot(sizes, np.exp(curve.intercept) * sizes**curve.slope, color=COLOURS[i], label=label)


def _ratio(table: pd.DataFrame, level: float) -> tuple[float, float, float]:
    """Sum of the statistics over that of their degrees of freedom, and an interval of the factor
    that makes it chi-squared."""
    from scipy.stats import chi2

    total, degrees = float(table["score_statistic"].sum()), int(table["degrees"].sum())
    tail = (1 - level) / 2
    low, high = total / chi2.isf(tail, degrees), total / chi2.isf(1 - tail, degrees)
    return total / degrees, float(low), float(high)


def _headline(
    study: Any, verdicts: pd.DataFrame, table: pd.DataFrame, prepared: dict[str, Any]
) -> str:
    is_control = (verdicts["arm"] != "truth") | (verdicts["role"] == "control")
    claims = verdicts[~is_control]["verdict"].value_counts()
    rejected = int((verdicts[is_control]["verdict"] == "inconsistent").sum())
    failed = int((table["status"] != "ok").sum())
    return (
        f"{get_kind(study.kind).describe(prepared)}\n{study.name} (n to {table['n'].max()}): "
        f"{claims.get('consistent', 0)} predictions consistent, "
        f"{claims.get('inconsistent', 0)} inconsistent, "
        f"{claims.get('inconclusive', 0)} inconclusive; {rejected} of {is_control.sum()} controls "
        f"rejected. {failed} of {len(table)} cells failed."
    )

r"""Bias of samplers against the size of their step, a panel an arm of a `sampler_bias` study.

Points are biases with intervals of two standard errors. On the Gaussian target the line is the
closed form; elsewhere it is :math:`b(\varepsilon) = b_0 + c\,\varepsilon^p` fitted with the stated
order p, and the order seen is the p of :math:`c\,\varepsilon^p`. Verdicts at level 1e-3 an arm:

============ ======================================================================================
consistent   biases are the closed form's (Bonferroni over steps); or b_0 is 0
inconsistent they are not
inconclusive what is wrong on purpose passes as well: twice the closed form; or a bias that stays,
             at the mean of those seen
============ ======================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from moe_stats.plots import COLOURS

from . import Rendered
from .style import save, stamp_of, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEVEL = 1e-3
N_COLUMNS = 4


def render(
    study: Any, profile: str, table: pd.DataFrame, prepared: dict[str, Any], folder: Path
) -> Rendered:
    """Draw a sampler-bias study; see `paper_figures.render`."""
    stamp = stamp_of(study, profile)
    good = table[table["status"] == "ok"]
    biases = combined(good)
    verdicts = judged(biases)
    figure = bias_figure(biases, verdicts, closed_forms(study), study.title)
    files = save(figure, biases, folder, f"{profile}-bias", stamp)
    counts = verdicts["verdict"].value_counts()
    headline = (
        f"{study.name}: of {len(verdicts)} samplers {counts.get('consistent', 0)} are consistent "
        f"with theory, {counts.get('inconsistent', 0)} inconsistent, "
        f"{counts.get('inconclusive', 0)} inconclusive. {int((table['status'] != 'ok').sum())} of "
        f"{len(table)} cells failed."
    )
    return Rendered(files, verdicts.drop(columns=["slope", "intercept"]), headline)


def combined(table: pd.DataFrame) -> pd.DataFrame:
    """Bias by arm and step over replicates, with its standard error.

    Returns
    -------
    DataFrame
        Columns arm, target, sampler, noise_variance, order, step_size, bias, error, predicted.
    """
    keys = ["arm", "target", "sampler", "noise_variance", "order", "step_size"]
    groups = table.groupby(keys, sort=False)
    return groups.agg(
        bias=("bias", "mean"),
        error=("standard_error", lambda e: float(np.sqrt((e**2).sum()) / len(e))),
        predicted=("predicted", "first"),
    ).reset_index()


def judged(biases: pd.DataFrame) -> pd.DataFrame:
    """A verdict for each arm; see the module's docstring.

    Parameters
    ----------
    biases : DataFrame
        As `combined` returns it, at two steps at least.

    Returns
    -------
    DataFrame
        Columns arm, order, steps, deviation (of what is tested, in standard errors, the largest),
        control (that of what is wrong on purpose), verdict, order_seen with order_error, its
        standard error, and intercept and slope of the line.
    """
    from scipy.special import ndtri

    rows = []
    for arm, part in biases.groupby("arm", sort=False):
        b, error, order = part["bias"], part["error"], int(part["order"].iloc[0])
        line = seen = (np.nan, np.nan)
        if part["predicted"].notna().all():
            theory = part["predicted"]
            deviation = float((abs(b - theory) / error).max())
            wrong = 2 * theory if (theory != 0).any() else 0.02 + theory
            control = float((abs(b - wrong) / error).max())
            bound = -float(ndtri(LEVEL / 2 / len(part)))
        else:
            line, spread = fitted(part["step_size"].to_numpy() ** order, b, error)
            deviation = abs(line[0]) / spread
            control = abs(line[0] - float(b.mean())) / spread
            bound = -float(ndtri(LEVEL / 2))
            seen = order_seen(part["step_size"].to_numpy(), b.to_numpy(), error.to_numpy())
        verdict = "consistent" if deviation < bound else "inconsistent"
        if verdict == "consistent" and control < bound:
            verdict = "inconclusive"
        rows.append(
            {
                "arm": arm,
                "order": order,
                "steps": len(part),
                "deviation": deviation,
                "control": control,
                "verdict": verdict,
                "order_seen": seen[0],
                "order_error": seen[1],
                "intercept": line[0],
                "slope": line[1],
            }
        )
    return pd.DataFrame(rows)


def closed_forms(study: Any) -> pd.DataFrame:
    """Biases by the closed forms on a grid of steps; columns arm, step_size, bias."""
    from experiments.kinds.sampler_bias import closed_form

    rows = [
        {"arm": name, "step_size": step, "bias": closed_form(arm, step) - 1 / arm.precision}
        for name, arm in study.setting.arms.items()
        if arm.target == "gaussian"
        for step in np.linspace(0, 1.05 * arm.step_size, 60)
    ]
    return pd.DataFrame(rows, columns=["arm", "step_size", "bias"])


def fitted(x: np.ndarray, y: Any, error: Any) -> tuple[tuple[float, float], float]:
    """Weighted least squares of y on 1 and x: (intercept, slope) and the intercept's error.

    Examples
    --------
    >>> fitted(np.array([1.0, 2.0]), np.array([3.0, 5.0]), np.array([1.0, 1.0]))[0]
    (1.0, 2.0)
    """
    w = 1 / np.asarray(error) ** 2
    design = np.stack([np.ones_like(x), x], 1)
    covariance = np.linalg.inv(design.T * w @ design)
    intercept, slope = covariance @ (design.T * w @ np.asarray(y))
    return (round(float(intercept), 12), round(float(slope), 12)), float(covariance[0, 0] ** 0.5)


def order_seen(steps: np.ndarray, biases: np.ndarray, errors: np.ndarray) -> tuple[float, float]:
    """The power p of c step^p by weighted least squares, and its standard error; NaN unless biases
    at two steps are beyond two standard errors.

    Examples
    --------
    >>> steps = np.array([0.4, 0.2, 0.1])
    >>> p, error = order_seen(steps, 3 * steps**2, np.full(3, 0.01))
    >>> round(p, 6), round(error, 2)
    (2.0, 0.11)
    """
    from scipy.optimize import curve_fit

    if np.sum(np.abs(biases) > 2 * errors) < 2:
        return np.nan, np.nan
    scaled = steps / steps.max()
    start = biases[scaled.argmax()], 1.5
    (_, power), covariance = curve_fit(
        lambda x, c, p: c * x**p, scaled, biases, start, errors, absolute_sigma=True
    )
    return float(power), float(covariance[1, 1] ** 0.5)


def bias_figure(
    biases: pd.DataFrame, verdicts: pd.DataFrame, curves: pd.DataFrame, title: str
) -> Figure:
    """Biases with theory's lines, a panel an arm.

    Parameters
    ----------
    biases, verdicts, curves : DataFrame
        As `combined`, `judged` and `closed_forms` return them.
    """
    from matplotlib.figure import Figure

    arms = list(verdicts["arm"])
    n_rows = -(-len(arms) // N_COLUMNS)
    with style():
        figure = Figure(figsize=(2.5 * N_COLUMNS + 0.4, 2.1 * n_rows + 0.8))
        axes = figure.subplots(n_rows, N_COLUMNS, squeeze=False).ravel()
        rows: Iterator[Any] = verdicts.itertuples()
        for ax, verdict in zip(axes, rows, strict=False):
            arm = verdict.arm
            _draw(ax, biases[biases["arm"] == arm], verdict, curves[curves["arm"] == arm])
        for ax in axes[len(arms) :]:
            ax.set_visible(False)
        for i, ax in enumerate(axes[: len(arms)]):
            if i % N_COLUMNS == 0:
                ax.set_ylabel("bias, $\\pm$ 2 standard errors")
            if i + N_COLUMNS >= len(arms):
                ax.set_xlabel("step size")
        handles = {
            name: handle
            for ax in axes[: len(arms)]
            for handle, name in zip(*ax.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=3)
        figure.suptitle(title, fontsize=11)
    return figure


def _draw(ax: Axes, part: pd.DataFrame, verdict: Any, curve: pd.DataFrame) -> None:
    steps = np.linspace(0, 1.08 * part["step_size"].max(), 100)
    if np.isfinite(verdict.slope):
        line = verdict.intercept + verdict.slope * steps**verdict.order
        ax.plot(steps, line, color="0.25", ls="--", label="fit of the stated order")
        ax.plot(0, verdict.intercept, "_", color="0.25", ms=9)
    else:
        ax.plot(curve["step_size"], curve["bias"], color=COLOURS[1], label="closed form")
    ax.axhline(0, color="0.6", lw=0.8)
    ax.errorbar(
        part["step_size"],
        part["bias"],
        2 * part["error"],
        fmt="o",
        color=COLOURS[0],
        ms=3.5,
        elinewidth=0.9,
        label="measured",
    )
    seen = ""
    if np.isfinite(verdict.order_seen):
        seen = rf" (seen: {verdict.order_seen:.2f} $\pm$ {verdict.order_error:.2f})"
    ax.set_title(f"{verdict.arm}\norder {verdict.order}{seen}", fontsize=8)
    ax.margins(y=0.15)

"""Where the distance goes that a fitted family keeps from the truth: to a level or to 0.

Left: Hellinger distance of the maximum-likelihood fits over n, beside the smallest distance that
the family has near the truth's atoms and anywhere. Fits level off above the smallest distance: they
go to the model closest in Kullback-Leibler divergence, which is further off in this one.

Right, for a family that attains the truth only away from its atoms: gate probabilities of the
closest model near them and of the closest of all, over those of the truth. Near them the mass of a
true expert is shared by its copies; a gate that selects one copy at each x then gives it too
little. Anywhere, each copy carries the whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from experiments.kinds.rates import RatesSetting, template
from experiments.simulation import truth
from moe_stats import GaussianMoE
from moe_stats.plots import COLOURS, LINES, MARKERS
from theory.assessment import attainment
from theory.attainable import ATTAINED

from .rates import finish
from .style import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLACES = {"near": ("near the truth's atoms", "--"), "everywhere": ("anywhere", ":")}
"""What is said of each infimum, and its line."""

_N_POINTS = 400


def levels_figure(
    distances: pd.DataFrame, gates: pd.DataFrame, attainable: dict[str, Any], title: str
) -> Figure:
    """Distances by arm with their levels, then gate probabilities of the closest models.

    Parameters
    ----------
    distances, gates : DataFrame
        As `levels` and `closest_gates` return them.
    attainable : dict of str to dict
        What the study's kind prepared of each arm.
    """
    from matplotlib.figure import Figure

    shown = list(gates[["arm", "place"]].drop_duplicates().itertuples(index=False))
    with style():
        figure = Figure(figsize=(4.6 + 3.2 * len(shown), 4.4))
        ratios = [1.3, *[1.0] * len(shown)]
        axes = figure.subplots(1, len(ratios), squeeze=False, width_ratios=ratios)[0]
        for i, (arm, rows) in enumerate(distances.groupby("arm", sort=False)):
            _draw_distance(axes[0], rows, str(arm), attainable.get(str(arm), {}), i)
        finish(axes[0], "Hellinger distance of the fits", "E h, median and middle 80%")
        for ax, (arm, place) in zip(axes[1:], shown, strict=True):
            rows = gates[(gates["arm"] == arm) & (gates["place"] == place)]
            _draw_gates(ax, rows)
            ax.set_title(_heading(arm, place, rows, attainable[arm]), fontsize=9)
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
        figure.suptitle(title, fontsize=11)
    return figure


def levels(table: pd.DataFrame) -> pd.DataFrame:
    """Arm, n, low, median and high: the middle 80% of Hellinger distances."""
    found = table.groupby(["arm", "n"], sort=False)["hellinger"].quantile(np.array([0.1, 0.5, 0.9]))
    return found.unstack().set_axis(["low", "median", "high"], axis=1).reset_index()


def closest_gates(setting: RatesSetting, attainable: dict[str, Any]) -> pd.DataFrame:
    """Gate probabilities of the closest models of arms that attain the truth only away from it.

    Returns
    -------
    DataFrame
        Columns arm, place ("near" or "everywhere"), x, expert and cell (from 1), copy (from 1 in
        its cell), mass (of the cell, over the true one), probability and true_probability (of the
        cell's expert). Empty for more than one feature.
    """
    columns = ["arm", "place", "x", "expert", "cell", "copy", "mass", "probability"]
    frames: list[pd.DataFrame] = []
    if setting.design.n_features == 1:
        frames = [
            _gates_of(setting, arm, place, found["models"][place], found["cells"][place])
            for arm, found in attainable.items()
            if attainment(found) == "everywhere"
            for place in PLACES
            if found["models"][place] is not None
        ]
    return pd.concat(frames) if frames else pd.DataFrame(columns=[*columns, "true_probability"])


def _gates_of(
    setting: RatesSetting, arm: str, place: str, params: list[float], cells: list[int]
) -> pd.DataFrame:
    import torch

    true, gate = truth(setting), template(setting, arm)
    flat = torch.tensor(params, dtype=torch.float64)
    model = GaussianMoE.from_params(flat, gate, setting.n_experts)
    x = torch.linspace(setting.design.low, setting.design.high, _N_POINTS, dtype=torch.float64)
    probs, true_probs = (m.gate_probs(x[:, None]).numpy() for m in (model, true))
    mass = _cell_masses(model, true, cells)
    parts = []
    for e, j in enumerate(cells):
        part = {"x": x.numpy(), "probability": probs[:, e], "true_probability": true_probs[:, j]}
        names = {"expert": e + 1, "cell": j + 1, "copy": cells[:e].count(j) + 1}
        parts.append(pd.DataFrame({"arm": arm, "place": place, **names, "mass": mass[j], **part}))
    return pd.concat(parts)


def _cell_masses(model: GaussianMoE, true: GaussianMoE, cells: list[int]) -> list[float]:
    """Mass of each cell over the true one, at the level where cells with one atom fit best."""
    log_mass = np.full(true.n_experts, -np.inf)
    np.logaddexp.at(log_mass, cells, model.gate.atoms()[0].numpy())
    ratio = log_mass - true.gate.atoms()[0].numpy()
    single = [j for j in set(cells) if cells.count(j) == 1] or sorted(set(cells))
    return np.exp(ratio - np.mean(ratio[single])).tolist()


def _draw_distance(
    ax: Axes, rows: pd.DataFrame, arm: str, found: dict[str, Any], place: int
) -> None:
    colour, n = COLOURS[place], rows["n"].to_numpy(dtype=float)
    ax.fill_between(n, rows["low"], rows["high"], color=colour, alpha=0.18, lw=0)
    ax.plot(n, rows["median"], MARKERS[place], ls="-", color=colour, label=f"{arm}: fits")
    for key, (words, line) in PLACES.items():
        least = found.get(key)
        if least is not None and least > ATTAINED:
            label = f"{arm}: least {words}, {least:.2g}"
            ax.axhline(least, color=colour, ls=line, lw=1.1, label=label)
    if attainment(found) != "nowhere":
        reference = rows["median"].iloc[-1] * (n / n[-1]) ** -0.5
        ax.plot(n, reference, "-.", color="0.25", lw=1.0, label=f"{arm}: $n^{{-0.5}}$")


def _draw_gates(ax: Axes, rows: pd.DataFrame) -> None:
    """The truth in pale broad lines, fitted experts over it, gaps where they are not selected."""
    for cell, same in rows.groupby("cell"):
        colour = COLOURS[int(str(cell)) - 1]
        first = same[same["copy"] == 1]
        ax.plot(
            first["x"],
            first["true_probability"].where(first["true_probability"] > 0),
            color=colour,
            alpha=0.25,
            lw=6,
            label=f"true {cell}",
        )
        for copy, part in same.groupby("copy"):
            name = f"fitted at {cell}" + (f", copy {copy}" if same["copy"].max() > 1 else "")
            ax.plot(
                part["x"],
                part["probability"].where(part["probability"] > 0),
                color=colour,
                ls=LINES[int(str(copy)) - 1],
                lw=1.6,
                label=name,
            )
    ax.set(xlabel="feature $x$", ylabel="gate probability", ylim=(-0.03, 1.03))


def _heading(arm: str, place: str, rows: pd.DataFrame, found: dict[str, Any]) -> str:
    mass = rows.groupby("cell")["mass"].first()
    listed = ", ".join(f"{m:.2f}" for m in mass)
    least = f"{found[place]:.2g}" if found[place] > ATTAINED else f"below {ATTAINED:g}"
    return f"{arm}, closest {PLACES[place][0]}: E h {least}\nmass of cells over the true: {listed}"

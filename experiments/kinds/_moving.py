"""Truths that move with n: the intercepts and variances of some experts tend to those stated.

As n grows they do so as n^-a and n^-2a times a direction each. Theorems about a fixed truth, and
their losses, say nothing of it: deviations are those from the truth of its own n, expert by expert.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from pydantic import Field

from experiments.kinds import SettingModel
from experiments.simulation import Vector, truth


class MovingSetting(SettingModel):
    """How the truth depends on n: an intercept is that of the setting plus n^-exponent times its
    direction, a variance plus n^(-2 exponent) times its own. Experts with a direction of 0 in both
    stay."""

    exponent: float = Field(gt=0, le=1)
    intercept: Vector
    variance: Vector


def truth_at(setting: Any, n: int) -> Any:
    """The true `moe_stats.GaussianMoE` behind n observations."""
    moving, t = setting.moving, setting.truth
    if moving is None:
        return truth(setting)
    size = n**-moving.exponent
    intercept = np.array(t.intercept) + size * np.array(moving.intercept)
    variance = np.square(t.scale) + size**2 * np.array(moving.variance)
    there = {"intercept": tuple(intercept), "scale": tuple(np.sqrt(variance))}
    return truth(setting.model_copy(update={"truth": t.model_copy(update=there)}))


def check_moving(setting: Any) -> None:
    """Refuse a `RatesSetting` whose directions do not fit its truth."""
    moving, t = setting.moving, setting.truth
    if not len(moving.intercept) == len(moving.variance) == len(t.intercept) == setting.n_experts:
        raise ValueError(
            f"moving 'intercept' and 'variance' must have {setting.n_experts} directions, for as "
            f"many true experts as fitted ones; got {len(moving.intercept)} and "
            f"{len(moving.variance)} with {len(t.intercept)} true experts"
        )
    if all(map(any, zip(moving.intercept, moving.variance, strict=True))):
        raise ValueError("moving 'intercept' and 'variance' must be 0 for an expert that stays")
    if t.gate.name != "softmax" or setting.fitted_gate.name != "softmax":
        raise ValueError(f"a 'moving' truth must have a softmax gate; got {t.gate.name!r}")
    if min(s**2 + v for s, v in zip(t.scale, moving.variance, strict=True)) <= 0:
        raise ValueError("moving 'variance' must leave every variance positive at n = 1")


def of_a_fixed_truth(loss: Any) -> set[str]:
    """Columns of a loss but those that say how its cells are filled."""
    return {"mass_deviation", *loss.columns()} - {"n_single", "n_multi", "n_empty", "cell_sizes"}


def moving_deviations(model: Any, true: Any, moving: MovingSetting) -> dict[str, list[float]]:
    """Largest deviations of each group of parameters over the experts that move and over those that
    stay. Fitted experts are matched with true ones so that the sum of the experts' deviations is
    least; gate slopes are compared less their mean over the experts that stay."""
    import torch

    fitted, wanted = _parts(model), _parts(true)
    orders = torch.tensor(list(itertools.permutations(range(true.n_experts))))
    gaps = sum((fitted[g][:, orders] - wanted[g]).abs().sum((-2, -1)) for g in wanted)
    order = orders[gaps.argmin(-1)]  # (R, E)
    moves = torch.tensor(moving.intercept).ne(0) | torch.tensor(moving.variance).ne(0)
    row = torch.arange(len(order))[:, None]
    off = model.gate.slope[row, order] - true.gate.slope
    deviations = {g: (fitted[g][row, order] - wanted[g]).abs().amax(-1) for g in wanted}
    columns = {
        f"{g}_{name}_deviation": d[:, experts].amax(-1).tolist()
        for g, d in deviations.items()
        for name, experts in (("moving", moves), ("staying", ~moves))
    }
    gate = (off - off[:, ~moves].mean(-2, keepdim=True)).abs().amax(-1)
    return {**columns, "gate_slope_moving_deviation": gate[:, moves].amax(-1).tolist()}


def _parts(model: Any) -> dict[str, Any]:
    """Parameters of experts (..., E, dim) by group."""
    e = model.experts
    return {
        "slope": e.slope,
        "intercept": e.intercept.unsqueeze(-1),
        "variance": e.scale.square().unsqueeze(-1),
    }

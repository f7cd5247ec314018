r"""Convergence and temperature of a run, and what they mean.

With :math:`\pi \propto e^{-U/T}` each coordinate has, by partial integration,

.. math:: E[(q_i - c)\,\partial_i U] = T \qquad \text{and} \qquad E[p_i^2/m_i] = T

for any constant c: the configurational and the kinetic temperature. A run whose temperatures
differ from T samples another law: step too large, gradient noise that is not accounted for, or
chains that have not arrived. Gradients of batches serve as well, since their noise is
independent of the position they are taken at.

References
----------
Vehtari, Gelman, Simpson, Carpenter, Buerkner (2021), Rank-normalization, folding, and localization.
Wenzel et al. (2020), How good is the Bayes posterior in deep neural networks really?, appendix I.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from kernels.checks import check_choice

from .._validation import check_instance
from .draws import ChainDraws

RHAT_LIMIT = 1.05
ESS_A_CHAIN = 50
TEMPERATURE_TOLERANCE = 0.1
"""Relative deviation from T that `diagnose` lets pass."""

MIN_DRAWS = 8
"""Draws of a chain below which nothing is said."""


@dataclass(frozen=True)
class BlockTemperature:
    """Temperatures of a block of parameters, with standard errors across chains (NaN for one)."""

    kinetic: float | None
    kinetic_error: float
    configurational: float
    configurational_error: float


@dataclass(frozen=True)
class TemperatureReport:
    """Temperatures by block; ``target`` is T, None if it followed a schedule."""

    target: float | None
    blocks: Mapping[str, BlockTemperature]

    def __str__(self) -> str:
        lines = [f"{'block':24s} {'kinetic':>16s} {'configurational':>18s}   target {self.target}"]
        for name, block in self.blocks.items():
            kinetic = "-"
            if block.kinetic is not None:
                kinetic = f"{block.kinetic:.3f} ± {block.kinetic_error:.3f}"
            position = f"{block.configurational:.3f} ± {block.configurational_error:.3f}"
            lines.append(f"{name:24s} {kinetic:>16s} {position:>18s}")
        return "\n".join(lines)


def rhat(draws: Tensor) -> Tensor:
    """Rank-normalised split R-hat of draws (C, S, P), (P,); NaN below `MIN_DRAWS` draws."""
    return _by_parameter("rhat", draws, method="rank")


def ess(draws: Tensor, method: Literal["bulk", "mean", "tail"] = "bulk") -> Tensor:
    """Effective sample size of draws (C, S, P), (P,); NaN below `MIN_DRAWS` draws."""
    check_choice("method", method, ("bulk", "mean", "tail"))
    return _by_parameter("ess", draws, method=method)


def temperatures(run: ChainDraws) -> TemperatureReport:
    """Kinetic and configurational temperature by block, over the chains kept.

    The constant c of the configurational temperature is `mean_of_others`. A chain's own mean would
    make it too low by one part in its effective sample size, however small the step.
    """
    kept = run._some_kept()
    sums = run.moments
    count = sums.count[kept]
    product = sums.product[kept] / count
    centre = mean_of_others(sums.position[kept] / count)
    centred = product - centre * sums.gradient[kept] / count
    kinetic = sums.kinetic[kept] / count if sums.has_kinetic else None
    blocks = {}
    for name, part in (run.names or {"all": slice(None)}).items():
        if part.start is not None and part.start >= product.shape[1]:
            continue  # drawn by Gibbs steps
        at_rest, its_error = _mean_and_error(centred[:, part])
        moving: tuple[float | None, float] = (None, math.nan)
        if kinetic is not None:
            moving = _mean_and_error(kinetic[:, part])
        blocks[name] = BlockTemperature(*moving, at_rest, its_error)
    return TemperatureReport(run.temperature, blocks)


def mean_of_others(
    means: Tensor,  # (..., C, P)
) -> Tensor:  # (..., C, P)
    """For each chain the mean of the other chains' means; its own where there is one chain.

    Examples
    --------
    >>> mean_of_others(torch.tensor([[1.0], [2.0], [6.0]])).flatten()
    tensor([4.0000, 3.5000, 1.5000])
    """
    n_others = means.shape[-2] - 1
    return (means.sum(-2, keepdim=True) - means) / n_others if n_others else means


def diagnose(run: ChainDraws, *, parameters: bool = True) -> list[str]:
    """Sentences on what is wrong with a run, the gravest first.

    Without ``parameters`` the convergence of single parameters and of batches' potentials is not
    judged, as suits a network whose weights can be permuted.
    """
    said = [str(d) for d in run.divergences]
    if not run.kept:
        return [*said, "No chain is left: nothing was sampled."]
    if run.divergences:
        said.append(
            f"{len(run.divergences)} of {len(run.draws)} chains were stopped and are left out of "
            f"summaries; what the others say may be biased towards where chains survive."
        )
    if run.interrupted:
        said.append(f"The run was interrupted: it has {run.draws.shape[1]} draws a chain.")
    said += run.faults
    if run.draws.shape[1] < MIN_DRAWS:
        return [*said, f"A chain has {run.draws.shape[1]} draws: too few to judge convergence."]
    return said + (_on_convergence(run) if parameters else []) + _on_temperature(run)


def _on_convergence(run: ChainDraws) -> list[str]:
    said = []
    kept = run.kept
    values = run.potential[kept][..., None]
    r, r_potential = rhat(run.draws[kept]), float(rhat(values)[0])
    above = int((r > RHAT_LIMIT).sum())
    if len(kept) == 1:
        said.append("There is one chain: whether others would agree is not known.")
    if r_potential > RHAT_LIMIT or above:
        said.append(
            f"Chains disagree: split R-hat is {r_potential:.2f} for the potential, and above "
            f"{RHAT_LIMIT} for {above} of {len(r)} parameters (largest {float(r.max()):.2f}). Run "
            f"longer; in networks, whose weights can be permuted, look at predictions instead."
        )
    n = float(ess(values)[0])
    if n < ESS_A_CHAIN * len(kept):
        said.append(
            f"The potential has an effective sample size of {n:.0f} in {len(kept)} chains, below "
            f"{ESS_A_CHAIN} a chain: R-hat and errors are unreliable."
        )
    return said


def _on_temperature(run: ChainDraws) -> list[str]:
    report = run.temperatures()
    if report.target is None or report.target == 0:
        return []
    said = []
    for name, block in report.blocks.items():
        pairs = [("configurational", block.configurational, block.configurational_error)]
        if block.kinetic is not None:
            pairs.append(("kinetic", block.kinetic, block.kinetic_error))
        for kind, value, error in pairs:
            off = abs(value - report.target)
            if off > TEMPERATURE_TOLERANCE * report.target and not off < 4 * error:
                direction = "hot" if value > report.target else "cold"
                said.append(
                    f"Block {name!r} is too {direction}: its {kind} temperature is {value:.3g} ± "
                    f"{error:.2g} and should be {report.target:.3g}. {_CURE[direction]}"
                )
    return said


_CURE = {
    "hot": "Take a smaller step size, larger batches, or more friction.",
    "cold": "Chains may not have arrived, or noise was over-estimated; run longer, or take a "
    "smaller step size.",
}


def _mean_and_error(values: Tensor) -> tuple[float, float]:
    by_chain = values.mean(1)
    error = by_chain.std() / len(by_chain) ** 0.5 if len(by_chain) > 1 else torch.tensor(math.nan)
    return float(by_chain.mean()), float(error)


def _by_parameter(statistic: str, draws: Tensor, **options: Any) -> Tensor:
    from arviz_stats.base import array_stats

    check_instance("draws", draws, Tensor, "a tensor (C, S, P)")
    if draws.ndim != 3 or not len(draws) or draws.is_complex():
        raise ValueError(
            f"The 'draws' parameter must be real numbers (C, S, P); got shape {tuple(draws.shape)}."
        )
    if draws.shape[1] < MIN_DRAWS:
        return torch.full(draws.shape[2:], torch.nan, dtype=torch.float64)
    values = draws.detach().cpu().double().numpy()
    result = getattr(array_stats, statistic)(values, chain_axis=0, draw_axis=1, **options)
    return torch.from_numpy(np.atleast_1d(np.asarray(result, dtype=np.float64)))

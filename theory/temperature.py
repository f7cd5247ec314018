r"""What a gate with a temperature gets wrong: tau, its slopes b1, and b1 / tau, apart.

Slopes are compared atom by atom in cells of one atom. Where the gate leaves a common shift of all
slopes open, it is the differences between atoms that are compared.
"""

from __future__ import annotations

import torch
from torch import Tensor

from moe_stats import GaussianMoE
from moe_stats.gates import Gate


def temperature_deviations(
    model: GaussianMoE,
    truth: GaussianMoE,
    cells: Tensor,  # (..., E)
) -> dict[str, Tensor]:
    """Deviations of the temperature and of the gate slopes, as they are and over the temperature.

    Parameters
    ----------
    model : GaussianMoE
        E experts, one model or a batch.
    truth : GaussianMoE
        J experts, a single model.
    cells : Tensor
        (..., E), the true atom that each fitted one belongs to (`VoronoiLoss.cells`).

    Returns
    -------
    dict of str to Tensor
        "temperature_deviation", "raw_gate_slope_deviation" and "scaled_gate_slope_deviation", each
        (...,), the slopes' against the nearest of the truth's equivalents and NaN with fewer than
        two cells of one atom; empty where either gate has no temperature.

    Examples
    --------
    >>> from moe_stats import DenseToSparseGate, LinearExperts
    >>> experts = LinearExperts([[-1.0], [1.0]], [4.0, -4.0], [0.3, 0.4])
    >>> once, twice = (
    ...     GaussianMoE(DenseToSparseGate([0.0, 0.0], [[5.0 * c], [0.0]], 0.1 * c), experts)
    ...     for c in (1.0, 2.0)
    ... )
    >>> found = temperature_deviations(twice, once, torch.tensor([0, 1]))
    >>> [round(float(value), 9) for value in found.values()]
    [0.1, 5.0, 0.0]
    """
    fitted, true = (m.gate.raw_atoms()[1] for m in (model, truth))
    if "temperature" not in fitted or "temperature" not in true:
        return {}
    tau, true_tau = fitted["temperature"][..., 0, 0], true["temperature"][0, 0]
    sizes = torch.nn.functional.one_hot(cells, truth.n_experts).sum(-2)
    alone = sizes.gather(-1, cells) == 1
    shifts = "gate_slope" in truth.gate.translates
    raw, scaled = [], []
    for gate in (truth.gate, *truth.gate.equivalents()):
        own = gate.raw_atoms()[1]["gate_slope"][cells]
        raw.append(_largest(fitted["gate_slope"] - own, alone, shifts))
        over_tau = fitted["gate_slope"] / tau[..., None, None] - own / true_tau
        scaled.append(_largest(over_tau, alone, shifts))
    nearest = torch.stack(raw).nan_to_num(torch.inf).argmin(0, keepdim=True)
    return {
        "temperature_deviation": (tau - true_tau).abs(),
        "raw_gate_slope_deviation": torch.stack(raw).gather(0, nearest)[0],
        "scaled_gate_slope_deviation": torch.stack(scaled).gather(0, nearest)[0],
    }


def has_identified_temperature(gate: Gate) -> bool:
    """Whether the density determines the gate's temperature."""
    return "temperature" in gate.atoms()[1]


def _largest(
    gap: Tensor,  # (..., E, D)
    alone: Tensor,  # (..., E)
    shifts: bool,
) -> Tensor:
    """The largest norm of a gap, or of a difference of two; NaN with fewer than two to compare."""
    counted = alone.unsqueeze(-1) & alone.unsqueeze(-2)
    if shifts:
        norm = (gap.unsqueeze(-2) - gap.unsqueeze(-3)).norm(dim=-1)
    else:
        norm = gap.norm(dim=-1, keepdim=True).expand(counted.shape)
    largest = norm.masked_fill(~counted, 0.0).flatten(-2).amax(-1)
    return largest.masked_fill(alone.sum(-1) < 2, torch.nan)

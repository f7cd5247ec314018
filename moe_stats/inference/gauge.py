r"""What a gate leaves open: its invariances, and one gauge in which to report parameters.

Shifting all gate intercepts, or all gate slopes, by the same amount changes no probability of a
softmax gate, so only differences are identified. Reports use the *pinned gauge*, as the papers
do: the gate of a reference expert (the last one that ever speaks) is 0, and every other gate
parameter is its difference from the reference's. The gauge is linear, theta' = J theta.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.gating import GateForm, Layout, naive

from ..gates import Gate

RAY = 1e-9
"""Relative change of ranks up to which scaling a gate is taken to be exact."""


def shifted_places(gate: type[Gate], layout: Layout) -> list[list[int]]:
    """For each translation of the gate, the positions (one an expert) that shift together."""
    first_slope = layout.n_own - layout.n_features
    own = [0] if "log_weight" in gate.translates else []
    own += range(first_slope, layout.n_own) if "gate_slope" in gate.translates else []
    return [[e * layout.width + q for e in range(layout.n_experts)] for q in own]


def translations(gate: type[Gate], layout: Layout) -> Tensor:
    """The direction of each translation in the flat parameters; (T, P)."""
    places = shifted_places(gate, layout)
    directions = torch.zeros(len(places), layout.size, dtype=torch.float64)
    for direction, place in zip(directions, places, strict=True):
        direction[place] = 1.0
    return directions


def pinning(
    gate: type[Gate],
    layout: Layout,
    reference: Tensor,  # (R,) an expert a fit
) -> Tensor:
    """The matrix J of the pinned gauge; (R, P, P)."""
    fits = torch.arange(len(reference))
    matrix = torch.eye(layout.size, dtype=torch.float64).repeat(len(reference), 1, 1)
    for place in shifted_places(gate, layout):
        pinned = torch.tensor(place)[reference]
        for position in place:
            matrix[fits, position, pinned] -= 1.0
    return matrix


def in_gate(
    layout: Layout,
    own: Tensor,  # (..., E, Q)
    shared: Tensor,  # (..., Qs)
) -> Tensor:
    """The direction (..., P) in the flat parameters that moves the gate alone."""
    direction = own.new_zeros(*own.shape[:-2], layout.size, dtype=torch.float64)
    parts = layout.split(direction)
    parts[0].copy_(own)
    parts[4].copy_(shared)
    return direction


def scaling(
    params: Tensor,  # (P,)
    form: GateForm,
    x: Tensor,  # (D, N)
    layout: Layout,
) -> Tensor | None:
    """The direction (P,) that scales the gate's own parameters, where one expert is selected at a
    time, by ranks that scale with them, so that nothing changes; else None."""
    if not form.top_k == 1 < layout.n_experts:
        return None
    own, _, _, _, shared = layout.split(params)
    direction = in_gate(layout, own, torch.zeros_like(shared))
    rank = form.rank or form.score
    ranks = [rank(*naive.columns(p[None], x[None], layout)) for p in (params, params + direction)]
    return direction if torch.allclose(2 * ranks[0], ranks[1], rtol=RAY, atol=0) else None

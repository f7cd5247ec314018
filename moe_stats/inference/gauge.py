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
"""Relative change of scores up to which scaling a gate is taken to be exact."""


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


def scaling(
    params: Tensor,  # (P,)
    form: GateForm,
    x: Tensor,  # (D, N)
    layout: Layout,
) -> Tensor | None:
    """The direction (P,) that scales the gate's own parameters without changing any probability.

    Either shared parameters make up for it, as with (b0, b1, temperature), or one expert is
    selected at a time and its score plays no part. None where the gate has no such direction.
    """
    own, shared = layout.split(params)[0], layout.split(params)[4]
    direction = torch.zeros_like(params)
    layout.split(direction)[0].copy_(own)
    if form.top_k == 1 < layout.n_experts:
        rank = form.rank or form.score
        doubled = params + direction
        ranks = [rank(*naive.columns(p[None], x[None], layout)) for p in (params, doubled)]
        return direction if torch.allclose(2 * ranks[0], ranks[1], rtol=RAY, atol=0) else None
    if not len(shared):
        return None
    jacobian = naive.score_jacobian(params[None], form, x[None], layout)[0]  # (E, Q + Qs, N)
    scaled = torch.einsum("eq,eqn->en", own, jacobian[:, : layout.n_own]).reshape(-1, 1)
    by_shared = jacobian[:, layout.n_own :].transpose(1, 2).reshape(-1, layout.n_shared)
    move = torch.linalg.lstsq(by_shared, -scaled, driver="gelsd").solution
    if float((scaled + by_shared @ move).norm()) > RAY * float(scaled.norm()):
        return None
    layout.split(direction)[4].copy_(move.ravel())
    return direction

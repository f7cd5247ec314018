r"""Which gate parameters move a selection boundary of a top-K gate.

Across a boundary the density jumps, so a parameter that moves one is estimated near n^-1, like a
change point, and the Hessian says nothing about its error. Ranking by slope with one feature the
only boundary is x = 0, which no parameter moves.

The test is a step: each gate parameter in turn, up and down, by 2 / sqrt(N) of the typical margin
between the last expert selected and the first left out. Where a boundary crosses the data such a
step changes the selection of about sqrt(N) observations.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.gating import naive

from ..fit.problem import Problem


def boundary_parameters(
    problem: Problem,
    params: Tensor,  # (B, P)
    rows: Tensor,  # (B,)
) -> Tensor:
    """Whether each parameter moves a selection boundary among the data; (B, P)."""
    moves = torch.zeros_like(params, dtype=torch.bool)
    top_k = problem.form.top_k
    if top_k is None or top_k >= problem.n_experts:
        return moves
    layout, n = problem.layout, problem.n_observations
    gate = layout.gate_indices()
    models = max(1, naive.MAX_ELEMENTS // (layout.n_experts * n))
    for some in torch.arange(len(params)).split(models):
        theta, x = params[some], problem.x[rows[some]]
        ranks = _ranks(problem, theta, x)
        selected = naive.select(ranks, top_k)
        best = ranks.topk(top_k + 1, dim=-2).values
        margin = (best[:, -2] - best[:, -1]).square().mean(-1).sqrt()  # (b,)
        for place in gate:
            own = place % layout.width if place < layout.n_experts * layout.width else 0
            d = own - (layout.n_own - layout.n_features)
            size = x[:, d].square().mean(-1).sqrt() if d >= 0 else torch.ones_like(margin)
            step = 2 * margin / (n**0.5 * size)
            for sign in (-1.0, 1.0):
                moved = theta.clone()
                moved[:, place] += sign * step
                changed = naive.select(_ranks(problem, moved, x), top_k) != selected
                moves[some, place] |= changed.flatten(1).any(-1)
    return moves


def _ranks(problem: Problem, params: Tensor, x: Tensor) -> Tensor:
    """(B, E, N)."""
    own, shared, features = naive.columns(params, x, problem.layout)
    rank = problem.form.rank or problem.form.score
    return rank(own, shared, features).expand(-1, -1, x.shape[-1])

r"""Scores of single observations, and sums of their outer products.

.. math::
    \nabla \log p(y \mid x) = \sum_e (r_e - g_e) \nabla s_e + \sum_e r_e \nabla \log\phi_e,

with responsibilities r, gate probabilities g, gate scores s and expert densities phi.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.gating import Layout, naive

from ..fit.problem import Problem


def scores(point: naive.Terms, layout: Layout) -> Tensor:
    """The gradient of each observation's log density; (B, P, N)."""
    gradient = _over_experts(point.weighted_joint, layout.width)
    gradient[:, layout.gate_indices()] -= _over_experts(point.weighted_score, layout.n_own)
    return gradient


def score_products(
    problem: Problem,
    params: Tensor,  # (B, P)
    rows: Tensor,  # (B,)
) -> Tensor:
    """Sum over observations of score score'; (B, P, P).

    No temporary exceeds `kernels.gating.naive.MAX_ELEMENTS` numbers.
    """
    layout, n = problem.layout, problem.n_observations
    width = layout.n_experts * (layout.width + layout.n_shared)
    models = max(1, naive.MAX_ELEMENTS // (width * min(n, naive.MIN_CHUNK)))
    step = max(1, naive.MAX_ELEMENTS // (width * min(models, len(params))))
    total = params.new_zeros(len(params), layout.size, layout.size)
    for some in torch.arange(len(params)).split(models):
        theta, sets = params[some], rows[some]
        for start in range(0, n, step):
            part = slice(start, start + step)
            x, y = problem.x[sets, :, part], problem.y[sets, part]
            columns = scores(naive.terms(theta, problem.form, x, y, layout), layout)
            total[some] += columns @ columns.mT
    return total


def _over_experts(columns: Tensor, width: int) -> Tensor:
    """Own columns expert by expert, then shared ones summed: (B, E, width + Qs, N) to (B, ., N)."""
    own, shared = columns.tensor_split([width], dim=2)
    return torch.cat([own.flatten(1, 2), shared.sum(1)], dim=1)

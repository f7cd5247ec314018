r"""EM for a batch of models: from any start into the basin of a maximum.

The experts' M-step is exact; with the complete-data information I and the gradient g of the
observed likelihood it reads

.. math::
    \beta_e \leftarrow \beta_e + I_{\beta_e}^{-1} g_{\beta_e}, \qquad
    \sigma_e^2 \leftarrow \sigma_e^2\,
        \frac{\sum_n r_{en} z_{en}^2 - g_{\beta_e}' I_{\beta_e}^{-1} g_{\beta_e}}{\sum_n r_{en}},

and the gate's is one Newton step on its part of the EM objective (Lange 1995, A gradient
algorithm locally equivalent to the EM algorithm), halved until the likelihood does not fall.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.gating import Evaluation

from .problem import Problem, weights_hold

_RIDGE = 1e-9
"""Relative ridge: leaves the gate's invariant directions alone."""


@dataclass(frozen=True)
class EMResult:
    """Where EM stopped: parameters (B, P), values (B,), iterations (B,), converged (B,)."""

    params: Tensor
    value: Tensor
    n_iter: Tensor
    converged: Tensor


def em(
    problem: Problem,
    params: Tensor,  # (B, P)
    rows: Tensor,  # (B,)
    *,
    tol: float,
    max_iter: int,
) -> EMResult:
    """Run EM until the log-likelihood gains less than ``tol`` nats an iteration."""
    low, high = problem.bounds(rows)
    current = torch.clamp(params, low, high)
    n_iter = torch.zeros(len(params), dtype=torch.long)
    converged = torch.zeros(len(params), dtype=torch.bool)
    active = torch.arange(len(params))
    at = problem.evaluate(current, rows, "information")
    value = at.value.clone()
    step = torch.ones_like(value)  # of the gate
    for _ in range(max_iter):
        experts, gate = m_step(problem, current[active], at)
        proposal = current[active] + experts + step[active, None] * gate
        proposal = torch.clamp(proposal, low[active], high[active])
        new = problem.evaluate(proposal, rows[active], "information")
        fell = ~(new.value >= value[active] - 1e-12 * value[active].abs())  # NaN falls too
        fell |= ~weights_hold(problem, proposal, rows[active])
        stuck = fell & (step[active] < 1e-4)
        step[active] = torch.where(fell, step[active] / 2, (2 * step[active]).clamp(max=1.0))
        n_iter[active] += 1
        gain = torch.where(fell, torch.inf, new.value - value[active])
        took = active[~fell]
        current[took] = proposal[~fell]
        value[took] = new.value[~fell]
        done = (gain < tol) | stuck
        converged[active[gain < tol]] = True
        at = at.where(fell, new)
        if bool(done.all()):
            break
        active, at = active[~done], at.take(~done)
    return EMResult(current, value, n_iter, converged)


def m_step(
    problem: Problem,
    params: Tensor,  # (B, P)
    at: Evaluation,
) -> tuple[Tensor, Tensor]:
    """Changes (B, P) of expert and of gate parameters; see the module's docstring."""
    layout, held = problem.layout, problem.held
    assert at.gradient is not None
    assert at.information is not None
    experts, gate = torch.zeros_like(params), torch.zeros_like(params)
    for e in range(problem.n_experts):
        mean = [place for place in layout.mean_indices(e) if not held[place]]
        scale = layout.scale_index(e)
        g = at.gradient[:, mean]
        block = at.information[:, mean][:, :, mean]
        step = ridge_solve(block, g)
        mass = (at.information[:, scale, scale] / 2).clamp(min=1e-300)
        mean_square = (at.gradient[:, scale] - (g * step).sum(-1)) / mass + 1
        experts[:, mean] = step
        experts[:, scale] = 0.5 * torch.log(mean_square.clamp(min=1e-300))
    places = layout.gate_indices()
    gate[:, places] = ridge_solve(at.information[:, places][:, :, places], at.gradient[:, places])
    if layout.n_shared:  # a shared parameter is a logarithm: no farther than a factor e
        farthest = gate[:, -layout.n_shared :].abs().amax(-1, keepdim=True)
        gate = gate / farthest.clamp(min=1.0)
    return experts, gate


def ridge_solve(
    matrix: Tensor,  # (B, P, P), positive semidefinite
    right: Tensor,  # (B, P)
) -> Tensor:
    """Solve with a small ridge relative to the diagonal; (B, P). A matrix that is singular all the
    same, as the rounding left of the information of a gate in steps may be, gives 0."""
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)
    scale = torch.rsqrt(diagonal.clamp(min=1e-12 * diagonal.amax(-1, keepdim=True) + 1e-300))
    scaled = matrix * scale.unsqueeze(-1) * scale.unsqueeze(-2)
    scaled = scaled + _RIDGE * torch.eye(matrix.shape[-1], dtype=matrix.dtype)
    solution, failed = torch.linalg.solve_ex(scaled, scale * right)
    return (scale * solution).masked_fill(failed.unsqueeze(-1) != 0, 0.0)

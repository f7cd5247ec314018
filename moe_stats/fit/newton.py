r"""Newton's method for a batch of constrained maximum-likelihood problems.

A trust region in standard-error units (each coordinate scaled by the square root of its
complete-data information) on the exact Hessian, whose eigenvalues enter by absolute value, so
saddles repel. Simple bounds are handled by projection: a coordinate at its bound whose gradient
points outward is held there. The lower bound on mean gate probabilities m_e is handled by a
primal-dual interior point: with slacks s_e = m_e - omega and multipliers lambda_e,

.. math::
    \Bigl(\nabla^2\ell + \sum_e \lambda_e \nabla^2 m_e
          - \sum_e \frac{\lambda_e}{s_e} \nabla m_e \nabla m_e'\Bigr)\, \Delta
    = -\Bigl(\nabla\ell + \sum_e \frac{\mu}{s_e} \nabla m_e\Bigr),

the barrier parameter mu falling to `FINAL_BARRIER` nats. A weight that binds stays mu / lambda
above its bound and costs about mu nats; a smaller mu would lose its slack to rounding.

References
----------
Bertsekas (1982), Projected Newton methods for optimization problems with simple constraints.
Nocedal and Wright (2006), Numerical Optimization, chapters 4 and 19.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .problem import Problem

FIRST_BARRIER = 1e-1
FINAL_BARRIER = 1e-7
_ACCEPT = 1e-4
_TO_THE_BOUND = 0.99
"""Share of a weight's slack that a step may use up, by the weight's gradient."""
_UPWARD = 1e-3
"""Upward curvature, relative to the complete-data information, that a run has to follow."""
_FLAT = 1e-9
"""Curvature, relative to the complete-data information, below which a direction is flat."""


@dataclass(frozen=True)
class NewtonResult:
    """Where Newton's method stopped.

    Attributes
    ----------
    params : Tensor
        (B, P).
    value : Tensor
        (B,) log-likelihoods, without barrier.
    scaled_gradient : Tensor
        (B,) largest gradient of the Lagrangian over the free coordinates, each in units of its
        complete-data standard error.
    n_iter : Tensor
        (B,).
    converged, stalled : Tensor
        (B,) whether the scaled gradient met the tolerance; whether the trust region shrank to
        nothing first, as it does at a jump of the likelihood.
    """

    params: Tensor
    value: Tensor
    scaled_gradient: Tensor
    n_iter: Tensor
    converged: Tensor
    stalled: Tensor


@dataclass
class _Point:
    """Objective and derivatives, barrier included, at the current parameters."""

    value: Tensor  # (B,) likelihood
    objective: Tensor  # (B,) likelihood and barrier; -inf outside
    gradient: Tensor  # (B, P)
    hessian: Tensor  # (B, P, P)
    scale: Tensor  # (B, P) square root of the complete-data information
    slack: Tensor | None = None  # (B, E)
    jacobian: Tensor | None = None  # (B, E, P)

    def take(self, keep: Tensor) -> _Point:
        kept: dict[str, Any] = {name: v if v is None else v[keep] for name, v in vars(self).items()}
        return _Point(**kept)

    def replace(self, where: Tensor, other: _Point) -> None:
        for mine, others in zip(vars(self).values(), vars(other).values(), strict=True):
            if mine is not None:
                mine[where] = others[where]


def newton(
    problem: Problem,
    params: Tensor,  # (B, P)
    rows: Tensor,  # (B,)
    *,
    tol: float,
    max_iter: int,
    gain: float = 0.0,
    first_barrier: float = FIRST_BARRIER,
) -> NewtonResult:
    """Maximise from each start until the scaled gradient is at most ``tol``.

    With a positive ``gain`` the barrier falls to that many nats only, and a run ends there where
    the quadratic model has no direction that curves upwards and promises less than ``gain``,
    however far away along a flat direction its maximum may be.
    """
    low, high = problem.bounds(rows)
    batch = len(params)
    out = torch.clamp(params, low, high)
    constrained = problem.min_weight > 0
    last_barrier = max(gain, FINAL_BARRIER)
    barrier = torch.full((batch,), first_barrier if constrained else 0.0, dtype=out.dtype)
    dual = torch.zeros(batch, problem.n_experts, dtype=out.dtype)
    radius = torch.full((batch,), 0.5 * math.sqrt(problem.n_observations), dtype=out.dtype)
    value = torch.full((batch,), -torch.inf, dtype=out.dtype)
    scaled = torch.full((batch,), torch.inf, dtype=out.dtype)
    n_iter = torch.zeros(batch, dtype=torch.long)
    converged = torch.zeros(batch, dtype=torch.bool)
    stalled = torch.zeros(batch, dtype=torch.bool)

    active = torch.arange(batch)
    at = _evaluate(problem, out, rows, barrier, dual)
    if constrained:
        assert at.slack is not None
        dual = barrier[:, None] / at.slack.clamp(min=1e-12)
        at = _evaluate(problem, out, rows, barrier, dual)
    for iteration in range(max_iter + 1):
        theta, lo, hi = out[active], low[active], high[active]
        free = free_coordinates(theta, at.gradient, lo, hi)
        residual = (at.gradient.abs() / at.scale).masked_fill(~free, 0.0).amax(-1)
        value[active] = torch.where(torch.isfinite(at.objective), at.value, -torch.inf)
        scaled[active] = torch.where(torch.isfinite(at.objective), residual, torch.inf)
        on_path = residual <= barrier[active].clamp(min=tol)
        enough = _promises_less(at, free, barrier[active].clamp(min=gain) if gain else None)
        lowered = (on_path | enough) & (barrier[active] > last_barrier)
        converged[active] = (residual <= tol) & ~lowered
        stalled[active] = (radius[active] < 1e-10) & ~converged[active]
        done = converged[active] | stalled[active] | (enough & ~lowered)
        if bool(done.all()) or iteration == max_iter:
            break
        if bool(lowered.any()):
            barrier[active[lowered]] = (barrier[active[lowered]] / 20).clamp(min=last_barrier)
            done &= ~lowered
            at = _evaluate(problem, theta, rows[active], barrier[active], dual[active])
        if bool(done.any()):
            active, at = active[~done], at.take(~done)
            theta, lo, hi = out[active], low[active], high[active]
        free = free_coordinates(theta, at.gradient, lo, hi)

        move, at_edge = _bounded_step(at, theta, lo, hi, free, radius[active])
        new = torch.clamp(theta + move, lo, hi)
        move = new - theta
        if constrained:
            share = _share_inside(at, move)
            new = torch.where(share < 1, theta + share * move, new)
            move = new - theta
        predicted = (at.gradient * move).sum(-1)
        predicted += 0.5 * torch.einsum("bp,bpq,bq->b", move, at.hessian, move)
        new_dual = dual[active]
        if constrained:
            new_dual = _dual_step(at, move, dual[active], barrier[active])
        trial = _evaluate(problem, new, rows[active], barrier[active], new_dual)
        actual = trial.objective - at.objective
        noise = 1e-14 * problem.n_observations * (1 + at.value.abs() / problem.n_observations)
        negligible = (predicted.abs() < 10 * noise) & (actual.abs() < 10 * noise)
        accept = ((predicted > 0) & (actual >= _ACCEPT * predicted)) | negligible
        ratio = actual / predicted.clamp(min=1e-300)
        grow = accept & at_edge & (ratio > 0.75)
        shrink = ~accept | ((ratio < 0.25) & ~negligible)
        size = (at.scale * move).norm(dim=-1)
        radius[active] = torch.where(
            shrink, 0.25 * torch.minimum(size, radius[active]), radius[active]
        )
        radius[active] = torch.where(grow, 2.0 * radius[active], radius[active])
        out[active] = torch.where(accept[:, None], new, theta)
        n_iter[active] += 1
        if constrained:
            dual[active] = torch.where(accept[:, None], new_dual, dual[active])
        at.replace(accept, trial)
    return NewtonResult(out, value, scaled, n_iter, converged, stalled)


def free_coordinates(
    params: Tensor,  # (B, P)
    gradient: Tensor,  # (B, P)
    low: Tensor,
    high: Tensor,
) -> Tensor:
    """False where a bound holds a coordinate whose gradient points outward, or bounds leave it no
    room; (B, P)."""
    outward = ((params <= low) & (gradient < 0)) | ((params >= high) & (gradient > 0))
    return (low < high) & ~outward


def scaled_hessian(
    hessian: Tensor,  # (B, P, P)
    scale: Tensor,  # (B, P)
    free: Tensor,  # (B, P)
) -> Tensor:
    """Hessian in standard-error units; held coordinates are given curvature -1."""
    scaled = hessian / (scale.unsqueeze(-1) * scale.unsqueeze(-2))
    held = ~free
    scaled = scaled.masked_fill(held.unsqueeze(-1) | held.unsqueeze(-2), 0.0)
    return scaled - torch.diag_embed(held.to(scaled))


def standard_error_units(information: Tensor) -> Tensor:
    """Square roots (B, P) of the diagonal of the complete-data information, floored."""
    diagonal = information.diagonal(dim1=-2, dim2=-1)
    return torch.sqrt(diagonal.clamp(min=1e-12 * diagonal.amax(-1, keepdim=True) + 1e-300))


def _bounded_step(
    at: _Point, theta: Tensor, low: Tensor, high: Tensor, free: Tensor, radius: Tensor
) -> tuple[Tensor, Tensor]:
    """A trust-region step inside the box: a coordinate that would leave it stops at its bound,
    and the others are solved for again, or a bound close by would shorten every step."""
    gradient, stopped = at.gradient, torch.zeros_like(theta)
    for _ in range(3):
        step, at_edge = _trust_region_step(at, gradient, free, radius)
        move = step + stopped
        beyond = free & ((theta + move < low) | (theta + move > high))
        if not bool(beyond.any()):
            break
        stopped = torch.where(beyond, torch.clamp(theta + move, low, high) - theta, stopped)
        free = free & ~beyond
        gradient = at.gradient + torch.einsum("bpq,bq->bp", at.hessian, stopped)
    return move, at_edge


def _trust_region_step(
    at: _Point, gradient: Tensor, free: Tensor, radius: Tensor
) -> tuple[Tensor, Tensor]:
    """Maximise the quadratic model within the radius; (B, P) and whether the edge was met."""
    curvature, slope, vectors = _principal_axes(at, gradient, free)
    curvature = curvature.abs().clamp(min=_FLAT)
    low = torch.zeros_like(radius)
    high = slope.norm(dim=-1) / radius
    at_edge = (slope / curvature).norm(dim=-1) > radius
    for _ in range(40):  # damping by bisection on its logarithm's scale
        middle = torch.where(low > 0, torch.sqrt(low * high), high * 1e-3)
        too_long = (slope / (curvature + middle[:, None])).norm(dim=-1) > radius
        low, high = torch.where(too_long, middle, low), torch.where(too_long, high, middle)
    damping = torch.where(at_edge, high, torch.zeros_like(high))
    step = torch.einsum("bpq,bq->bp", vectors, slope / (curvature + damping[:, None]))
    return (step / at.scale).masked_fill(~free, 0.0), at_edge


def _principal_axes(at: _Point, gradient: Tensor, free: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Downward curvatures (B, P), slopes (B, P) and axes (B, P, P) in standard-error units."""
    curvature, vectors = torch.linalg.eigh(-scaled_hessian(at.hessian, at.scale, free))
    scaled = (gradient / at.scale).masked_fill(~free, 0.0)
    return curvature, torch.einsum("bpq,bp->bq", vectors, scaled), vectors


def _evaluate(
    problem: Problem, params: Tensor, rows: Tensor, barrier: Tensor, dual: Tensor
) -> _Point:
    ev = problem.evaluate(params, rows, "hessian")
    assert ev.gradient is not None
    assert ev.information is not None
    assert ev.hessian is not None
    scale = standard_error_units(ev.information)
    finite = torch.isfinite(ev.value)
    value = torch.where(finite, ev.value, -torch.inf)
    if problem.min_weight == 0:
        gradient = torch.nan_to_num(ev.gradient)
        hessian = torch.nan_to_num(ev.hessian)
        return _Point(value, value.clone(), gradient, hessian, torch.nan_to_num(scale, nan=1.0))
    means, jacobian, tilted = problem.gate_means(params, rows, dual)
    slack = means - problem.min_weight
    inside = slack.clamp(min=1e-14)
    objective = value + barrier * torch.log(inside).sum(-1)
    objective = torch.where((slack > 0).all(-1), objective, -torch.inf)
    gradient = ev.gradient + torch.einsum("be,bep->bp", barrier[:, None] / inside, jacobian)
    assert jacobian is not None
    assert tilted is not None
    pull = torch.einsum("be,bep,beq->bpq", dual / inside, jacobian, jacobian)
    hessian = ev.hessian + tilted - pull
    return _Point(
        value,
        objective,
        torch.nan_to_num(gradient),
        torch.nan_to_num(hessian),
        torch.nan_to_num(scale, nan=1.0),
        slack,
        jacobian,
    )


def _share_inside(at: _Point, move: Tensor) -> Tensor:
    """The share (B, 1) of a move that leaves every weight inside its bound, by its gradient."""
    assert at.slack is not None
    assert at.jacobian is not None
    change = torch.einsum("bep,bp->be", at.jacobian, move)
    room = _TO_THE_BOUND * at.slack
    share = torch.where((room > 0) & (change < -room), room / -change, 1.0)
    return share.amin(-1, keepdim=True)


def _promises_less(at: _Point, free: Tensor, gain: Tensor | None) -> Tensor:
    """Whether the quadratic model curves down everywhere and promises less than ``gain``; (B,)."""
    if gain is None:
        return torch.zeros(len(at.value), dtype=torch.bool)
    curvature, slope, _ = _principal_axes(at, at.gradient, free)
    promised = 0.5 * (slope.square() / curvature.abs().clamp(min=_FLAT)).sum(-1)
    return (promised < gain) & (curvature.amin(-1) > -_UPWARD) & torch.isfinite(at.objective)


def _dual_step(at: _Point, move: Tensor, dual: Tensor, barrier: Tensor) -> Tensor:
    """Multipliers after a step, kept near the central path of the slack it leads to."""
    assert at.slack is not None
    assert at.jacobian is not None
    slack = at.slack.clamp(min=1e-300)
    change = torch.einsum("bep,bp->be", at.jacobian, move)
    new = (barrier[:, None] - dual * change) / slack
    centre = barrier[:, None] / (slack + change).clamp(min=0.01 * slack)
    return torch.clamp(new, centre / 10, centre * 10)

r"""Newton's method within a cell of gates: every observation keeps its selected experts.

With ranks :math:`\beta_e'\psi(x)` a cell is cut out by the half-spaces
:math:`(\beta_i - \beta_j)'\psi(x_n) \ge 0`, i selected at x_n and j not. A top-K likelihood is
smooth there and its maximum often lies on such a wall, so steps slide along the walls they meet:
an active-set method.

References
----------
Nocedal and Wright (2006), Numerical Optimization, chapter 16.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from kernels.gating import GateForm, naive

from .newton import NewtonResult, free_coordinates, newton, scaled_hessian, standard_error_units
from .problem import Problem

MARGIN = 1e-10
"""Distance kept from a wall, relative to the ranks there: rounding must not cross it."""


def climb_cell(
    problem: Problem,
    params: Tensor,  # (B, P)
    rows: Tensor,  # (B,)
    *,
    tol: float,
    max_iter: int,
) -> NewtonResult:
    """Newton's method that keeps every selection, sliding along the walls it meets.

    A wall is released when its multiplier outweighs the gradient left along the walls. With a
    lower bound on weights `newton` runs instead, which knows the barrier but stalls at walls.
    """
    if problem.min_weight > 0:
        return newton(problem, params, rows, tol=tol, max_iter=max_iter)
    batch = len(params)
    low, high = problem.bounds(rows)
    out = torch.clamp(params, low, high)
    walls = out.new_zeros(batch, len(problem.layout.gate_indices()), problem.layout.size)
    radius = out.new_full((batch,), 0.5 * math.sqrt(problem.n_observations))
    value, scaled = out.new_full((batch,), -torch.inf), out.new_full((batch,), torch.inf)
    n_iter = torch.zeros(batch, dtype=torch.long)
    converged = torch.zeros(batch, dtype=torch.bool)
    stalled = torch.zeros(batch, dtype=torch.bool)
    active = torch.arange(batch)
    at = problem.evaluate(out, rows, "hessian")
    for iteration in range(max_iter + 1):
        assert at.gradient is not None
        assert at.information is not None
        assert at.hessian is not None
        theta = out[active]
        finite = torch.isfinite(at.value)
        unit = standard_error_units(torch.nan_to_num(at.information))
        gradient = torch.nan_to_num(at.gradient)
        free = free_coordinates(theta, gradient, low[active], high[active])
        slope = (gradient / unit).masked_fill(~free, 0.0)
        normals = _scaled_normals(walls[active], unit, free)
        held, along = _hold(normals, slope)
        walls[active] *= held.unsqueeze(-1)
        residual = along.abs().amax(-1)
        value[active] = torch.where(finite, at.value, -torch.inf)
        scaled[active] = torch.where(finite, residual, torch.inf)
        converged[active] = finite & (residual <= tol)
        stalled[active] = ~converged[active] & ((radius[active] < 1e-10) | ~finite)
        done = converged[active] | stalled[active]
        if bool(done.all()) or iteration == max_iter:
            break
        active, at = active[~done], at.take(~done)
        theta, unit, free, along, normals = (
            v[~done] for v in (theta, unit, free, along, normals * held.unsqueeze(-1))
        )
        assert at.hessian is not None
        curved = scaled_hessian(torch.nan_to_num(at.hessian), unit, free)
        step = _projected_step(curved, along, normals)
        length = step.norm(dim=-1).clamp(min=1e-300)
        move = step * (radius[active] / length).clamp(max=1.0)[:, None] / unit
        move *= _to_bounds(theta, move, low[active], high[active])[:, None]
        to_wall, normal = _first_wall(problem, theta, rows[active], move)
        move *= to_wall.clamp(max=1.0)[:, None]
        new = torch.clamp(theta + move, low[active], high[active])
        trial = problem.evaluate(new, rows[active], "hessian")
        step = move * unit
        predicted = (along * step).sum(-1) + 0.5 * torch.einsum("bp,bpq,bq->b", step, curved, step)
        actual = trial.value - at.value
        noise = 1e-13 * (problem.n_observations + at.value.abs())
        negligible = (predicted.abs() < noise) & (actual.abs() < noise)
        accept = ((predicted > 0) & (actual >= 1e-4 * predicted)) | negligible
        size = step.norm(dim=-1)
        shrink = ~accept | ((actual < 0.25 * predicted) & ~negligible)
        grow = accept & (actual > 0.75 * predicted) & (size > 0.9 * radius[active])
        reach = torch.where(shrink, 0.25 * torch.minimum(size, radius[active]), radius[active])
        radius[active] = torch.where(grow, 2.0 * reach, reach)
        out[active] = torch.where(accept[:, None], new, theta)
        n_iter[active] += 1
        walls[active] = _with(walls[active], normal, accept & (to_wall <= 1.0))
        at = trial.where(accept, at)
    return NewtonResult(out, value, scaled, n_iter, converged, stalled)


def ranks_are_affine(
    form: GateForm,
    x: Tensor,  # (R, D, N)
) -> bool:
    """Whether selections change at times known in closed form: ranks affine in each expert's
    own parameters and free of shared ones."""
    some = x[:1, :, :100]
    q = some.shape[1] + form.extra_parameters
    own = torch.linspace(-1.7, 2.3, 3 * q, dtype=x.dtype).view(3, q)
    base = _ranks_at(form, torch.zeros_like(own[:1]), some, 1.0)
    predicted = base + own @ rank_features(form, some)
    close = 1e-9 * (1 + predicted.abs().amax())
    return all(
        bool(((_ranks_at(form, own, some, shared) - predicted).abs() <= close).all())
        for shared in (1.0, 2.0)
    )


def rank_features(
    form: GateForm,
    x: Tensor,  # (B, D, N)
) -> Tensor:
    """psi(x), the factors of an expert's own gate parameters in its rank; (B, Q, N)."""
    q = x.shape[1] + form.extra_parameters
    own = torch.cat([torch.zeros(1, q, dtype=x.dtype), torch.eye(q, dtype=x.dtype)])
    ranks = _ranks_at(form, own, x, 1.0)
    return ranks[:, 1:] - ranks[:, :1]


def walls_touched(
    problem: Problem,
    theta: Tensor,  # (1, P)
    rows: Tensor,  # (1,)
) -> Tensor:
    """Normals (M, P) of the walls that one model lies on, at most one for a pair of experts."""
    layout, top_k = problem.layout, problem.form.top_k
    assert top_k is not None
    features = rank_features(problem.form, problem.x[rows])[0]  # (Q, N)
    ranks = layout.split(theta)[0][0] @ features
    chosen = naive.select(ranks[None], top_k)[0]
    margin = MARGIN * ranks.abs().amax(0)
    normals = []
    for i in range(problem.n_experts):
        for j in range(problem.n_experts):
            gap = (ranks[i] - ranks[j] - 2 * margin).masked_fill(~chosen[i] | chosen[j], torch.inf)
            n = int(gap.argmin())
            if gap[n] <= 0:
                normal = torch.zeros_like(theta[0])
                normal[i * layout.width : i * layout.width + layout.n_own] = features[:, n]
                normal[j * layout.width : j * layout.width + layout.n_own] = -features[:, n]
                normals.append(normal)
    return torch.stack(normals) if normals else theta.new_zeros(0, layout.size)


def _first_wall(
    problem: Problem,
    theta: Tensor,  # (B, P)
    rows: Tensor,  # (B,)
    move: Tensor,  # (B, P)
) -> tuple[Tensor, Tensor]:
    """Fraction (B,) of a move at which the first selection would change, inf if none does
    within it, and the normal (B, P) of that wall, pointing into the cell."""
    layout, top_k = problem.layout, problem.form.top_k
    assert top_k is not None
    first = theta.new_full((len(theta),), torch.inf)
    normal = torch.zeros_like(theta)
    for part in parts(len(theta), problem.n_experts * problem.n_observations):
        features = rank_features(problem.form, problem.x[rows[part]])
        ranks = layout.split(theta[part])[0] @ features
        drift = layout.split(move[part])[0] @ features
        chosen = naive.select(ranks, top_k)
        margin = MARGIN * ranks.abs().amax(1)
        models = torch.arange(len(ranks))
        for i in range(problem.n_experts):
            for j in range(problem.n_experts):
                if i == j:
                    continue
                gap, closing = ranks[:, i] - ranks[:, j], drift[:, j] - drift[:, i]
                meets = chosen[:, i] & ~chosen[:, j] & (closing > 1e-3 * margin)
                meets &= gap - closing < margin / 2
                time = ((gap - margin).clamp(min=0.0) / closing).masked_fill(~meets, torch.inf)
                soonest, n = time.min(-1)
                sooner = torch.nonzero(soonest < first[part]).ravel()
                psi = features[models, :, n][sooner]
                here = models[sooner] + part.start
                first[here] = soonest[sooner]
                normal[here] = 0.0
                normal[here, i * layout.width : i * layout.width + layout.n_own] = psi
                normal[here, j * layout.width : j * layout.width + layout.n_own] = -psi
    return first, normal


def _scaled_normals(
    walls: Tensor,  # (B, M, P), zero where there is none
    unit: Tensor,  # (B, P)
    free: Tensor,  # (B, P)
) -> Tensor:
    """Unit normals (B, M, P) in standard-error units, without the coordinates that bounds hold."""
    normals = (walls / unit.unsqueeze(1)).masked_fill(~free.unsqueeze(1), 0.0)
    return normals / normals.norm(dim=-1, keepdim=True).clamp(min=1e-300)


def _hold(
    normals: Tensor,  # (B, M, P)
    slope: Tensor,  # (B, P)
) -> tuple[Tensor, Tensor]:
    """Which walls go on holding the gradient (B, M), and its part along them (B, P)."""
    held = torch.ones(normals.shape[:2], dtype=torch.bool)
    for _ in range(normals.shape[1]):
        kept = normals * held.unsqueeze(-1)
        push = -torch.einsum("bpm,bp->bm", torch.linalg.pinv(kept), slope)
        along = slope + torch.einsum("bm,bmp->bp", push, kept)
        least, worst = push.min(-1)
        release = -least > along.norm(dim=-1)
        if not bool(release.any()):
            break
        held[release, worst[release]] = False
    return held, along


def _projected_step(
    curved: Tensor,  # (B, P, P)
    along: Tensor,  # (B, P)
    normals: Tensor,  # (B, M, P)
) -> Tensor:
    """Newton step (B, P) along the walls, curvatures by absolute value."""
    across = torch.linalg.pinv(normals) @ normals
    inward = torch.eye(along.shape[-1], dtype=along.dtype) - across
    inner = inward @ curved @ inward - across
    curvature, vectors = torch.linalg.eigh(-(inner + inner.mT) / 2)
    slope = torch.einsum("bpq,bp->bq", vectors, along) / curvature.abs().clamp(min=1e-9)
    return torch.einsum("bpq,bqr,br->bp", inward, vectors, slope)


def _to_bounds(theta: Tensor, move: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Fraction (B,) of a move after which a coordinate that is inside its bounds meets one."""
    room = torch.where(move > 0, high - theta, theta - low) / move.abs().clamp(min=1e-300)
    inside = (theta > low) & (theta < high)
    return room.masked_fill(~inside, torch.inf).amin(-1).clamp(max=1.0)


def _with(
    walls: Tensor,  # (B, M, P)
    normal: Tensor,  # (B, P)
    where: Tensor,  # (B,)
) -> Tensor:
    """The walls with one more in the first free place of some models."""
    walls = walls.clone()
    place = (walls == 0).all(-1).to(torch.int8).argmax(-1)
    walls[where, place[where]] = normal[where]
    return walls


def _ranks_at(
    form: GateForm,
    own: Tensor,  # (V, Q)
    x: Tensor,  # (B, D, N)
    shared: float,
) -> Tensor:
    """Ranks (B, V, N) of experts with these own parameters."""
    rank = form.rank or form.score
    columns = [column.unsqueeze(-1) for column in own.unbind(-1)]
    others = [x.new_full((1, 1, 1), shared)] * form.n_shared
    return rank(columns, others, list(x.unsqueeze(1).unbind(2))).expand(len(x), -1, x.shape[-1])


def parts(batch: int, elements: int) -> Iterator[slice]:
    """Slices of a batch whose temporaries keep to `naive.MAX_ELEMENTS`, or of one model."""
    step = max(1, naive.MAX_ELEMENTS // elements)
    return (slice(start, min(start + step, batch)) for start in range(0, batch, step))

r"""Across the jumps of a top-K likelihood.

The likelihood jumps where an observation changes the experts it selects; between jumps lies a
*cell* of gates, on which it is smooth. With ranks :math:`\beta_e'\psi(x)` a cell is cut out by
the half-spaces :math:`(\beta_i - \beta_j)'\psi(x_n) \ge 0`, i selected and j not, and its maximum
often lies on such a wall. The search alternates

1. Newton steps inside the cell, sliding along the walls they meet (`cells`), and
2. line searches across cells. On :math:`\beta + t d` observation n trades j for i at
   :math:`t = -(\beta_i - \beta_j)'\psi(x_n) / (d_i - d_j)'\psi(x_n)`. The jumps of the log density
   at the present parameters, summed in the order of t, and the quadratic model of the smooth part
   rank all changes on the line in O(N log N); the best are evaluated exactly and climbed from.

A line moves one gate parameter, or one of two experts in opposite directions, or turns expert e
about its boundary with f, which moves only boundaries with third experts. With top-1 selection
the ranking on each line is exact. With one feature besides, any intervals in order are some
gate's, and partitions of the axis are searched with their experts refitted (`partition`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kernels.gating import naive

from .cells import climb_cell, parts, rank_features, ranks_are_affine
from .newton import NewtonResult
from .partition import MAX_POSITIONS, best_partition, is_exhaustive, splits_the_line
from .problem import Problem, weights_hold

EXACT = 4
"""Changes on a line that are evaluated exactly."""

CLIMBED = 6
"""Lines from whose best change the cell beyond is climbed, in each round."""

CLIMB_ITER = 6
"""Newton steps by which the cells beyond are compared."""

HOPELESS = 20.0
"""A change this many nats below the present value is not climbed from."""

GAIN = 1e-7
"""Nats below which a change of selection is no improvement."""

ROUNDS = 100
"""Line searches of one model; far more than are ever needed."""

WEIGHTED_ROUNDS = 3
"""The same under ``min_weight``, where climbs stall at walls and further rounds only creep."""


@dataclass(frozen=True)
class BoundarySearch:
    """The best parameters found across selection boundaries, and what was searched."""

    params: Tensor  # (P,)
    value: float
    searched: str


def improve(
    problem: Problem,
    params: Tensor,  # (B, P)
    rows: Tensor,  # (B,)
    *,
    tol: float,
    max_iter: int,
) -> NewtonResult:
    """Climb across jumps until no line search improves any model.

    Returns
    -------
    NewtonResult
        In the cells reached; ``scaled_gradient`` leaves out what walls of the cell hold.

    Raises
    ------
    ValueError
        If the gate's ranks are not affine in its own parameters.
    """
    _check_affine(problem)
    by_partition = splits_the_line(problem)
    if by_partition:
        partition = best_partition(problem, rows)
        values = problem.evaluate(torch.cat([params, partition]), rows.repeat(2), "value").value
        was, now = values.chunk(2)
        params = torch.where((was >= now)[:, None], params, partition)  # was may be NaN
    result = climb_cell(problem, params, rows, tol=tol, max_iter=max_iter)
    if by_partition and is_exhaustive(problem):
        return result
    searching = torch.arange(len(rows))
    for _ in range(WEIGHTED_ROUNDS if problem.min_weight > 0 else ROUNDS):
        value = result.value[searching]
        params, reached = _next_cells(problem, result.params[searching], value, rows[searching])
        improved = reached > value + GAIN
        if not bool(improved.any()):
            break
        searching = searching[improved]
        rest = climb_cell(problem, params[improved], rows[searching], tol=tol, max_iter=max_iter)
        for mine, new in zip(vars(result).values(), vars(rest).values(), strict=True):
            mine[searching] = new
    return result


def search(
    problem: Problem,
    theta: Tensor,  # (1, P)
    rows: Tensor,  # (1,)
) -> BoundarySearch:
    """Look for a better likelihood beyond the selection boundaries of one fit.

    Raises
    ------
    ValueError
        If the gate's ranks are not affine in its own parameters.
    """
    _check_affine(problem)
    beyond, values, events = _beyond(problem, theta, rows)
    best = int(values[0].argmax())
    params, value = beyond[0, best], float(values[0, best])
    complete = problem.form.top_k == 1 or _representatives(problem) is not problem
    scope = "every change" if complete else f"the likeliest {EXACT} a line of the changes"
    searched = f"{scope} of selection on {values.shape[1]} lines through the gate ({events})"
    at = float(problem.evaluate(theta, rows, "value").value)
    if splits_the_line(problem) and value <= at + GAIN:
        partition = best_partition(problem, rows)
        params, value = partition[0], float(problem.evaluate(partition, rows, "value").value)
        among = "" if is_exhaustive(problem) else f" at {MAX_POSITIONS} positions, then one by one"
        searched += f" and, with experts refitted, every partition of the axis{among}"
    return BoundarySearch(params, value, searched)


def _check_affine(problem: Problem) -> None:
    if not ranks_are_affine(problem.form, problem.x):
        name = getattr(problem.form.rank or problem.form.score, "__name__", "rank")
        raise ValueError(
            "Selection boundaries can be searched only if the gate's rank is affine in each "
            f"expert's own parameters and free of shared ones; got {name!r}, which is not."
        )


def _next_cells(
    problem: Problem,
    theta: Tensor,  # (B, P)
    value: Tensor,  # (B,)
    rows: Tensor,
) -> tuple[Tensor, Tensor]:
    """Parameters (B, P) and values (B,) after a short climb in the best cell found beyond."""
    beyond, at = _beyond(problem, theta, rows)[:2]
    at, lines = at.topk(min(CLIMBED, at.shape[1]))
    beyond = beyond[torch.arange(len(rows))[:, None], lines]
    hope = at > value[:, None] - HOPELESS
    here = rows[:, None].expand_as(at)[hope]
    short = climb_cell(problem, beyond[hope], here, tol=GAIN, max_iter=CLIMB_ITER)
    beyond[hope], at[hope] = short.params, short.value
    at, best = at.max(1)
    return beyond[torch.arange(len(rows)), best], at


def _beyond(
    problem: Problem,
    theta: Tensor,  # (B, P)
    rows: Tensor,  # (B,)
) -> tuple[Tensor, Tensor, int]:
    """Best parameters (B, G, P) past a change of selection on each of G lines, their values
    (B, G), and how many changes there are."""
    ev = problem.evaluate(theta, rows, "hessian")
    assert ev.gradient is not None
    assert ev.hessian is not None
    lines = _lines(problem, theta)
    slope = torch.einsum("bgp,bp->bg", lines, torch.nan_to_num(ev.gradient))
    bend = torch.einsum("bgp,bpq,bgq->bg", lines, torch.nan_to_num(ev.hessian), lines)
    if problem.form.top_k == 1:  # a softmax over one score is 1: rounding is all there is
        slope, bend = torch.zeros_like(slope), torch.zeros_like(bend)
    steps, events = _steps(problem, theta, rows, lines, slope, bend)
    moved = theta[:, None, None] + steps.unsqueeze(-1) * lines.unsqueeze(2)  # (B, G, M, P)
    flat, here = moved.flatten(0, 2), rows.repeat_interleave(steps[0].numel())
    low, high = problem.bounds(here)
    allowed = (steps.flatten() != 0) & ((flat >= low) & (flat <= high)).all(-1)
    allowed &= weights_hold(problem, flat, here)
    values = torch.full((len(flat),), -torch.inf, dtype=theta.dtype)
    exact = problem.evaluate(flat[allowed], here[allowed], "value").value
    values[allowed] = torch.nan_to_num(exact, nan=-torch.inf)
    values, best = values.view(steps.shape).max(-1)
    chosen = steps.gather(2, best.unsqueeze(-1))
    return theta.unsqueeze(1) + chosen * lines, values, events


def _lines(
    problem: Problem,
    theta: Tensor,  # (B, P)
) -> Tensor:
    """Directions (B, G, P) that move selection boundaries; see the module's docstring."""
    layout, n_experts = problem.layout, problem.n_experts
    used = _extremes(problem)[1].any(0)
    own = layout.split(theta)[0] * used  # (B, E, Q)
    each = torch.eye(layout.n_own, dtype=theta.dtype)[used].unsqueeze(1)  # (U, 1, Q)
    lines: list[tuple[int, int | None, Tensor]] = []
    for e in range(n_experts):
        lines += [(e, None, unit.expand(len(theta), -1)) for unit in each]
        if n_experts == 2:
            continue
        others = [f for f in range(n_experts) if f != e]
        lines += [(e, f, unit.expand(len(theta), -1)) for f in others if f < e for unit in each]
        lines += [(e, None, own[:, e] - own[:, f]) for f in others if len(each) > 1]
    out = theta.new_zeros(len(theta), len(lines), layout.size)
    for g, (e, opposite, direction) in enumerate(lines):
        out[:, g, e * layout.width :][:, : layout.n_own] = direction
        if opposite is not None:
            out[:, g, opposite * layout.width :][:, : layout.n_own] = -direction
    return out


def _extremes(problem: Problem) -> tuple[Tensor, Tensor]:
    """Where the sum of the rank features is least and greatest (R, 2), and which of them are
    not zero throughout (R, Q)."""
    where, used = [], []
    for part in parts(len(problem.x), problem.layout.n_own * problem.n_observations):
        features = rank_features(problem.form, problem.x[part])
        total = features.sum(1)
        where.append(torch.stack([total.argmin(-1), total.argmax(-1)], dim=-1))
        used.append(features.abs().amax(-1) > 0)
    return torch.cat(where), torch.cat(used)


def _representatives(problem: Problem) -> Problem:
    """Two observations that stand for all, where a single rank feature changes the selection of
    all observations of one sign at once; else the problem itself."""
    where, used = _extremes(problem)
    if not bool((used.sum(1) == 1).all()):
        return problem
    x = problem.x.gather(2, where.unsqueeze(1).expand(-1, problem.x.shape[1], -1))
    return replace(problem, x=x, y=problem.y.gather(1, where))


def _steps(
    problem: Problem,
    theta: Tensor,  # (B, P)
    rows: Tensor,  # (B,)
    lines: Tensor,  # (B, G, P)
    slope: Tensor,  # (B, G), of the smooth part along each line
    bend: Tensor,  # (B, G), its second derivative
) -> tuple[Tensor, int]:
    """The likeliest steps (B, G, M) past changes of selection, 0 where there are fewer than M,
    and the number of changes."""
    seen = _representatives(problem)
    per_line = problem.n_experts * (problem.n_experts - 1) * (seen is not problem)
    n_steps = max(EXACT, per_line + 1)
    steps = torch.zeros(slope.numel(), n_steps, dtype=theta.dtype)
    flat, owner = lines.flatten(0, 1), torch.arange(len(theta)).repeat_interleave(lines.shape[1])
    slope, bend = slope.reshape(-1, 1), bend.reshape(-1, 1)
    events = 0
    for part in parts(len(flat), problem.n_experts * seen.n_observations):
        times, jumps = _changes(seen, theta[owner[part]], rows[owner[part]], flat[part])
        events += int(torch.isfinite(times).sum())
        start = (jumps * (times <= 0)).sum(-1, keepdim=True)
        times, order = times.sort(-1)
        total = torch.cat([torch.zeros_like(start), jumps.gather(1, order).cumsum(-1)], dim=-1)
        step, gain = _between(times, slope[part], bend[part])
        gain = torch.nan_to_num(gain + total - start, nan=-torch.inf)
        best = gain.topk(min(n_steps, gain.shape[-1]))
        chosen = step.gather(1, best.indices).masked_fill(~torch.isfinite(best.values), 0.0)
        steps[part, : chosen.shape[1]] = chosen
    return steps.view(*lines.shape[:2], n_steps), events


def _between(
    times: Tensor,  # (B, M), sorted
    slope: Tensor,  # (B, 1)
    bend: Tensor,  # (B, 1)
) -> tuple[Tensor, Tensor]:
    """The best step (B, M + 1) of the quadratic model in each interval between changes, and its
    gain; -inf for intervals that are void or hold 0."""
    low = torch.cat([torch.full_like(slope, -torch.inf), times], dim=-1)
    high = torch.cat([times, torch.full_like(slope, torch.inf)], dim=-1)
    low = torch.where(torch.isfinite(low), low, high - 1 - high.abs())
    high = torch.where(torch.isfinite(high), high, low + 1 + low.abs())
    width = high - low
    void = ~(width > 1e-9 * (1 + low.abs())) | ((low < 0) & (high > 0))
    top = torch.where(bend < 0, -slope / bend, slope.sign() * torch.inf)
    top = torch.where((slope == 0) & (bend == 0), (low + high) / 2, top)
    step = torch.maximum(torch.minimum(top, high - 0.01 * width), low + 0.01 * width)
    return step, (slope * step + 0.5 * bend * step.square()).masked_fill(void, -torch.inf)


def _changes(
    problem: Problem,
    theta: Tensor,  # (B, P)
    rows: Tensor,  # (B,)
    line: Tensor,  # (B, P)
) -> tuple[Tensor, Tensor]:
    """Times (B, M) at which a selection changes on a line, inf for none, and the jumps of the
    log density there, gate and experts being held."""
    form, layout = problem.form, problem.layout
    x, y = problem.x[rows], problem.y[rows]
    features = rank_features(form, x)
    ranks = layout.split(theta)[0] @ features  # (B, E, N)
    drift = layout.split(line)[0] @ features
    score = form.score(*naive.columns(theta, x, layout)).expand_as(ranks)
    z = naive.standardized_residuals(theta, x, y, layout)
    joint = score + naive.log_expert(theta, z, layout)
    assert form.top_k is not None
    times, jumps = [], []
    for i in range(problem.n_experts):
        for j in range(i):
            speed = drift[:, i] - drift[:, j]
            time = (ranks[:, j] - ranks[:, i]) / speed
            then = ranks + time.unsqueeze(1) * drift
            above = then > then[:, i : i + 1]
            above[:, [i, j]] = False
            counts = torch.isfinite(time) & (above.sum(1) == form.top_k - 1)
            common = _sum_over(above, joint), _sum_over(above, score)
            with_i, with_j = (
                torch.logaddexp(common[0], joint[:, e]) - torch.logaddexp(common[1], score[:, e])
                for e in (i, j)
            )
            times.append(time.masked_fill(~counts, torch.inf))
            jumps.append((speed.sign() * (with_i - with_j)).masked_fill(~counts, 0.0))
    return torch.cat(times, -1), torch.cat(jumps, -1)


def _sum_over(which: Tensor, terms: Tensor) -> Tensor:
    return torch.logsumexp(terms.masked_fill(~which, -torch.inf), dim=1)

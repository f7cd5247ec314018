r"""Across the jumps of a top-K likelihood.

The likelihood jumps where an observation changes the experts it selects. On the line
:math:`\theta + t d`, with d one gate parameter, every change is a zero of a difference of ranks,
which is affine in t for the built-in ranks: :math:`t = -(\rho_i - \rho_j)/(\rho_i' - \rho_j')`.
The search evaluates the likelihood just beyond each change, coordinate by coordinate, so it sees
every likelihood that one gate parameter can reach by moving selection boundaries past
observations; with one feature and slope ranking, boundaries can only swap experts at x = 0 and
the search over these swaps is complete.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.gating import naive

from .problem import Problem

MAX_WORK = 10**9
"""Changes of selection times observations examined per gate parameter, nearest first."""


@dataclass(frozen=True)
class BoundarySearch:
    """The best parameters found across selection boundaries, and what was searched."""

    params: Tensor  # (P,)
    value: float
    searched: str


def search(
    problem: Problem,
    theta: Tensor,  # (1, P)
    rows: Tensor,  # (1,)
) -> BoundarySearch:
    """Evaluate the likelihood beyond every selection change that one gate parameter reaches."""
    candidates, events = [theta], 0
    complete = True
    limit = max(256, MAX_WORK // problem.n_observations)
    for place in problem.layout.gate_indices():
        steps = selection_changes(problem, theta, rows, place)
        complete &= len(steps) <= limit
        steps = steps[steps.abs().argsort()][:limit]
        events += len(steps)
        moved = theta.repeat(len(steps), 1)
        moved[:, place] += steps
        candidates.append(moved)
    batch = torch.cat(candidates)
    values = problem.evaluate(batch, rows.expand(len(batch)), "value").value
    best = int(torch.nan_to_num(values, nan=-torch.inf).argmax())
    scope = "every" if complete else f"the nearest {limit} per gate parameter of the"
    searched = f"{scope} change of selection that one gate parameter reaches ({events})"
    return BoundarySearch(batch[best], float(values[best]), searched)


def selection_changes(
    problem: Problem,
    theta: Tensor,  # (1, P)
    rows: Tensor,  # (1,)
    place: int,
) -> Tensor:
    """Steps of one gate parameter, each just beyond a change of some observation's selection."""
    base = _ranks(problem, theta, rows)  # (E, N)
    moved = theta.clone()
    moved[0, place] += 1.0
    drift = _ranks(problem, moved, rows) - base
    steps = []
    for i in range(problem.n_experts):
        for j in range(i):
            change = drift[i] - drift[j]
            t = -(base[i] - base[j]) / change
            steps.append(t[(change != 0) & torch.isfinite(t)])
    events = torch.cat(steps).sort().values
    if not len(events):
        return events
    distinct = torch.diff(events) > 1e-9 * (1 + events[1:].abs())
    events = events[torch.cat([distinct.new_ones(1), distinct])]
    # a step between each two neighbouring events, and one beyond the last on either side
    padded = torch.cat([events[:1] - 1, events, events[-1:] + 1])
    return (padded[1:] + padded[:-1]) / 2


def _ranks(problem: Problem, theta: Tensor, rows: Tensor) -> Tensor:
    own, shared, features = naive.columns(theta, problem.x[rows], problem.layout)
    rank = problem.form.rank or problem.form.score
    return rank(own, shared, features).expand(1, -1, problem.n_observations)[0]

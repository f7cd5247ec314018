"""Maximum likelihood from many starts: EM to a basin, Newton to the top, moves between basins.

All starts of all data sets run as one batch. EM runs on at most `EM_ROWS` rows; every start is
then carried to a stationary point of the full likelihood. L-BFGS-B climbs from the same starts
where asked to, the best is rearranged by split-and-merge moves, a top-K fit is carried across
selection boundaries, and the best of everything is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .annealing import annealed
from .boundary import improve
from .cells import ranks_are_affine
from .em import em
from .newton import NewtonResult, newton, standard_error_units
from .problem import Problem, make_feasible
from .quasi_newton import approach, wander
from .starts import rearrangements

EM_ROWS = 10_000
EM_TOL = 1e-2
"""Nats an iteration at which EM hands over."""
EM_ITER = 60
PATIENCE = 20
ABANDON = 20.0
"""A run this many nats below its data set's best after `PATIENCE` Newton steps is given up."""
LEAD_TOL = 1e-3
"""Scaled gradient asked of a run on a subsample, whose maximum is standard errors off anyway."""
SAME = 1e-3
"""Runs whose log-likelihoods differ by less, in nats, are taken to be at one maximum."""
ANNEAL_FROM = 4
"""Experts from which a top-K search also starts from dense fits: two or three are found anyway."""
CARRIED = 3
"""Different maxima of a subsample from which all rows are climbed."""
SCREEN_ITER = 10
"""EM steps by which split-and-merge moves are compared."""


@dataclass(frozen=True)
class Optimum:
    """The best stationary point of each data set, and how each start ended.

    Attributes
    ----------
    params : Tensor
        (R, P).
    value : Tensor
        (R,) log-likelihoods.
    scaled_gradient : Tensor
        (R,), see `NewtonResult`.
    n_iter : Tensor
        (R,) Newton or EM iterations of the winning run.
    converged, stalled : Tensor
        (R,).
    restarts : Tensor
        (R, S) the log-likelihood that each start reached.
    """

    params: Tensor
    value: Tensor
    scaled_gradient: Tensor
    n_iter: Tensor
    converged: Tensor
    stalled: Tensor
    restarts: Tensor


def maximize(
    problem: Problem,
    starts: Tensor,  # (R, S, P)
    rngs: Sequence[np.random.Generator],
    *,
    tol: float,
    max_iter: int,
    n_rounds: int,
    quasi_newton: bool,
) -> Optimum:
    """Maximise each data set's likelihood from its starts, then ``n_rounds`` of moves."""
    best = climb(problem, starts, tol, max_iter)
    restarts = [best.restarts]
    if quasi_newton and problem.is_smooth and problem.min_weight == 0:
        challenger = _climb_by_lbfgsb(problem, starts, tol, max_iter)
        restarts.append(challenger.restarts)
        best = _better(best, challenger)
    small = _at_most(problem, EM_ROWS)
    for _ in range(n_rounds if problem.n_experts > 1 else 0):
        moves = rearrangements(small, best.params, 4 * starts.shape[1], rngs)
        promising = _promising(small, moves, starts.shape[1])
        challenger = climb(problem, promising, tol, max_iter)
        restarts.append(challenger.restarts)
        best = _better(best, challenger)
    if not problem.is_smooth and ranks_are_affine(problem.form, problem.x):
        challenger = _across_boundaries(problem, best, starts, tol, max_iter)
        restarts.append(challenger.restarts)
        best = _better(best, challenger)
    return replace(best, restarts=torch.cat(restarts, dim=1))


def maximize_by_em(
    problem: Problem,
    starts: Tensor,  # (R, S, P)
    *,
    tol: float,
    max_iter: int,
) -> Optimum:
    """EM alone, stopped at a gain of ``tol`` nats: what published protocols do."""
    n_sets, n_starts, size = starts.shape
    rows = torch.arange(n_sets).repeat_interleave(n_starts)
    run = em(problem, starts.reshape(-1, size), rows, tol=tol, max_iter=max_iter)
    end = newton(problem, run.params, rows, tol=torch.inf, max_iter=0)  # derivatives only
    result = NewtonResult(
        run.params,
        run.value,
        end.scaled_gradient,
        run.n_iter,
        run.converged,
        torch.zeros_like(run.converged),
    )
    return _best(_shaped(result, n_sets))


def climb(problem: Problem, starts: Tensor, tol: float, max_iter: int) -> Optimum:
    """EM to a basin, then Newton; on many rows with a subsample or L-BFGS-B to lead the way."""
    n_sets, n_starts, size = starts.shape
    rows = torch.arange(n_sets).repeat_interleave(n_starts)
    small = _at_most(problem, EM_ROWS)
    inside = make_feasible(small, starts.reshape(-1, size), rows)
    basin = em(small, inside, rows, tol=EM_TOL, max_iter=EM_ITER).params
    if small is problem:
        return _best(_shaped(_climb_few_rows(problem, basin, rows, tol, max_iter), n_sets))
    if problem.is_smooth and problem.min_weight == 0:
        tops, values = approach(problem, basin, rows, _units(problem, small, basin, rows))
        return _finished(problem, tops, values, n_sets, tol, max_iter)
    led = _climb_few_rows(small, basin, rows, LEAD_TOL, max_iter)
    return _carried_over(problem, _shaped(led, n_sets), tol, max_iter)


def _climb_few_rows(
    problem: Problem, basin: Tensor, rows: Tensor, tol: float, max_iter: int
) -> NewtonResult:
    """Newton from every run (B, P), those that fall behind given up after `PATIENCE` steps."""
    result = newton(problem, basin, rows, tol=tol, max_iter=min(max_iter, PATIENCE))
    best = torch.nan_to_num(result.value, nan=-torch.inf).view(len(problem.y), -1).amax(1)
    hopeful = result.value > best[rows] - ABANDON
    unfinished = torch.nonzero(~result.converged & ~result.stalled & hopeful).ravel()
    if len(unfinished) and max_iter > PATIENCE:
        rest = newton(
            problem,
            result.params[unfinished],
            rows[unfinished],
            tol=tol,
            max_iter=max_iter - PATIENCE,
        )
        result = _with(result, unfinished, replace(rest, n_iter=rest.n_iter + PATIENCE))
    return result


def _carried_over(problem: Problem, led: NewtonResult, tol: float, max_iter: int) -> Optimum:
    """Newton on all rows from the `CARRIED` best different maxima of a subsample."""
    n_sets, n_starts = led.value.shape
    rows = torch.arange(n_sets).repeat_interleave(n_starts)
    params = make_feasible(problem, led.params.flatten(0, 1), rows)
    everywhere = problem.evaluate(params, rows, "value").value
    no = torch.zeros_like(rows, dtype=torch.bool)
    result = NewtonResult(
        params, everywhere, everywhere.new_full((len(rows),), torch.inf), no.long(), no, no.clone()
    )
    chosen = torch.nonzero(_different(led.value).ravel()).ravel()
    end = newton(problem, params[chosen], rows[chosen], tol=tol, max_iter=max_iter)
    return _best(_shaped(_with(result, chosen, end), n_sets))


def _different(value: Tensor) -> Tensor:
    """Which of the values (R, S) stand for the `CARRIED` best different maxima."""
    value = torch.nan_to_num(value, nan=-torch.inf)
    twin = ((value.unsqueeze(2) - value.unsqueeze(1)).abs() < SAME).tril(-1).any(2)
    rank = value.masked_fill(twin, -torch.inf).argsort(1, descending=True).argsort(1)
    return ~twin & (rank < CARRIED) & (value > value.amax(1, keepdim=True) - ABANDON)


def _units(problem: Problem, small: Problem, params: Tensor, rows: Tensor) -> Tensor:
    """Standard errors on all rows, from the information in some."""
    information = small.evaluate(params, rows, "information").information
    assert information is not None
    return standard_error_units(problem.n_observations / small.n_observations * information)


def _with(result: NewtonResult, where: Tensor, other: NewtonResult) -> NewtonResult:
    """The runs of ``result``, those at ``where`` replaced."""
    for mine, others in zip(vars(result).values(), vars(other).values(), strict=True):
        mine[where] = others
    return result


def _climb_by_lbfgsb(problem: Problem, starts: Tensor, tol: float, max_iter: int) -> Optimum:
    """L-BFGS-B from every raw start, then Newton from each data set's best.

    On many rows a subsample leads: its best different maxima are climbed from on all rows.
    """
    n_sets, n_starts, size = starts.shape
    rows = torch.arange(n_sets).repeat_interleave(n_starts)
    small = _at_most(problem, EM_ROWS)
    tops, values = wander(small, starts.reshape(-1, size), rows)
    if small is not problem:
        best = torch.nonzero(_different(values.view(n_sets, n_starts)).ravel()).ravel()
        units = _units(problem, small, tops[best], rows[best])
        values = problem.evaluate(tops, rows, "value").value
        tops[best], values[best] = approach(problem, tops[best], rows[best], units)
    return _finished(problem, tops, values, n_sets, tol, max_iter)


def _finished(
    problem: Problem, tops: Tensor, values: Tensor, n_sets: int, tol: float, max_iter: int
) -> Optimum:
    values = torch.nan_to_num(values, nan=-torch.inf).view(n_sets, -1)
    sets = torch.arange(n_sets)
    winner = tops.view(*values.shape, -1)[sets, values.argmax(1)]
    end = newton(problem, winner, sets, tol=tol, max_iter=max_iter)
    return replace(_best(_shaped(end, n_sets)), restarts=values)


def _across_boundaries(
    problem: Problem, best: Optimum, starts: Tensor, tol: float, max_iter: int
) -> Optimum:
    """Search beyond selection boundaries from the best fits, and from the best dense ones where
    experts are many."""
    n_sets, n_starts, size = starts.shape
    sets = torch.arange(n_sets)
    candidates = best.params.unsqueeze(1)
    if problem.n_experts >= ANNEAL_FROM:
        rows = sets.repeat_interleave(n_starts)
        dense = annealed(problem, starts.reshape(-1, size), rows)
        value = torch.nan_to_num(problem.evaluate(dense, rows, "value").value, nan=-torch.inf)
        first = dense.view(starts.shape)[sets, value.view(n_sets, n_starts).argmax(1)]
        candidates = torch.stack([best.params, first], 1)
    rows = sets.repeat_interleave(candidates.shape[1])
    found = improve(problem, candidates.flatten(0, 1), rows, tol=tol, max_iter=max_iter)
    return _best(_shaped(found, n_sets))


def _promising(problem: Problem, moves: Tensor, keep: int) -> Tensor:
    """The moves (R, keep, P) that stand highest after a few steps of EM."""
    n_sets, n_moves, size = moves.shape
    rows = torch.arange(n_sets).repeat_interleave(n_moves)
    inside = make_feasible(problem, moves.reshape(-1, size), rows)
    run = em(problem, inside, rows, tol=EM_TOL, max_iter=SCREEN_ITER)
    chosen = torch.nan_to_num(run.value, nan=-torch.inf).view(n_sets, n_moves).topk(keep).indices
    return run.params.view(moves.shape)[torch.arange(n_sets)[:, None], chosen]


def _at_most(problem: Problem, n: int) -> Problem:
    return problem if problem.n_observations <= n else problem.subsample(n)


def _shaped(result: NewtonResult, n_sets: int) -> NewtonResult:
    return NewtonResult(*(v.unflatten(0, (n_sets, -1)) for v in vars(result).values()))


def _best(result: NewtonResult) -> Optimum:
    """The best start of each data set; a converged one is preferred among equals."""
    value = torch.nan_to_num(result.value, nan=-torch.inf)
    nearly = value >= value.amax(1, keepdim=True) - 1e-7 * (1 + value.amax(1, keepdim=True).abs())
    rank = torch.where(nearly & result.converged, torch.inf, value)
    winner = rank.argmax(1)
    sets = torch.arange(len(value))
    chosen = {name: v[sets, winner] for name, v in vars(result).items()}
    return Optimum(**chosen, restarts=value)


def _better(a: Optimum, b: Optimum) -> Optimum:
    equal = 1e-9 * (1 + a.value.abs())
    wins = (b.value > a.value + equal) | (b.converged & ~a.converged & (b.value >= a.value - equal))
    fields = {"restarts": a.restarts}  # joined by the caller
    for name in set(vars(a)) - {"restarts"}:
        mine = getattr(a, name)
        condition = wins.view(-1, *[1] * (mine.ndim - 1))
        fields[name] = torch.where(condition, getattr(b, name), mine)
    return Optimum(**fields)

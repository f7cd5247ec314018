"""Maximum likelihood from many starts: EM to a basin, Newton to the top, moves between basins.

All starts of all data sets run as one batch. EM runs on at most `EM_ROWS` rows; every start is
then carried to a stationary point of the full likelihood. L-BFGS-B climbs from the same starts
where asked to, the best is rearranged by split-and-merge moves, a top-K fit is carried across
selection boundaries, and the best of everything is kept. A smooth likelihood with bounded weights
is searched on `SEARCH_ROWS` rows, and what is found there climbs on more and more of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .annealing import annealed
from .boundary import improve
from .cells import ranks_are_affine
from .em import em
from .newton import NewtonResult, newton, standard_error_units
from .problem import Problem, make_feasible, weights_hold
from .quasi_newton import approach, wander
from .starts import MAX_ROWS, rearrangements

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
SEARCH_ROWS = 4_000
"""Rows on which a smooth likelihood with bounded weights is searched."""
RUNG = 5
"""Factor between the numbers of rows on which what was found is climbed from again."""
RIVALS = 5
"""Different maxima of fewer rows from which such a likelihood is climbed on more."""
ROUGH = 3e-3
"""Nats that a climb on bounded weights may leave to be gained, but the last one of the best."""
HEAT = 6
BEHIND = 2.0
"""A rival so many nats behind after `HEAT` Newton steps on more rows is given up."""


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
    if problem.is_smooth and problem.min_weight > 0 and problem.n_observations > SEARCH_ROWS:
        return _up_the_rungs(problem, starts, rngs, tol, max_iter, n_rounds)
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


def _up_the_rungs(
    problem: Problem,
    starts: Tensor,
    rngs: Sequence[np.random.Generator],
    tol: float,
    max_iter: int,
    n_rounds: int,
) -> Optimum:
    """Search on few rows, climb what differs again on more and more, and finish the best.

    Interior-point steps on all rows are what a fit with bounded weights costs, and many of them
    lead along flat directions: rivals stop within about `ROUGH` nats of their maxima.
    """
    n_sets = len(problem.y)
    small, few = problem.subsample(SEARCH_ROWS), problem.subsample(MAX_ROWS)
    found = _rough_climb(small, starts, max_iter)
    for _ in range(n_rounds if problem.n_experts > 1 else 0):
        best = _best(found).params
        moves = rearrangements(few, best, 4 * starts.shape[1], rngs)
        more = _rough_climb(small, _promising(small, moves, starts.shape[1]), max_iter)
        pairs = zip(vars(found).values(), vars(more).values(), strict=True)
        found = NewtonResult(*(torch.cat(pair, 1) for pair in pairs))
    for here in [*_rungs(problem), problem]:
        found = _climb_rivals(here, found, tol, max_iter)
    ahead = _best(found)
    end = newton(
        problem,
        ahead.params,
        torch.arange(n_sets),
        tol=tol,
        max_iter=max_iter,
        first_barrier=ROUGH,
    )
    return replace(_best(_shaped(end, n_sets)), restarts=ahead.restarts)


def _rungs(problem: Problem) -> list[Problem]:
    """The problem on more and more rows, short of all and of what may be held."""
    sizes, n = [], RUNG * SEARCH_ROWS
    while n <= min(problem.n_observations // 2, problem.most_held):
        sizes.append(n)
        n *= RUNG
    return [problem.subsample(n) for n in sizes]


def _climb_rivals(problem: Problem, found: NewtonResult, tol: float, max_iter: int) -> NewtonResult:
    """What was found on fewer rows (R, S), valued on these; the best different ones climb on."""
    n_sets, n_found = found.value.shape
    rows = torch.arange(n_sets).repeat_interleave(n_found)
    different = _different(found.value, 3 * ROUGH, RIVALS)
    different[~different.any(1), 0] = True  # a data set whose starts have all failed
    chosen = torch.nonzero(different.ravel()).ravel()
    flat = NewtonResult(*(v.flatten(0, 1) for v in vars(found).values()))
    params = make_feasible(problem, flat.params, rows)
    value = problem.evaluate(params, rows, "value").value
    value = value.masked_fill(~weights_hold(problem, params, rows), -torch.inf)
    run = functools.partial(newton, problem, tol=tol, gain=ROUGH, first_barrier=ROUGH)
    end = _in_heats(run, params[chosen], rows[chosen], max_iter, HEAT, BEHIND)
    return _shaped(_with(replace(flat, params=params, value=value), chosen, end), n_sets)


def _rough_climb(problem: Problem, starts: Tensor, max_iter: int) -> NewtonResult:
    """EM and Newton from starts (R, S, P) to within about `ROUGH` nats of maxima."""
    n_sets, n_starts, size = starts.shape
    rows = torch.arange(n_sets).repeat_interleave(n_starts)
    inside = make_feasible(problem, starts.reshape(-1, size), rows)
    basin = em(problem, inside, rows, tol=EM_TOL, max_iter=EM_ITER).params
    run = _climb_few_rows(problem, basin, rows, LEAD_TOL, max_iter, gain=ROUGH)
    return _shaped(run, n_sets)


def _climb_few_rows(
    problem: Problem, basin: Tensor, rows: Tensor, tol: float, max_iter: int, gain: float = 0.0
) -> NewtonResult:
    """Newton from every run (B, P), those that fall behind given up after `PATIENCE` steps."""
    run = functools.partial(newton, problem, tol=tol, gain=gain)
    return _in_heats(run, basin, rows, max_iter, PATIENCE, ABANDON)


def _in_heats(
    run: Callable[..., NewtonResult],
    params: Tensor,
    rows: Tensor,
    max_iter: int,
    patience: int,
    behind: float,
) -> NewtonResult:
    """Newton runs (B, P); those ``behind`` their data set's best after ``patience`` steps end."""
    result = run(params, rows, max_iter=min(max_iter, patience))
    value = torch.nan_to_num(result.value, nan=-torch.inf)
    best = torch.full_like(value, -torch.inf).scatter_reduce(0, rows, value, "amax")
    going = (result.n_iter == patience) & ~result.converged & ~result.stalled
    going = torch.nonzero(going & (value > best[rows] - behind)).ravel()
    if len(going) and max_iter > patience:
        rest = run(result.params[going], rows[going], max_iter=max_iter - patience)
        result = _with(result, going, replace(rest, n_iter=rest.n_iter + patience))
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


def _different(value: Tensor, same: float = SAME, count: int = CARRIED) -> Tensor:
    """Which of the values (R, S) stand for the ``count`` best different maxima."""
    value = torch.nan_to_num(value, nan=-torch.inf)
    twin = ((value.unsqueeze(2) - value.unsqueeze(1)).abs() < same).tril(-1).any(2)
    rank = value.masked_fill(twin, -torch.inf).argsort(1, descending=True).argsort(1)
    return ~twin & (rank < count) & (value > value.amax(1, keepdim=True) - ABANDON)


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

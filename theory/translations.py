r"""The infimum over gate translations inside a Voronoi loss.

With cells fixed the loss F(c, t) of `theory.cells`, least over the masses' factor c, is
quasi-convex in the translation t (F is jointly convex in c and c t). Cells change on hyperplanes
of t; between them

* one translated number: golden section on every interval between two changes, exact;
* more: Newton steps on a smoothed F with a barrier at the hyperplanes, smoothing and barrier going
  to 0, from the best of the translations that lay one fitted atom on one true atom. For a fit whose
  atoms lie well inside their cells that is all; for others exact searches on lines come first. A
  search: the least of many local minima, not a proof.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .cells import Cells, Problem

MAX_ELEMENTS = 2**22
"""Largest temporary of a search, in numbers (32 MiB)."""

_GOLDEN = 0.6180339887498949
_N_STARTS = 4
_N_ROUNDS = 6
_N_NEWTON = 25


@dataclass(frozen=True, eq=False)
class Translation:
    """Where the infimum is: value (R,), factor of the masses (R,), shift (R, M), cells (R, E)."""

    value: Tensor
    factor: Tensor
    shift: Tensor
    cells: Tensor


def least_translation(problem: Problem) -> Translation:
    """The infimum of a batch of losses over translations, cells found anew at each."""
    n, n_fitted, n_true, _ = problem.fixed.shape
    n_moved = sum(problem.dims)
    search = _no_search if n_moved == 0 else _line_search if n_moved == 1 else _space_search
    starts = n_fitted * n_true * max(1, (n_true - 1) // 2 + 1)
    factors = n_true if problem.n_largest == n_true else 2 * n_true**2
    step = max(1, MAX_ELEMENTS // (starts * factors * n_true))
    found = [search(problem[slice(a, a + step)]) for a in range(0, n, step)]
    return Translation(*(torch.cat(field) for field in zip(*found, strict=True)))


def _no_search(problem: Problem) -> tuple[Tensor, ...]:
    shift = problem.weight.new_zeros(len(problem.weight), 1, 0)
    cells = problem.at(problem.nearest(shift))
    return _best(cells, shift, *cells.value(shift))


def _line_search(problem: Problem) -> tuple[Tensor, ...]:
    one = problem.weight.new_ones(len(problem.weight), 1)
    return _along(problem, torch.zeros_like(one), one)


def _along(
    problem: Problem,
    start: Tensor,  # (R, M)
    direction: Tensor,  # (R, M), of unit length
    *,
    n_kept: int = 8,
    steps: int = 72,
    crossings: bool = True,
) -> tuple[Tensor, ...]:
    """The least loss on a line: every interval between two changes of cells, by golden section."""
    gaps = problem.gaps + start[:, None, None]  # (R, E, J, M)
    still = problem.fixed.square().sum(-1) + gaps.square().sum(-1)
    along = (gaps * direction[:, None, None]).sum(-1)  # (R, E, J)
    a, b = torch.triu_indices(gaps.shape[-2], gaps.shape[-2], 1)
    changes = (still[..., b] - still[..., a]) / (2 * (along[..., a] - along[..., b]))
    changes = changes.where(changes.isfinite(), -along[..., :1]).flatten(1)
    feet = -along.flatten(1)  # nearest to laying one atom on another
    points = torch.cat([changes, feet], 1)
    reach = 1 + points.amax(1, keepdim=True) - points.amin(1, keepdim=True)
    outer = [points.amin(1, keepdim=True) - reach, points.amax(1, keepdim=True) + reach]
    ends = torch.cat([changes, *outer], 1).sort(1).values
    low, high = ends[:, :-1], ends[:, 1:]

    def place(s: Tensor) -> Tensor:  # (R, C) -> (R, C, M)
        return start.unsqueeze(1) + s.unsqueeze(-1) * direction.unsqueeze(1)

    cells = problem.at(problem.nearest(place((low + high) / 2)))

    def value_at(cells: Cells, s: Tensor) -> Tensor:
        return cells.value(place(s), crossings=crossings)[0]

    probes = [value_at(cells, low + u * (high - low)) for u in (0.0, 0.3, 0.7, 1.0)]
    value = torch.stack(probes).amin(0)
    keep = value.topk(min(n_kept, value.shape[1]), largest=False).indices
    cells, low, high = cells.take(keep), low.gather(1, keep), high.gather(1, keep)
    first, last = ends[:, :-1].gather(1, keep), ends[:, 1:].gather(1, keep)
    low, high, value = _golden(functools.partial(value_at, cells), low, high, steps)
    leader = value.argmin(1, keepdim=True)
    cells, middle = cells.take(leader), ((low + high) / 2).gather(1, leader)
    # the ends of the best interval and its kinks, exactly
    first, last = first.gather(1, leader), last.gather(1, leader)
    shift = place(torch.cat([middle, first, last, feet.clamp(first, last)], 1))
    cells = cells.take(torch.zeros(shift.shape[:2], dtype=torch.long))
    return _best(cells, shift, *cells.value(shift, crossings=crossings))


def _golden(
    f: Callable[[Tensor], Tensor], low: Tensor, high: Tensor, steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Shrunk intervals (R, C) and the value inside, by golden section."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    f_left, f_right = f(left), f(right)
    for _ in range(steps):
        go_left = f_left < f_right
        low, high = low.where(go_left, left), right.where(go_left, high)
        new = (high - _GOLDEN * (high - low)).where(go_left, low + _GOLDEN * (high - low))
        f_new = f(new)
        left, right = new.where(go_left, right), left.where(go_left, new)
        f_left, f_right = f_new.where(go_left, f_right), f_left.where(go_left, f_new)
    return low, high, torch.minimum(f_left, f_right)


def _space_search(problem: Problem) -> tuple[Tensor, ...]:
    """From the best of the translations that lay one atom on another: for a fit near the truth
    Newton steps alone; else exact searches on lines first, from several of them."""
    aligned = -problem.gaps.flatten(1, 2)  # (R, E J, M)
    cells = problem.at(problem.nearest(aligned))
    value, _ = cells.value(aligned)
    order = value.topk(min(_N_STARTS, value.shape[1]), largest=False).indices
    starts = aligned.gather(1, order.unsqueeze(-1).expand(-1, -1, aligned.shape[-1]))
    near = _is_near(problem, cells.take(order[:, :1]), starts[:, :1])
    fields = [torch.empty_like(x) for x in _best(cells, aligned, value, value)]
    for rows, reach in ((near, _polish), (~near, _explore)):
        if bool(rows.any()):
            found = reach(problem[rows], starts[rows])
            for field, part in zip(fields, found, strict=True):
                field[rows] = part
    return tuple(fields)


def _is_near(problem: Problem, cells: Cells, shift: Tensor) -> Tensor:
    """Whether every cell holds an atom and every atom lies well inside its cell; (R,)."""
    away = (problem.gaps + shift.unsqueeze(-2)).square().sum(-1) + problem.fixed.square().sum(-1)
    away = away.sort(-1).values.sqrt()
    inside = (away[..., 0] < away[..., 1] / 3).all(-1) if away.shape[-1] > 1 else True
    return (cells.mass[:, 0] > 0).all(-1) & inside


def _polish(problem: Problem, starts: Tensor) -> tuple[Tensor, ...]:
    """The best start and what Newton steps make of it."""
    shift = starts[:, :1]
    cells = problem.at(problem.nearest(shift))
    return _inside(cells, shift)


def _inside(cells: Cells, shift: Tensor) -> tuple[Tensor, ...]:
    """The better of a start (R, 1, M) and the end of Newton steps from it, cells held."""
    both = torch.cat([shift, _newton(cells, shift)], 1)
    cells = cells.take(torch.zeros(both.shape[:2], dtype=torch.long))
    return _best(cells, both, *cells.value(both))


def _explore(problem: Problem, starts: Tensor) -> tuple[Tensor, ...]:
    """Searches on lines from every start, then Newton steps from each end."""
    n, n_starts, n_moved = starts.shape
    many = problem[torch.arange(n).repeat_interleave(n_starts)]
    shift = starts.reshape(-1, 1, n_moved)
    cells = many.at(many.nearest(shift))
    state = _best(cells, shift, *cells.value(shift))
    probes = torch.Generator().manual_seed(0)
    for k in range(_N_ROUNDS):
        steps = 12 if k + 1 < _N_ROUNDS else 48
        turn = torch.randn(n_moved, n_moved, generator=probes, dtype=shift.dtype)
        for axis in torch.linalg.qr(turn)[0]:
            line = axis.expand(len(many.weight), -1)
            state = _better(
                state, _along(many, state[2], line, n_kept=3, steps=steps, crossings=False)
            )
    cells = many.at(state[3].unsqueeze(1))
    found = _better(state, _inside(cells, state[2].unsqueeze(1)))
    best = found[0].reshape(n, n_starts).argmin(1) + torch.arange(n) * n_starts
    return tuple(field[best] for field in found)


def _better(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Row by row the one of less value, which comes first."""
    wins = b[0] < a[0]
    return tuple(
        torch.where(wins.reshape(-1, *(1,) * (x.ndim - 1)), y, x) for x, y in zip(a, b, strict=True)
    )


def _newton(cells: Cells, shift: Tensor) -> Tensor:
    """Minimiser of the smoothed loss of each assignment, from the given translations.

    In (c, u = c t) and the level of the K largest cells the smoothed loss is convex; each level of
    smoothing is solved before the next.
    """
    problem = cells.problem
    n, n_cells, n_moved = shift.shape
    true = problem.true_weight
    far = problem.gaps.unsqueeze(1).expand(-1, n_cells, -1, -1, -1)
    apart = far - cells.gaps.unsqueeze(-2)  # own true atom minus the others', (R, C, E, J, M)
    still = problem.fixed.square().sum(-1).unsqueeze(1)
    slack = far.square().sum(-1) + still - cells.gaps.square().sum(-1, keepdim=True)
    slack = slack - (still * cells.member).sum(-1, keepdim=True)  # how much nearer the own one is
    size = slack.abs().amax((-2, -1), keepdim=True).clamp_min(1e-300)
    weight = problem.weight.unsqueeze(1).expand(cells.still.shape)
    factor = cells.value(shift)[1]
    least = (true / cells.mass).amin(-1) if problem.free_mass else 0 * factor
    unit = problem.gaps.norm(dim=-1).flatten(1).median(1).values.clamp_min(1e-12)
    table = (
        cells.gaps, cells.powers, cells.still, weight, cells.member, cells.mass, slack / size,
        2 * apart / size.unsqueeze(-1), unit.unsqueeze(1).expand(-1, n_cells), (1 - 1e-10) * least,
    )  # fmt: skip
    data = tuple(x.flatten(0, 1) for x in table)
    start = [factor.unsqueeze(-1) * shift, factor.unsqueeze(-1), 0 * factor.unsqueeze(-1)]
    v = torch.cat(start, dim=-1).flatten(0, 1)

    def loss(
        v: Tensor, eps: Tensor, gaps: Tensor, powers: Tensor, still: Tensor, weight: Tensor,
        member: Tensor, mass: Tensor, slack: Tensor, normal: Tensor, unit: Tensor, least: Tensor,
    ) -> Tensor:  # fmt: skip
        u, level = v[..., :n_moved], v[..., n_moved + 1]
        c = v[..., n_moved] if problem.free_mass else torch.ones_like(level)
        cost = c.unsqueeze(-1) * still
        moved = c[..., None, None] * gaps + u.unsqueeze(-2)
        for q, gap in enumerate(moved.split(problem.dims, dim=-1)):
            away = gap.square().sum(-1) + (eps * unit).square().unsqueeze(-1)
            share = c.clamp_min(1e-300).unsqueeze(-1) ** (1 - powers[..., q])
            cost = cost + weight * share * away.pow(powers[..., q] / 2)
        each = (cost.unsqueeze(-1) * member).sum(-2)
        each = each + ((c.unsqueeze(-1) * mass - true).square() + eps.square()).sqrt()
        if problem.n_largest < len(true):
            over = each - level.unsqueeze(-1)
            over = (over + (over.square() + eps.square()).sqrt()) / 2
            total = problem.n_largest * level + over.sum(-1)
        else:
            total = each.sum(-1) + level.square()
        if problem.free_mass:
            total = total - eps * (c - least).log()
        else:
            total = total + (v[..., n_moved] - 1).square()
        # a start may lie on an edge: inside by a hair
        room = c[..., None, None] * slack + (normal * u[..., None, None, :]).sum(-1) + 1e-9
        room = torch.where(member > 0, 1.0, room)
        return total - eps * room.log().mean((-2, -1))

    def derivatives(v: Tensor, *args: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            v = v.detach().requires_grad_(True)
            (g,) = torch.autograd.grad(loss(v, *args).sum(), v, create_graph=True)
            rows = [torch.autograd.grad(x.sum(), v, retain_graph=True)[0] for x in g.unbind(-1)]
        return g.detach().nan_to_num(), torch.stack(rows, dim=-2).nan_to_num()

    lengths = torch.cat([0.5 ** torch.arange(0.0, 12.0, 1.5), torch.zeros(1)]).to(v)
    for eps in torch.logspace(-1, -10, 10, dtype=v.dtype):
        rows = torch.arange(len(v))
        for _ in range(_N_NEWTON):
            own = [x[rows] for x in data]
            g, h = derivatives(v[rows], eps, *own)
            curvature, basis = torch.linalg.eigh(h)
            curvature = curvature.abs()
            curvature = curvature.clamp_min(1e-14) + 1e-14 * curvature.amax(-1, keepdim=True)
            step = (basis @ ((basis.mT @ g.unsqueeze(-1)) / curvature.unsqueeze(-1))).squeeze(-1)
            trial = v[rows] - lengths[:, None, None] * step
            f = loss(trial, eps, *own).nan_to_num(nan=torch.inf)
            v[rows] = trial[f.argmin(0), torch.arange(len(rows))]
            rows = rows[(g * step).sum(-1) > 0.01 * eps]
            if len(rows) == 0:
                break
    factor = v[:, n_moved] if problem.free_mass else torch.ones_like(v[:, 0])
    return (v[:, :n_moved] / factor.unsqueeze(-1)).reshape(n, n_cells, n_moved)


def _best(cells: Cells, shift: Tensor, value: Tensor, factor: Tensor) -> tuple[Tensor, ...]:
    """The least of C, as (value, factor, shift, cells)."""
    best = value.argmin(1)
    rows = torch.arange(len(best))
    return value[rows, best], factor[rows, best], shift[rows, best], cells.cells[rows, best]

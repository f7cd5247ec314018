r"""The infimum over gate translations inside a Voronoi loss.

With the cells held fixed, and c = exp(t0) the common factor of all fitted masses, the loss is

.. math::
    F(c, t) = \max_{|T| = K} \sum_{j \in T} \Bigl[ c\, S_j(t) + |c W_j - W^*_j| \Bigr], \qquad
    S_j(t) = \sum_{i \in A_j} w_i \Bigl(\sum_q |\delta_{iq}|^{p_q}
             + \sum_r |\delta_{ir} + t_r|^{p_r}\Bigr),

q over parts of an atom that stay and r over those that are translated. F is piecewise linear and
convex in c, so its minimum is at a kink of some c W_j or at a crossing of two cells: `Cells.value`
tries them all. In t, min over c of F is quasi-convex (F is jointly convex in c and c t). Cells
change on hyperplanes of t; between them

* one translated number: golden section on every interval between two changes, exact;
* more: Newton steps on a smoothed F with a barrier at the hyperplanes, smoothing and barrier going
  to 0, from the best of the translations that lay one fitted atom on one true atom. A search: the
  least of many local minima, not a proof.

Only masses c >= min_j W*_j / W_j are considered: at c = 0 every loss would be at most the truth's
mass, however far the atoms.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MAX_ELEMENTS = 2**22
_GOLDEN = 0.6180339887498949
_N_STARTS = 4
_N_ROUNDS = 6


@dataclass(frozen=True, eq=False)
class Problem:
    """A batch of R fitted measures with E atoms against one truth with J atoms.

    Attributes
    ----------
    weight, true_weight : Tensor
        (R, E) and (J,), masses.
    fixed, fixed_powers : Tensor
        (R, E, J, Q) deviations of the parts that stay and (Q, E + 1) their powers by cell size.
    moved, moved_true : sequence of Tensor
        The translated parts, (R, E, dim) and (J, dim).
    moved_powers : Tensor
        (number of translated parts, E + 1).
    n_largest : int
        K.
    free_mass, with_mass : bool
        Whether the factor c is free (else 1), and whether masses are compared at all (else an
        empty cell costs its true mass, and the others nothing).
    """

    weight: Tensor
    true_weight: Tensor
    fixed: Tensor
    fixed_powers: Tensor
    moved: Sequence[Tensor]
    moved_true: Sequence[Tensor]
    moved_powers: Tensor
    n_largest: int
    free_mass: bool
    with_mass: bool = True

    @property
    def dims(self) -> list[int]:
        return [z.shape[-1] for z in self.moved]

    @property
    def gaps(self) -> Tensor:
        """(R, E, J, M), fitted minus true, of all translated numbers."""
        if not self.moved:
            return self.fixed.new_zeros(*self.fixed.shape[:-1], 0)
        pairs = zip(self.moved, self.moved_true, strict=True)
        return torch.cat([z.unsqueeze(-2) - true for z, true in pairs], dim=-1)

    def split(self, shift: Tensor) -> tuple[Tensor, ...]:
        """Translations (..., M) part by part."""
        return shift.split(self.dims, dim=-1) if self.moved else ()

    def __getitem__(self, rows: slice | Tensor) -> Problem:
        return Problem(
            self.weight[rows],
            self.true_weight,
            self.fixed[rows],
            self.fixed_powers,
            [z[rows] for z in self.moved],
            self.moved_true,
            self.moved_powers,
            self.n_largest,
            self.free_mass,
            self.with_mass,
        )

    def nearest(
        self,
        shift: Tensor,  # (R, C, M)
    ) -> Tensor:
        """(R, C, E), the true atom nearest to each fitted one at each of C translations."""
        away = (self.gaps.unsqueeze(1) + shift[:, :, None, None]).square().sum(-1)
        return (away + self.fixed.square().sum(-1).unsqueeze(1)).argmin(-1)

    def at(
        self,
        cells: Tensor,  # (R, C, E)
    ) -> Cells:
        """The loss with these cells, as a function of the translation."""
        member = torch.nn.functional.one_hot(cells, len(self.true_weight)).to(self.weight)
        size = member.sum(-2)
        own_size = size.gather(-1, cells).long()
        pick = cells.unsqueeze(-1)

        def own(table: Tensor) -> Tensor:  # (R, E, J, Q) -> (R, C, E, Q)
            expanded = table.unsqueeze(1).expand(-1, cells.shape[1], -1, -1, -1)
            index = pick.unsqueeze(-1).expand(*pick.shape, table.shape[-1])
            return expanded.gather(-2, index).squeeze(-2)

        weight = self.weight.unsqueeze(1)
        fixed = own(self.fixed).pow(self.fixed_powers.T[own_size]).sum(-1)
        return Cells(
            problem=self,
            cells=cells,
            member=member,
            still=weight * fixed,
            mass=(weight.unsqueeze(-1) * member).sum(-2),
            gaps=own(self.gaps),
            powers=self.moved_powers.T[own_size],
        )

    def anchored(self, found: Translation, single: Tensor) -> Tensor:
        """(R, M): the translation that fits the single-atom cells best, sum of w |d| over them;
        the infimum's where there is none."""
        if not self.moved:
            return found.shift
        parts = []
        weight = self.weight * single
        for gap, start in zip(
            self.gaps.split(self.dims, dim=-1), self.split(found.shift), strict=True
        ):
            index = found.cells[..., None, None].expand(-1, -1, 1, gap.shape[-1])
            point = -gap.gather(-2, index).squeeze(-2)
            median = _geometric_median(point, weight)
            parts.append(torch.where(single.any(-1, keepdim=True), median, start))
        return torch.cat(parts, dim=-1)


@dataclass(frozen=True, eq=False)
class Cells:
    """The loss with fixed cells, for C assignments to each of R problems.

    Attributes
    ----------
    cells, member : Tensor
        (R, C, E) and, as 0 and 1, (R, C, E, J).
    still : Tensor
        (R, C, E), what each atom costs by the parts that stay.
    mass : Tensor
        (R, C, J), fitted mass of each cell.
    gaps, powers : Tensor
        (R, C, E, M) and (R, C, E, parts) of the translated parts.
    """

    problem: Problem
    cells: Tensor
    member: Tensor
    still: Tensor
    mass: Tensor
    gaps: Tensor
    powers: Tensor

    def take(
        self,
        index: Tensor,  # (R, C')
    ) -> Cells:
        """Some of the C assignments of each problem."""

        def pick(x: Tensor) -> Tensor:
            return x.gather(1, index[(...,) + (None,) * (x.ndim - 2)].expand(-1, -1, *x.shape[2:]))

        arrays = (self.cells, self.member, self.still, self.mass, self.gaps, self.powers)
        return Cells(self.problem, *map(pick, arrays))

    def value(
        self,
        shift: Tensor,  # (R, C, M)
        *,
        crossings: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """The loss, least over the factor of the masses, and that factor; both (R, C).

        Without ``crossings`` only the factors that match the mass of some cell are tried: an
        upper bound, and the same if K = J.
        """
        problem = self.problem
        cost = self.still
        moved = (self.gaps + shift.unsqueeze(-2)).split(problem.dims or [0], dim=-1)
        if problem.moved:
            for q, gap in enumerate(moved):
                away = gap.abs().squeeze(-1) if gap.shape[-1] == 1 else gap.norm(dim=-1)
                cost = cost + problem.weight.unsqueeze(1) * away.pow(self.powers[..., q])
        spread = (cost.unsqueeze(-1) * self.member).sum(-2)  # S, (R, C, J)
        factor = (
            self._factors(spread, crossings)
            if problem.free_mass
            else torch.ones_like(spread[..., :1])
        )
        c = factor.unsqueeze(-1)
        if problem.with_mass:
            mass = (c * self.mass.unsqueeze(-2) - problem.true_weight).abs()
        else:
            mass = problem.true_weight * (self.mass == 0).unsqueeze(-2)
        losses = c * spread.unsqueeze(-2) + mass  # (R, C, factors, J)
        total = _sum_of_largest(losses, problem.n_largest).nan_to_num(nan=torch.inf)
        best, index = total.min(-1)
        return best, factor.gather(-1, index.unsqueeze(-1)).squeeze(-1)

    def _factors(self, spread: Tensor, crossings: bool) -> Tensor:
        """Factors among which the best one is; (R, C, factors), infinite where there is none."""
        true = self.problem.true_weight
        kinks = true / self.mass
        if self.problem.n_largest == len(true) or not crossings:
            return kinks
        i, j = torch.triu_indices(len(true), len(true), 1)
        meetings = [
            (a * true[i] - b * true[j])
            / (spread[..., i] - spread[..., j] + a * self.mass[..., i] - b * self.mass[..., j])
            for a in (-1, 1)
            for b in (-1, 1)
        ]
        factors = torch.cat([kinks, *meetings], dim=-1)
        inside = factors >= kinks.amin(-1, keepdim=True)
        return factors.where(inside, torch.inf)


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
    """Minimiser of the smoothed loss of each assignment, from the given translations."""
    problem = cells.problem
    batch, n_moved = shift.shape[:2], shift.shape[-1]
    true = problem.true_weight
    weight = problem.weight.unsqueeze(1).expand(cells.still.shape)
    far = problem.gaps.unsqueeze(1).expand(-1, batch[1], -1, -1, -1)
    apart = far - cells.gaps.unsqueeze(-2)  # own true atom minus the others', (R, C, E, J, M)
    still = problem.fixed.square().sum(-1).unsqueeze(1)
    own_still = (still * cells.member).sum(-1, keepdim=True)
    slack0 = far.square().sum(-1) + still - cells.gaps.square().sum(-1, keepdim=True) - own_still
    size = slack0.abs().amax((-2, -1), keepdim=True).clamp_min(1e-300)
    data = (
        cells.gaps, cells.powers, cells.still, weight, cells.member, cells.mass,
        slack0 / size, 2 * apart / size.unsqueeze(-1),
    )  # fmt: skip
    data = tuple(x.flatten(0, 1) for x in data)
    unit = problem.gaps.norm(dim=-1).flatten(1).median(1).values.clamp_min(1e-12)
    unit = unit.repeat_interleave(batch[1])
    factor = cells.value(shift)[1].flatten()
    spread0 = true.mean().expand(factor.shape)
    v = torch.cat([shift.flatten(0, 1), factor.log().unsqueeze(-1), spread0.unsqueeze(-1)], dim=-1)

    def loss(
        v: Tensor, eps: Tensor, unit: Tensor, gaps: Tensor, powers: Tensor, still: Tensor,
        weight: Tensor, member: Tensor, mass: Tensor, slack0: Tensor, normal: Tensor,
    ) -> Tensor:  # fmt: skip
        t, c, level = v[:n_moved], torch.exp(v[n_moved]), v[n_moved + 1]
        cost = still
        for q, gap in enumerate((gaps + t).split(problem.dims, dim=-1)):
            away = gap.square().sum(-1) + (eps * unit).square()
            cost = cost + weight * away.pow(powers[:, q] / 2)
        each = c * (cost.unsqueeze(-1) * member).sum(-2)
        each = each + ((c * mass - true).square() + eps.square()).sqrt()
        if problem.n_largest < len(true):
            over = each - level
            total = problem.n_largest * level + (over + (over**2 + eps**2).sqrt()).sum() / 2
        else:
            total = each.sum() + (level - true.mean()).square()
        slack = slack0 + (normal * t).sum(-1)
        inside = torch.where(member > 0, 1.0, slack.clamp_min(0)) + 1e-300
        return total - eps * inside.log().sum() / inside.numel()

    in_dims = (0, None, 0) + (0,) * len(data)
    gradient = torch.func.vmap(torch.func.grad(loss), in_dims)
    hessian = torch.func.vmap(torch.func.hessian(loss), in_dims)
    values = torch.func.vmap(torch.func.vmap(loss, (0, *(None,) * (2 + len(data)))), in_dims)
    lengths = torch.cat([0.5 ** torch.arange(0.0, 12.0, 1.5), torch.zeros(1)]).to(v)
    for eps in torch.logspace(-1, -10, 10, dtype=v.dtype):
        for _ in range(4):
            g, h = gradient(v, eps, unit, *data), hessian(v, eps, unit, *data)
            curvature, basis = torch.linalg.eigh(torch.nan_to_num(h))
            curvature = curvature.abs().clamp_min(
                1e-12 * curvature.abs().amax(-1, keepdim=True) + 1e-300
            )
            step = (
                basis @ ((basis.mT @ torch.nan_to_num(g).unsqueeze(-1)) / curvature.unsqueeze(-1))
            ).squeeze(-1)
            trial = v.unsqueeze(1) - lengths[:, None] * step.unsqueeze(1)
            f = values(trial, eps, unit, *data).nan_to_num(nan=torch.inf)
            v = trial[torch.arange(len(v)), f.argmin(1)]
    return v[:, :n_moved].reshape(*batch, n_moved)


def _best(cells: Cells, shift: Tensor, value: Tensor, factor: Tensor) -> tuple[Tensor, ...]:
    """The least of C, as (value, factor, shift, cells)."""
    best = value.argmin(1)
    rows = torch.arange(len(best))
    return value[rows, best], factor[rows, best], shift[rows, best], cells.cells[rows, best]


def _sum_of_largest(x: Tensor, k: int) -> Tensor:
    if k == x.shape[-1]:
        return x.sum(-1)
    if k == 1:
        return x.amax(-1)
    if k == x.shape[-1] - 1:
        return x.sum(-1) - x.amin(-1)
    return x.topk(k).values.sum(-1)


def _geometric_median(
    points: Tensor,  # (R, E, dim)
    weight: Tensor,  # (R, E)
) -> Tensor:
    """The point with the least weighted sum of distances; (R, dim)."""

    def cost(centre: Tensor) -> Tensor:  # (R, C, dim) -> (R, C)
        away = (points.unsqueeze(1) - centre.unsqueeze(2)).norm(dim=-1)
        return (weight.unsqueeze(1) * away).sum(-1)

    at_points = cost(points).masked_fill(weight == 0, torch.inf)
    best = at_points.argmin(1)
    median = points[torch.arange(len(best)), best]
    if points.shape[-1] == 1:
        return median
    centre = (weight.unsqueeze(-1) * points).sum(1) / weight.sum(1)[:, None].clamp_min(1e-300)
    for _ in range(200):
        away = (points - centre.unsqueeze(1)).norm(dim=-1).clamp_min(1e-12)
        pull = weight / away
        centre = (pull.unsqueeze(-1) * points).sum(1) / pull.sum(1)[:, None].clamp_min(1e-300)
    better = cost(centre.unsqueeze(1)).squeeze(1) < at_points.amin(1)
    return torch.where(better.unsqueeze(-1), centre, median)

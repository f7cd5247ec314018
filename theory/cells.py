r"""The loss of a Voronoi cell assignment at a given gate translation.

With the cells held fixed, and c = exp(t0) the common factor of all fitted masses, the loss is

.. math::
    F(c, t) = \max_{|T| = K} \sum_{j \in T} \Bigl[ c\, S_j(t) + |c W_j - W^*_j| \Bigr], \qquad
    S_j(t) = \sum_{i \in A_j} w_i \Bigl(\sum_q |\delta_{iq}|^{p_q}
             + \sum_r |\delta_{ir} + t_r|^{p_r}\Bigr),

q over parts of an atom that stay and r over those that are translated. F is piecewise linear and
convex in c, so its minimum is at a kink of some c W_j or at a crossing of two cells: `Cells.value`
tries them all.

Only masses c >= min_j W*_j / W_j are considered: at c = 0 every loss would be at most the truth's
mass, however far the atoms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


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

    def anchored(
        self,
        shift: Tensor,  # (R, M)
        cells: Tensor,  # (R, E)
        single: Tensor,  # (R, E)
    ) -> Tensor:
        """(R, M): the translation that fits the single-atom cells best, sum of w |d| over them;
        ``shift`` where there is none."""
        if not self.moved:
            return shift
        parts = []
        weight = self.weight * single
        for gap, start in zip(self.gaps.split(self.dims, dim=-1), self.split(shift), strict=True):
            index = cells[..., None, None].expand(-1, -1, 1, gap.shape[-1])
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

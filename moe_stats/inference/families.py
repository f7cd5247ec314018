r"""Flat families: whole curves of models with one density.

Experts with the same line and scale form a *cell*. If every cell holds at least two experts and
the gates within the cells are the same up to a translation of each cell, each cell's gate is

.. math:: \exp(c_j + u_j'x) \sum_i q_i \exp(d_i'x),

and the sum over i, common to all cells, cancels between numerator and denominator of every gate
probability, whatever the q and d. One cell with a single expert is enough to exclude this.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.checks import check_int, check_real
from kernels.gating import Layout

from ..model import GaussianMoE
from .gauge import shifted_places

SAME = 1e-9
"""Difference, in units of scale and of the features' root mean square, of equal experts."""


@dataclass(frozen=True, eq=False)
class FlatFamily:
    """A family of models of one density: some gate slopes of every cell move together.

    Attributes
    ----------
    model : GaussianMoE
        Where the family was found.
    cells : tuple of tuple of int
        Experts with the same line and scale.
    moving : tuple of int
        One expert of each cell: those whose gates move together.
    """

    model: GaussianMoE
    cells: tuple[tuple[int, ...], ...]
    moving: tuple[int, ...]

    def __str__(self) -> str:
        return (
            f"every cell is over-fitted: {_gates(self.moving)} can move by any distance without "
            "changing the density"
        )

    def move(self, distance: float, feature: int = 0) -> GaussianMoE:
        """The model whose moving experts have gate slopes changed by ``distance``.

        Parameters
        ----------
        distance : float
            In units of the gate slope.
        feature : int
            Which slope.
        """
        check_real("distance", distance)
        check_int("feature", feature, 0, self.model.n_features - 1)
        params = self.model.to_params()
        moved = params + distance * self.directions()[1 + feature]
        return self.model.with_params(moved)

    def directions(self) -> Tensor:
        """Tangents (1 + D, P): the moving gates' intercepts, then each of their slopes."""
        gate = self.model.gate
        layout = Layout.of(gate.form, gate.n_experts, gate.n_features)
        places = shifted_places(type(gate), layout)
        tangents = torch.zeros(len(places), layout.size, dtype=torch.float64)
        for tangent, place in zip(tangents, places, strict=True):
            tangent[[place[e] for e in self.moving]] = 1.0
        return tangents


def flat_families(
    model: GaussianMoE,
    X: Tensor,  # (N, D)
) -> tuple[FlatFamily, ...]:
    """The flat families through a model: m - 1 if every cell holds m experts with equal gates up
    to translation, otherwise none."""
    from scipy.optimize import linear_sum_assignment

    gate = model.gate
    selects = gate.form.top_k is not None and gate.form.top_k < model.n_experts
    if selects or not {"log_weight", "gate_slope"} <= set(gate.translates):
        return ()
    cells = expert_cells(model, X)
    size = len(cells[0])
    if size < 2 or any(len(cell) != size for cell in cells):
        return ()
    units = torch.cat([X.new_ones(1), X.square().mean(0).sqrt()])
    own = torch.cat([gate.intercept.unsqueeze(-1), gate.slope], dim=-1) * units
    patterns = [own[list(cell)] - own[list(cell)].mean(0) for cell in cells]
    matched = []
    for cell, pattern in zip(cells, patterns, strict=True):
        cost = torch.cdist(patterns[0], pattern)
        first, own_place = linear_sum_assignment(cost.numpy())
        if float(cost[first, own_place].max()) > SAME * (1 + float(own.abs().max())):
            return ()
        matched.append([cell[i] for i in own_place])
    columns = list(zip(*matched, strict=True))
    return tuple(FlatFamily(model, cells, moving) for moving in columns[:-1])


def expert_cells(
    model: GaussianMoE,
    X: Tensor,  # (N, D)
) -> tuple[tuple[int, ...], ...]:
    """Experts grouped by equal line and scale."""
    experts = model.experts
    lines = torch.cat([experts.slope * X.square().mean(0).sqrt(), experts.intercept[:, None]], -1)
    apart = torch.cdist(lines, lines) / experts.scale
    apart += (experts.scale[:, None] / experts.scale - 1).abs()
    cells: list[list[int]] = []
    for e in range(model.n_experts):
        home = next((cell for cell in cells if float(apart[cell[0], e]) <= SAME), None)
        if home is None:
            cells.append([e])
        else:
            home.append(e)
    return tuple(tuple(cell) for cell in cells)


def _gates(experts: tuple[int, ...]) -> str:
    if len(experts) == 1:
        return f"the gate of expert {experts[0]}"
    return f"the gates of experts {', '.join(map(str, experts))} together"

r"""The fitted measures near a truth: what an inverse bound is an infimum over.

True atom j has m_j fitted ones. In *deviations* d from it the fitted measure is

.. math::
    G = \sum_j e^{\beta^*_{0j} + \mu_j} \sum_{i \in A_j} q_i\,
        \delta_{(\beta^*_{1j} + d\beta_{1i},\ a^*_j + da_i,\ b^*_j + db_i,\ s^*_j + ds_i)},
    \qquad \sum_{i \in A_j} q_i = 1,\quad q_i \ge q_0,

s the variance, with the gate's shared parameters (a temperature) free as well. Every deviation is
at most a radius, every variance at least a bound: the set is compact, without which an atom may
vanish or sit on another true one and no inverse bound holds.

A translation of the gate that leaves the density unchanged would make deviations meaningless: mu
and, where the gate allows it, one :math:`d\beta_1` are 0 in the cell of the *anchor*, a true atom
with a single fitted one if there is any.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from kernels.checks import check_int, check_real
from moe_stats import Design, GateTemplate, GaussianMoE, LinearExperts

from ..distances import double

Array = NDArray[np.float64]

ATOM = ("gate_slope", "slope", "intercept", "variance")
"""Groups of deviations of single atoms."""

GROUPS = (*ATOM, "share", "mass", "temperature")
"""All groups: shares of an atom in its cell, log masses of cells, logarithms of what all experts
share, which is a temperature where there is any."""


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """A compact set of measures with a given number of fitted atoms for each true one.

    Parameters
    ----------
    truth : GaussianMoE
        J true experts of D features, in float64.
    design : Design
        The law of X; with D > 1 features its coordinates are independent.
    cells : tuple of int
        Fitted atoms of each true one, (J,), at least 1.
    cell : int or None
        The examined cell, from 0; None takes the first with several atoms, or the first.
    gate : GateTemplate or None
        The fitted gate, if its options differ from those of the truth's, as ``top_k`` may.
    min_share : float
        q0, the least share of an atom in its cell, in (0, 1 / max(cells)).
    radius : float
        Bound on deviations.
    min_scale : float or None
        Least standard deviation, in units of y; None takes a tenth of the smallest true one.
    hold : tuple of str
        Groups that stay at the truth, such as "temperature".
    breaks : tuple of float
        Where integrals over one feature are split besides the places found.

    Raises
    ------
    ValueError
        If a parameter is not as described, or the gate's masses are no invariance of it, so that
        copies of an atom cannot share its mass.

    Examples
    --------
    >>> from moe_stats import SoftmaxGate, Uniform
    >>> truth = GaussianMoE(
    ...     SoftmaxGate([0.3, 0.0], [[1.0], [0.0]]),
    ...     LinearExperts([[-1.0], [1.0]], [0.5, -0.5], [0.5, 0.6]),
    ... )
    >>> near = Neighbourhood(truth, Uniform(0, 1), cells=(2, 1))
    >>> near.cell, near.anchor, near.size
    (0, 1, 15)
    """

    truth: GaussianMoE
    design: Design
    cells: tuple[int, ...]
    cell: int | None = None
    gate: GateTemplate | None = None
    min_share: float = 0.25
    radius: float = 1.0
    min_scale: float | None = None
    hold: tuple[str, ...] = ()
    breaks: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _check(self)
        fill = object.__setattr__
        fill(self, "truth", double(self.truth))
        if self.gate is None:
            fill(self, "gate", GateTemplate(type(self.truth.gate), self.truth.gate.options))
        if self.cell is None:
            fill(self, "cell", next((j for j, m in enumerate(self.cells) if m > 1), 0))

    @property
    def n_features(self) -> int:
        return self.truth.n_features

    @cached_property
    def members(self) -> NDArray[np.int64]:
        """(E,), the true atom of each fitted one, ascending."""
        return np.repeat(np.arange(len(self.cells)), self.cells)

    @property
    def anchor(self) -> int:
        """The true atom whose cell fixes the translation of the gate."""
        others = [j for j in range(len(self.cells)) if j != self.cell] or [0]
        return min(others, key=lambda j: self.cells[j] > 1)

    @property
    def width(self) -> int:
        """Deviations of one atom."""
        return 2 * self.n_features + 2

    @property
    def size(self) -> int:
        """Length of the vector of deviations."""
        return len(self.group)

    @cached_property
    def group(self) -> NDArray[np.str_]:
        """(P,), the group of each entry: atom by atom `ATOM`; then the shares, one fewer than
        atoms, cell by cell; masses; what is shared."""
        D = self.n_features
        atom = ["gate_slope"] * D + ["slope"] * D + ["intercept", "variance"]
        n_atoms, n_cells = sum(self.cells), len(self.cells)
        rest = ["share"] * (n_atoms - n_cells) + ["mass"] * n_cells
        return np.array(atom * n_atoms + rest + ["temperature"] * self.truth.gate.form.n_shared)

    def where(self, group: str, cell: int | None = None) -> NDArray[np.int64]:
        """Indices of a group of `ATOM`, in a cell or anywhere."""
        atoms = np.arange(sum(self.cells)) if cell is None else np.flatnonzero(self.members == cell)
        own = np.flatnonzero(self.group[: self.width] == group)
        return (atoms[:, None] * self.width + own).ravel()

    @cached_property
    def free(self) -> NDArray[np.bool_]:
        """(P,), whether an entry is neither held nor pinned by the anchor."""
        free = ~np.isin(self.group, self.hold)
        free[np.flatnonzero(self.group == "mass")[self.anchor]] = False
        if "gate_slope" in self.truth.gate.translates:
            free[self.where("gate_slope", self.anchor)[-self.n_features :]] = False
        return free

    @cached_property
    def bounds(self) -> tuple[Array, Array]:
        """(P,) and (P,): least and largest entries."""
        low, high = np.full(self.size, -self.radius), np.full(self.size, self.radius)
        share = self.group == "share"
        low[share], high[share] = 0.0, 1.0
        true = self.truth.experts.scale.square().numpy()
        least = self.truth.experts.scale.min() / 10 if self.min_scale is None else self.min_scale
        variance = self.where("variance")
        low[variance] = np.maximum(low[variance], float(least) ** 2 - true[self.members])
        return low, high

    def shares(self, deviations: Array) -> tuple[Array, Array]:
        r"""Shares (E,) and their derivatives (E, number of share entries).

        Entries t in [0, 1] break a stick: q_i = q0 + t_i r_i, r_(i+1) = r_i (1 - t_i), the last
        atom of a cell keeping what is left; any t gives shares of at least q0.
        """
        t = deviations[self.group == "share"]
        q, derivative, first, column = [], np.zeros((len(self.members), len(t))), 0, 0
        for m in self.cells:
            left = 1 - m * self.min_share if m > 1 else 1 - self.min_share
            slope = np.zeros(len(t))
            for i in range(m):
                last = i == m - 1
                part, part_slope = (1.0, 0.0) if last else (t[column], 1.0)
                derivative[first + i] = part * slope
                q.append(self.min_share + part * left)
                if not last:
                    derivative[first + i, column] += part_slope * left
                    slope = (1 - part) * slope
                    slope[column] -= left
                    left *= 1 - part
                    column += 1
            first += m
        return np.array(q), derivative

    def copies(self) -> Array:
        """Deviations of the truth itself: no deviation, even shares."""
        deviations = np.zeros(self.size)
        t = [1 / (m - i) for m in self.cells for i in range(m - 1)]
        deviations[self.group == "share"] = t
        return deviations

    def model(self, deviations: Array) -> GaussianMoE:
        """The fitted model; exact up to the rounding of truth + deviation."""
        assert self.gate is not None
        D, member = self.n_features, self.members
        own, shared = (p.numpy().copy() for p in self.truth.gate.pack())
        atoms = deviations[: len(member) * self.width].reshape(len(member), -1)
        mass = deviations[self.group == "mass"]
        log_share = np.log(self.shares(deviations)[0]) + mass[member]
        own = own[member]
        own[:, 1:] += atoms[:, :D]
        shared += deviations[self.group == "temperature"]
        gate = self.gate.build(torch.from_numpy(own), torch.from_numpy(shared))
        log_weight = gate.atoms()[0].numpy()
        unit = own.copy()
        unit[:, 0] += 1.0  # what one unit of b0 adds to a log weight
        per_unit = self.gate.build(torch.from_numpy(unit), torch.from_numpy(shared))
        own[:, 0] += log_share / (per_unit.atoms()[0].numpy() - log_weight)
        e = self.truth.experts
        experts = LinearExperts(
            e.slope[member] + torch.from_numpy(atoms[:, D : 2 * D]),
            e.intercept[member] + torch.from_numpy(atoms[:, -2]),
            (e.scale[member].square() + torch.from_numpy(atoms[:, -1])).sqrt(),
        )
        return GaussianMoE(
            self.gate.build(torch.from_numpy(own), torch.from_numpy(shared)), experts
        )

    def largest(self, deviations: Array) -> dict[str, float]:
        """Largest absolute entry by group: atoms of the examined cell, of the others under
        "other ..." names; masses and shared parameters."""
        found = {}
        inside = np.isin(
            np.arange(self.size) // self.width, np.flatnonzero(self.members == self.cell)
        )
        for group in GROUPS:
            here = self.group == group
            if group == "share" or not here.any():
                continue
            parts = {group: here & inside, f"other {group}": here & ~inside}
            for name, part in parts.items() if group in ATOM else ((group, here),):
                if part.any():
                    found[str(name)] = float(np.abs(deviations[part]).max())
        return found


def _check(near: Neighbourhood) -> None:
    truth, cells = near.truth, near.cells
    if truth.batch_shape:
        raise ValueError(
            f"The 'truth' parameter must be a single model; got batch shape {truth.batch_shape}."
        )
    if near.design.n_features != truth.n_features:
        raise ValueError(
            "The 'design' parameter must have as many features as the truth, "
            f"{truth.n_features}; got {near.design.n_features}."
        )
    form = truth.gate.form
    if "log_weight" not in truth.gate.translates or form.extra_parameters != 1:
        raise ValueError(
            "The 'truth' parameter must have a gate whose copies of an atom can share its mass "
            f"(one whose log weights may be translated); got {type(truth.gate).__name__}."
        )
    wanted = isinstance(cells, tuple | list) and len(cells) == truth.n_experts
    if not wanted or not all(isinstance(m, int) and m >= 1 for m in cells):
        raise ValueError(
            f"The 'cells' parameter must hold {truth.n_experts} ints of at least 1, one a true "
            f"atom; got {cells!r}."
        )
    if near.cell is not None:
        check_int("cell", near.cell, 0, len(cells) - 1)
    if not 0 < check_real("min_share", near.min_share) < 1 / max(cells):
        raise ValueError(
            f"The 'min_share' parameter must be a number in (0, 1/{max(cells)}), for cells of "
            f"{max(cells)} atoms; got {near.min_share!r}."
        )
    check_real("radius", near.radius, low=0.0, strict=True)
    if not isinstance(near.hold, tuple | list) or any(group not in GROUPS for group in near.hold):
        raise ValueError(f"The 'hold' parameter must name groups of {GROUPS}; got {near.hold!r}.")

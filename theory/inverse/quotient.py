r"""The Hellinger distance of a nearby measure from the truth, to the last digit.

With deviations d as unknowns (`theory.inverse.neighbourhood`), nothing is subtracted that is equal
in its leading digits. Let r_j be the truth's responsibilities, g_j its gate probabilities, and

.. math::
    \varepsilon_i(x) &= \mu_j + s_i(x) - s^*_j(x), \\
    \delta_i(x, y) &= \varepsilon_i + \log f_i - \log f^*_j
        = \varepsilon_i - \tfrac12 \log(1 + ds_i / s^*_j) + \frac{z_j^2\, ds_i}{2 s^*_j s_i}
          + \frac{\Delta_i (z_j - \Delta_i / 2)}{s_i},

with z_j = y - mean_j(x), Delta_i = da_i'x + db_i. As the shares of a cell sum to one,

.. math::
    \frac{p_G}{p_{G_*}} = \frac{1 + A}{1 + B}, \qquad
    A = \sum_j r_j \sum_{i \in A_j} q_i\, \mathrm{expm1}\, \delta_i, \qquad
    B = \sum_j g_j \sum_{i \in A_j} q_i\, \mathrm{expm1}\, \varepsilon_i,

.. math::
    E_X h^2 = \tfrac12 E_X \int p_{G_*} \Bigl(\frac{R}{1 + \sqrt{1 + R}}\Bigr)^2 dy, \qquad
    R = \frac{A - B}{1 + B}.

What remains is that terms of the size of the deviations cancel in A - B down to the size of h, an
absolute error of about 1e-16 times the deviations, and the rounding of scores, 1e-16 times their
size: both are stated with every value. E_X h^2 is a sum of
squares over nodes; its residuals and their Jacobian are what `theory.inverse.descent` works on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kernels.gating import naive

from .._validation import as_array
from .grid import Grid, grid
from .neighbourhood import Array, Neighbourhood

NODES = (10, 6)
"""Nodes on each piece of x and of y."""

FINER = (14, 9)
"""The second count that must agree."""

_LEAST_ROOT = 1e-8
"""Root of a quotient below which rounding of its slope would be blown up."""

_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Discrepancy:
    """How far a nearby measure is from the truth.

    Attributes
    ----------
    value : float
        (E_X h^2)^(1/2), the Hellinger distance of the joint laws.
    mean : float
        E_X h, at most that.
    error : float
        Difference of `value` between two node counts.
    rounding : float
        What rounding leaves in `value`: resolution of the quadrature.
    """

    value: float
    mean: float
    error: float
    rounding: float


class Quotient:
    """Residuals of p_G / p_G* - 1 over the nodes of a neighbourhood.

    Parameters
    ----------
    near : Neighbourhood
    nodes : (int, int)
        Nodes on each piece of x and of y.
    """

    def __init__(self, near: Neighbourhood, nodes: tuple[int, int] = NODES) -> None:
        self.near = near
        self.grid: Grid = grid(
            near.truth, near.design, x_nodes=nodes[0], y_nodes=nodes[1], breaks=near.breaks
        )
        self._x = [torch.from_numpy(column.copy()) for column in self.grid.x.T]
        self._own, self._shared = (p.numpy() for p in near.truth.gate.pack())
        self._selected = self.grid.gate > 0
        self._responsibilities = np.exp(self.grid.log_responsibilities)
        self._score, _ = self._scores(self._own, self._shared)
        self._variance = near.truth.experts.scale.square().numpy()

    def residuals(
        self,
        deviations: Array,  # (P,)
        *,
        jacobian: bool = False,
    ) -> tuple[Array, Array | None]:
        """Residuals (M L,) whose squares sum to E_X h^2, and their Jacobian (M L, P).

        Infinite where the fitted gate selects other experts than the truth's, whose densities the
        quotient cannot express.
        """
        parts = self._parts(deviations)
        if parts is None:
            return np.full(self.grid.root.size, np.inf), None
        total, gate_total = parts.grown.sum(0), parts.gate_grown.sum(0)[:, None]  # 1 + A, 1 + B
        ratio = total / gate_total
        root = np.sqrt(ratio)
        R = (parts.terms.sum(0) - parts.gate_terms.sum(0)[:, None]) / gate_total
        residual = self.grid.root * R / (1 + root)
        if not jacobian:
            return residual.ravel(), None
        columns = self._columns(deviations, parts)
        slope = self.grid.root / (2 * np.maximum(root, _LEAST_ROOT) * gate_total)
        J = np.empty((self.near.size, residual.size)).T  # written column by column
        for k, (dA, dB) in enumerate(columns):
            J[:, k] = (slope * (dA if dB is None else dA - ratio * dB[:, None])).ravel()
        return residual.ravel(), J

    def value(self, deviations: Array) -> float:
        """(E_X h^2)^(1/2)."""
        return float(np.linalg.norm(self.residuals(deviations)[0]))

    def mean(self, deviations: Array) -> float:
        """E_X h."""
        squared = self.residuals(deviations)[0].reshape(self.grid.root.shape) ** 2
        return float(np.sqrt(self.grid.weight) @ np.sqrt(squared.sum(-1)))

    def rounding(self, deviations: Array) -> float:
        """Size of what rounding leaves in `value`: of the terms that cancel, and of scores."""
        parts = self._parts(deviations)
        assert parts is not None
        terms = np.abs(parts.terms).sum(0) + np.abs(parts.gate_terms).sum(0)[:, None]
        scores = (parts.grown - parts.gate_grown[..., None]) * parts.score_size[..., None]
        terms = terms + np.sqrt((scores**2).sum(0))
        return _EPS * float(np.linalg.norm(self.grid.root * terms))

    def _scores(self, own: Array, shared: Array) -> tuple[Array, tuple[Any, ...]]:
        columns = [torch.from_numpy(c.copy())[:, None] for c in own.T]
        common = [torch.tensor(float(s), dtype=torch.float64) for s in shared]
        form = self.near.truth.gate.form
        score = form.score(columns, common, self._x).expand(len(own), len(self.grid.x))
        return score.numpy(), form.score_gradient(columns, common, self._x)

    def _parts(self, deviations: Array) -> _Parts | None:
        near, D = self.near, self.near.n_features
        member, width = near.members, near.width
        atoms = deviations[: len(member) * width].reshape(len(member), width)
        own = self._own[member]
        own[:, 1:] += atoms[:, :D]
        shared = self._shared + deviations[near.group == "temperature"]
        score, gradient = self._scores(own, shared)
        if not self._selects(own, shared):
            return None
        mass = deviations[near.group == "mass"][member]
        before = self._score[member]
        epsilon = mass[:, None] + (score - before)  # (E, M)
        shift = atoms[:, D : 2 * D] @ self.grid.x.T + atoms[:, -2:-1]  # (E, M)
        ds = atoms[:, -1][:, None, None]
        true = self._variance[member][:, None, None]
        variance = true + ds
        z = self.grid.residual[member]
        moved = z - shift[..., None]
        delta = (
            epsilon[..., None]
            - 0.5 * np.log1p(ds / true)
            + z**2 * (ds / (2 * true * variance))
            + shift[..., None] * (z - 0.5 * shift[..., None]) / variance
        )
        share, share_slope = near.shares(deviations)
        r = self._responsibilities[member]
        change = r * np.expm1(np.minimum(delta, 1))
        large = delta >= 1  # where r may underflow though its product with the ratio does not
        if large.any():
            log_r = self.grid.log_responsibilities[member]
            change[large] = np.exp(log_r[large] + delta[large]) - r[large]
        grown = r + change
        gate = self.grid.gate[member]
        gate_change = gate * np.expm1(epsilon)
        terms, gate_terms = share[:, None, None] * change, share[:, None] * gate_change
        return _Parts(
            terms=terms,
            gate_terms=gate_terms,
            change=change,
            gate_change=gate_change,
            grown=share[:, None, None] * grown,
            gate_grown=share[:, None] * gate * np.exp(epsilon),
            score_size=np.where(score == before, 0.0, np.abs(score) + np.abs(before)),
            score_slope=[
                np.broadcast_to(
                    c.numpy() if isinstance(c, Tensor) else np.float64(c), epsilon.shape
                )
                for c in gradient
            ],
            mean_slope=moved / variance,
            variance_slope=0.5 * ((moved / variance) ** 2 - 1 / variance),
            share_slope=share_slope,
        )

    def _columns(self, deviations: Array, p: _Parts) -> list[tuple[Array, Array | None]]:
        """Derivatives of A (M, L) and B (M,) in each entry, None where B does not move."""
        near, D = self.near, self.near.n_features
        member = near.members
        columns: list[tuple[Array, Array | None]] = []
        for i in range(len(member)):
            columns += [
                (p.grown[i] * slope[i][:, None], p.gate_grown[i] * slope[i])
                for slope in p.score_slope[1 : 1 + D]
            ]
            by_mean = p.grown[i] * p.mean_slope[i]
            columns += [(by_mean * x[:, None], None) for x in self.grid.x.T]
            columns.append((by_mean, None))
            columns.append((p.grown[i] * p.variance_slope[i], None))
        for dq in p.share_slope.T:
            columns.append((np.tensordot(dq, p.change, 1), dq @ p.gate_change))
        for j in range(len(near.cells)):
            own = member == j
            columns.append((p.grown[own].sum(0), p.gate_grown[own].sum(0)))
        for slope in p.score_slope[1 + D :]:
            columns.append(((p.grown * slope[..., None]).sum(0), (p.gate_grown * slope).sum(0)))
        return columns

    def _selects(self, own: Array, shared: Array) -> bool:
        """Whether a top-K gate selects exactly the atoms of the truly selected cells."""
        near = self.near
        assert near.gate is not None
        form = near.gate.form()
        if form.top_k is None or form.top_k >= len(own):
            return bool(self._selected.all())
        columns = [torch.from_numpy(c.copy())[:, None] for c in own.T]
        common = [torch.tensor(float(s), dtype=torch.float64) for s in shared]
        ranks = (form.rank or form.score)(columns, common, self._x)
        selected = naive.select(ranks, form.top_k).numpy()
        return bool((selected == self._selected[near.members]).all())


@dataclass(frozen=True, eq=False)
class _Parts:
    """The pieces of a quotient; leading dimension E, then M, then L."""

    terms: Array
    gate_terms: Array
    change: Array
    gate_change: Array
    grown: Array
    gate_grown: Array
    score_size: Array
    score_slope: list[NDArray[np.float64]]
    mean_slope: Array
    variance_slope: Array
    share_slope: Array


def discrepancy(near: Neighbourhood, deviations: Array) -> Discrepancy:
    """Distance of a nearby measure from the truth, by quadrature with two node counts.

    Parameters
    ----------
    near : Neighbourhood
    deviations : ndarray
        (P,), laid out as `Neighbourhood.group` says.

    Returns
    -------
    Discrepancy

    Examples
    --------
    Two copies of an atom moved apart by 1e-4 to either side, variances following: what is left is
    of fourth order, and far below what p - q would resolve.

    >>> from moe_stats import LinearExperts, SoftmaxGate, Uniform, GaussianMoE
    >>> truth = GaussianMoE(
    ...     SoftmaxGate([0.3, 0.0], [[1.0], [0.0]]),
    ...     LinearExperts([[-1.0], [1.0]], [0.5, -0.5], [0.5, 0.6]),
    ... )
    >>> near = Neighbourhood(truth, Uniform(0, 1), cells=(2, 1))
    >>> d = near.copies()
    >>> d[near.where("intercept", 0)] = 1e-4, -1e-4
    >>> d[near.where("variance", 0)] = -1e-8
    >>> print(f"{discrepancy(near, d).value:.1e}")
    1.4e-16
    """
    deviations = as_array("deviations", deviations)
    if deviations.shape != (near.size,):
        raise ValueError(
            f"The 'deviations' parameter must have shape ({near.size},); got {deviations.shape}."
        )
    coarse, fine = Quotient(near), Quotient(near, FINER)
    value = fine.value(deviations)
    return Discrepancy(
        value=value,
        mean=fine.mean(deviations),
        error=abs(value - coarse.value(deviations)),
        rounding=fine.rounding(deviations),
    )

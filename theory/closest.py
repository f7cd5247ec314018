r"""The member of a family of mixtures of experts closest to a truth, from given starts.

.. math:: \min_\theta E_X\, h^2(p_\theta(\cdot | X), p_*(\cdot | X)) \quad\text{subject to}\quad
          E_X\, g_e(X) \ge w \text{ for every expert that is ever selected},

with bounds on single parameters; then E_X h, which is what is reported, from where that ended. It
is smooth while no selection changes: L-BFGS-B with gradients through the quadrature, whose nodes
follow the components in y and are split in x at the boundaries of the current model, anew in each
round. Where a boundary itself moves (ranking by logit) the gradient does not see it, so a simplex
search on E_X h ends the work.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kernels.gating import Layout, naive
from moe_stats import Design, GateTemplate, GaussianMoE, LinearExperts

from .distances import hellinger, places, rows, split_nodes
from .gaussian_mixtures import Mixtures, divergence
from .selection import changes

Array = NDArray[np.float64]

_X_NODES, _Y_NODES = 24, 6
_N_DRAWS = 256
_PENALTY = 100.0
_MARGIN = 1.01
"""The penalty aims at a weight a little above the bound, so that its slack is no violation."""


@dataclass(frozen=True)
class Family:
    """Models of k experts behind a gate, in a compact set.

    Attributes
    ----------
    gate : GateTemplate
    n_experts, n_features : int
    min_weight : float
        Least mean gate probability of an expert that is ever selected.
    gate_bound : float
        Bound on the absolute value of gate parameters.
    min_scale : float
        Least scale, in units of y.
    experts : type of LinearExperts
        The kind of experts.
    """

    gate: GateTemplate
    n_experts: int
    n_features: int
    min_weight: float
    gate_bound: float
    min_scale: float
    experts: type[LinearExperts] = LinearExperts

    @property
    def layout(self) -> Layout:
        return Layout.of(self.gate.form(), self.n_experts, self.n_features)

    def model(self, params: Array) -> GaussianMoE:
        """The model (or batch) with these flat parameters."""
        flat = torch.from_numpy(params)
        return GaussianMoE.from_params(flat, self.gate, self.n_experts, self.experts)

    def region(self) -> Region:
        """All of the family."""
        layout = self.layout
        low, high = np.full(layout.size, -np.inf), np.full(layout.size, np.inf)
        gate = layout.gate_indices()
        low[gate], high[gate] = -self.gate_bound, self.gate_bound
        shared, held = slice(layout.size - layout.n_shared, None), self.experts.held(layout).numpy()
        low[shared], high[shared] = -self.gate.gate.shared_bound, self.gate.gate.shared_bound
        low[held] = high[held] = 0.0
        low[[layout.scale_index(e) for e in range(self.n_experts)]] = math.log(self.min_scale)
        return Region(low, high)


@dataclass(frozen=True, eq=False)
class Region:
    """Where a search may go.

    Attributes
    ----------
    low, high : ndarray
        (P,), bounds on single parameters.
    members : Tensor or None
        (J, E), 1 where a fitted atom belongs to a true one; None leaves masses free.
    log_mass : Tensor or None
        (J,), logarithms of the true masses.
    radius : float
        How far the logarithm of a cell's mass may be from the true one.
    """

    low: Array
    high: Array
    members: Tensor | None = None
    log_mass: Tensor | None = None
    radius: float = math.inf

    @property
    def empty(self) -> bool:
        return bool((self.low > self.high).any())

    def clip(self, params: Array) -> Array:
        return np.clip(params, self.low, self.high)

    def excess(
        self,
        log_weight: Tensor,  # (..., E)
        margin: float = 1.0,
    ) -> Tensor:
        """By how many radii masses are further than radius / margin; (..., J)."""
        if self.members is None or self.log_mass is None:
            return torch.zeros_like(log_weight)
        mass = torch.logsumexp(log_weight.unsqueeze(-2) + torch.log(self.members), dim=-1)
        return (margin * (mass - self.log_mass).abs() / self.radius - 1).clamp_min(0)


class Target:
    """The distance to a truth, as a function of flat parameters.

    Parameters
    ----------
    truth : GaussianMoE
    design : Design
    family : Family
    random_state : seed
        Of the draws of X for more than one feature.
    """

    def __init__(
        self, truth: GaussianMoE, design: Design, family: Family, random_state: Any
    ) -> None:
        self.truth, self.design, self.family = truth, design, family
        self.random_state = random_state
        if truth.n_features > 1:
            self.draws = design.sample(_N_DRAWS, random_state).to(torch.float64)

    def nodes(self, params: Array | None = None) -> tuple[Tensor, Tensor]:
        """X (M, D) and weights (M,), split at the boundaries of the truth and of a model."""
        if self.truth.n_features > 1:
            return self.draws, torch.full((_N_DRAWS,), 1 / _N_DRAWS, dtype=torch.float64)
        models = [self.truth] if params is None else [self.family.model(params), self.truth]
        X, weights = split_nodes(places(models, self.design), self.design, _X_NODES)
        return X[0], weights[0]

    def squared(
        self,
        params: Tensor,  # (B, P)
        X: Tensor,  # (M, D)
    ) -> tuple[Tensor, Tensor]:
        """h^2 at each x and gate probabilities; (B, M) and (B, M, E)."""
        family, layout = self.family, self.family.layout
        _, slope, intercept, log_scale, _ = layout.split(params)
        x = X.mT.expand(len(params), -1, -1)
        log_gate = naive.log_gate(params, family.gate.form(), x, layout).mT  # (B, M, E)
        mean = X @ slope.mT + intercept.unsqueeze(-2)
        scale = torch.exp(log_scale).unsqueeze(-2).expand(mean.shape)
        fields = (f.reshape(-1, family.n_experts) for f in (log_gate, mean, scale))
        true = rows(self.truth, X)
        true = Mixtures(
            *(f.repeat(len(params), 1) for f in (true.log_weight, true.mean, true.scale))
        )
        value = divergence(Mixtures(*fields), true, "hellinger", _Y_NODES)
        return value.reshape(len(params), -1), torch.exp(log_gate)

    def screen(self, params: Array) -> Array:
        """E_X h^2 with penalty of each of (B, P) candidates; (B,)."""
        X, weights = self.nodes()
        values = []
        for part in torch.from_numpy(params).split(32):
            squared, gate = self.squared(part, X)
            values.append(squared @ weights + self._penalty(gate, weights))
        return torch.cat(values).numpy()

    def distance(self, params: Array, region: Region) -> float:
        """E_X h as `hellinger` computes it; infinite outside the region or the family."""
        model = self.family.model(params)
        X, weights = self.nodes(params)
        mean = weights @ model.gate_probs(X)
        small = (mean > 0) & (mean < 0.999 * self.family.min_weight)
        if bool(small.any()) or float(region.excess(model.gate.atoms()[0]).max()) > 1e-3:
            return math.inf
        seed = self.random_state
        return float(hellinger(model, self.truth, self.design, random_state=seed).value)

    def _penalty(
        self,
        gate: Tensor,  # (B, M, E)
        weights: Tensor,  # (M,)
    ) -> Tensor:
        if self.family.min_weight == 0:
            return gate.new_zeros(len(gate))
        mean = (gate * weights[:, None]).sum(-2)
        short = (1 - mean / (_MARGIN * self.family.min_weight)).clamp_min(0) * (mean > 0)
        return _PENALTY * short.square().sum(-1)

    def descend(
        self,
        start: Array,  # (P,)
        region: Region,
        *,
        max_iter: int = 150,
    ) -> tuple[Array, float]:
        """Parameters and E_X h at the end of a local search in a region."""
        params = region.clip(start)
        best, value = params, self.distance(params, region)
        for root in (False, True):  # E h^2, then E h with nodes anew
            params = self._smooth(params, region, root=root, max_iter=max_iter)
            reached = self.distance(params, region)
            if reached < value:
                best, value = params, reached
            if value < 1e-9:
                break
        return best, value

    def finish(
        self, start: Array, params: Array, value: float, region: Region
    ) -> tuple[Array, float]:
        """What a simplex search adds where a boundary moved on the way from a start."""
        from scipy.optimize import minimize

        if not 1e-6 < value < math.inf or not self._boundary_moved(start, params):
            return params, value
        options: Any = {"maxfev": 250, "xatol": 1e-6, "fatol": 1e-8, "adaptive": True}
        found = minimize(
            lambda p: self.distance(region.clip(p), region),
            params,
            method="Nelder-Mead",
            options=options,
        )
        return region.clip(found.x), float(found.fun)

    def _smooth(self, start: Array, region: Region, *, root: bool, max_iter: int) -> Array:
        from scipy.optimize import Bounds, minimize

        X, weights = self.nodes(start)
        layout = self.family.layout

        def objective(flat: Array) -> tuple[float, Array]:
            params = torch.from_numpy(flat.copy()).unsqueeze(0).requires_grad_(True)
            squared, gate = self.squared(params, X)
            each = (squared + 1e-18).sqrt() if root else squared
            loss = (each @ weights + self._penalty(gate, weights)).sum()
            if region.members is not None:
                own, shared = (layout.split(params)[i] for i in (0, 4))
                log_mass, _ = self.family.gate.build(own, shared).atoms()
                excess = region.excess(log_mass, _MARGIN)
                loss = loss + _PENALTY * excess.square().sum()
            (gradient,) = torch.autograd.grad(loss, params)
            return float(loss.detach()), gradient[0].nan_to_num().numpy()

        options: Any = {
            "maxiter": max_iter,
            "maxfun": 2 * max_iter,
            "ftol": 1e-13,
            "gtol": 1e-9,
            "maxcor": 30,
        }
        bounds = Bounds(region.low, region.high)
        found: Any = minimize(
            objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options
        )
        return np.asarray(found.x, dtype=np.float64)

    def _boundary_moved(self, start: Array, end: Array) -> bool:
        if self.truth.n_features > 1:
            return False
        ends = self.design.quadrature(2)[0]
        low, high = float(ends.min()), float(ends.max())
        before, after = (changes(self.family.model(p).gate, low, high)[0][0] for p in (start, end))
        return len(before) != len(after) or not np.allclose(before, after, atol=1e-6)

r"""Gaussian mixture of experts: a gate and its experts as a conditional density of y given x.

.. math:: p(y \mid x) = \sum_e g_e(x)\, N(y;\ a_e'x + b_e,\ \sigma_e^2).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Self

import torch
from torch import Tensor

from kernels.gating import Layout, naive

from ._validation import as_tensor, check_features, generator
from .experts import LinearExperts
from .gates import Gate, GateTemplate
from .mixing_measure import MixingMeasure


@dataclass(frozen=True, eq=False)
class GaussianMoE:
    """A gated Gaussian mixture of experts, one model or a batch of R.

    Parameters
    ----------
    gate : Gate
        E gate functions of D features.
    experts : LinearExperts or ConstantExperts
        E experts of D features, with the gate's batch shape.

    Raises
    ------
    ValueError
        If gate and experts disagree in the number of experts or features, or in batch shape.

    Notes
    -----
    Methods take X of shape (..., N, D) and y of shape (..., N); the leading dimensions of
    parameters and data broadcast. Computation is in the dtype and on the device of the
    parameters.

    Examples
    --------
    >>> from moe_stats import LinearExperts, TopKGate, Uniform
    >>> truth = GaussianMoE(
    ...     TopKGate([0.2, 0, -0.3], [[2], [0], [-2]], top_k=2, rank="slope"),
    ...     LinearExperts([[3], [-2], [1]], [4, 0, -4], [0.4, 0.5, 0.45]),
    ... )
    >>> X = Uniform(low=-1, high=1).sample(1000, random_state=0)
    >>> y = truth.sample(X, random_state=1)
    >>> y.shape, bool((truth.gate_probs(X) > 0).sum(-1).eq(2).all())
    (torch.Size([1000]), True)
    """

    gate: Gate
    experts: LinearExperts

    def __post_init__(self) -> None:
        if self.gate.slope.shape != self.experts.slope.shape:
            raise ValueError(
                "The gate's and the experts' 'slope' must have the same shape (..., E, D); got "
                f"{tuple(self.gate.slope.shape)} and {tuple(self.experts.slope.shape)}."
            )
        if self.gate.slope.dtype != self.experts.slope.dtype:
            raise ValueError(
                "Gate and experts must have the same dtype; got "
                f"{self.gate.slope.dtype} and {self.experts.slope.dtype}."
            )

    @property
    def n_experts(self) -> int:
        return self.experts.n_experts

    @property
    def n_features(self) -> int:
        return self.experts.n_features

    @property
    def batch_shape(self) -> torch.Size:
        return self.experts.slope.shape[:-2]

    def __getitem__(self, index: Any) -> GaussianMoE:
        """Part of a batch."""
        return self.with_params(self.to_params()[index])

    def gate_probs(
        self,
        X: Tensor,  # (..., N, D)
    ) -> Tensor:
        """Gate probabilities (..., N, E); exactly 0 for experts that are not selected."""
        return self.gate.probs(X)

    def log_prob(
        self,
        y: Tensor,  # (..., N)
        X: Tensor,  # (..., N, D)
    ) -> Tensor:
        """Log density of y given x; (..., N), in nats."""
        return torch.logsumexp(self._log_joint(X, y), dim=-1)

    def responsibilities(
        self,
        X: Tensor,  # (..., N, D)
        y: Tensor,  # (..., N)
    ) -> Tensor:
        """Probability that each expert made y, given x and y; (..., N, E)."""
        return torch.softmax(self._log_joint(X, y), dim=-1)

    def mean(
        self,
        X: Tensor,  # (..., N, D)
    ) -> Tensor:
        """Conditional mean of y; (..., N), in units of y."""
        return (self.gate_probs(X) * self.experts.mean(X)).sum(-1)

    def variance(
        self,
        X: Tensor,  # (..., N, D)
    ) -> Tensor:
        """Conditional variance of y; (..., N), in squared units of y."""
        g, means = self.gate_probs(X), self.experts.mean(X)
        centre = (g * means).sum(-1, keepdim=True)
        spread = self.experts.scale.square().unsqueeze(-2) + (means - centre).square()
        return (g * spread).sum(-1)

    def cdf(
        self,
        y: Tensor,  # (..., N)
        X: Tensor,  # (..., N, D)
    ) -> Tensor:
        """Conditional distribution function of y; (..., N)."""
        X = check_features(X, self.n_features)
        y = self._check_response(y, X)
        z = (y.unsqueeze(-1) - self.experts.mean(X)) / self.experts.scale.unsqueeze(-2)
        return (self.gate_probs(X) * torch.special.ndtr(z)).sum(-1)

    def sample(
        self,
        X: Tensor,  # (..., N, D)
        random_state: Any = None,
    ) -> Tensor:
        """One y for each x; (..., N).

        Draws come from NumPy, so a seed means the same data on every device and version.
        """
        rng = generator(random_state)
        g = self.gate_probs(X)
        u = torch.from_numpy(rng.random(g.shape[:-1])).to(g)
        noise = torch.from_numpy(rng.standard_normal(g.shape[:-1])).to(g)
        cumulative = torch.cumsum(g, -1)
        expert = (u.unsqueeze(-1) * cumulative[..., -1:] >= cumulative).sum(-1, keepdim=True)
        mean = self.experts.mean(X).gather(-1, expert).squeeze(-1)
        scale = self.experts.scale.unsqueeze(-2).expand(g.shape).gather(-1, expert).squeeze(-1)
        return mean + scale * noise

    def mixing_measure(self, *, raw: bool = False) -> MixingMeasure:
        """The weighted atoms behind this density.

        Parameters
        ----------
        raw : bool
            Whether atoms hold the gate's parameters as they are, where the density determines only
            functions of them: (b1, tau) of a dense-to-sparse gate instead of b1 / tau.
        """
        log_weight, gate_atoms = self.gate.raw_atoms() if raw else self.gate.atoms()
        atoms = {**gate_atoms, **self.experts.atoms()}
        return MixingMeasure(log_weight, atoms, self.gate.translates)

    def n_identified(self) -> Tensor:
        """How many numbers data can tell apart (...,): the parameters without slopes that experts
        do not have and without what the gate leaves open, as `Gate.n_open` counts it."""
        layout = Layout.of(self.gate.form, self.n_experts, self.n_features)
        return layout.size - self.experts.held(layout).sum() - self.gate.n_open()

    def to_params(self) -> Tensor:
        """Flat parameters (..., P) in the kernels' layout, scales as logarithms."""
        own, shared = self.gate.pack()
        e = self.experts
        rest = [e.slope, e.intercept.unsqueeze(-1), torch.log(e.scale).unsqueeze(-1)]
        return torch.cat([torch.cat([own, *rest], dim=-1).flatten(-2), shared], dim=-1)

    @classmethod
    def from_params(
        cls,
        params: Tensor,  # (..., P)
        gate: GateTemplate,
        n_experts: int,
        experts: type[LinearExperts] = LinearExperts,
    ) -> Self:
        """The inverse of `to_params`, given the kinds of gate and experts."""
        form = gate.form()
        # P = E (2 D + extra + 2) + Qs
        per_expert = (params.shape[-1] - form.n_shared) // n_experts
        n_features = (per_expert - form.extra_parameters - 2) // 2
        layout = Layout.of(form, n_experts, n_features)
        own, slope, intercept, log_scale, shared = layout.split(params)
        built = experts.from_parameters(slope, intercept, torch.exp(log_scale))
        return cls(gate.build(own, shared), built)

    def with_params(
        self,
        params: Tensor,  # (..., P)
    ) -> Self:
        """A model of the same kind with these flat parameters."""
        gate = GateTemplate(type(self.gate), self.gate.options)
        return self.from_params(params, gate, self.n_experts, type(self.experts))

    def _check_response(self, y: Any, X: Tensor) -> Tensor:
        y = as_tensor("y", y, like=self.experts.slope)
        batch, n = y.shape[:-1], X.shape[-2]
        fits = y.ndim > 0 and y.shape[-1] == n
        if not fits or not _broadcast(batch, X.shape[:-2], self.batch_shape):
            raise ValueError(
                f"The 'y' parameter must have shape (..., {n}), one number a row of "
                f"X; got shape {tuple(y.shape)}."
            )
        return y

    def _log_joint(self, X: Tensor, y: Tensor) -> Tensor:
        params = self.to_params()
        X = check_features(X, self.n_features).to(params)
        y = self._check_response(y, X).to(params)
        layout = Layout.of(self.gate.form, self.n_experts, self.n_features)
        batch = torch.broadcast_shapes(params.shape[:-1], X.shape[:-2], y.shape[:-1])
        flat = params.expand(*batch, -1).reshape(-1, params.shape[-1])
        x = X.mT.expand(*batch, *X.mT.shape[-2:]).reshape(-1, *X.mT.shape[-2:])
        y = y.expand(*batch, -1).reshape(-1, y.shape[-1])
        joint = naive.log_joint(flat, self.gate.form, x, y, layout)
        if not bool(torch.isfinite(joint.amax(-2)).all()):
            raise ValueError(
                "The 'X' and 'y' parameters must leave scores and squared residuals finite; got "
                f"features up to {float(x.abs().max()):g} and responses up to "
                f"{float(y.abs().max()):g}."
            )
        return joint.mT.reshape(*batch, X.shape[-2], self.n_experts)


def _broadcast(*shapes: torch.Size) -> bool:
    """Whether shapes broadcast: sizes from the last on agree, or are 1."""
    sizes = zip_longest(*(reversed(shape) for shape in shapes), fillvalue=1)
    return all(len({n for n in dimension if n != 1}) <= 1 for dimension in sizes)

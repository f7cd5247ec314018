r"""Dense-to-sparse gate: a softmax whose temperature is estimated too.

.. math:: g_e(x) = \exp(s_e(x)) / \sum_f \exp(s_f(x)), \qquad s_e(x) = (b_{1e}'x + b_{0e}) / \tau.

High temperatures share every x among all experts, low ones give it to the best. Only b1/tau and
b0/tau are identified: scaling (b0, b1, tau) together changes nothing, nor does adding the same
(t0, t1) to all (b0, b1). With tau fixed this is the softmax gate of b1/tau and b0/tau.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor

from kernels.gating import GateForm
from kernels.gating.form import Column

from .._validation import as_tensor
from .softmax import SoftmaxGate, affine

RAY = "(b0, b1, tau) may be scaled together"

MAX_LOG_TEMPERATURE = math.log(1e6)
"""Bound on |log tau| in estimation, out of the way: fits drift along the ray, to 2e-6 at the worst
of 120 fits at n = 300, where a gate was on its way to a step."""


@dataclass(frozen=True, eq=False)
class DenseToSparseGate(SoftmaxGate):
    """Softmax gate with a shared temperature.

    Parameters
    ----------
    intercept : array-like
        b0, shape (..., E).
    slope : array-like
        b1, shape (..., E, D), per unit of each feature.
    temperature : float or array-like
        tau > 0, shape (...,): one number a model, or one for all. The flat parameters hold its
        logarithm.

    Raises
    ------
    ValueError
        If a temperature is not positive or so small that scores overflow, shapes disagree or a
        value is not finite.

    References
    ----------
    Nie et al. (2021), Dense-to-sparse gate for mixture-of-experts, arXiv 2112.14397.
    Nguyen, Akbarian and Ho (2024), Is temperature sample efficient for softmax Gaussian mixture
    of experts?, arXiv 2401.13875.

    Examples
    --------
    >>> x = torch.tensor([[0.1]], dtype=torch.float64)
    >>> for tau in (10.0, 0.1):
    ...     gate = DenseToSparseGate([-0.25, 0.0], [[5.0], [0.5]], temperature=tau)
    ...     gate.probs(x).round(decimals=3).tolist()
    [[0.505, 0.495]]
    [[0.881, 0.119]]
    """

    temperature: Tensor

    shared_names: ClassVar[tuple[str, ...]] = ("log temperature",)
    shared_bound: ClassVar[float] = MAX_LOG_TEMPERATURE

    def __post_init__(self) -> None:
        super().__post_init__()
        tau = as_tensor("temperature", self.temperature, like=self.slope)
        batch = self.slope.shape[:-2]
        if tau.shape not in (batch, ()):
            raise ValueError(
                f"The 'temperature' parameter must have shape {tuple(batch)}, one number a model, "
                f"or be a number; got shape {tuple(tau.shape)}."
            )
        if bool((tau <= 0).any()):
            raise ValueError(
                f"The 'temperature' parameter must be positive; got {float(tau.min())!r}."
            )
        largest = torch.cat([self.intercept.unsqueeze(-1), self.slope], dim=-1).abs().amax((-2, -1))
        overflows = ~torch.isfinite(largest.clamp(min=1) / tau)
        if bool(overflows.any()):
            raise ValueError(
                "The 'temperature' parameter must leave 1 / tau, b0 / tau and b1 / tau finite; got "
                f"{float(tau.expand(batch)[overflows].min())!r} with 'intercept' and 'slope' up to "
                f"{float(largest[overflows].max()):g}."
            )
        object.__setattr__(self, "temperature", tau.expand(batch))

    @classmethod
    def form_of(cls, **options: Any) -> GateForm:
        if options:
            raise ValueError(f"DenseToSparseGate has no options; got {sorted(options)}.")
        return GateForm(
            score=tempered,
            score_gradient=tempered_gradient,
            score_curvature=tempered_curvature,
            n_shared=1,
        )

    @classmethod
    def from_parameters(cls, own: Tensor, shared: Tensor, **options: Any) -> Self:
        return cls(own[..., 0], own[..., 1:], temperature_of(shared[..., 0]), **options)

    @classmethod
    def starting_parameters(
        cls, intercept: Tensor, slope: Tensor, luck: Tensor
    ) -> tuple[Tensor, Tensor]:
        own, _ = super().starting_parameters(intercept, slope, luck)
        return own, own.new_zeros(*own.shape[:-2], 1)

    @classmethod
    def reweigh(cls, own: Tensor, shared: Tensor, log_factor: Tensor) -> Tensor:
        return super().reweigh(own, shared, temperature_of(shared) * log_factor)

    def pack(self) -> tuple[Tensor, Tensor]:
        own, _ = super().pack()
        return own, torch.log(self.temperature).unsqueeze(-1)

    def atoms(self) -> tuple[Tensor, dict[str, Tensor]]:
        tau = self.temperature[..., None]
        return self.intercept / tau, {"gate_slope": self.slope / tau[..., None]}

    def raw_atoms(self) -> tuple[Tensor, dict[str, Tensor]]:
        tau = self.temperature[..., None]
        parts = {
            "gate_slope": self.slope,
            "temperature": tau.expand(self.intercept.shape)[..., None],
        }
        return self.intercept / tau, parts

    def flat_directions(self) -> dict[str, tuple[Tensor, Tensor]]:
        own, shared = self.pack()
        return {RAY: (own, torch.ones_like(shared))}


def temperature_of(log_temperature: Tensor) -> Tensor:
    """tau, kept finite and positive: a gate is flat long before the bound."""
    bound = 0.99 * math.log(torch.finfo(log_temperature.dtype).max)
    return torch.exp(log_temperature.clamp(-bound, bound))


def cooling(shared: Sequence[Column]) -> Tensor:
    """1 / tau."""
    return torch.exp(-cast(Tensor, shared[0]))


def tempered(own: Sequence[Column], shared: Sequence[Column], x: Sequence[Tensor]) -> Tensor:
    """(b0 + b1'x) / tau."""
    return affine(own, shared, x) * cooling(shared)


def tempered_gradient(
    own: Sequence[Column], shared: Sequence[Column], x: Sequence[Tensor]
) -> tuple[Column, ...]:
    """(1, x) / tau, and minus the score for log tau."""
    cool = cooling(shared)
    return (cool, *(column * cool for column in x), -tempered(own, shared, x))


def tempered_curvature(
    own: Sequence[Column], shared: Sequence[Column], x: Sequence[Tensor]
) -> dict[tuple[int, int], Column]:
    """-(1, x) / tau with log tau, and the score for log tau twice."""
    cool, log_tau = cooling(shared), len(own)
    across = {(d, log_tau): -column * cool for d, column in enumerate(x, start=1)}
    return {(0, log_tau): -cool, **across, (log_tau, log_tau): tempered(own, shared, x)}

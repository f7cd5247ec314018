r"""Softmax gate: every expert speaks everywhere.

.. math:: g_e(x) = \exp(s_e(x)) / \sum_f \exp(s_f(x)), \qquad s_e(x) = b_{1e}'x + b_{0e}.

Adding the same (t0, t1) to all (b0, b1) changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from kernels.gating import GateForm
from kernels.gating.form import Column

from .._validation import as_tensor, check_shape, per_expert
from .base import Gate


@dataclass(frozen=True, eq=False)
class SoftmaxGate(Gate):
    """Dense softmax gate.

    Parameters
    ----------
    intercept : array-like
        b0, shape (..., E).
    slope : array-like
        b1, shape (..., E, D), per unit of each feature.

    Raises
    ------
    ValueError
        If shapes disagree or a value is not finite.

    References
    ----------
    Nguyen, Nguyen and Ho (2023), Demystifying softmax gating function in Gaussian mixture of
    experts, arXiv 2305.03288.

    Examples
    --------
    >>> gate = SoftmaxGate(intercept=[0.0, 1.0], slope=[[2.0], [0.0]])
    >>> gate.probs(torch.tensor([[0.5]])).round(decimals=6).tolist()
    [[0.5, 0.5]]
    """

    intercept: Tensor
    slope: Tensor

    translates: ClassVar[tuple[str, ...]] = ("log_weight", "gate_slope")

    def __post_init__(self) -> None:
        slope = check_shape("slope", as_tensor("slope", self.slope), 2, "(..., E, D)")
        object.__setattr__(self, "intercept", per_expert("intercept", self.intercept, slope))
        object.__setattr__(self, "slope", slope)

    @classmethod
    def form_of(cls, **options: Any) -> GateForm:
        if options:
            raise ValueError(f"SoftmaxGate has no options; got {sorted(options)}.")
        return GateForm(score=affine, score_gradient=affine_gradient)

    @classmethod
    def from_parameters(cls, own: Tensor, shared: Tensor, **options: Any) -> Self:
        return cls(own[..., 0], own[..., 1:], **options)

    def pack(self) -> tuple[Tensor, Tensor]:
        own = torch.cat([self.intercept.unsqueeze(-1), self.slope], dim=-1)
        return own, own.new_zeros(*own.shape[:-2], 0)

    @property
    def options(self) -> dict[str, Any]:
        return {}

    def atoms(self) -> tuple[Tensor, dict[str, Tensor]]:
        return self.intercept, {"gate_slope": self.slope}


def affine(own: Sequence[Column], shared: Sequence[Column], x: Sequence[Tensor]) -> Tensor:
    """b0 + b1'x."""
    score = own[0] + own[1] * x[0]
    for b, column in zip(own[2:], x[1:], strict=True):
        score = score + b * column
    return score


def affine_gradient(
    own: Sequence[Column], shared: Sequence[Column], x: Sequence[Tensor]
) -> tuple[Column, ...]:
    """(1, x)."""
    return (1.0, *x)


def linear(own: Sequence[Column], shared: Sequence[Column], x: Sequence[Tensor]) -> Tensor:
    """b1'x."""
    score = own[1] * x[0]
    for b, column in zip(own[2:], x[1:], strict=True):
        score = score + b * column
    return score

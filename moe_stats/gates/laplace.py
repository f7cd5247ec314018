r"""Laplace gate: experts speak near their centres.

.. math:: g_e(x) = \exp(s_e(x)) / \sum_f \exp(s_f(x)), \qquad
          s_e(x) = b_{0e} - \sqrt{\|b_{1e} - x\|^2 + \delta^2},

with softening delta = 0 in the paper. The score then has a kink at x = b1, where derivatives are
taken to be 0: a subgradient. Away from a centre its slope is at most 1 in every direction, so far
experts are compared by b0 alone and outliers change gates less than with linear scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from kernels.checks import check_real
from kernels.gating import GateForm
from kernels.gating.form import Column

from .softmax import SoftmaxGate


@dataclass(frozen=True, eq=False)
class LaplaceGate(SoftmaxGate):
    """Softmax gate of negative distances.

    Parameters
    ----------
    intercept : array-like
        b0, shape (..., E).
    slope : array-like
        b1, shape (..., E, D): the centre of each expert, in units of the features. The name is
        that of all gates.
    softening : float
        delta >= 0, in units of the features.

    Raises
    ------
    ValueError
        If the softening is negative, shapes disagree or a value is not finite.

    Notes
    -----
    With one feature and no softening the likelihood has a kink in b1 at every observation, and its
    maximum may lie on one, where no gradient vanishes and a fit does not converge: estimate with a
    softening well above the distance of neighbouring observations.

    References
    ----------
    Han, Nguyen, Harris, Ho and Saria (2024), FuseMoE: mixture-of-experts transformers for
    fleximodal fusion, arXiv 2402.03226.

    Examples
    --------
    >>> gate = LaplaceGate(intercept=[0.0, 0.0], slope=[[1.0], [-1.0]])
    >>> gate.probs(torch.tensor([[0.0], [1.0], [9.0]])).round(decimals=3).tolist()
    [[0.5, 0.5], [0.881, 0.119], [0.881, 0.119]]
    """

    softening: float = 0.0

    translates: ClassVar[tuple[str, ...]] = ("log_weight",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_real("softening", self.softening, low=0.0)

    @classmethod
    def form_of(cls, **options: Any) -> GateForm:
        unknown = set(options) - {"softening"}
        if unknown:
            raise ValueError(
                f"LaplaceGate has one option, 'softening'; its options got {sorted(unknown)}."
            )
        delta = check_real("softening", options.get("softening", 0.0), low=0.0)
        return GateForm(
            score=Distance(delta),
            score_gradient=DistanceGradient(delta),
            score_curvature=DistanceCurvature(delta),
        )

    @classmethod
    def starting_parameters(
        cls, intercept: Tensor, slope: Tensor, luck: Tensor
    ) -> tuple[Tensor, Tensor]:
        # agrees at x = 0 and rises along the slope, though no faster than 1
        return super().starting_parameters(intercept + slope.norm(dim=-1), slope, luck)

    @property
    def options(self) -> dict[str, Any]:
        return {"softening": self.softening}


@dataclass(frozen=True)
class Distance:
    """b0 - |b1 - x|, softened."""

    softening: float

    def __call__(
        self, own: Sequence[Column], shared: Sequence[Column], x: Sequence[Tensor]
    ) -> Tensor:
        return own[0] - _length(own, x, self.softening)


@dataclass(frozen=True)
class DistanceGradient:
    """(1, (x - b1) / |b1 - x|)."""

    softening: float

    def __call__(
        self, own: Sequence[Column], shared: Sequence[Column], x: Sequence[Tensor]
    ) -> tuple[Column, ...]:
        return (1.0, *_directions(own, x, self.softening)[0])


@dataclass(frozen=True)
class DistanceCurvature:
    """(u u' - I) / |b1 - x| in the centre, u = (x - b1) / |b1 - x|."""

    softening: float

    def __call__(
        self, own: Sequence[Column], shared: Sequence[Column], x: Sequence[Tensor]
    ) -> dict[tuple[int, int], Column]:
        u, inverse = _directions(own, x, self.softening)
        entries: dict[tuple[int, int], Column] = {}
        for d, towards in enumerate(u, start=1):
            for f, other in enumerate(u[d - 1 :], start=d):
                entries[d, f] = (towards * other - float(d == f)) * inverse
        return entries


def _length(own: Sequence[Column], x: Sequence[Tensor], softening: float) -> Tensor:
    total = (x[0] - own[1]).square()
    for b, column in zip(own[2:], x[1:], strict=True):
        total = total + (column - b).square()
    return torch.sqrt(total + softening**2)


def _directions(
    own: Sequence[Column], x: Sequence[Tensor], softening: float
) -> tuple[list[Tensor], Tensor]:
    """Unit vectors from the centre to x by feature, and the inverse distance; 0 at the centre."""
    length = _length(own, x, softening)
    inverse = torch.where(length > 0, 1 / length, 0.0)
    return [(column - b) * inverse for b, column in zip(own[1:], x, strict=True)], inverse

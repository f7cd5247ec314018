r"""Normalised sigmoid gate: each expert is rated by itself, then shares are taken.

.. math:: g_e(x) = \sigma(s_e(x)) / \sum_f \sigma(s_f(x)), \qquad s_e(x) = b_{1e}'x + b_{0e},

sigma the logistic function: a softmax of the scores log sigma(s). Sigmoid gates without the
denominator are studied too (arXiv 2405.13997), but their weights do not sum to 1, as those of a
density must. Where all s are far below 0 the gate becomes the softmax gate; elsewhere ratings
saturate at 1, so no translation leaves it unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from kernels.gating import GateForm
from kernels.gating.form import Column

from .softmax import SoftmaxGate, affine

START = 1.0
"""Amount below 0 at which ratings start, where they already follow s: the slope there is .73."""


@dataclass(frozen=True, eq=False)
class SigmoidGate(SoftmaxGate):
    """Sigmoid gate, normalised.

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

    Notes
    -----
    The weight of an atom is sigma(b0), its rating at x = 0.

    References
    ----------
    Nguyen et al. (2025), On DeepSeekMoE: statistical benefits of shared experts and normalized
    sigmoid gating, arXiv 2505.10860.

    Examples
    --------
    >>> gate = SigmoidGate(intercept=[0.0, 0.0], slope=[[40.0], [0.0]])
    >>> gate.probs(torch.tensor([[1.0], [-1.0]])).round(decimals=6).tolist()
    [[0.666667, 0.333333], [0.0, 1.0]]
    """

    translates: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def form_of(cls, **options: Any) -> GateForm:
        if options:
            raise ValueError(f"SigmoidGate has no options; got {sorted(options)}.")
        return GateForm(
            score=log_sigmoid,
            score_gradient=log_sigmoid_gradient,
            score_curvature=log_sigmoid_curvature,
        )

    @classmethod
    def starting_parameters(
        cls, intercept: Tensor, slope: Tensor, luck: Tensor
    ) -> tuple[Tensor, Tensor]:
        return super().starting_parameters(intercept - START, slope, luck)

    @classmethod
    def reweigh(cls, own: Tensor, shared: Tensor, log_factor: Tensor) -> Tensor:
        log_weight = functional.logsigmoid(own[..., 0]) + log_factor
        intercept = log_weight - torch.log(-torch.expm1(log_weight))
        return torch.cat([intercept.unsqueeze(-1), own[..., 1:]], dim=-1)

    def atoms(self) -> tuple[Tensor, dict[str, Tensor]]:
        return functional.logsigmoid(self.intercept), {"gate_slope": self.slope}


def log_sigmoid(own: Sequence[Column], shared: Sequence[Column], x: Sequence[Tensor]) -> Tensor:
    """log sigma(b0 + b1'x)."""
    return functional.logsigmoid(affine(own, shared, x))


def log_sigmoid_gradient(
    own: Sequence[Column], shared: Sequence[Column], x: Sequence[Tensor]
) -> tuple[Column, ...]:
    """sigma(-s) (1, x)."""
    rest = torch.sigmoid(-affine(own, shared, x))
    return (rest, *(rest * column for column in x))


def log_sigmoid_curvature(
    own: Sequence[Column], shared: Sequence[Column], x: Sequence[Tensor]
) -> dict[tuple[int, int], Column]:
    """-sigma(s) sigma(-s) (1, x) (1, x)'."""
    s = affine(own, shared, x)
    bend = -torch.sigmoid(s) * torch.sigmoid(-s)
    entries: dict[tuple[int, int], Column] = {(0, 0): bend}
    for d, column in enumerate(x, start=1):
        entries[0, d] = bend * column
        for f, other in enumerate(x[d - 1 :], start=d):
            entries[d, f] = bend * column * other
    return entries

r"""What a kernel must know of a gate: how a score is computed and differentiated.

A gate assigns expert :math:`e` the score :math:`s_e(x)` and, when only the ``top_k`` best are
kept, a rank :math:`\rho_e(x)`; the gate probability is the softmax of the scores over the kept
experts. Everything else (responsibilities, gradients, Hessian) follows by the chain rule, so a
gate is described by the elementwise functions of a `GateForm`.

The functions are written on *columns*: ``own[q]`` is one own parameter of one or all experts,
``shared[q]`` a parameter that all experts share, ``x[d]`` a feature. The same code then serves
the naive kernel, where the columns broadcast to (B, E, N), and the compiled one, where the loop
over experts is unrolled and the columns are (B, N).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Column = Tensor | float


@dataclass(frozen=True)
class GateForm:
    """A gate as elementwise functions of parameter and feature columns.

    Parameters
    ----------
    score : callable
        ``score(own, shared, x) -> Tensor``, the score of an expert.
    score_gradient : callable
        ``score_gradient(own, shared, x) -> tuple``: the derivatives of the score with respect
        to each own parameter, then to each shared one.
    rank : callable or None
        ``rank(own, shared, x) -> Tensor``; None ranks by the score itself.
    top_k : int or None
        How many experts are kept at each x; None keeps all.
    score_curvature : callable or None
        ``score_curvature(own, shared, x) -> dict``, mapping (q, r) with q <= r, indices into
        the gradient, to the second derivative; entries left out, and None, are zero.
    extra_parameters : int
        Own parameters of an expert beyond its slope: 1 for an intercept.
    n_shared : int
        Number of shared parameters.

    Notes
    -----
    Forms are hashable and compared by their fields, so the compiled kernel keeps one program
    a form: pass module-level functions, not closures made anew for every gate.
    """

    score: Callable[[Sequence[Column], Sequence[Column], Sequence[Tensor]], Tensor]
    score_gradient: Callable[
        [Sequence[Column], Sequence[Column], Sequence[Tensor]], tuple[Column, ...]
    ]
    rank: Callable[[Sequence[Column], Sequence[Column], Sequence[Tensor]], Tensor] | None = None
    top_k: int | None = None
    score_curvature: (
        Callable[
            [Sequence[Column], Sequence[Column], Sequence[Tensor]], dict[tuple[int, int], Column]
        ]
        | None
    ) = None
    extra_parameters: int = 1
    n_shared: int = 0


@dataclass(frozen=True)
class Layout:
    """Where each parameter lies in a flat vector of length P.

    Expert by expert: own gate parameters (Q), expert slope (D), expert intercept, log scale;
    after the last expert the shared gate parameters.
    """

    n_experts: int
    n_features: int
    n_own: int
    n_shared: int = 0

    @classmethod
    def of(cls, form: GateForm, n_experts: int, n_features: int) -> Layout:
        return cls(n_experts, n_features, n_features + form.extra_parameters, form.n_shared)

    @property
    def width(self) -> int:
        """Parameters that belong to one expert."""
        return self.n_own + self.n_features + 2

    @property
    def size(self) -> int:
        """P, the length of the flat vector."""
        return self.n_experts * self.width + self.n_shared

    def split(
        self,
        params: Tensor,  # (..., P)
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Views (own, slope, intercept, log_scale, shared) of shapes
        (..., E, Q), (..., E, D), (..., E), (..., E), (..., Qs)."""
        per_expert = params[..., : self.n_experts * self.width]
        per_expert = per_expert.unflatten(-1, (self.n_experts, self.width))
        own = per_expert[..., : self.n_own]
        slope = per_expert[..., self.n_own : self.n_own + self.n_features]
        return (
            own,
            slope,
            per_expert[..., -2],
            per_expert[..., -1],
            params[..., self.n_experts * self.width :],
        )

    def gate_indices(self) -> list[int]:
        """Positions of all gate parameters, own then shared."""
        own = [e * self.width + q for e in range(self.n_experts) for q in range(self.n_own)]
        return own + list(range(self.n_experts * self.width, self.size))

    def score_indices(self, expert: int) -> list[int]:
        """Positions of the parameters of an expert's score, own then shared."""
        start = expert * self.width
        shared = range(self.n_experts * self.width, self.size)
        return [*range(start, start + self.n_own), *shared]

    def mean_indices(self, expert: int) -> list[int]:
        """Positions of an expert's slope and intercept."""
        start = expert * self.width + self.n_own
        return list(range(start, start + self.n_features + 1))

    def scale_index(self, expert: int) -> int:
        """Position of an expert's log scale."""
        return (expert + 1) * self.width - 1


Order = Literal["value", "gradient", "information", "hessian"]


@dataclass(frozen=True)
class Evaluation:
    """A batch of log-likelihoods with as many derivatives as were asked for.

    Attributes
    ----------
    value : Tensor
        (B,) log-likelihood, summed over observations.
    gradient : Tensor or None
        (B, P).
    information : Tensor or None
        (B, P, P) complete-data (EM) information, positive semidefinite: what the Fisher
        information would be if the expert behind each observation had been seen.
    hessian : Tensor or None
        (B, P, P) second derivatives of the value.
    responsibilities : Tensor or None
        (B, E, N) probability that each expert made y.
    """

    value: Tensor
    gradient: Tensor | None = None
    information: Tensor | None = None
    hessian: Tensor | None = None
    responsibilities: Tensor | None = None

    def take(self, models: Tensor) -> Evaluation:
        """Of some of the models, by index or mask."""
        parts = (None if part is None else part[models] for part in vars(self).values())
        return Evaluation(*parts)  # type: ignore[arg-type]

    def where(
        self,
        condition: Tensor,  # (B,)
        other: Evaluation,
    ) -> Evaluation:
        """These where the condition holds, those of ``other`` elsewhere."""
        parts = []
        for mine, its in zip(vars(self).values(), vars(other).values(), strict=True):
            if mine is not None:
                mine = torch.where(condition.view(-1, *[1] * (mine.ndim - 1)), mine, its)
            parts.append(mine)
        return Evaluation(*parts)

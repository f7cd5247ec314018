r"""Top-K sparse softmax gate: the K best experts speak, the others are exactly silent.

.. math::
    g_e(x) = \frac{\exp(b_{1e}'x + b_{0e})\, 1\{e \in T_K(x)\}}
                  {\sum_{f \in T_K(x)} \exp(b_{1f}'x + b_{0f})},

where T_K(x) holds the K experts of highest rank: of the slope part b1'x (the paper's rule) or
of the full logit b1'x + b0 (that of most public code).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

from torch import Tensor

from kernels.checks import check_choice, check_count, check_int
from kernels.gating import GateForm

from .softmax import SoftmaxGate, affine, affine_gradient, linear


@dataclass(frozen=True, eq=False)
class TopKGate(SoftmaxGate):
    """Top-K sparse softmax gate.

    Parameters
    ----------
    intercept : array-like
        b0, shape (..., E).
    slope : array-like
        b1, shape (..., E, D), per unit of each feature.
    top_k : int
        K, how many experts are selected at each x, in [1, n_experts].
    rank : {"slope", "logit"}
        What the selection compares: b1'x or b1'x + b0. Ties go to the expert that comes first.

    Raises
    ------
    ValueError
        If ``top_k`` exceeds the number of experts, or shapes disagree.

    Notes
    -----
    Ranking by slope with one feature changes selection only at x = 0: features must take both
    signs or some experts never speak.

    References
    ----------
    Nguyen, Akbarian, Yan and Ho (2024), Statistical perspective of top-K sparse softmax gating
    mixture of experts, arXiv 2309.13850.

    Examples
    --------
    >>> import torch
    >>> gate = TopKGate([0.2, 0, -0.3], [[2], [0], [-2]], top_k=2, rank="slope")
    >>> gate.probs(torch.tensor([[0.5]], dtype=torch.float64)).round(decimals=3).tolist()
    [[0.769, 0.231, 0.0]]
    """

    top_k: int = 1
    rank: Literal["slope", "logit"] = "slope"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("rank", self.rank, ("slope", "logit"))
        check_int("top_k", self.top_k, 1, self.n_experts, why=f" with n_experts={self.n_experts}")

    @classmethod
    def form_of(cls, **options: Any) -> GateForm:
        options = {"top_k": 1, "rank": "slope", **options}
        unknown = set(options) - {"top_k", "rank"}
        if unknown:
            raise ValueError(f"TopKGate's options are 'top_k' and 'rank'; got {sorted(unknown)}.")
        rank = check_choice("rank", options["rank"], ("slope", "logit"))
        return GateForm(
            score=affine,
            score_gradient=affine_gradient,
            rank=linear if rank == "slope" else None,
            top_k=check_count("top_k", options["top_k"]),
        )

    @classmethod
    def from_parameters(cls, own: Tensor, shared: Tensor, **options: Any) -> Self:
        return cls(own[..., 0], own[..., 1:], **options)

    @property
    def options(self) -> dict[str, Any]:
        return {"top_k": self.top_k, "rank": self.rank}

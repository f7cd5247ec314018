r"""Learned activations: convex mixtures :math:`\sum_i \operatorname{softmax}(\theta)_i a_i`.

With elu and tanh it is BayesNF's :math:`w \operatorname{elu} + (1 - w) \tanh`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "elu": functional.elu,
    "tanh": torch.tanh,
    "silu": functional.silu,
    "identity": lambda x: x,
}


class MixedActivation(nn.Module):
    """The mixture, one for each of M members: (M, B, K) -> (M, B, K)."""

    def __init__(self, n_members: int, names: tuple[str, ...]) -> None:
        super().__init__()
        self.names = names
        self.logits = nn.Parameter(torch.zeros(n_members, len(names)))

    def forward(self, h: Tensor) -> Tensor:
        share = torch.softmax(self.logits, -1)[..., None, None]
        out = share[:, 0] * ACTIVATIONS[self.names[0]](h)
        for i, name in enumerate(self.names[1:], 1):
            out = out + share[:, i] * ACTIVATIONS[name](h)
        return out

r"""Dense layers of M ensemble members at once: one batched product.

.. math:: \text{out}_m = h_m W_m / \sqrt{\text{fan-in}} + b_m

so that weights have prior scale 1 whatever the width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Dense(nn.Module):
    """A dense layer of M members.

    Parameters
    ----------
    n_members, n_inputs, n_outputs : int
    generator : torch.Generator
        Draws the weights, standard normal; biases start at 0.
    gain : float
        Factor of the weights at the start.
    """

    def __init__(
        self,
        n_members: int,
        n_inputs: int,
        n_outputs: int,
        generator: torch.Generator,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        weight = torch.randn(n_members, n_inputs, n_outputs, generator=generator)
        self.weight = nn.Parameter(gain * weight)
        self.bias = nn.Parameter(torch.zeros(n_members, 1, n_outputs))
        self.multiplier = n_inputs**-0.5

    def forward(self, h: Tensor) -> Tensor:  # (M, B, F) -> (M, B, K)
        return torch.baddbmm(self.bias, h, self.weight, alpha=self.multiplier)

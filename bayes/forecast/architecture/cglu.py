r"""Channel gated learning units.

.. math::
    u &= \operatorname{norm}(h), \qquad v = a(W_v u), \qquad g = \sigma(W_g u), \\
    c &= 2\,\sigma\bigl(W_2\, a(W_1 v)\bigr), \\
    h' &= h + \sigma(\rho)\, W_o (v \odot g \odot c)

g gates each channel by the input, c rescales channels by the activations (squeeze and excite), and
:math:`\rho`, from -1, gates the residual. The activation a is learned.

References
----------
Dauphin et al. (2017), Language modeling with gated convolutional networks.
Hu, Shen, Sun (2018), Squeeze-and-excitation networks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .activation import MixedActivation
from .dense import Dense


class ChannelGatedUnit(nn.Module):
    """A block (M, B, width) -> (M, B, width)."""

    def __init__(
        self, n_members: int, width: int, activations: tuple[str, ...], generator: torch.Generator
    ) -> None:
        super().__init__()
        squeezed = max(width // 8, 4)
        self.value = Dense(n_members, width, width, generator)
        self.gate = Dense(n_members, width, width, generator)
        self.squeeze = Dense(n_members, width, squeezed, generator)
        self.excite = Dense(n_members, squeezed, width, generator)
        self.out = Dense(n_members, width, width, generator)
        self.activation = MixedActivation(n_members, activations)
        self.residual = nn.Parameter(torch.full((n_members, 1, 1), -1.0))

    def forward(self, h: Tensor) -> Tensor:
        u = functional.layer_norm(h, h.shape[-1:])
        v = self.activation(self.value(u))
        gate = torch.sigmoid(self.gate(u))
        channel = 2 * torch.sigmoid(self.excite(self.activation(self.squeeze(v))))
        return h + torch.sigmoid(self.residual) * self.out(v * gate * channel)

r"""The head: location and scale of the likelihood, as corrections of where the network starts.

.. math:: m = m_0 + s_0\, w_m^\top h, \qquad \log s = \log s_0 + w_s^\top h

with :math:`(m_0, s_0)` from the context, (0, 1) without one. Homoscedastic: one scale a member.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .dense import Dense


class Head(nn.Module):
    """Location and log scale (M, B) from features (M, B, width).

    Parameters
    ----------
    n_members, width : int
    heteroscedastic : bool
    gain : float
        Of the weights at the start; near 0 the network starts at its base.
    generator : torch.Generator
    """

    def __init__(
        self,
        n_members: int,
        width: int,
        heteroscedastic: bool,
        gain: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.heteroscedastic = heteroscedastic
        n_outputs = 2 if heteroscedastic else 1
        self.out = Dense(n_members, width, n_outputs, generator, gain=gain)
        self.log_scale = nn.Parameter(torch.zeros(n_members, 1))

    def forward(self, h: Tensor, base: Tensor, log_spread: Tensor) -> tuple[Tensor, Tensor]:
        out = self.out(h)
        location = base + torch.exp(log_spread) * out[..., 0]
        if self.heteroscedastic:
            return location, log_spread + self.log_scale + out[..., 1]
        return location, (log_spread + self.log_scale).expand_as(location)

r"""Attention over what neighbours propose (GATv2, masked).

For head n and proposal j with features :math:`\phi_j`, presence :math:`m_j` and query h,

.. math::
    e_{nj} = w_n^\top a(W_k \phi_j + W_q h) + u_n^\top \phi_j, \qquad
    \alpha_{nj} = \frac{m_j e^{e_{nj}}}{e^{e_{n0}} + \sum_i m_i e^{e_{ni}}}.

The remaining weight :math:`\alpha_{n0}` is that of kriging, so that a query without neighbours
falls back on its mean. u starts as a kernel: less weight with age and distance.

References
----------
Brody, Alon, Yahav (2022), How attentive are graph attention networks?
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from .dense import Dense


class Attended(NamedTuple):
    """Sums over proposals, weighted by the heads."""

    location: Tensor  # (M, B, heads), of what is proposed
    spread: Tensor  # (M, B, heads), the standard deviation of it
    message: Tensor  # (M, B, heads * channels), of hidden features
    alone: Tensor  # (M, B, heads), the weight of kriging


class ProposalAttention(nn.Module):
    """Weights for J proposals with E features each.

    Parameters
    ----------
    n_members, n_query, n_edge, n_heads, n_channels : int
    kernel : Tensor (E,)
        u at the start.
    generator : torch.Generator
    """

    def __init__(
        self,
        n_members: int,
        n_query: int,
        n_edge: int,
        n_heads: int,
        n_channels: int,
        kernel: Tensor,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.key = Dense(n_members, n_edge, n_heads * n_channels, generator)
        self.query = Dense(n_members, n_query, n_heads * n_channels, generator)
        self.score = nn.Parameter(
            0.1 * torch.randn(n_members, n_heads, n_channels, generator=generator)
        )
        self.kernel = nn.Parameter(kernel[None, :, None].repeat(n_members, 1, n_heads))
        self.null = Dense(n_members, n_query, n_heads, generator, gain=0.1)
        nn.init.ones_(self.null.bias)

    def forward(
        self, query: Tensor, base: Tensor, value: Tensor, present: Tensor, edge: Tensor
    ) -> Attended:
        """Attend.

        Parameters
        ----------
        query : Tensor (M, B, Q)
        base : Tensor (M, B)
            Proposal of kriging.
        value, present : Tensor (M, B, J)
        edge : Tensor (M, B, J, E)
        """
        m, b, j, e = edge.shape
        flat = edge.reshape(m, b * j, e)
        key = self.key(flat).view(m, b, j, -1)
        hidden = functional.leaky_relu(key + self.query(query)[:, :, None, :], 0.2)
        logits = torch.bmm(hidden.flatten(1, 2), self._scores()) + torch.bmm(flat, self.kernel)
        logits = logits.view(m, b, j, -1).masked_fill(~present[..., None], -torch.inf)
        null = self.null(query)[:, :, None, :]
        weight = torch.softmax(torch.cat([logits, null], dim=2), dim=2)
        weight, alone = weight[:, :, :-1], weight[:, :, -1]
        location = (weight * value[..., None]).sum(2) + alone * base[..., None]
        deviation = (value[..., None] - location[:, :, None, :]).square()
        variance = (weight * deviation).sum(2) + alone * (base[..., None] - location).square()
        share = weight.repeat_interleave(hidden.shape[-1] // self.n_heads, dim=-1)
        message = (share * hidden).sum(2)
        return Attended(location, (variance + 1e-4).sqrt(), message, alone)

    def _scores(self) -> Tensor:
        """w of the heads, each on its own channels: (M, heads * channels, heads)."""
        heads = torch.eye(self.n_heads, dtype=self.score.dtype, device=self.score.device)
        return (self.score[..., None] * heads[:, None, :]).flatten(1, 2)

"""The network: coordinates and context in, location and scale out, for all members at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .attention import ProposalAttention
from .cglu import ChannelGatedUnit
from .dense import Dense
from .dense_unit import DenseUnit
from .encoder import Encoder
from .head import Head

N_HEADS, N_CHANNELS = 2, 12
N_FOLDS = 4  # of the targets; each member holds one out


@dataclass(frozen=True)
class Architecture:
    """Which parts a network has, and their sizes.

    Attributes
    ----------
    n_coords, n_season, n_covariates : int
        Inputs of the encoder.
    n_edge, n_summary : int
        Features of a proposal and of the whole context.
    width, depth : int
        Of the body.
    degree : int
        Of Fourier features.
    context : bool
        Whether the network starts from the context; otherwise it is a field.
    attention, gating, heteroscedastic, interactions : bool
    activations : tuple of str
    """

    n_coords: int = 0
    n_season: int = 0
    n_covariates: int = 0
    n_edge: int = 0
    n_summary: int = 0
    width: int = 64
    depth: int = 2
    degree: int = 2
    context: bool = True
    attention: bool = True
    gating: bool = True
    heteroscedastic: bool = True
    interactions: bool = False
    activations: tuple[str, ...] = ("elu", "tanh", "silu", "identity")


class Inputs(NamedTuple):
    """B rows, or (M, B) rows if each member has its own."""

    coords: Tensor  # (B, C)
    season: Tensor  # (B, S)
    covariates: Tensor  # (B, P)
    value: Tensor  # (B, J)
    present: Tensor  # (B, J)
    edge: Tensor  # (B, J, E)
    summary: Tensor  # (B, G)
    base: Tensor  # (B,)
    log_spread: Tensor  # (B,)

    def rows(self, index: Tensor | slice) -> Inputs:
        return Inputs(*(part[index] for part in self))

    def expand(self, n_members: int) -> Inputs:
        """The same rows for all members (M, B)."""
        return Inputs(*(part.expand(n_members, *part.shape) for part in self))


class Network(nn.Module):
    """M networks with the same parts.

    ``folds`` (M,) says which targets each member is not trained on.

    Parameters
    ----------
    architecture : Architecture
    n_members : int
    kernel : Tensor (E,)
        Where the attention to features of proposals starts.
    generator : torch.Generator
        Draws the weights.
    """

    folds: Tensor

    def __init__(
        self, architecture: Architecture, n_members: int, kernel: Tensor, generator: torch.Generator
    ) -> None:
        super().__init__()
        a = architecture
        self.architecture, self.n_members = a, n_members
        self.register_buffer("folds", torch.arange(n_members) % N_FOLDS)
        self.encoder = Encoder(
            n_members, a.n_coords, a.n_season, a.n_covariates, a.degree, a.interactions
        )
        n_in = self.encoder.n_features + (a.n_summary if a.context else 0)
        self.attention = None
        if a.context and a.attention:
            self.attention = ProposalAttention(
                n_members, n_in, a.n_edge, N_HEADS, N_CHANNELS, kernel, generator
            )
            n_in += N_HEADS * (N_CHANNELS + 3)
        units: list[nn.Module]
        if a.gating:
            units = [Dense(n_members, n_in, a.width, generator)]
            units += [
                ChannelGatedUnit(n_members, a.width, a.activations, generator)
                for _ in range(a.depth)
            ]
        else:
            sizes = [n_in] + [a.width] * a.depth
            units = [
                DenseUnit(n_members, sizes[i], sizes[i + 1], a.activations, generator)
                for i in range(a.depth)
            ]
        self.body = nn.Sequential(*units)
        gain = 0.1 if a.context else 1.0
        self.head = Head(n_members, a.width, a.heteroscedastic, gain, generator)
        self.share = nn.Parameter(torch.zeros(n_members, 1, N_HEADS))
        self.tail = nn.Parameter(torch.full((n_members, 1), 1.5))

    def forward(self, inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
        """Location and log scale (M, B), and the tail parameter (M, 1)."""
        h = self.encoder(inputs.coords, inputs.season, inputs.covariates)
        base = inputs.base
        if self.architecture.context:
            h = torch.cat([h, inputs.summary], -1)
        if self.attention is not None:
            seen = self.attention(h, base, inputs.value, inputs.present, inputs.edge)
            scale = torch.exp(inputs.log_spread)[..., None]
            shift = (seen.location - base[..., None]) / scale
            spread = torch.log(seen.spread / scale)
            h = torch.cat([h, seen.message, shift, spread, seen.alone], -1)
            base = (torch.softmax(self.share, -1) * seen.location).sum(-1)
        location, log_scale = self.head(self.body(h), base, inputs.log_spread)
        return location, log_scale, self.tail

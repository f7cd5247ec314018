"""The weights of an ensemble as one matrix, a row for each member."""

from __future__ import annotations

import torch
from torch import Tensor

from ..architecture import Network


def flatten(network: Network) -> Tensor:
    """Weights (M, P), detached."""
    return torch.cat([p.detach().flatten(1) for p in network.parameters()], dim=1)


def unflatten(network: Network, weights: Tensor) -> dict[str, Tensor]:
    """Weights (M', P) by the names of the network's parameters."""
    out, start = {}, 0
    for name, p in network.named_parameters():
        size = p[0].numel()
        out[name] = weights[:, start : start + size].view(len(weights), *p.shape[1:])
        start += size
    return out


def with_draws(network: Network, draws: Tensor) -> Network:
    """A network whose members are K draws (K, M, P) of the weights of each member.

    A draw keeps the fold that its member held out.
    """
    n_draws, n_members, _ = draws.shape
    larger = Network(
        network.architecture,
        n_draws * n_members,
        draws.new_zeros(network.architecture.n_edge).cpu(),
        torch.Generator().manual_seed(0),
    ).to(draws.device)
    with torch.no_grad():
        for name, value in unflatten(network, draws.flatten(0, 1)).items():
            larger.get_parameter(name).copy_(value)
        larger.folds.copy_(network.folds.repeat(n_draws))
    return larger

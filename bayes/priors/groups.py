"""Which weights share a scale: those of a block, each its own, or ARD in the first layer."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.checks import check_choice

from ..networks import BayesianNetwork

BY = ("layer", "parameter", "ard")


def group_index(net: BayesianNetwork, by: str) -> tuple[Tensor, tuple[str, ...]]:
    """The group of every weight and the groups' names.

    Parameters
    ----------
    net : BayesianNetwork
    by : {"layer", "parameter", "ard"}
        "layer": a group for each layer's weights and one for its biases; "parameter": every weight
        its own; "ard" (automatic relevance determination): as "layer", but the first layer has a
        group for each input.

    Returns
    -------
    index : Tensor
        (P,) integers in [0, G).
    names : tuple of str
        G names.

    Examples
    --------
    >>> from bayes.networks import MLP
    >>> index, names = group_index(MLP(2, [3], 1), "ard")
    >>> names
    ('0.weight[:, 0]', '0.weight[:, 1]', '0.bias', '2.weight', '2.bias')
    >>> index.tolist()
    [0, 1, 0, 1, 0, 1, 2, 2, 2, 3, 3, 3, 4]
    """
    if check_choice("by", by, BY) == "parameter":
        names = [f"{b.name}[{i}]" for b in net.blocks for i in range(b.size)]
        return torch.arange(net.n_weights), tuple(names)
    parts: list[Tensor] = []
    names = []
    for block in net.blocks:
        if by == "ard" and block.layer == 0 and block.kind == "weight":
            inputs = block.shape[1]
            columns = torch.arange(inputs).view(-1, *[1] * (len(block.shape) - 2))
            parts.append(columns.expand(block.shape).flatten() + len(names))
            names += [f"{block.name}[:, {i}]" for i in range(inputs)]
        else:
            parts.append(torch.full((block.size,), len(names)))
            names.append(block.name)
    return torch.cat(parts), tuple(names)

r"""The layer of a Bayesian neural field, without gates.

.. math:: h' = a\bigl(\operatorname{softplus}(s)\, (W h / \sqrt{\text{fan-in}} + b)\bigr)

References
----------
Saad et al. (2024), Scalable spatiotemporal prediction with Bayesian neural fields.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .activation import MixedActivation
from .dense import Dense
from .encoder import ONE


class DenseUnit(nn.Module):
    """A layer (M, B, n_inputs) -> (M, B, width)."""

    def __init__(
        self,
        n_members: int,
        n_inputs: int,
        width: int,
        activations: tuple[str, ...],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.dense = Dense(n_members, n_inputs, width, generator)
        self.gain = nn.Parameter(torch.full((n_members, 1, 1), ONE))
        self.activation = MixedActivation(n_members, activations)

    def forward(self, h: Tensor) -> Tensor:
        return self.activation(functional.softplus(self.gain) * self.dense(h))

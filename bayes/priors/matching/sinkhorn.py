"""Matching by the Sinkhorn divergence of samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..base import Prior
from ..sinkhorn import sinkhorn_divergence
from ..targets import FunctionTarget
from .method import Method, draw_both


@dataclass(frozen=True)
class Sinkhorn(Method):
    """Sinkhorn divergence a point, by POT.

    Parameters
    ----------
    n_functions : int
        Drawn of each at every step; the cost grows with their square.
    regularisation : float
        See `sinkhorn_divergence`.
    """

    learning_rate: float = 0.1
    n_functions: int = 128
    regularisation: float = 0.1

    name = "sinkhorn"

    def loss(
        self, prior: Prior, target: FunctionTarget, X: Tensor, generator: torch.Generator
    ) -> Tensor:
        f, g = draw_both(prior, target, X, self.n_functions, generator)
        return sinkhorn_divergence(f.double(), g.double(), self.regularisation) / f.shape[1]

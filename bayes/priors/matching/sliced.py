"""Matching by the sliced Wasserstein-1 distance of samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..base import Prior
from ..sliced import sliced_w1
from ..targets import FunctionTarget
from .method import Method, draw_both


@dataclass(frozen=True)
class Sliced(Method):
    """Mean over random directions of the Wasserstein-1 distance.

    Parameters
    ----------
    n_functions : int
        Drawn of each at every step.
    n_projections : int
        Fresh directions at every step.
    """

    learning_rate: float = 0.1
    n_functions: int = 512
    n_projections: int = 100

    name = "sliced"

    def loss(
        self, prior: Prior, target: FunctionTarget, X: Tensor, generator: torch.Generator
    ) -> Tensor:
        f, g = draw_both(prior, target, X, self.n_functions, generator)
        return sliced_w1(f, g, self.n_projections, generator)

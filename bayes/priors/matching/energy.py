"""Matching by the energy distance of fresh samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..base import Prior
from ..energy import distances, mean_within
from ..targets import FunctionTarget
from .method import Method, draw_both


@dataclass(frozen=True)
class Energy(Method):
    """2 E|F - G| - E|F - F'|, the energy distance but for a constant of the target.

    Unbiased gradients at any number of functions; needs nothing of the network or the target but
    samples.

    Parameters
    ----------
    n_functions : int
        Drawn of each at every step.
    """

    n_steps: int = 150
    learning_rate: float = 0.1
    n_functions: int = 512

    name = "energy"

    def loss(
        self, prior: Prior, target: FunctionTarget, X: Tensor, generator: torch.Generator
    ) -> Tensor:
        f, g = draw_both(prior, target, X, self.n_functions, generator)
        return 2 * distances(f, g).mean() - mean_within(f)

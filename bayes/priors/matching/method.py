"""What a method of matching is: a loss at a fresh measurement set, and how it is descended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..base import Prior
from ..targets import FunctionTarget


@dataclass(frozen=True)
class Method(ABC):
    """A loss between functions of a prior and of a target.

    Parameters
    ----------
    n_steps : int
        Most steps of Adam; the learning rate falls to a tenth along half a cosine.
    learning_rate : float
        To start with, in the unit of the prior's parameters (logarithms of scales).
    """

    n_steps: int = 100
    learning_rate: float = 0.05

    name: ClassVar[str]

    @abstractmethod
    def loss(
        self, prior: Prior, target: FunctionTarget, X: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Scalar loss at the measurement set X (M, D), differentiable in the prior's parameters;
        all randomness from the generator."""


def draw_both(
    prior: Prior, target: FunctionTarget, X: Tensor, n: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """n functions of the prior, differentiable, and n of the target: (n, M * n_outputs) each.

    In float32: a loss's Monte-Carlo error is a thousandfold its rounding.
    """
    f = prior.rsample_functions(X, n, generator).flatten(1)
    g = target.sample_functions(X, n, generator).flatten(1)
    return f, g.to(f)

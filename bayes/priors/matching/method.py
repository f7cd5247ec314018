"""What a method of matching is: a loss at a fresh measurement set, and how it is descended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

from kernels.checks import check_real

from ..._validation import check_size
from ..base import Prior
from ..targets import FunctionTarget

BYTES = 4
"""Of a number that is counted: a function's value at a point, at least."""


@dataclass(frozen=True)
class Method(ABC):
    """A loss between functions of a prior and of a target.

    Parameters
    ----------
    n_steps : int
        Most steps of Adam; the learning rate falls to a tenth along half a cosine.
    learning_rate : float
        To start with, in the unit of the prior's parameters (logarithms of scales).

    Attributes
    ----------
    least : dict of int
        The least value of a count, where that is not 1.
    """

    n_steps: int = 100
    learning_rate: float = 0.05

    name: ClassVar[str]
    least: ClassVar[dict[str, int]] = {"n_functions": 2}

    def __post_init__(self) -> None:
        for parameter in fields(self):  # all are counts or positive numbers
            value = getattr(self, parameter.name)
            if isinstance(parameter.default, int):
                check_size(parameter.name, value, self.least.get(parameter.name, 1), BYTES)
            else:
                check_real(parameter.name, value, low=0.0, strict=True)

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

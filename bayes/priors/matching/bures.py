"""Matching by the first two moments of samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..base import Prior
from ..gaussian_w2 import gaussian_w2_squared
from ..targets import FunctionTarget
from .method import Method, draw_both


@dataclass(frozen=True)
class Bures(Method):
    """Squared Bures-Wasserstein distance a point between sample covariances.

    For any network and family; biased by the samples' noise, the more so the fewer functions a
    point of the measurement set.

    Parameters
    ----------
    n_functions : int
        Drawn of each at every step.
    """

    learning_rate: float = 0.1
    n_functions: int = 512

    name = "bures"

    def loss(
        self, prior: Prior, target: FunctionTarget, X: Tensor, generator: torch.Generator
    ) -> Tensor:
        f, g = draw_both(prior, target, X, self.n_functions, generator)
        laws = [*_moments(f.double()), *_moments(g.double())]
        return gaussian_w2_squared(*laws) / f.shape[1]


def _moments(f: Tensor) -> tuple[Tensor, Tensor]:
    mean = f.mean(0)
    return mean, (f - mean).mT @ (f - mean) / (len(f) - 1)

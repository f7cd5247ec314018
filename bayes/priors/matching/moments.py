"""Matching by mean and covariance, both exact but for hyperparameters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..base import Prior
from ..gaussian_w2 import gaussian_w2_squared
from ..nngp import network_covariance
from ..targets import FunctionTarget
from .method import Method


@dataclass(frozen=True)
class Moments(Method):
    """Squared Bures-Wasserstein distance a point, between the network's covariance (`nngp`) under
    the family's `gaussian_scale` and that of the target.

    Exact for Gaussian weights and one hidden layer; with more layers in the limit of wide ones.
    Other families keep what makes them other than Gaussian, and start well from here. Draws no
    functions, hence quick; blind to all but two moments.

    Parameters
    ----------
    n_hyperparameters : int
        Draws at every step of the target's hyperparameters, where they are random.
    """

    n_steps: int = 60
    learning_rate: float = 0.15
    n_hyperparameters: int = 64

    name = "moments"

    def loss(
        self, prior: Prior, target: FunctionTarget, X: Tensor, generator: torch.Generator
    ) -> Tensor:
        mean, covariance = target.moments(X, self.n_hyperparameters, generator)
        ours = network_covariance(prior.net, prior.gaussian_scale().unsqueeze(0), X)
        return gaussian_w2_squared(torch.zeros_like(mean), ours, mean, covariance).mean() / len(X)

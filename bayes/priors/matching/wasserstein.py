"""Matching by the dual of the Wasserstein-1 distance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..base import Prior
from ..targets import FunctionTarget
from .critic import Critic
from .method import Method, draw_both

LEFT_OUT = 1e-4
"""Share of the functions' mean square that the critic does not see."""


@dataclass(frozen=True)
class Wasserstein(Method):
    """A critic trained anew at every step, its Adagrad too, then one step of the prior against it.

    The critic learns from one set of functions and judges fresh ones.

    Parameters
    ----------
    n_functions : int
        Drawn of each for the critic and for the prior.
    n_critic_steps : int
    critic_learning_rate : float
    width : int
        Of the critic's two hidden layers.
    penalty : float
        Weight of the gradient penalty.
    n_penalised : int
        Pairs between which the penalty is taken at each of the critic's steps, in turn.

    References
    ----------
    Tran, Rossi, Milios and Filippone (2022), JMLR 23, section 4.
    """

    learning_rate: float = 0.1
    n_functions: int = 128
    n_critic_steps: int = 100
    critic_learning_rate: float = 0.05
    width: int = 200
    penalty: float = 10.0
    n_penalised: int = 16

    name = "wasserstein"

    def loss(
        self, prior: Prior, target: FunctionTarget, X: Tensor, generator: torch.Generator
    ) -> Tensor:
        with torch.no_grad():
            f, g = draw_both(prior, target, X, self.n_functions, generator)
        basis = principal_directions(torch.cat([f, g]))
        critic = self.trained_critic(f @ basis, g @ basis, generator)
        fresh = prior.rsample_functions(X, self.n_functions, generator).flatten(1)
        return critic(fresh @ basis).mean() - critic(g @ basis).mean()

    def trained_critic(self, f: Tensor, g: Tensor, generator: torch.Generator) -> Critic:
        """A critic that tells functions f from g (n, M)."""
        critic = Critic(f.shape[1], self.width, generator)
        m = min(self.n_penalised, len(f))
        for step in range(self.n_critic_steps):
            epsilon = torch.rand(m, 1, generator=generator)
            first = step * m % (len(f) - m + 1)
            critic.step(f, g, epsilon, first, self.penalty, self.critic_learning_rate)
        return critic


def principal_directions(f: Tensor) -> Tensor:
    """Orthonormal directions (M, r), the fewest that leave out at most `LEFT_OUT` of |f|^2.

    Between projections on them the distance is no larger, and smaller by little.
    """
    values, vectors = torch.linalg.eigh((f.mT @ f).double())
    left = values.clamp_min(0).cumsum(0)
    return vectors[:, left > LEFT_OUT * left[-1]].to(f)

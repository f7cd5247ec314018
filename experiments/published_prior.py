"""Matching as its authors published it, transcribed plainly: what studies compare ours with.

Two things differ from `bayes.priors.matching.Wasserstein` in kind: the critic sees function values
as they are, with the penalty at all pairs by differentiating twice, and it judges the functions
that it was trained on. The published implementation puts log-normal draws of the hyperparameters
through softplus, as `softplus_rbf` does; read as the text has it they are the hyperparameters.

References
----------
Tran, Rossi, Milios and Filippone (2022), All you need is a good functional prior for Bayesian deep
learning, JMLR 23.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bayes.priors.base import Prior
from bayes.priors.matching.method import Method, draw_both
from bayes.priors.targets import AT_ONCE, FunctionTarget, cholesky


@dataclass(frozen=True)
class PublishedCritic(Method):
    """Wasserstein-1 by a critic of layers M, 200, 200, 1, trained anew at every step.

    Parameters
    ----------
    n_functions : int
        Drawn of each.
    n_critic_steps : int
    critic_learning_rate : float
        Of Adagrad.
    """

    n_functions: int = 128
    n_critic_steps: int = 200
    critic_learning_rate: float = 0.02

    name = "published"

    def loss(
        self, prior: Prior, target: FunctionTarget, X: Tensor, generator: torch.Generator
    ) -> Tensor:
        f, g = draw_both(prior, target, X, self.n_functions, generator)
        training = CriticTraining(f.shape[1], self.critic_learning_rate, generator)
        for _ in range(self.n_critic_steps):
            training.step(f.detach(), g)
        return training.critic(f).mean() - training.critic(g).mean()


class CriticTraining:
    """A critic with its optimizer.

    Parameters
    ----------
    n_points : int
        M.
    learning_rate : float
    generator : torch.Generator
    """

    def __init__(self, n_points: int, learning_rate: float, generator: torch.Generator) -> None:
        sizes = [(n_points, 200), (200, 200), (200, 1)]
        layers = [nn.utils.skip_init(nn.Linear, *size) for size in sizes]
        for layer in layers:
            bound = layer.in_features**-0.5
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -bound, bound, generator)
        self.critic = nn.Sequential(layers[0], nn.Softplus(), layers[1], nn.Softplus(), layers[2])
        self.optimizer = torch.optim.Adagrad(self.critic.parameters(), lr=learning_rate)
        self.generator = generator

    def step(self, f: Tensor, g: Tensor) -> None:
        """One step between functions (n, M) each."""
        self.optimizer.zero_grad()
        objective = self.critic(g).mean() - self.critic(f).mean()
        epsilon = torch.rand(len(f), 1, generator=self.generator)
        between = (epsilon * f + (1 - epsilon) * g).requires_grad_()
        value = self.critic(between)
        (slope,) = torch.autograd.grad(value, between, torch.ones_like(value), create_graph=True)
        (objective + 10 * (slope.norm(dim=1) - 1).square().mean()).backward()
        self.optimizer.step()


def softplus_rbf(X: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """n functions (n, N) of `bayes.priors.hierarchical_rbf` but with softplus(LogNormal) in place
    of LogNormal hyperparameters."""
    normal = torch.randn(n, 1, X.shape[1] + 1, generator=generator, dtype=torch.float64)
    centre = torch.full((X.shape[1] + 1,), 0.5 * math.log(2 * X.shape[1])).double()
    centre[0] = 0.1
    hyperparameters = nn.functional.softplus((centre + normal).exp())
    noise = torch.randn(n, len(X), 1, generator=generator, dtype=torch.float64)
    size = max(1, AT_ONCE // len(X) ** 2)
    parts = zip(hyperparameters.split(size), noise.split(size), strict=True)
    return torch.cat([_root(X.double(), h) @ z for h, z in parts])[..., 0]


def _root(X: Tensor, hyperparameters: Tensor) -> Tensor:
    """Cholesky factors of RBF-ARD matrices; (n, 1, 1 + D), the variances first."""
    scaled = X / hyperparameters[..., 1:]
    size = 0.5 * (hyperparameters[..., 0].log() - scaled.square().sum(-1))
    return cholesky(torch.baddbmm(size[..., None] + size[..., None, :], scaled, scaled.mT).exp_())

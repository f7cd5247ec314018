r"""Stochastic-gradient MCMC with the library's own samplers, a chain from each MAP member.

The potential of a chain is :math:`U = \frac{N}{|B|}\sum_{i \in B} -\log p(z_i \mid \theta) - \log
p(\theta)` on mini-batches B of its targets.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...samplers import AdaptiveSGHMC, Sampler
from ..architecture import Network
from ..training import LogProb, Plan, Targets, data_loss, log_prior
from .weights import flatten, unflatten, with_draws

N_DRAWS = 8
SAMPLER = AdaptiveSGHMC(step_size=1e-3)


def sample_weights(
    network: Network,
    targets: Targets,
    log_prob: LogProb,
    plan: Plan,
    generator: torch.Generator,
    sampler: Sampler = SAMPLER,
) -> Network:
    """An ensemble of draws from chains of ``plan.n_updates`` steps, half of them burn-in.

    Raises
    ------
    FloatingPointError
        If a chain leaves the finite numbers.
    """
    burn_in = plan.n_updates // 2
    thin = max((plan.n_updates - burn_in) // N_DRAWS, 1)

    def potential(position: Tensor) -> tuple[Tensor, Tensor]:
        rows = torch.randint(len(targets.z), (plan.batch,), generator=generator)
        weights = position.detach().requires_grad_(True)
        loss = data_loss(network, targets, rows, log_prob, unflatten(network, weights))
        value = plan.n_rows * loss - log_prior(weights)
        (gradient,) = torch.autograd.grad(value.sum(), weights)
        return value.detach(), gradient

    def noise() -> Tensor:
        return torch.randn(start.shape, generator=generator).to(start)

    start = flatten(network)
    state = sampler.init(start, noise())
    draws = []
    for step in range(burn_in + thin * N_DRAWS):
        state, _ = sampler.update(state, potential, noise(), sampler.controls(step, burn_in))
        if step >= burn_in and (step - burn_in) % thin == thin - 1:
            draws.append(state.position.clone())
    out = torch.stack(draws)
    if not bool(torch.isfinite(out).all()):
        raise FloatingPointError(
            "A chain of the 'sgmcmc' inference diverged; scale the target or use 'map'."
        )
    return with_draws(network, out)

r"""Mean-field variational inference around the MAP weights.

Each member's weights get a normal posterior :math:`q = \mathcal N(\mu, \operatorname{diag} s^2)`
that maximises the evidence bound by the reparametrisation :math:`\theta = \mu + s\xi`:

.. math::
    \frac{1}{n}\sum_i E_q\bigl[-\log p(z_i \mid \theta)\bigr]
        + \frac{1}{N} E_q\bigl[\log q(\theta) - \log p(\theta)\bigr].

References
----------
Kingma, Welling (2014), Auto-encoding variational Bayes.
"""

from __future__ import annotations

import torch

from ..architecture import Network
from ..training import LogProb, Plan, Targets, data_loss, log_prior
from .weights import flatten, unflatten, with_draws

N_DRAWS = 4
_FIRST_LOG_SCALE = -4.0
_STEP_SIZE = 2e-3


def variational(
    network: Network, targets: Targets, log_prob: LogProb, plan: Plan, generator: torch.Generator
) -> Network:
    """An ensemble of draws from each trained member's variational posterior."""
    mean = flatten(network).requires_grad_(True)
    log_scale = torch.full_like(mean, _FIRST_LOG_SCALE).requires_grad_(True)
    optimiser = torch.optim.Adam([mean, log_scale], lr=_STEP_SIZE)
    for _ in range(plan.n_updates):
        rows = torch.randint(len(targets.z), (plan.batch,), generator=generator)
        weights = mean + log_scale.exp() * _noise(mean, generator)
        loss = data_loss(network, targets, rows, log_prob, unflatten(network, weights))
        loss = loss - (log_prior(weights) + log_scale.sum(1)) / plan.n_rows
        optimiser.zero_grad()
        loss.sum().backward()
        optimiser.step()
    with torch.no_grad():
        draws = [mean + log_scale.exp() * _noise(mean, generator) for _ in range(N_DRAWS)]
    return with_draws(network, torch.stack(draws))


def _noise(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(like.shape, generator=generator).to(like)

r"""A Metropolis move of scales that takes their parameters along.

A Gibbs step (`gibbs`) draws the log scale s of m parameters q given these, and :math:`|q|` settles
it up to :math:`1/\sqrt{2m}`: where a group is large, scale and norm wait for each other. In the
coordinates :math:`z = e^{-s} q` they do not. There the density is

.. math:: \pi(z, s) \propto \bigl[L(z e^s)\, p(s)\bigr]^{1/T} e^{m s (1 - 1/T)}\, e^{-|z|^2/2T},

likelihood L, prior p of the log scale, with :math:`e^{ms}` the Jacobian. So, group after group,
:math:`s' = s + \delta`, :math:`q' = e^\delta q` with :math:`\delta \sim N(0, \rho^2)` is accepted
with probability

.. math:: \min\Bigl(1,\; \Bigl[\frac{L(q')\, p(s')}{L(q)\, p(s)}\Bigr]^{1/T}
    e^{m \delta (1 - 1/T)}\Bigr).

Interwoven with Gibbs steps this often mixes faster than either, and leaves the joint law as it is.
Momenta stay. Each move asks for the likelihood of all data. The reaches rho are adapted in burn-in,
for every chain and scale, to accept `ACCEPTANCE` of the moves.

References
----------
Yu and Meng (2011), To center or not to center: that is not the question.
Gelman, Roberts and Gilks (1996), Efficient Metropolis jumping rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from .streams import ChainStreams

ACCEPTANCE = 0.44
"""The best of a random walk in one dimension."""

FIRST_REACH = 0.05


class ScaledPotential(Protocol):
    """The parts of U that change when a scale takes its parameters along."""

    groups: Mapping[int, Tensor]
    """Which parameters (P,) have this log scale (of the G) as that of their standard deviation."""

    def log_likelihood(
        self,
        position: Tensor,  # (C, P)
        log_scale: Tensor,  # (C, G)
    ) -> Tensor:  # (C,), of all data
        ...

    def log_scale_prior(
        self,
        log_scale: Tensor,  # (C, G)
    ) -> Tensor:  # (C, G), the log density of each
        ...


def interweave(
    potential: ScaledPotential,
    position: Tensor,  # (C, P)
    log_scale: Tensor,  # (C, G)
    reach: Tensor,  # (C, G)
    temperature: float,
    streams: ChainStreams,
    gain: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Position, log scales and reaches after a move of each group.

    Parameters
    ----------
    potential : ScaledPotential
    position, log_scale : Tensor
        (C, P) and (C, G).
    reach : Tensor
        (C, G), standard deviations of the proposals.
    temperature : float
        T > 0.
    streams : ChainStreams
    gain : float
        How strongly the reaches are adapted; 0 once draws are taken.

    Examples
    --------
    Two parameters with one Gamma(1, 1) precision, and no data:

    >>> class Free:
    ...     groups = {0: torch.ones(2, dtype=torch.bool)}
    ...     def log_likelihood(self, position, log_scale):
    ...         return torch.zeros(len(position))
    ...     def log_scale_prior(self, log_scale):
    ...         return -2 * log_scale - torch.exp(-2 * log_scale)
    >>> q, s = torch.ones(3, 2), torch.zeros(3, 1)
    >>> streams = ChainStreams(0, 3, torch.device("cpu"))
    >>> moved, to, _ = interweave(Free(), q, s, torch.full((3, 1), 0.1), 1.0, streams)
    >>> torch.allclose(moved, q * to.exp())  # z stays
    True
    """
    steps = reach * streams.normal(1, reach.shape[1], reach.dtype)[0]
    thresholds = torch.log(streams.uniform(reach.shape[1], reach.dtype))
    likelihood = potential.log_likelihood(position, log_scale)
    prior, reach = potential.log_scale_prior(log_scale), reach.clone()
    for g, members in potential.groups.items():
        step = steps[:, g]
        moved = torch.where(members, step.exp()[:, None] * position, position)
        changed = log_scale.clone()
        changed[:, g] += step
        its_likelihood = potential.log_likelihood(moved, changed)
        its_prior = potential.log_scale_prior(changed)
        ratio = (its_likelihood - likelihood + its_prior[:, g] - prior[:, g]) / temperature
        ratio = ratio + members.sum() * step * (1 - 1 / temperature)
        accepted = thresholds[:, g] < ratio
        position = torch.where(accepted[:, None], moved, position)
        log_scale = torch.where(accepted[:, None], changed, log_scale)
        prior = torch.where(accepted[:, None], its_prior, prior)
        likelihood = torch.where(accepted, its_likelihood, likelihood)
        if gain:
            chance = torch.nan_to_num(ratio, nan=-torch.inf).clamp(max=0).exp()
            reach[:, g] *= torch.exp(gain * (chance - ACCEPTANCE))
    return position, log_scale, reach

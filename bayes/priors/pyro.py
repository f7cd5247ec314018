"""Priors as Pyro programs, for its exact samplers and variational guides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..networks import BayesianNetwork, as_network
from .base import Prior


def to_pyro(prior: Prior, net: BayesianNetwork | None = None) -> Callable[[Tensor], Tensor]:
    """A Pyro program with one latent site, "weights" of shape (P,).

    Parameters
    ----------
    prior : Prior
    net : BayesianNetwork, optional
        By default the prior's.

    Returns
    -------
    callable
        ``function(X)`` draws the site and returns the network's values (N, n_outputs) at X (N, D).

    Raises
    ------
    ValueError
        If the network is another than the prior's.

    Examples
    --------
    >>> import pyro
    >>> from bayes.priors import MLP, GaussianPrior
    >>> function = GaussianPrior.per_layer(MLP(2, [5], 1)).to_pyro()
    >>> def model(X, y):
    ...     f = function(X)[:, 0]
    ...     pyro.sample("y", pyro.distributions.Normal(f, 0.1).to_event(1), obs=y)
    >>> trace = pyro.poutine.trace(model).get_trace(torch.zeros(4, 2), torch.zeros(4))
    >>> trace.nodes["weights"]["value"].shape
    torch.Size([21])
    """
    import pyro

    net = prior.net if net is None else as_network(net)
    if net.signature() != prior.net.signature():
        raise ValueError(f"The 'net' parameter must be the prior's, {prior.net}; got {net}.")
    law = _weights_law(prior)

    def function(X: Tensor) -> Tensor:
        return net(pyro.sample("weights", law), X)

    return function


def _weights_law(prior: Prior) -> Any:
    """The prior as a Pyro distribution; its seeds come from Pyro's generator, the global one."""
    from pyro.distributions import TorchDistribution, constraints

    class WeightsLaw(TorchDistribution):
        arg_constraints: dict[str, Any] = {}  # noqa: RUF012
        support = constraints.real_vector
        has_rsample = True

        def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
            shape = torch.Size(sample_shape)
            draws = prior.rsample(shape.numel(), int(torch.randint(2**62, ())))
            return draws.reshape(*shape, prior.net.n_weights)

        def log_prob(self, value: Tensor) -> Tensor:
            return prior.log_prob(value)

        def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
            if torch.Size(batch_shape):
                raise NotImplementedError("The site 'weights' cannot be in a plate.")
            return self

    return WeightsLaw(torch.Size(), torch.Size([prior.net.n_weights]), validate_args=False)

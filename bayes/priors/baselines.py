"""The priors that networks are customarily given, with which matched ones are compared."""

from __future__ import annotations

from torch import nn

from ..networks import BayesianNetwork
from .gaussian import GaussianPrior
from .hierarchical import HierarchicalPrior


def fixed_gaussian(net: BayesianNetwork | nn.Module) -> GaussianPrior:
    """FG: independent N(0, 1) weights, not trainable.

    Examples
    --------
    >>> from bayes.networks import MLP
    >>> fixed_gaussian(MLP(1, [2], 1)).scale.tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    return GaussianPrior.per_layer(net).requires_grad_(False)


def fixed_hierarchical(net: BayesianNetwork | nn.Module) -> HierarchicalPrior:
    """FH: precisions Gamma(1, 1), not trainable.

    Under it weights have no variance; of the network's functions only means of size and
    quantiles exist.
    """
    return HierarchicalPrior.per_layer(net, shape=1.0, rate=1.0).requires_grad_(False)

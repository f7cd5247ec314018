r"""The potential of a network's weights.

.. math::
    U_b(w, \theta) = -\frac NB \sum_{i \in b} \log p(y_i \mid f(x_i; w), \theta)
                     - \log p(w) - \log p(\theta)

for a batch b of B of the N observations, weights w and the likelihood's own parameters theta.
Gradients of dense networks and Gaussian weights are written out; the rest is differentiated
automatically.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..networks import BayesianNetwork
from .backpropagation import stack_of
from .likelihoods import Gaussian, Likelihood

if TYPE_CHECKING:
    from ..priors import Prior


class GaussianWeights(NamedTuple):
    """Independent centred Gaussian weights."""

    precision: Tensor  # (P,) or (C, P)
    log_scales: Tensor  # () or (C,), the sum over weights


class NetworkPotential:
    """U at positions (C, P + E), weights and then the likelihood's own parameters.

    The prior's parameters are read once.

    Parameters
    ----------
    net : BayesianNetwork
    prior : Prior
    X, y : Tensor
    likelihood : Likelihood
    """

    def __init__(
        self, net: BayesianNetwork, prior: Prior, X: Tensor, y: Tensor, likelihood: Likelihood
    ) -> None:
        from ..priors import GaussianPrior

        self.net, self.prior, self.X, self.y, self.likelihood = net, prior, X, y, likelihood
        self._stack = stack_of(net)
        self._weights: GaussianWeights | None = None
        if isinstance(prior, GaussianPrior):
            scale = prior.scale.detach().to(X)
            self._weights = GaussianWeights(scale.pow(-2), scale.log().sum())
        self._slope_of_prior = torch.func.grad(self._total_prior, has_aux=True)
        self._slopes_of_data = torch.func.grad(self._total, has_aux=True, argnums=(0, 1))

    def log_joint(self, position: Tensor, batch: Tensor | None) -> Tensor:
        """Log density (C,) of data and position (C, P + E)."""
        n = self.net.n_weights
        weights, extra = position[:, :n], position[:, n:]
        X, y = self._rows(batch)
        values = self.likelihood.log_prob(self.net(weights, X), y, extra)
        scale = len(self.X) / values.shape[1]
        prior = self.prior.log_prob(weights) + self.likelihood.log_prior(extra)
        return scale * values.sum(1) + prior

    def __call__(self, position: Tensor, batch: Tensor | None) -> tuple[Tensor, Tensor]:
        n = self.net.n_weights
        weights, extra = position[:, :n], position[:, n:]
        value, gradient, extra_slope = self._given(weights, extra, batch, self._weights)
        if not self.likelihood.n_extra:
            return value, gradient
        own_slope, log_prior = torch.func.grad(self._total_of_extra, has_aux=True)(extra)
        return value - log_prior, torch.cat([gradient, extra_slope - own_slope], 1)

    def _rows(self, batch: Tensor | None) -> tuple[Tensor, Tensor]:
        return (self.X, self.y) if batch is None else (self.X[batch], self.y[batch])

    def _given(
        self,
        weights: Tensor,
        extra: Tensor,
        batch: Tensor | None,
        gaussian: GaussianWeights | None,  # the prior, if it is that
    ) -> tuple[Tensor, Tensor, Tensor]:
        """U but for log p(theta), its gradient in the weights, and the data's slope in theta."""
        X, y = self._rows(batch)
        if self._stack is None:
            slopes, values = self._slopes_of_data(weights, extra, X, y)
            slope, extra_slope = slopes
        else:
            outputs, tape = self._stack.forward(weights, X)
            values, output_slope, extra_slope = self.likelihood.with_slopes(outputs, y, extra)
            slope = self._stack.backward(tape, output_slope)
        if gaussian is None:
            prior_slope, log_prior = self._slope_of_prior(weights)
            value, gradient = -log_prior.to(weights), -prior_slope
        else:
            gradient = gaussian.precision * weights
            value = 0.5 * (gradient * weights).sum(1) + gaussian.log_scales
            value = value + self.net.n_weights * _HALF_LOG_2PI
        factor = -len(self.X) / values.shape[1]
        return (
            torch.add(value, values.sum(1), alpha=factor),
            torch.add(gradient, slope, alpha=factor),
            factor * extra_slope,
        )

    def _total(self, weights: Tensor, extra: Tensor, X: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        values = self.likelihood.log_prob(self.net(weights, X), y, extra)
        return values.sum(), values

    def _total_prior(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        values = self.prior.log_prob(weights)
        return values.sum(), values

    def _total_of_extra(self, extra: Tensor) -> tuple[Tensor, Tensor]:
        values = self.likelihood.log_prior(extra)
        return values.sum(), values


class ConjugateNetworkPotential(NetworkPotential):
    """U of the weights given scales that Gibbs steps draw, see `gibbs`.

    The log scales (C, G) are that of a `Gaussian` likelihood's learned noise, if it has one, and
    then one for each precision of a `HierarchicalPrior`.
    """

    def __init__(
        self, net: BayesianNetwork, prior: Prior, X: Tensor, y: Tensor, likelihood: Likelihood
    ) -> None:
        from ..priors import HierarchicalPrior
        from ..priors.groups import group_index

        super().__init__(net, prior, X, y, likelihood)
        self._hierarchical = isinstance(prior, HierarchicalPrior)
        if isinstance(prior, HierarchicalPrior):
            self._group = group_index(net, prior.by)[0].to(X.device)
            self._shape = prior.shape.detach().to(X)
            self._rate = prior.rate.detach().to(X)
            self._size = torch.bincount(self._group).to(X)

    @property
    def n_prior_scales(self) -> int:
        return len(self._size) if self._hierarchical else 0

    def __call__(  # type: ignore[override]
        self, position: Tensor, batch: Tensor | None, log_scale: Tensor
    ) -> tuple[Tensor, Tensor]:
        n_extra = self.likelihood.n_extra
        extra, own = log_scale[:, :n_extra], log_scale[:, n_extra:]
        weights, log_prior = self._weights, self.likelihood.log_prior(extra)
        if self._hierarchical:
            by_group = torch.exp(-2 * own)
            weights = GaussianWeights(by_group[:, self._group], (self._size * own).sum(1))
            log_prior = log_prior - (2 * self._shape * own + self._rate * by_group).sum(1)
        value, gradient, _ = self._given(position, extra, batch, weights)
        return value - log_prior, gradient

    def conditional(self, position: Tensor) -> tuple[Tensor, Tensor]:
        laws = []
        if isinstance(self.likelihood, Gaussian) and self.likelihood.n_extra:
            laws.append(self.likelihood.conditional(self.net(position, self.X), self.y))
        if self._hierarchical:
            squares = position.new_zeros(len(position), len(self._size))
            squares = squares.index_add(1, self._group, position.square())
            shape = self._shape + 0.5 * self._size
            laws.append((shape.expand_as(squares), self._rate + 0.5 * squares))
        shapes, rates = zip(*laws, strict=True)
        return torch.cat(shapes, 1), torch.cat(rates, 1)


def has_conjugate_scales(prior: Prior, likelihood: Likelihood) -> bool:
    """Whether there is something for Gibbs steps to draw, and they can draw all of it."""
    from ..priors import HierarchicalPrior

    if likelihood.n_extra:
        return isinstance(likelihood, Gaussian)
    return isinstance(prior, HierarchicalPrior)


_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)

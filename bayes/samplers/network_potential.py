r"""The potential of a network's weights.

.. math::
    U_b(w, \theta) = -\frac NB \sum_{i \in b} \log p(y_i \mid f(x_i; w), \theta)
                     - \log p(w) - \log p(\theta)

for a batch b of B of the N observations, weights w and the likelihood's own parameters theta.
Gradients of dense networks and of Gaussian and hierarchical priors are written out; the rest is
differentiated automatically.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from .._validation import as_inputs, check_instance
from ..networks import BayesianNetwork
from .backpropagation import stack_of
from .likelihoods import Gaussian, Likelihood

if TYPE_CHECKING:
    from ..priors import HierarchicalPrior, Prior

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class GaussianWeights(NamedTuple):
    """Independent centred Gaussian weights."""

    precision: Tensor  # (P,) or (C, P)
    log_scales: Tensor  # () or (C,), the sum over weights

    def potential(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """-log p and its gradient at (C, P)."""
        gradient = self.precision * weights
        value = 0.5 * (gradient * weights).sum(1) + self.log_scales
        return value + weights.shape[1] * _HALF_LOG_2PI, gradient


class GroupedWeights:
    """Groups of weights that share a precision with a Gamma(shape, rate) law: a
    `HierarchicalPrior`, its parameters read once."""

    def __init__(self, prior: HierarchicalPrior, like: Tensor) -> None:
        from ..priors.groups import group_index

        self.group = group_index(prior.net, prior.by)[0].to(like.device)  # (P,)
        self.size = torch.bincount(self.group).to(like)  # (G,)
        self.shape, self.rate = prior.shape.detach().to(like), prior.rate.detach().to(like)
        total = self.shape + 0.5 * self.size
        constant = torch.lgamma(self.shape) - torch.lgamma(total) - self.shape * self.rate.log()
        self._constant = constant.sum() + self.size.sum() * _HALF_LOG_2PI

    def conditional(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Shape (G,) and rate (C, G) of the precisions' Gamma laws given weights (C, P)."""
        squares = weights.new_zeros(len(weights), len(self.size))
        squares = squares.index_add(1, self.group, weights.square())
        return self.shape + 0.5 * self.size, self.rate + 0.5 * squares

    def potential(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """-log p, the precisions integrated out, and its gradient at (C, P)."""
        shape, rate = self.conditional(weights)
        mean_precision = shape / rate
        value = (shape * rate.log()).sum(1) + self._constant
        return value, mean_precision[:, self.group] * weights


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
        from ..priors import GaussianPrior, HierarchicalPrior, Prior

        check_instance("net", net, BayesianNetwork, "a BayesianNetwork")
        check_instance("prior", prior, Prior, "a Prior")
        check_instance("likelihood", likelihood, Likelihood, "a Likelihood")
        X = as_inputs("X", X)
        y = likelihood.check(y, net.n_outputs, X)
        if len(y) != len(X):
            raise ValueError(
                f"The 'y' parameter must have one value a row of X; got {len(y)} for {len(X)} rows."
            )
        self.net, self.prior, self.X, self.y, self.likelihood = net, prior, X, y, likelihood
        self._stack = stack_of(net)
        self._weights: GaussianWeights | GroupedWeights | None = None
        if isinstance(prior, GaussianPrior):
            scale = prior.scale.detach().to(X)
            self._weights = GaussianWeights(scale.pow(-2), scale.log().sum())
        elif isinstance(prior, HierarchicalPrior):
            self._weights = GroupedWeights(prior, X)
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
        prior: GaussianWeights | GroupedWeights | None,  # None to differentiate its density
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
        if prior is None:
            prior_slope, log_prior = self._slope_of_prior(weights)
            value, gradient = -log_prior.to(weights), -prior_slope
        else:
            value, gradient = prior.potential(weights)
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
    then one for each precision of a `HierarchicalPrior`, by which weights are in ``groups``.
    """

    def __init__(
        self, net: BayesianNetwork, prior: Prior, X: Tensor, y: Tensor, likelihood: Likelihood
    ) -> None:
        super().__init__(net, prior, X, y, likelihood)
        self.n_prior_scales = 0
        self.groups: dict[int, Tensor] = {}
        if isinstance(self._weights, GroupedWeights):
            of, self.n_prior_scales = self._weights.group, len(self._weights.size)
            self.groups = {likelihood.n_extra + g: of == g for g in range(self.n_prior_scales)}

    def __call__(  # type: ignore[override]
        self, position: Tensor, batch: Tensor | None, log_scale: Tensor
    ) -> tuple[Tensor, Tensor]:
        n_extra = self.likelihood.n_extra
        extra, own = log_scale[:, :n_extra], log_scale[:, n_extra:]
        prior = self._weights
        if isinstance(prior, GroupedWeights):
            precision = torch.exp(-2 * own)
            prior = GaussianWeights(precision[:, prior.group], (prior.size * own).sum(1))
        value, gradient, _ = self._given(position, extra, batch, prior)
        return value - self.log_scale_prior(log_scale).sum(1), gradient

    def log_likelihood(self, position: Tensor, log_scale: Tensor) -> Tensor:
        """Log density (C,) of all data, summed in double precision."""
        extra = log_scale[:, : self.likelihood.n_extra]
        values = self.likelihood.log_prob(self.net(position, self.X), self.y, extra)
        return values.sum(1, dtype=torch.float64)

    def log_scale_prior(self, log_scale: Tensor) -> Tensor:
        """Log density of each log scale, (C, G), up to its constant."""
        n_extra, prior = self.likelihood.n_extra, self._weights
        parts = []
        if n_extra:
            parts.append(self.likelihood.log_prior(log_scale[:, :n_extra])[:, None])
        if isinstance(prior, GroupedWeights):
            own = log_scale[:, n_extra:]
            parts.append(-2 * prior.shape * own - prior.rate * torch.exp(-2 * own))
        return torch.cat(parts, 1)

    def conditional(self, position: Tensor) -> tuple[Tensor, Tensor]:
        laws = []
        if isinstance(self.likelihood, Gaussian) and self.likelihood.n_extra:
            laws.append(self.likelihood.conditional(self.net(position, self.X), self.y))
        if isinstance(self._weights, GroupedWeights):
            shape, rate = self._weights.conditional(position)
            laws.append((shape.expand_as(rate), rate))
        shapes, rates = zip(*laws, strict=True)
        return torch.cat(shapes, 1), torch.cat(rates, 1)


def has_conjugate_scales(prior: Prior, likelihood: Likelihood) -> bool:
    """Whether there is something for Gibbs steps to draw, and they can draw all of it."""
    from ..priors import HierarchicalPrior

    if likelihood.n_extra:
        return isinstance(likelihood, Gaussian)
    return isinstance(prior, HierarchicalPrior)

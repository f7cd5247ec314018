r"""Gaussian weights whose precision is drawn anew for every function.

.. math:: \tau_g \sim \mathrm{Gamma}(a_g, r_g), \qquad w_p \mid \tau \sim N(0, 1 / \tau_{g(p)}),

with shape a, rate r and one precision for each group of weights and *each function*, so that
functions are a mixture over scales. Without the precisions, the m weights of a group have a
multivariate t law,

.. math:: p(w_g) = \frac{\Gamma(a + m/2)}{\Gamma(a)} \frac{r^a}{(2\pi)^{m/2}}
    \bigl(r + |w_g|^2 / 2\bigr)^{-(a + m/2)},

and given the weights, :math:`\tau_g \sim \mathrm{Gamma}(a + m/2,\; r + |w_g|^2/2)`.
"""

from __future__ import annotations

import math
from typing import Any, Self

import torch
from torch import Tensor, nn

from kernels.checks import check_real

from .._validation import torch_generator
from ..networks import BayesianNetwork
from .base import Prior
from .gaussian import standard_normal
from .groups import group_index

LEAST_SHAPE = 0.5
"""Up to it functions have no mean size, and hence no energy distance to anything."""

SMALLEST = 1e-20
"""Of a Gamma draw over its rate: scales beyond 1e10 would overflow float32 downstream."""


class HierarchicalPrior(Prior):
    """GPi-H of the paper, with a fresh scale for each function; `FH` if not trained.

    Parameters
    ----------
    net : BayesianNetwork or torch.nn.Module
    by : {"layer", "ard", "parameter"}
        Which weights share a precision, see `group_index`.
    shape, rate : float
        Of every Gamma law to start with; shape > 1/2. Weights have a variance if shape > 1, a
        kurtosis if shape > 2.

    Attributes
    ----------
    log_excess, log_scale : torch.nn.Parameter
        (G,) logarithms of shape - 1/2 and of the scale of a weight's marginal t law; the rate is
        shape * scale^2.
    group_names : tuple of str

    Examples
    --------
    >>> from bayes.networks import MLP
    >>> prior = HierarchicalPrior.per_layer(MLP(2, [50], 1))
    >>> weights = prior.sample(3, random_state=0)
    >>> prior.sample_precision(weights, random_state=1).shape
    torch.Size([3, 4])
    """

    family = "hierarchical"

    def __init__(
        self,
        net: BayesianNetwork | nn.Module,
        by: str = "layer",
        shape: float = 1.0,
        rate: float = 1.0,
    ) -> None:
        super().__init__(net)
        index, self.group_names = group_index(self.net, by)
        self.by = by
        self._group: Tensor
        self._size: Tensor
        self.register_buffer("_group", index, persistent=False)
        self.register_buffer("_size", torch.bincount(index).double(), persistent=False)
        start = torch.ones(len(self.group_names), dtype=torch.float64)
        self.log_excess = nn.Parameter(
            start * math.log(check_real("shape", shape, low=LEAST_SHAPE, strict=True) - LEAST_SHAPE)
        )
        ratio = check_real("rate", rate, low=0.0, strict=True) / shape
        self.log_scale = nn.Parameter(start * 0.5 * math.log(ratio))

    @classmethod
    def per_layer(
        cls, net: BayesianNetwork | nn.Module, shape: float = 1.0, rate: float = 1.0
    ) -> Self:
        """One precision for each layer's weights and one for its biases."""
        return cls(net, "layer", shape, rate)

    @classmethod
    def ard(cls, net: BayesianNetwork | nn.Module, shape: float = 1.0, rate: float = 1.0) -> Self:
        """As `per_layer`, but the first layer has a precision for each input."""
        return cls(net, "ard", shape, rate)

    @property
    def shape(self) -> Tensor:
        """(G,) shapes a."""
        return LEAST_SHAPE + self.log_excess.exp()

    @property
    def rate(self) -> Tensor:
        """(G,) rates r."""
        return self.shape * (2 * self.log_scale).exp()

    @property
    def settings(self) -> dict[str, Any]:
        return {"by": self.by}

    def rsample(
        self, n: int, random_state: Any = None, dtype: torch.dtype = torch.float64
    ) -> Tensor:
        generator = torch_generator(random_state)
        scales = self.rsample_scales(n, generator, dtype)
        return scales * standard_normal(tuple(scales.shape), scales, generator)

    def log_prob(self, weights: Tensor) -> Tensor:
        shape, rate, half = self.shape, self.rate, self._size / 2
        constant = torch.lgamma(shape + half) - torch.lgamma(shape) + shape * rate.log()
        terms = constant - (shape + half) * (rate + self._half_square(weights)).log()
        return terms.sum(-1) - half.sum() * math.log(2 * math.pi)

    def gaussian_scale(self) -> Tensor:
        return self.log_scale.exp()[self._group]

    def rsample_scales(
        self, n: int, random_state: Any = None, dtype: torch.dtype = torch.float64
    ) -> Tensor:
        """n draws (n, P) of the weights' standard deviations, differentiable."""
        precision = standard_gamma(self.shape.expand(n, -1), random_state) / self.rate
        return precision.rsqrt().to(dtype)[:, self._group]

    def sample_precision(self, weights: Tensor, random_state: Any = None) -> Tensor:
        """Gibbs step: precisions (..., G) given weights (..., P), without gradient."""
        with torch.no_grad():
            shape = self.shape + self._size / 2
            rate = self.rate + self._half_square(weights)
            return standard_gamma(shape.expand_as(rate), random_state) / rate

    def log_prob_given(self, weights: Tensor, precision: Tensor) -> Tensor:
        """Log-density (...) of weights (..., P) given the groups' precisions (..., G)."""
        terms = 0.5 * self._size * (precision / (2 * math.pi)).log()
        return (terms - precision * self._half_square(weights)).sum(-1)

    def _half_square(self, weights: Tensor) -> Tensor:
        """|w_g|^2 / 2 of every group, (..., G)."""
        weights = self._weights(weights)
        zeros = weights.new_zeros(*weights.shape[:-1], len(self.group_names))
        return 0.5 * zeros.index_add(-1, self._group, weights.square())


def standard_gamma(shape: Tensor, random_state: Any) -> Tensor:
    """Gamma(shape, 1) numbers, positive, differentiable in the shape."""
    generator = torch_generator(random_state)
    draw = torch._standard_gamma(shape, generator=generator)  # Gamma.rsample takes no generator
    return draw.clamp_min(SMALLEST)

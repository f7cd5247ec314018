r"""Independent centred Gaussian weights.

.. math:: w_p \sim N(0, \sigma_{g(p)}^2),

with one standard deviation for a group g: a layer's weights or its biases, each input's weights in
the first layer (ARD), or every weight. All equal to one is the customary prior, FG.
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
from .groups import group_index


class GaussianPrior(Prior):
    """GPi-G of the paper; start from `per_layer`, `ard` or `per_parameter`.

    Parameters
    ----------
    net : BayesianNetwork or torch.nn.Module
    by : {"layer", "ard", "parameter"}
        Which weights share a scale, see `group_index`.
    scale : float
        Standard deviation of all weights to start with.

    Attributes
    ----------
    log_scale : torch.nn.Parameter
        (G,) logarithms of the groups' standard deviations.
    group_names : tuple of str

    References
    ----------
    Tran, Rossi, Milios and Filippone (2022), All you need is a good functional prior for Bayesian
    deep learning, JMLR 23.

    Examples
    --------
    >>> from bayes.networks import MLP
    >>> prior = GaussianPrior.per_layer(MLP(2, [50], 1))
    >>> prior.sample_functions(torch.zeros(4, 2), 3, random_state=0).shape
    torch.Size([3, 4, 1])
    """

    family = "gaussian"

    def __init__(
        self, net: BayesianNetwork | nn.Module, by: str = "layer", scale: float = 1.0
    ) -> None:
        super().__init__(net)
        index, self.group_names = group_index(self.net, by)
        self.by = by
        self._group: Tensor
        self.register_buffer("_group", index, persistent=False)
        start = math.log(check_real("scale", scale, low=0.0, strict=True))
        self.log_scale = nn.Parameter(
            torch.full((len(self.group_names),), start, dtype=torch.float64)
        )

    @classmethod
    def per_layer(cls, net: BayesianNetwork | nn.Module, scale: float = 1.0) -> Self:
        """One standard deviation for each layer's weights and one for its biases."""
        return cls(net, "layer", scale)

    @classmethod
    def per_parameter(cls, net: BayesianNetwork | nn.Module, scale: float = 1.0) -> Self:
        """Every weight its own standard deviation."""
        return cls(net, "parameter", scale)

    @classmethod
    def ard(cls, net: BayesianNetwork | nn.Module, scale: float = 1.0) -> Self:
        """As `per_layer`, but the first layer has one for each input."""
        return cls(net, "ard", scale)

    @property
    def settings(self) -> dict[str, Any]:
        return {"by": self.by}

    @property
    def scale(self) -> Tensor:
        """(P,) standard deviations of the weights."""
        return self.log_scale.exp()[self._group]

    def rsample(
        self, n: int, random_state: Any = None, dtype: torch.dtype = torch.float64
    ) -> Tensor:
        scale = self.scale.to(dtype)
        return scale * standard_normal((n, len(scale)), scale, random_state)

    def log_prob(self, weights: Tensor) -> Tensor:
        scale = self.scale
        z = self._weights(weights) / scale
        constant = scale.log().sum() + 0.5 * len(scale) * math.log(2 * math.pi)
        return -0.5 * z.square().sum(-1) - constant

    def gaussian_scale(self) -> Tensor:
        return self.scale


def standard_normal(shape: tuple[int, ...], like: Tensor, random_state: Any) -> Tensor:
    """Standard normal numbers of the dtype and on the device of a tensor."""
    generator = torch_generator(random_state)
    draw = torch.randn(shape, generator=generator, dtype=like.dtype, device=generator.device)
    return draw.to(like.device)

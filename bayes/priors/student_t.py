r"""Independent centred Student-t weights.

.. math:: w_p = \sigma_{g(p)}\, t_p, \qquad t_p \sim t_{\nu_{g(p)}},

with a scale :math:`\sigma` and degrees of freedom :math:`\nu > 2` (so that variances are finite)
for each group of weights. Unlike under `HierarchicalPrior`, each weight has heavy tails of its own:
a few large ones stand out among the others of their layer.
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
from .hierarchical import standard_gamma


class StudentTPrior(Prior):
    """Student-t weights.

    Parameters
    ----------
    net : BayesianNetwork or torch.nn.Module
    by : {"layer", "ard", "parameter"}
        Which weights share scale and degrees of freedom, see `group_index`.
    scale : float
        To start with; not the standard deviation, which is scale * sqrt(df / (df - 2)).
    df : float
        Degrees of freedom to start with, > 2.

    Attributes
    ----------
    log_scale, log_excess : torch.nn.Parameter
        (G,) logarithms of the scale and of df - 2.
    group_names : tuple of str

    Examples
    --------
    >>> from bayes.networks import MLP
    >>> StudentTPrior.per_layer(MLP(2, [50], 1)).sample(3, random_state=0).shape
    torch.Size([3, 201])
    """

    family = "student_t"

    def __init__(
        self,
        net: BayesianNetwork | nn.Module,
        by: str = "layer",
        scale: float = 1.0,
        df: float = 5.0,
    ) -> None:
        super().__init__(net)
        index, self.group_names = group_index(self.net, by)
        self.by = by
        self._group: Tensor
        self.register_buffer("_group", index, persistent=False)
        ones = torch.ones(len(self.group_names), dtype=torch.float64)
        start = math.log(check_real("scale", scale, low=0.0, strict=True))
        self.log_scale = nn.Parameter(start * ones)
        self.log_excess = nn.Parameter(
            math.log(check_real("df", df, low=2.0, strict=True) - 2) * ones
        )

    @classmethod
    def per_layer(
        cls, net: BayesianNetwork | nn.Module, scale: float = 1.0, df: float = 5.0
    ) -> Self:
        """One law for each layer's weights and one for its biases."""
        return cls(net, "layer", scale, df)

    @property
    def settings(self) -> dict[str, Any]:
        return {"by": self.by}

    @property
    def scale(self) -> Tensor:
        """(P,)."""
        return self.log_scale.exp()[self._group]

    @property
    def df(self) -> Tensor:
        """(P,)."""
        return 2 + self.log_excess.exp()[self._group]

    def rsample(
        self, n: int, random_state: Any = None, dtype: torch.dtype = torch.float64
    ) -> Tensor:
        generator, half = torch_generator(random_state), (self.df / 2).to(dtype)
        normal = standard_normal((n, len(half)), half, generator)
        stretch = (half / standard_gamma(half.expand(n, -1), generator)).sqrt()
        return self.scale.to(dtype) * normal * stretch

    def gaussian_scale(self) -> Tensor:
        return self.scale * (self.df / (self.df - 2)).sqrt()

    def log_prob(self, weights: Tensor) -> Tensor:
        scale, df = self.scale, self.df
        constant = torch.lgamma((df + 1) / 2) - torch.lgamma(df / 2)
        constant = constant - 0.5 * (df * math.pi).log() - scale.log()
        tails = (df + 1) / 2 * torch.log1p((self._weights(weights) / scale).square() / df)
        return (constant - tails).sum(-1)

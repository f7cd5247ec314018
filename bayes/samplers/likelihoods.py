r"""Likelihoods: what observations say about a network's outputs.

Parameters that belong to the likelihood (a learned noise) are coordinates beside the weights, on a
scale without bounds, and are sampled with them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from kernels.checks import check_real

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)

TINY = 1e-30
"""Least shape and rate of a Gamma law: their ratios are numbers of float32."""


@dataclass(frozen=True)
class Likelihood(ABC):
    """The law of y given outputs (S, N, K) and own parameters (S, E)."""

    classes: ClassVar[bool] = False

    @property
    def n_extra(self) -> int:
        """E, how many parameters it has of its own."""
        return 0

    @abstractmethod
    def check(self, y: Any, n_outputs: int, like: Tensor) -> Tensor:
        """Observations as a tensor (N,); errors name what does not fit."""

    @abstractmethod
    def log_prob(
        self,
        outputs: Tensor,  # (S, N, K)
        y: Tensor,  # (N,) or (S, N)
        extra: Tensor,  # (S, E)
    ) -> Tensor:  # (S, N)
        """Log density or probability of each observation, in nats."""

    def with_slopes(
        self, outputs: Tensor, y: Tensor, extra: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`log_prob` (S, N), and the slopes of its sum over N in outputs and own parameters."""

        def total(outputs: Tensor, extra: Tensor) -> tuple[Tensor, Tensor]:
            values = self.log_prob(outputs, y, extra)
            return values.sum(), values

        slopes, values = torch.func.grad(total, argnums=(0, 1), has_aux=True)(outputs, extra)
        return values, *slopes

    def log_prior(self, extra: Tensor) -> Tensor:
        """Log density (S,) of its own parameters."""
        return extra.new_zeros(len(extra))

    def start(self, n: int, like: Tensor) -> Tensor:
        """Where chains start with its own parameters, (n, E)."""
        return like.new_zeros(n, self.n_extra)


@dataclass(frozen=True)
class Regression(Likelihood):
    """A likelihood of one real number: location and scale of each draw's law."""

    @abstractmethod
    def location_scale(self, outputs: Tensor, extra: Tensor) -> tuple[Tensor, Tensor]:
        """(S, N) each."""

    @abstractmethod
    def standard_log_prob(self, z: Tensor) -> Tensor:
        """Log density at scale 1 around 0."""

    @abstractmethod
    def standard_cdf(self, z: Tensor) -> Tensor:
        """Distribution function at scale 1 around 0."""

    @property
    def standard_variance(self) -> float:
        return 1.0

    @property
    def n_outputs(self) -> int:
        return 1

    def check(self, y: Any, n_outputs: int, like: Tensor) -> Tensor:
        values = _numbers(y).to(like)
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        if values.ndim != 1 or not bool(torch.isfinite(values).all()):
            raise ValueError(
                f"The 'y' parameter must be finite numbers of shape (N,); got shape "
                f"{tuple(values.shape)}."
            )
        if n_outputs != self.n_outputs:
            raise ValueError(
                f"The 'net' parameter must have {self.n_outputs} outputs for {self!r}; "
                f"got {n_outputs}."
            )
        return values

    def log_prob(self, outputs: Tensor, y: Tensor, extra: Tensor) -> Tensor:
        location, scale = self.location_scale(outputs, extra)
        return self.standard_log_prob((y - location) / scale) - torch.log(scale)


@dataclass(frozen=True)
class _Normal(Regression):
    """Normal errors."""

    def standard_log_prob(self, z: Tensor) -> Tensor:
        return -0.5 * z.square() - _HALF_LOG_2PI

    def standard_cdf(self, z: Tensor) -> Tensor:
        return torch.special.ndtr(z)


@dataclass(frozen=True)
class Gaussian(_Normal):
    r"""y ~ N(f(x), scale^2).

    Parameters
    ----------
    scale : float or None
        Standard deviation sigma; None learns it, with precision ~ Gamma(shape, rate) a priori:
        :math:`\log p(\log\sigma) = -2a\log\sigma - b/\sigma^2` up to a constant.
    shape, rate : float
        a and b.
    """

    scale: float | None = None
    shape: float = 1.0
    rate: float = 0.1

    def __post_init__(self) -> None:
        if self.scale is not None:
            check_real("scale", self.scale, low=0, strict=True)
        check_real("shape", self.shape, low=TINY)
        check_real("rate", self.rate, low=TINY)

    @property
    def n_extra(self) -> int:
        return int(self.scale is None)

    def location_scale(self, outputs: Tensor, extra: Tensor) -> tuple[Tensor, Tensor]:
        location = outputs[..., 0]
        scale = torch.exp(extra) if self.scale is None else location.new_full((1, 1), self.scale)
        return location, scale.expand_as(location)

    def with_slopes(
        self, outputs: Tensor, y: Tensor, extra: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        log_scale = extra if self.scale is None else math.log(self.scale)
        scale = torch.exp(extra) if self.scale is None else self.scale
        z = (y - outputs[..., 0]) / scale
        values = -0.5 * z.square() - (_HALF_LOG_2PI + log_scale)
        extra_slope = extra  # empty
        if self.scale is None:
            extra_slope = (z.square() - 1).sum(1, keepdim=True)
        return values, (z / scale)[..., None], extra_slope

    def conditional(
        self,
        outputs: Tensor,  # (S, N, 1)
        y: Tensor,  # (N,)
    ) -> tuple[Tensor, Tensor]:  # (S, 1) each
        r"""Shape and rate of a learned precision's law given the outputs.

        .. math:: \sigma^{-2} \mid f, y \sim
            \mathrm{Gamma}\bigl(a + N/2,\; b + \tfrac12 \textstyle\sum_i (y_i - f_i)^2\bigr)
        """
        squares = (y - outputs[..., 0]).square().sum(1, keepdim=True)
        shape = torch.full_like(squares, self.shape + 0.5 * len(y))
        return shape, self.rate + 0.5 * squares

    def log_prior(self, extra: Tensor) -> Tensor:
        return (-2 * self.shape * extra - self.rate * torch.exp(-2 * extra)).sum(1)

    def start(self, n: int, like: Tensor) -> Tensor:
        return like.new_full((n, self.n_extra), 0.5 * math.log(self.rate / self.shape))


@dataclass(frozen=True)
class HeteroscedasticGaussian(_Normal):
    """y ~ N(f_1(x), s(x)^2) with s = min_scale + softplus(f_2(x)); two outputs.

    Parameters
    ----------
    min_scale : float
        Keeps s off 0.
    """

    min_scale: float = 1e-3

    def __post_init__(self) -> None:
        check_real("min_scale", self.min_scale, low=0, strict=True)

    @property
    def n_outputs(self) -> int:
        return 2

    def location_scale(self, outputs: Tensor, extra: Tensor) -> tuple[Tensor, Tensor]:
        return outputs[..., 0], self.min_scale + torch.nn.functional.softplus(outputs[..., 1])


@dataclass(frozen=True)
class StudentT(Regression):
    """y ~ f(x) + scale t(df): outliers count less.

    Parameters
    ----------
    scale : float
    df : float
        Degrees of freedom, above 2 so that there is a variance.
    """

    scale: float = 1.0
    df: float = 4.0

    def __post_init__(self) -> None:
        check_real("scale", self.scale, low=0, strict=True)
        check_real("df", self.df, low=2, strict=True)

    @property
    def standard_variance(self) -> float:
        return self.df / (self.df - 2)

    def location_scale(self, outputs: Tensor, extra: Tensor) -> tuple[Tensor, Tensor]:
        location = outputs[..., 0]
        return location, torch.full_like(location, self.scale)

    def standard_log_prob(self, z: Tensor) -> Tensor:
        constant = (
            math.lgamma((self.df + 1) / 2)
            - math.lgamma(self.df / 2)
            - 0.5 * math.log(self.df * math.pi)
        )
        return constant - 0.5 * (self.df + 1) * torch.log1p(z.square() / self.df)

    def standard_cdf(self, z: Tensor) -> Tensor:
        from scipy.special import stdtr

        return torch.from_numpy(np.asarray(stdtr(self.df, z.cpu().numpy()))).to(z)


@dataclass(frozen=True)
class Categorical(Likelihood):
    """y in {0, ..., K - 1} with logits f(x)."""

    classes: ClassVar[bool] = True

    def check(self, y: Any, n_outputs: int, like: Tensor) -> Tensor:
        values = _numbers(y).to(like.device)
        whole = not values.is_floating_point() or bool((values == values.round()).all())
        if values.ndim != 1 or not whole or bool(((values < 0) | (values >= n_outputs)).any()):
            bad = values.flatten()[((values < 0) | (values >= n_outputs)).flatten()][:3].tolist()
            raise ValueError(
                f"The 'y' parameter must be labels in [0, {n_outputs}), one a row, for a network "
                f"with {n_outputs} outputs; got shape {tuple(values.shape)} with {bad}."
            )
        return values.long()

    def log_prob(self, outputs: Tensor, y: Tensor, extra: Tensor) -> Tensor:
        logs = torch.log_softmax(outputs, -1)
        labels = y.expand(logs.shape[:2])[..., None]
        return torch.gather(logs, -1, labels)[..., 0]


def _numbers(y: Any) -> Tensor:
    """Observations as a tensor of real numbers."""
    try:
        values = y if isinstance(y, Tensor) else torch.tensor(np.asarray(y))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"The 'y' parameter must be numeric; got {y!r}.") from error
    if values.is_complex():
        raise ValueError(f"The 'y' parameter must be real numbers; got {y!r}.")
    return values

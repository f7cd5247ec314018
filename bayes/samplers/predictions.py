r"""Predictive laws: the mixture over draws, and scores of it.

.. math:: p(y \mid x) = \frac1S \sum_s p(y \mid f(x; w_s), \theta_s)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kernels.checks import check_real

from .._validation import as_values, check_size
from .likelihoods import Regression


@dataclass(frozen=True)
class Mixture:
    """A mixture of S laws at each of N points.

    Attributes
    ----------
    locations, scales : Tensor
        (S, N) of the components.
    likelihood : Regression
        Their shape.
    """

    locations: Tensor
    scales: Tensor
    likelihood: Regression

    @property
    def mean(self) -> Tensor:
        """(N,)."""
        return self.locations.mean(0)

    @property
    def scale(self) -> Tensor:
        """Standard deviation (N,): that within components and that between them."""
        within = self.likelihood.standard_variance * self.scales.square().mean(0)
        return torch.sqrt(within + self.locations.var(0, correction=0))

    def cdf(self, y: Any) -> Tensor:
        """Distribution function of the mixture at y (N,)."""
        return self._cdf(self._values(y))

    def quantile(self, level: float) -> Tensor:
        """Quantile (N,) of the mixture, by bisection to 1e-12 of its range."""
        check_real("level", level, low=0, high=1, strict=True)
        reach = 40 * self.scales.max(0).values  # a Gaussian's tail there is below any level
        low, high = self.locations.min(0).values - reach, self.locations.max(0).values + reach
        for _ in range(60):
            middle = 0.5 * (low + high)
            below = self._cdf(middle) < level
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return 0.5 * (low + high)

    def interval(self, coverage: float) -> tuple[Tensor, Tensor]:
        """Central interval: lower and upper end (N,) each."""
        check_real("coverage", coverage, low=0, high=1, strict=True)
        return self.quantile((1 - coverage) / 2), self.quantile((1 + coverage) / 2)

    def log_prob(self, y: Any) -> Tensor:
        """Log predictive density (N,) of the mixture, in nats."""
        z = (self._values(y) - self.locations) / self.scales
        logs = self.likelihood.standard_log_prob(z) - torch.log(self.scales)
        return torch.logsumexp(logs, 0) - math.log(len(logs))

    def gaussian_nll(self, y: Any) -> Tensor:
        """Negative log density (N,) of the one Gaussian with the mixture's mean and variance, which
        papers report; it is not the mixture's."""
        z = (self._values(y) - self.mean) / self.scale
        return 0.5 * z.square() + torch.log(self.scale) + 0.5 * math.log(2 * math.pi)

    def rmse(self, y: Any) -> float:
        """Root mean squared error of the mean."""
        return float((self._values(y) - self.mean).square().mean().sqrt())

    def calibration(self, y: Any, n_levels: int = 9) -> tuple[Tensor, Tensor]:
        """Levels in (0, 1) and the part of the observations below each quantile, (n_levels,)."""
        check_size("n_levels", n_levels, 1, self.locations.shape[1])
        levels = torch.arange(1, n_levels + 1).to(self.locations) / (n_levels + 1)
        return levels, (self.cdf(y)[:, None] <= levels).to(levels).mean(0)

    def _cdf(self, y: Tensor) -> Tensor:
        return self.likelihood.standard_cdf((y - self.locations) / self.scales).mean(0)

    def _values(self, y: Any) -> Tensor:
        return as_values("y", y, self.locations.shape[1]).to(self.locations)


@dataclass(frozen=True)
class Classes:
    """Class probabilities (N, K), averaged over draws."""

    probs: Tensor

    def log_prob(self, y: Any) -> Tensor:
        """Log probability (N,) of labels."""
        return torch.log(torch.gather(self.probs, 1, self._labels(y)[:, None])[:, 0])

    def accuracy(self, y: Any) -> float:
        """Part of the labels that have the largest probability."""
        return float((self.probs.argmax(1) == self._labels(y)).double().mean())

    def ece(self, y: Any, n_bins: int = 15) -> float:
        """Expected calibration error: mean distance of confidence and accuracy over equal bins of
        confidence, weighted by how many fall there."""
        check_size("n_bins", n_bins, 1, 8)
        confidence, predicted = self.probs.double().max(1)
        right = (predicted == self._labels(y)).double()
        bins = (confidence * n_bins).ceil().clamp(1, n_bins).long() - 1
        gap = torch.zeros(n_bins, dtype=right.dtype, device=right.device).index_add(
            0, bins, right - confidence
        )
        return float(gap.abs().sum() / len(right))

    def _labels(self, y: Any) -> Tensor:
        n_points, n_classes = self.probs.shape
        values = as_values("y", y, n_points)
        if bool(((values != values.round()) | (values < 0) | (values >= n_classes)).any()):
            raise ValueError(f"The 'y' parameter must be labels in [0, {n_classes}); got {y!r}.")
        return values.long().to(self.probs.device).expand(n_points)

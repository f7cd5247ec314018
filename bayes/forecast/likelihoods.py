r"""Likelihoods of the target, on a working scale of their own.

A network gives each row a location m, a scale s and, for a whole member, a tail parameter. A
likelihood says on which scale it works (`target_scale`), its log density there, and its
distribution function and quantiles:

=====================  =============================================================================
``"auto"``             Student-t on a power of the target chosen from the data (`TargetScale`)
``"student-t"``        Student-t on the target
``"normal"``           normal on the target
``"log-normal"``       normal on the logarithm; targets must be positive
``"truncated-normal"`` normal on the target, given that it is not negative
``"gamma"``            mean exp of m, shape :math:`1/s^2` on the logarithm; positive targets
``"negative-binomial"``  counts of mean exp of m and size :math:`1/s^2`
``"zero-inflated"``    the same, with more zeros
=====================  =============================================================================

Student-t has :math:`2 + e^{\text{tail}}` degrees of freedom; of zero-inflated counts a share of
:math:`1 / (1 + e^{\text{tail}})` is zero whatever the rest. Densities of location-scale families
are those of z; adding `TargetScale.log_slope` gives those of y.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
import torch
from scipy import special
from torch import Tensor
from torch.nn.functional import logsigmoid

from .records import Records, check_target_above
from .scale import TargetScale

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Law(NamedTuple):
    """Parameters that a network gives, with shapes that broadcast."""

    location: np.ndarray
    scale: np.ndarray
    tail: np.ndarray


class Likelihood(ABC):
    """The law of a target given what a network gives."""

    name: str
    power: float | None  # of the working scale; None to choose it from the data
    discrete = False

    def check(self, records: Records) -> None:  # noqa: B027
        """Refuse targets that the likelihood cannot have; most have none."""

    def target_scale(self, y: np.ndarray) -> TargetScale:
        return TargetScale.fit(y, power=self.power)

    def to_working(self, y: np.ndarray, scale: TargetScale) -> np.ndarray:
        return scale.forward(y)

    def from_working(self, z: np.ndarray, scale: TargetScale) -> np.ndarray:
        return scale.inverse(z)

    @abstractmethod
    def log_prob(
        self, z: Tensor, location: Tensor, log_scale: Tensor, tail: Tensor, scale: TargetScale
    ) -> Tensor:
        """Log density of z, elementwise."""

    @abstractmethod
    def cdf(self, z: np.ndarray, law: Law, scale: TargetScale) -> np.ndarray:
        """Probability of at most z, elementwise."""

    @abstractmethod
    def quantile(self, p: np.ndarray, law: Law, scale: TargetScale) -> np.ndarray:
        """Quantiles on the working scale, elementwise."""

    def scale_of(self, deviation: np.ndarray, tail: np.ndarray) -> np.ndarray:
        """The scale that gives a standard deviation on the working scale."""
        return deviation


class Normal(Likelihood):
    name: str = "normal"
    power: float | None = 1.0

    def log_prob(
        self, z: Tensor, location: Tensor, log_scale: Tensor, tail: Tensor, scale: TargetScale
    ) -> Tensor:
        return -0.5 * ((z - location) * torch.exp(-log_scale)).square() - log_scale - _HALF_LOG_2PI

    def cdf(self, z: np.ndarray, law: Law, scale: TargetScale) -> np.ndarray:
        return special.ndtr((z - law.location) / law.scale)

    def quantile(self, p: np.ndarray, law: Law, scale: TargetScale) -> np.ndarray:
        return law.location + law.scale * special.ndtri(p)


class LogNormal(Normal):
    name, power = "log-normal", 0.0

    def check(self, records: Records) -> None:
        check_target_above(records, 0, strict=True, why="for a log-normal likelihood")


class StudentT(Likelihood):
    name: str = "student-t"
    power: float | None = 1.0

    def log_prob(
        self, z: Tensor, location: Tensor, log_scale: Tensor, tail: Tensor, scale: TargetScale
    ) -> Tensor:
        freedom = 2 + torch.exp(tail)
        u = (z - location) * torch.exp(-log_scale)
        constant = torch.lgamma((freedom + 1) / 2) - torch.lgamma(freedom / 2)
        constant = constant - 0.5 * torch.log(freedom * math.pi)
        return constant - log_scale - 0.5 * (freedom + 1) * torch.log1p(u * u / freedom)

    def cdf(self, z: np.ndarray, law: Law, scale: TargetScale) -> np.ndarray:
        return special.stdtr(2 + np.exp(law.tail), (z - law.location) / law.scale)

    def quantile(self, p: np.ndarray, law: Law, scale: TargetScale) -> np.ndarray:
        return law.location + law.scale * special.stdtrit(2 + np.exp(law.tail), p)

    def scale_of(self, deviation: np.ndarray, tail: np.ndarray) -> np.ndarray:
        freedom = 2 + np.exp(tail)
        return deviation * np.sqrt((freedom - 2) / freedom)


class PowerStudentT(StudentT):
    name, power = "auto", None


class TruncatedNormal(Normal):
    name = "truncated-normal"

    def check(self, records: Records) -> None:
        check_target_above(records, 0, strict=False, why="for a truncated-normal likelihood")

    def log_prob(
        self, z: Tensor, location: Tensor, log_scale: Tensor, tail: Tensor, scale: TargetScale
    ) -> Tensor:
        zero = float(scale.forward(np.zeros(())))
        inside = torch.special.log_ndtr((location - zero) * torch.exp(-log_scale))
        return super().log_prob(z, location, log_scale, tail, scale) - inside

    def cdf(self, z: np.ndarray, law: Law, scale: TargetScale) -> np.ndarray:
        zero = float(scale.forward(np.zeros(())))
        # 1 - P(> z)/P(> 0), by logarithms of upper tails
        above = special.log_ndtr((law.location - z) / law.scale)
        total = special.log_ndtr((law.location - zero) / law.scale)
        return np.clip(-np.expm1(above - total), 0, 1)

    def quantile(self, p: np.ndarray, law: Law, scale: TargetScale) -> np.ndarray:
        zero = float(scale.forward(np.zeros(())))
        total = special.log_ndtr((law.location - zero) / law.scale)
        return law.location - law.scale * special.ndtri_exp(np.log1p(-np.asarray(p)) + total)


class Gamma(Likelihood):
    name, power = "gamma", 0.0

    def check(self, records: Records) -> None:
        check_target_above(records, 0, strict=True, why="for a gamma likelihood")

    def log_prob(
        self, z: Tensor, location: Tensor, log_scale: Tensor, tail: Tensor, scale: TargetScale
    ) -> Tensor:
        shape = torch.exp(-2 * log_scale) / scale.spread**2
        x = (z - location) * scale.spread  # log of y over its mean
        return (
            shape * (shape.log() + x - torch.exp(x)) - torch.lgamma(shape) + math.log(scale.spread)
        )

    def cdf(self, z: np.ndarray, law: Law, scale: TargetScale) -> np.ndarray:
        shape = 1 / (law.scale * scale.spread) ** 2
        return special.gammainc(shape, shape * np.exp((z - law.location) * scale.spread))

    def quantile(self, p: np.ndarray, law: Law, scale: TargetScale) -> np.ndarray:
        shape = 1 / (law.scale * scale.spread) ** 2
        tiny = np.finfo(float).tiny
        ratio = np.maximum(special.gammaincinv(shape, p) / shape, tiny)
        return law.location + np.log(ratio) / scale.spread


class NegativeBinomial(Likelihood):
    """Counts; the working scale is log(y + 1/2), which locates neighbours and means alike."""

    name, power, discrete = "negative-binomial", 0.0, True

    def check(self, records: Records) -> None:
        why = "for a negative-binomial likelihood"
        check_target_above(records, 0, strict=False, why=why)
        y = records.target[records.observed]
        if (y != np.rint(y)).any():
            raise ValueError(
                f"The target {records.reference.schema.target!r} must be whole numbers {why}; "
                f"got {y[y != np.rint(y)][0]:g}."
            )

    def target_scale(self, y: np.ndarray) -> TargetScale:
        fitted = TargetScale.fit(y + 0.5, power=0.0)
        return TargetScale(0.0, 0.5, fitted.middle, fitted.spread, 0.0)

    def from_working(self, z: np.ndarray, scale: TargetScale) -> np.ndarray:
        return np.maximum(np.rint(scale.inverse(z)), 0)

    def log_prob(
        self, z: Tensor, location: Tensor, log_scale: Tensor, tail: Tensor, scale: TargetScale
    ) -> Tensor:
        y = torch.exp(z * scale.spread + scale.middle) - 0.5
        log_mean = (location * scale.spread + scale.middle).clamp(-20, 20)
        size = torch.exp(-2 * log_scale) / scale.spread**2
        log_total = torch.logaddexp(size.log(), log_mean)
        return (
            torch.lgamma(y + size) - torch.lgamma(size) - torch.lgamma(y + 1)
            + size * (size.log() - log_total) + y * (log_mean - log_total)
        )  # fmt: skip

    def cdf(self, z: np.ndarray, law: Law, scale: TargetScale) -> np.ndarray:
        y = np.maximum(np.floor(np.exp(z * scale.spread + scale.middle) - 0.5 + 1e-6), -1)
        size, success = self._size(law, scale)
        inside = special.betainc(size, np.maximum(y, 0) + 1, success)
        return np.where(y >= 0, inside, 0.0)

    def quantile(self, p: np.ndarray, law: Law, scale: TargetScale) -> np.ndarray:
        from scipy.stats import nbinom

        y = nbinom.ppf(p, *self._size(law, scale))
        return (np.log(y + 0.5) - scale.middle) / scale.spread

    def _size(self, law: Law, scale: TargetScale) -> tuple[np.ndarray, np.ndarray]:
        mean = np.exp(np.clip(law.location * scale.spread + scale.middle, -20, 20))
        size = 1 / (law.scale * scale.spread) ** 2
        return size, size / (size + mean)


class ZeroInflated(NegativeBinomial):
    name = "zero-inflated"

    def log_prob(
        self, z: Tensor, location: Tensor, log_scale: Tensor, tail: Tensor, scale: TargetScale
    ) -> Tensor:
        counts = super().log_prob(z, location, log_scale, tail, scale) + logsigmoid(tail)
        zero = z <= (math.log(0.75) - scale.middle) / scale.spread  # log(y + 1/2) of y below 1/4
        return torch.where(zero, torch.logaddexp(counts, logsigmoid(-tail)), counts)

    def cdf(self, z: np.ndarray, law: Law, scale: TargetScale) -> np.ndarray:
        inside = super().cdf(z, law, scale)
        more = special.expit(-law.tail)
        return np.where(inside > 0, more + (1 - more) * inside, 0.0)

    def quantile(self, p: np.ndarray, law: Law, scale: TargetScale) -> np.ndarray:
        more = special.expit(-law.tail)
        rest = np.maximum((p - more) / (1 - more), np.finfo(float).tiny)
        return super().quantile(rest, law, scale)


LIKELIHOODS: dict[str, type[Likelihood]] = {
    kind.name: kind
    for kind in (
        PowerStudentT,
        StudentT,
        Normal,
        LogNormal,
        TruncatedNormal,
        Gamma,
        NegativeBinomial,
        ZeroInflated,
    )
}
"""Likelihoods by the name under which an estimator takes them."""

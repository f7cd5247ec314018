r"""A Gaussian process seen through the nearest observations: kriging with learned covariances.

On the working scale, with lag t, distance d and m the Matern-3/2 correlation
:math:`m(x) = (1 + \sqrt 3 x) e^{-\sqrt 3 x}`,

.. math::
    k = a_0\, m(t/\tau_0)
      + a_1\, m(t/\tau_1)\, e^{-d/\ell_1}
      + a_2\, m(t/\tau_2)\, e^{-d/\ell_2}
      + a_3\, m(t/\tau_3)\, [\text{same sensor}]
      + a_4\, m(t/\tau_4) \cos(2\pi t/p)
      + \sigma^2\, [\text{same row}]:

what the whole network shares, a region, a neighbourhood, a sensor, a season, and noise. The
conditional mean and variance given J neighbours cost O(J^3) a query. Parameters maximise the sum of
the conditional log densities (Vecchia's likelihood) under a Student-t error, over targets from
which the training views hide what predictions will not see.

References
----------
Vecchia (1988), Estimation and model identification for continuous spatial processes.
Stein, Chi, Welty (2004), Approximating likelihoods for large spatial data sets.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

_FREEDOM = 5.0  # of the errors the parameters are fitted under: robust to outliers
_AMPLITUDES = (0.5, 0.2, 0.05, 0.02, 0.02)
_LAGS = (36.0, 12.0, 3.0, 48.0, 72.0)  # steps
_RANGES = (8.0, 2.0)  # spacings of the network
_NOISE = 0.01


class Neighbourhood(NamedTuple):
    """Q queries, each followed by its J neighbours; times in steps."""

    time: Tensor  # (Q, 1 + J)
    position: Tensor  # (Q, 1 + J, C)
    sensor: Tensor  # (Q, 1 + J), -1 for none
    value: Tensor  # (Q, J)
    present: Tensor  # (Q, J)

    def rows(self, index: Tensor | slice) -> Neighbourhood:
        return Neighbourhood(*(part[index] for part in self))


class Kriging:
    """The process; ``parameters`` (15,) are logarithms but for the last, the mean.

    Parameters
    ----------
    period : float
        p, in steps.
    spacing : float
        Unit of the first guess of ranges.
    """

    def __init__(self, period: float, spacing: float, parameters: Tensor | None = None) -> None:
        self.period, self.spacing = period, spacing
        if parameters is None:
            ranges = [r * spacing for r in _RANGES]
            first = [*_AMPLITUDES, _NOISE, *_LAGS, *ranges]
            parameters = torch.tensor([*np.log(first), 0.0], dtype=torch.float64)
        self.parameters = parameters

    def fit(
        self,
        near: Neighbourhood,
        target: Tensor,
        generator: torch.Generator,
        n_steps: int,
        batch: int = 256,
    ) -> Kriging:
        """Maximise Vecchia's likelihood of targets (Q,) by stochastic gradients."""
        free = self.parameters.clone().requires_grad_(True)
        optimiser = torch.optim.Adam([free], lr=0.12)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, n_steps, eta_min=0.01)
        for _ in range(n_steps):
            rows = torch.randint(len(target), (batch,), generator=generator)
            mean, variance = self._condition(free, near.rows(rows))
            squared = (target[rows] - mean).square() / variance
            loss = 0.5 * (variance.log() + (_FREEDOM + 1) * torch.log1p(squared / _FREEDOM))
            optimiser.zero_grad()
            loss.mean().backward()
            optimiser.step()
            schedule.step()
        self.parameters = free.detach()
        return self

    @property
    def scales(self) -> tuple[float, float]:
        """Lag, in steps, and distance over which neighbours decorrelate."""
        return float(self.parameters[8].exp()), float(self.parameters[12].exp())

    def predict(self, near: Neighbourhood, chunk: int = 256) -> tuple[Tensor, Tensor]:
        """Conditional mean and standard deviation, both (Q,)."""
        with torch.no_grad():
            parts = [
                self._condition(self.parameters, near.rows(slice(i, i + chunk)))
                for i in range(0, len(near.value), chunk)
            ]
        mean, variance = (torch.cat(part) for part in zip(*parts, strict=True))
        return mean, variance.sqrt()

    def weights(self, near: Neighbourhood) -> tuple[Tensor, Tensor]:
        """Weights of the neighbours (Q, J), 0 where absent, and conditional variance (Q,)."""
        return self._solve(self.parameters, near)

    def covariance(self, parameters: Tensor, near: Neighbourhood) -> Tensor:
        """k of all pairs without noise (Q, 1 + J, 1 + J)."""
        a = parameters[:5].exp()
        lags, ranges = parameters[6:11].exp(), parameters[11:13].exp()
        n = near.time.shape[1]
        i, j = torch.triu_indices(n, n, 1)
        t = (near.time[:, i] - near.time[:, j]).abs()
        offset = near.position[:, i] - near.position[:, j]
        d = (offset.square().sum(-1) + 1e-12).sqrt()
        same = (near.sensor[:, i] == near.sensor[:, j]) & (near.sensor[:, i] >= 0)
        m = [_matern(t / lag) for lag in lags]
        pairs = (
            a[0] * m[0]
            + a[1] * m[1] * torch.exp(-d / ranges[0])
            + a[2] * m[2] * torch.exp(-d / ranges[1])
            + a[3] * m[3] * same
            + a[4] * m[4] * torch.cos(2 * math.pi * t / self.period)
        )
        k = torch.diag_embed(a.sum().expand(len(t), n)).clone()
        k[:, i, j] = k[:, j, i] = pairs
        return k

    def _condition(self, parameters: Tensor, near: Neighbourhood) -> tuple[Tensor, Tensor]:
        weight, variance = self._solve(parameters, near)
        level = parameters[13]
        return level + (weight * (near.value - level)).sum(1), variance

    def _solve(self, parameters: Tensor, near: Neighbourhood) -> tuple[Tensor, Tensor]:
        k = self.covariance(parameters, near)
        noise, present = parameters[5].exp(), near.present
        cross = k[:, 0, 1:] * present
        among = k[:, 1:, 1:] * (present[:, :, None] & present[:, None, :])
        among = among + torch.diag_embed(torch.where(present, noise, 1.0))
        factor = torch.linalg.cholesky(among)
        weight = torch.cholesky_solve(cross[..., None], factor)[..., 0]
        variance = k[:, 0, 0] + noise - (weight * cross).sum(1)
        return weight, variance.clamp_min(1e-6)


def _matern(x: Tensor) -> Tensor:
    scaled = math.sqrt(3.0) * x
    return (1 + scaled) * torch.exp(-scaled)

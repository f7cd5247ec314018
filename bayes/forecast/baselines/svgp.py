r"""A sparse variational Gaussian process on space and time.

On the log scale, standardised, with inducing points among the rows,

.. math:: k = \sigma_1^2\, M(t) M(s) + \sigma_2^2\, M(t) P(t) M(s) + \sigma_3^2\, M(t) M(s)

of times t and places s, M being Matérn 3/2 kernels with their own lengthscales (of hours, days and
weeks in time) and P periodic with a period of a day. It is trained by stochastic variational
inference: once with parts of the records hidden to calibrate on, as training for each of
`masked_views` would cost too much, and once on all of them.

References
----------
Hensman, Fusi, Lawrence (2013), Gaussian processes for big data.
"""

from __future__ import annotations

from typing import Self

import gpytorch
import numpy as np
import pandas as pd
import torch
from gpytorch.kernels import MaternKernel, PeriodicKernel, ScaleKernel
from torch import Tensor

from ..masks import mask_records
from ..records import Records
from .base import Baseline, View

N_INDUCING = 256
BATCH = 256
N_STEPS = 300
LEARNING_RATE = 0.05
HIDDEN = (("point", 0.05), ("block", 0.05), ("outage", 0.03))
LAST = 0.1  # of the span is hidden as well
TIMES = (0.25, 7.0, 2.0)  # lengthscales in days to begin with; the second is of the daily cycle


class SVGP(Baseline):
    """gpytorch's stochastic variational Gaussian process with 256 inducing points."""

    def fit(self, df: pd.DataFrame) -> Self:
        super().fit(df)
        self._train(self.records_)
        return self

    def _views(self, rng: np.random.Generator) -> list[View]:
        records = self.records_
        last = records.hours.max() - LAST * np.ptp(records.hours)
        hidden = records.hours > last
        for pattern, rate in HIDDEN:
            hidden |= mask_records(records, pattern, rate, rng)
        if records.n_sensors > 2:
            hidden |= records.sensor == rng.integers(records.n_sensors)
        return [View(records.hide(hidden), records.take(hidden & records.observed))]

    def _learn(self, views: list[View]) -> None:
        self._train(views[0].context)

    def _guess(self, context: Records, queries: Records) -> tuple[np.ndarray, np.ndarray]:
        mean, variance = [], []
        self.model_.eval()
        with torch.no_grad(), gpytorch.settings.fast_pred_var():
            for x in self._inputs(queries).split(4096):
                predicted = self.model_.likelihood(self.model_(x))
                mean.append(predicted.mean)
                variance.append(predicted.variance)
        z = self.centre_ + self.spread_ * torch.cat(mean).numpy().astype(np.float64)
        return self.scale_.inverse(z), self.spread_ * torch.cat(variance).sqrt().numpy()

    def _train(self, context: Records) -> None:
        seen = context.take(context.observed)
        z = self.scale_.forward(seen.target)
        self.centre_, self.spread_ = float(z.mean()), float(z.std())
        x = self._inputs(seen)
        y = torch.as_tensor((z - self.centre_) / self.spread_, dtype=torch.float32)
        rng = np.random.default_rng(self.random_state)
        inducing = x[rng.choice(len(x), min(N_INDUCING, len(x)), replace=False)]
        self.model_ = _Process(inducing)
        objective = gpytorch.mlls.VariationalELBO(self.model_.likelihood, self.model_, len(y))
        optimiser = torch.optim.Adam(self.model_.parameters(), lr=LEARNING_RATE)
        self.model_.train()
        for _ in range(N_STEPS):
            rows = torch.as_tensor(rng.integers(len(y), size=BATCH))
            optimiser.zero_grad()
            loss = -objective(self.model_(x[rows]), y[rows])
            loss.backward()
            optimiser.step()

    def _inputs(self, records: Records) -> Tensor:
        """Days and places in units of the extent of the training records (N, 1 + C)."""
        known = self.records_
        extent = max(float(np.linalg.norm(np.ptp(known.position, axis=0))), 1e-9)
        days = (records.hours - known.hours.min()) / 24
        place = (records.position - known.position.mean(axis=0)) / extent
        return torch.as_tensor(np.column_stack([days, place]), dtype=torch.float32)


class _Process(gpytorch.models.ApproximateGP):
    def __init__(self, inducing: Tensor) -> None:
        distribution = gpytorch.variational.CholeskyVariationalDistribution(
            len(inducing), mean_init_std=0.0
        )
        super().__init__(gpytorch.variational.VariationalStrategy(self, inducing, distribution))
        self.likelihood = gpytorch.likelihoods.GaussianLikelihood()
        self.likelihood.noise = 0.1
        self.mean = gpytorch.means.ConstantMean()
        places = list(range(1, inducing.shape[1]))
        day = PeriodicKernel(active_dims=[0])
        day.period_length = 1.0
        day.raw_period_length.requires_grad_(False)
        kernels = []
        for days in TIMES:
            time, space = MaternKernel(1.5, active_dims=[0]), MaternKernel(1.5, active_dims=places)
            time.lengthscale, space.lengthscale = days, 0.5
            product = time * space * day if days == TIMES[1] else time * space
            kernels.append(ScaleKernel(product))
        self.kernel = kernels[0] + kernels[1] + kernels[2]

    def forward(self, x: Tensor) -> gpytorch.distributions.MultivariateNormal:
        return gpytorch.distributions.MultivariateNormal(self.mean(x), self.kernel(x))

r"""Draws of all rows together.

With a context, a draw is that of a Gaussian copula: :math:`y_i = \hat F_i^{-1}(\Phi(d_i/v_i))`
with the predictive distribution of each row and the dependence of the kriging process given what is
observed, by Vecchia's approximation: in the order of time, row i depends on at most k earlier rows,

.. math:: d_i = \sum_{j \in \text{earlier}(i)} w_{ij} d_j + s_i \xi_i,

w and s being kriging's with these rows added to the observed neighbours, :math:`v_i` the standard
deviation of :math:`d_i`. Without a context rows are independent given a member, drawn at random for
each path.

References
----------
Vecchia (1988), Estimation and model identification for continuous spatial processes.
Song (2000), Multivariate dispersion models generated from Gaussian copula.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree
from scipy.special import ndtr, ndtri

from .kriging import Neighbourhood
from .likelihoods import Law
from .model import Model
from .predictive import Predictive
from .records import Records

N_EARLIER = 8
_N_PATHS = 400  # at least, to find v within a few per cent
_CHUNK = 4096
_EDGE = 1e-12
_GRID = np.linspace(-3.5, 3.5, 141)  # standard normal quantiles between which draws interpolate


def sample_rows(
    model: Model,
    records: Records,
    predictive: Predictive,
    more: Records | None,
    n: int,
    generator: torch.Generator,
) -> np.ndarray:
    """Draws (N, n) of the target at the rows of ``records``."""
    if model.features.context:
        normal = _paths(model, records, more, n, generator)
    else:
        normal = _member_paths(predictive, n, generator)
    grid = predictive.quantile(ndtr(_GRID))
    at = (np.clip(normal, _GRID[0], _GRID[-1]) - _GRID[0]) / (_GRID[1] - _GRID[0])
    left = np.minimum(at.astype(int), len(_GRID) - 2)
    share = at - left
    low = np.take_along_axis(grid, left, axis=1)
    high = np.take_along_axis(grid, left + 1, axis=1)
    return (1 - share) * low + share * high


def _paths(
    model: Model, records: Records, more: Records | None, n: int, generator: torch.Generator
) -> np.ndarray:
    """Standard normal paths (N, n) with the dependence of kriging."""
    earlier, weight, scale = _dependence(model, records, more)
    n_paths = max(n, _N_PATHS)
    noise = torch.randn(len(records), n_paths, generator=generator, dtype=torch.float64).numpy()
    path = np.empty((len(records) + 1, n_paths))
    path[-1] = 0.0  # what a missing earlier row points to
    for i in range(len(records)):
        path[i] = weight[i] @ path[earlier[i]] + scale[i] * noise[i]
    path = path[:-1]
    return (path / np.sqrt(np.square(path).mean(1, keepdims=True)))[:, :n]


def _dependence(
    model: Model, records: Records, more: Records | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Earlier rows (N, k), their weights (N, k), conditional standard deviations (N,)."""
    observations = model.seen if more is None else model.observations(more)
    time = records.hours / model.step
    query = model.query(records)
    earlier = _earlier(model, records, time)
    weights, scales = [], []
    for start in range(0, len(records), _CHUNK):
        rows = slice(start, start + _CHUNK)
        near = observations.neighbourhood(query[rows])
        added = earlier[rows]
        n_observed = near.value.shape[1]
        near = Neighbourhood(
            torch.cat([near.time, torch.from_numpy(time[added])], 1),
            torch.cat([near.position, torch.from_numpy(records.position[added])], 1),
            torch.cat([near.sensor, torch.from_numpy(records.sensor[added])], 1),
            torch.cat([near.value, torch.zeros(added.shape, dtype=torch.float64)], 1),
            torch.cat([near.present, torch.from_numpy(added >= 0)], 1),
        )
        weight, variance = model.kriging.weights(near)
        weights.append(weight[:, n_observed:].numpy())
        scales.append(variance.sqrt().numpy())
    return earlier, np.concatenate(weights), np.concatenate(scales)


def _earlier(model: Model, records: Records, time: np.ndarray) -> np.ndarray:
    """The nearest rows of lower number (N, k) in units of the kriging scales, -1 if fewer."""
    lag, distance = model.kriging.scales
    points = np.column_stack([records.position / distance, time / lag])
    ask = min(3 * N_EARLIER, len(points))
    found = cKDTree(points).query(points, k=ask)[1].reshape(len(points), ask)
    good = found < np.arange(len(points))[:, None]
    order = np.argsort(~good, axis=1, kind="stable")[:, :N_EARLIER]
    rows = np.take_along_axis(found, order, axis=1)
    return np.where(np.take_along_axis(good, order, axis=1), rows, -1)


def _member_paths(predictive: Predictive, n: int, generator: torch.Generator) -> np.ndarray:
    """Standard normal paths (N, n): the mixture's probabilities of draws from one member each."""
    law, likelihood = predictive.law, predictive.likelihood
    n_members, n_rows = law.location.shape
    member = torch.randint(n_members, (n,), generator=generator).numpy()
    uniform = torch.rand(n_rows, n, generator=generator, dtype=torch.float64).numpy()
    chosen = Law(law.location[member].T, law.scale[member].T, law.tail[member].T)
    z = likelihood.quantile(uniform.clip(_EDGE, 1 - _EDGE), chosen, predictive.target_scale)
    u = np.zeros_like(z)
    for m in range(n_members):
        own = Law(law.location[m, :, None], law.scale[m, :, None], law.tail[m])
        u += likelihood.cdf(z, own, predictive.target_scale) / n_members
    return ndtri(u.clip(_EDGE, 1 - _EDGE))

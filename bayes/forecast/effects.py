r"""How much each sensor differs from the network: shrunken effects.

With :math:`m_t` the mean over the sensors observed at step t of z less their effects,

.. math:: b_i = \frac{\sum_t (z_{it} - m_t)}{n_i + \kappa},

iterated to a fixed point: the posterior mean under independent normal errors and a normal prior of
mean 0 whose precision is that of :math:`\kappa` rows. A sensor never seen takes the
inverse-distance mean of those around it and of the median effect, put one spacing away: a few
faulty sensors do not move it.
"""

from __future__ import annotations

import numpy as np

SHRINKAGE = 48.0  # kappa: neighbouring hours are alike, two days of them say little
_N_SWEEPS = 20


def sensor_effects(
    step: np.ndarray, sensor: np.ndarray, z: np.ndarray, n_sensors: int
) -> np.ndarray:
    """Effects (S,) from observations (N,); rows without a sensor (-1) are left out.

    Examples
    --------
    >>> step, sensor = np.repeat(np.arange(1000), 2), np.tile([0, 1], 1000)
    >>> sensor_effects(step, sensor, np.where(sensor == 0, 1.0, -1.0), 2).round(1)
    array([ 1., -1.])
    """
    rows = sensor >= 0
    effects = np.zeros(n_sensors)
    if not rows.any():
        return effects
    at = np.unique(step[rows], return_inverse=True)[1]
    sensor, z = sensor[rows], z[rows]
    company = np.bincount(at)
    n_rows = np.bincount(sensor, minlength=n_sensors)
    for _ in range(_N_SWEEPS):
        rest = z - effects[sensor]
        level = np.where(company >= 2, np.bincount(at, rest) / company, rest.mean())
        effects = np.bincount(sensor, z - level[at], minlength=n_sensors) / (n_rows + SHRINKAGE)
    return effects - effects.mean()


def effects_nearby(
    position: np.ndarray,
    places: np.ndarray,
    effects: np.ndarray,
    hidden: np.ndarray,
    spacing: float,
) -> np.ndarray:
    """Effects (Q,) to expect at positions from those (S,) at places, less hidden ones (Q, S)."""
    if not len(places):
        return np.zeros(len(position))
    unit = spacing**2
    weight = unit / (np.square(position[:, None, :] - places).sum(-1) + 0.25 * unit)
    weight = np.where(hidden, 0.0, weight)
    return (weight @ effects + np.median(effects)) / (weight.sum(1) + 1)

r"""Least squares in a box: Levenberg-Marquardt with active bounds.

.. math:: \min_{l \le \theta \le u} \|e(\theta)\|^2, \qquad
          (J'J + \lambda D^2)\, p = -J'e

over the entries that are not held at a bound by the gradient. Steps come from a QR factor of
(J, e), never from J'J: along the bad directions of a singular model singular values differ by
1e-10.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr

Array = NDArray[np.float64]
Residuals = Callable[[Array, bool], tuple[Array, Array | None]]

_STALLED = 1e-9
"""Relative decrease of the norm that counts as none."""

_PATIENCE = 6


@dataclass(frozen=True, eq=False)
class Descent:
    """Where a descent ended.

    Attributes
    ----------
    point : ndarray
        (P,).
    norm : float
        ||e||.
    n_iter : int
    converged : bool
        Whether it ended because the norm no longer fell.
    """

    point: Array
    norm: float
    n_iter: int
    converged: bool


def descend(
    residuals: Residuals,
    start: Array,  # (P,)
    low: Array,
    high: Array,
    scale: Array,
    *,
    max_iter: int = 200,
) -> Descent:
    """Local minimum of ||e|| in a box.

    Parameters
    ----------
    residuals : callable
        ``residuals(point, jacobian)`` gives e (M,) and its Jacobian (M, P) or None; an infinite e
        rejects a point.
    start : ndarray
        (P,), moved into the box.
    low, high : ndarray
        (P,); equal where an entry is fixed.
    scale : ndarray
        (P,), expected size of each entry's change, > 0.
    max_iter : int

    Returns
    -------
    Descent
    """
    point = np.clip(start, low, high)
    e, J = residuals(point, True)
    norm = float(np.linalg.norm(e))
    damping, stalled = 1e-2, 0
    for n_iter in range(max_iter):
        if J is None or norm == 0.0:
            return Descent(point, norm, n_iter, norm == 0.0)
        gradient = J.T @ e
        free = (low < high) & ~((point <= low) & (gradient > 0))
        free &= ~((point >= high) & (gradient < 0))
        R, target = _triangular(J[:, free] * scale[free], e)
        size = np.maximum(np.linalg.norm(R, axis=0), 1e-300)
        while True:
            system = np.concatenate([R, np.sqrt(damping) * np.diag(size)])
            step = np.linalg.lstsq(system, np.append(target, np.zeros(len(size))), rcond=None)[0]
            candidate = point.copy()
            candidate[free] += step * scale[free]
            candidate = np.clip(candidate, low, high)
            new = float(np.linalg.norm(residuals(candidate, False)[0]))
            if new < norm or damping > 1e12:
                break
            damping *= 8
        if not new < norm:
            return Descent(point, norm, n_iter, True)
        stalled = stalled + 1 if new > norm * (1 - _STALLED) else 0
        point, norm, damping = candidate, new, max(damping / 6, 1e-15)
        if stalled == _PATIENCE:
            return Descent(point, norm, n_iter + 1, True)
        e, J = residuals(point, True)
    return Descent(point, norm, max_iter, False)


def _triangular(J: Array, e: Array) -> tuple[Array, Array]:
    """R (P, P) and -Q'e (P,) of J = QR, without forming Q."""
    n = J.shape[1]
    joint = np.empty((n + 1, len(e))).T  # by columns, as LAPACK has them
    joint[:, :n], joint[:, n] = J, e
    (factor,) = qr(joint, mode="r", overwrite_a=True, check_finite=False)
    return factor[:n, :n], -factor[:n, n]

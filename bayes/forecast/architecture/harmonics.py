r"""Seasonal harmonics of time.

.. math::
    \Bigl(\cos\frac{2\pi h t}{p},\ \sin\frac{2\pi h t}{p}\Bigr) \Big/ h,
    \qquad h = 1, \dots, H_p

Frequencies h/p that a shorter period already has are left out.

References
----------
Saad et al. (2024), Scalable spatiotemporal prediction with Bayesian neural fields, equation (6).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def seasonal_frequencies(
    periods: Sequence[float], counts: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Distinct frequencies h/p and their h.

    Examples
    --------
    >>> seasonal_frequencies([2.0, 4.0], [1, 2])
    (array([0.5 , 0.25]), array([1, 1]))
    """
    frequencies: list[float] = []
    orders: list[int] = []
    for period, count in zip(periods, counts, strict=True):
        for h in range(1, count + 1):
            if not np.isclose(frequencies, h / period).any():
                frequencies.append(h / period)
                orders.append(h)
    return np.array(frequencies), np.array(orders)


def seasonal_harmonics(
    time: np.ndarray, periods: Sequence[float], counts: Sequence[int]
) -> np.ndarray:
    """Harmonics (N, 2 * number of frequencies): cosines, then sines."""
    frequencies, orders = seasonal_frequencies(periods, counts)
    angle = 2 * np.pi * time[:, None] * frequencies
    return np.concatenate([np.cos(angle) / orders, np.sin(angle) / orders], axis=1)

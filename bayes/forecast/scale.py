r"""The working scale: a power of a non-negative target, centred and scaled robustly.

.. math::
    z = \frac{b_\lambda(y + c) - m}{s}, \qquad
    b_\lambda(x) = \frac{x^\lambda - 1}{\lambda}, \quad b_0(x) = \log x

:math:`\lambda \in [0, 1]` maximises the likelihood of a normal sample (Box and Cox, 1964), m is the
median and s the interquartile range of :math:`b_\lambda`, divided by that of a standard normal. A
target with negative values keeps :math:`\lambda = 1`.

References
----------
Box, Cox (1964), An analysis of transformations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_NORMAL_IQR = 1.3489795003921634
_N_ROWS = 50_000  # the power hardly moves with more


@dataclass(frozen=True)
class TargetScale:
    """The map of a target to the working scale and back.

    Attributes
    ----------
    power : float
        lambda.
    offset, middle, spread : float
        c, m and s.
    low : float
        The least value of the target: 0 if it is never negative, else -inf.

    Examples
    --------
    >>> scale = TargetScale.fit(np.array([1.0, 2.0, 4.0, 8.0]))
    >>> scale.inverse(scale.forward(np.array([3.0]))).round(12)
    array([3.])
    """

    power: float
    offset: float
    middle: float
    spread: float
    low: float

    @classmethod
    def fit(cls, y: np.ndarray, power: float | None = None) -> TargetScale:
        """From observed values (N,) of which two differ; ``power`` fixes lambda."""
        y = y[:: max(len(y) // _N_ROWS, 1)]
        low = 0.0 if y.min() >= 0 else -np.inf
        offset = 0.0 if y.min() > 0 or low < 0 else 0.5 * float(y[y > 0].min())
        if power is None:
            powers = np.linspace(0, 1, 21) if low == 0 else np.ones(1)
            power = float(powers[np.argmax([_log_likelihood(y + offset, p) for p in powers])])
        x = _power(y + offset, power)
        quarter, middle, three = np.quantile(x, [0.25, 0.5, 0.75])
        spread = (three - quarter) / _NORMAL_IQR or float(x.std())
        return cls(power, offset, float(middle), float(spread), low)

    def forward(self, y: np.ndarray) -> np.ndarray:
        """z of y, or of ``low`` if y is less; NaN stays, and -inf is the logarithm of 0."""
        return (
            _power(np.maximum(y, self.low) + self.offset, self.power) - self.middle
        ) / self.spread

    def inverse(self, z: np.ndarray) -> np.ndarray:
        """y of z, not below ``low``."""
        x = z * self.spread + self.middle
        if self.power == 0:
            y = np.exp(x)
        elif self.power == 1:
            y = x + 1
        else:
            y = np.maximum(1 + self.power * x, 0) ** (1 / self.power)
        return np.maximum(y - self.offset, self.low)

    def log_slope(self, y: np.ndarray) -> np.ndarray:
        """log dz/dy."""
        if self.power == 1:
            return np.full(np.shape(y), -np.log(self.spread))
        return (self.power - 1) * np.log(y + self.offset) - np.log(self.spread)


def _power(x: np.ndarray, power: float) -> np.ndarray:
    if power != 0:
        return (x**power - 1) / power
    with np.errstate(divide="ignore"):
        return np.log(x)


def _log_likelihood(x: np.ndarray, power: float) -> float:
    if power == 1:
        return float(-0.5 * len(x) * np.log(x.var()))
    return float(-0.5 * len(x) * np.log(_power(x, power).var()) + (power - 1) * np.log(x).sum())

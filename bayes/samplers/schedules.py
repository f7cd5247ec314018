"""Schedules: callables from the step t = 0, 1, ... to a step size or a temperature."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kernels.checks import check_int, check_real


@dataclass(frozen=True)
class PolynomialDecay:
    r"""Step sizes :math:`\varepsilon_t = a\,(1 + t/b)^{-\gamma}`, as in Welling and Teh (2011).

    With 1/2 < gamma <= 1 the sum diverges and the sum of squares does not, and the bias of
    stochastic-gradient Langevin dynamics vanishes.

    Parameters
    ----------
    initial : float
        a > 0.
    delay : float
        b > 0, in steps.
    power : float
        gamma in [0, 1].

    Examples
    --------
    >>> PolynomialDecay(0.1, delay=10, power=0.5)(30)
    0.05
    """

    initial: float
    delay: float = 1000.0
    power: float = 0.55

    def __post_init__(self) -> None:
        check_real("initial", self.initial, low=0, strict=True)
        check_real("delay", self.delay, low=0, strict=True)
        check_real("power", self.power, low=0, high=1)

    def __call__(self, step: int) -> float:
        return self.initial * (1 + step / self.delay) ** -self.power


@dataclass(frozen=True)
class CosineCycles:
    r"""Step sizes that fall from ``initial`` towards 0 along half a cosine, again and again.

    .. math:: \varepsilon_t = \tfrac a2 \left[\cos\left(\pi\,(t \bmod n)/n\right) + 1\right]

    Parameters
    ----------
    initial : float
        a > 0.
    length : int
        n, the steps of a cycle.

    References
    ----------
    Zhang, Li, Zhang, Chen, Wilson (2020), Cyclical stochastic gradient MCMC, equation (1).

    Examples
    --------
    >>> [round(CosineCycles(1.0, 4)(t), 3) for t in range(6)]
    [1.0, 0.854, 0.5, 0.146, 1.0, 0.854]
    """

    initial: float
    length: int

    def __post_init__(self) -> None:
        check_real("initial", self.initial, low=0, strict=True)
        check_int("length", self.length, 1)

    def __call__(self, step: int) -> float:
        phase = (step % self.length) / self.length
        return 0.5 * self.initial * (math.cos(math.pi * phase) + 1)

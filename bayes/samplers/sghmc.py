r"""Stochastic-gradient Hamiltonian Monte Carlo.

.. math::
    p' = (1 - a)\,p - \varepsilon g + \sqrt{2aT - \varepsilon^2 \hat v}\,\xi, \qquad
    q' = q + \varepsilon p'

In Chen et al.'s notation :math:`\eta = \varepsilon^2`, :math:`v = \varepsilon p`,
:math:`\alpha = a`, :math:`\hat\beta = \varepsilon^2\hat v/(2T)`. On
:math:`U = \lambda q^2/2` with gradient noise of variance v and no estimate of it,

.. math::
    \operatorname{Var} q = \frac{T + \varepsilon^2 v/(2a)}
        {\lambda\,\bigl(1 - \varepsilon^2\lambda/(2(2 - a))\bigr)}:

with a fixed decay a the bias is of second order in :math:`\varepsilon`; stable if
:math:`\varepsilon^2\lambda < 2(2 - a)`. The momentum runs warmer than the position by design:
without gradient noise and as :math:`\varepsilon \to 0`,
:math:`E p^2 = T/(1 - a/2)`; `kinetic` takes that factor out.

References
----------
Chen, Fox, Guestrin (2014), Stochastic gradient Hamiltonian Monte Carlo, equation (15).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from kernels import sgmcmc
from kernels.checks import check_real

from .base import Controls, Info, OnBatch, Sampler, at


class SGHMCState(NamedTuple):
    position: Tensor  # (C, P)
    momentum: Tensor  # (C, P)


@dataclass(frozen=True)
class SGHMC(Sampler):
    """Stochastic-gradient Hamiltonian Monte Carlo.

    Parameters
    ----------
    step_size : float or Schedule
        epsilon, a step of time at unit mass.
    momentum_decay : float
        a in (0, 1], the part of the momentum that a step takes away.
    noise_variance : float
        Estimate of the variance of each gradient entry; the injected noise is smaller by it, and
        the decay of a step is raised where it would otherwise turn negative.
    temperature : float or Schedule
        T.
    """

    momentum_decay: float = 0.05
    noise_variance: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_real("momentum_decay", self.momentum_decay, low=0, high=1, strict=True)
        check_real("noise_variance", self.noise_variance, low=0)

    def init(self, position: Tensor, noise: Tensor) -> SGHMCState:
        return SGHMCState(position, at(self.temperature, 0) ** 0.5 * noise)

    def update(
        self, state: SGHMCState, potential: OnBatch, noise: Tensor, controls: Controls
    ) -> tuple[SGHMCState, Info]:
        info = Info(*potential(state.position))
        decay: float | Tensor = self.momentum_decay
        if self.noise_variance:
            ones = noise.new_ones(())
            decay = sgmcmc.sufficient_decay(
                self.momentum_decay,
                controls.step_size,
                ones,
                self.noise_variance * ones,
                controls.temperature,
            )
        position, momentum = sgmcmc.sghmc(
            *state,
            info.gradient,
            noise,
            controls.step_size,
            decay,
            1.0,
            self.noise_variance,
            controls.temperature,
        )
        return SGHMCState(position, momentum), info

    def kinetic(self, state: SGHMCState, info: Info, controls: Controls) -> Tensor:
        return (1 - self.momentum_decay / 2) * state.momentum.square()

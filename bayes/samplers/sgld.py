r"""Stochastic-gradient Langevin dynamics.

.. math:: q' = q - h g + \sqrt{2hT}\,\xi

On :math:`U = \lambda q^2/2` with gradient noise of variance v the stationary variance is
:math:`(T + hv/2) / (\lambda\,(1 - h\lambda/2))`: bias of first order in h, stable if
:math:`h\lambda < 2`.

References
----------
Welling and Teh (2011), Bayesian learning via stochastic gradient Langevin dynamics. Their epsilon
is 2h.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from kernels import sgmcmc

from .base import Controls, Info, OnBatch, Sampler


class SGLDState(NamedTuple):
    position: Tensor  # (C, P)


@dataclass(frozen=True)
class SGLD(Sampler):
    """Stochastic-gradient Langevin dynamics.

    Parameters
    ----------
    step_size : float or Schedule
        h: a position moves by h times the gradient of the potential.
    temperature : float or Schedule
        T.
    """

    def init(self, position: Tensor, noise: Tensor) -> SGLDState:
        return SGLDState(position)

    def update(
        self, state: SGLDState, potential: OnBatch, noise: Tensor, controls: Controls
    ) -> tuple[SGLDState, Info]:
        info = Info(*potential(state.position))
        position = sgmcmc.sgld(
            state.position, info.gradient, noise, controls.step_size, controls.temperature
        )
        return SGLDState(position), info

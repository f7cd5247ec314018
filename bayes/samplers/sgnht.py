r"""The stochastic-gradient Nose-Hoover thermostat.

.. math::
    dq = p\,dt, \quad dp = -g\,dt - \zeta p\,dt + \sqrt{2AT}\,dW, \quad
    d\zeta = (|p|^2/P - T)\,dt

The friction :math:`\zeta` of a chain rises while its momenta are too hot, and so absorbs gradient
noise whose variance nobody has to know, as long as it is the same for all parameters and
everywhere. The splitting B-A-D-O-D-A-B has bias of second order in the step.

References
----------
Ding, Fang, Babbush, Chen, Skeel, Neven (2014), Bayesian sampling using stochastic gradient
thermostats. Leimkuhler and Shang (2016), Adaptive thermostats for noisy gradient systems (the
splitting).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from kernels import sgmcmc
from kernels.checks import check_real

from .base import Controls, Info, OnBatch, Sampler, at


class SGNHTState(NamedTuple):
    position: Tensor  # (C, P)
    momentum: Tensor  # (C, P), before the half kick at position
    thermostat: Tensor  # (C, 1)


@dataclass(frozen=True)
class SGNHT(Sampler):
    """Stochastic-gradient Nose-Hoover thermostat.

    Parameters
    ----------
    step_size : float or Schedule
        epsilon, a step of time at unit mass.
    diffusion : float
        A > 0, injected noise; the thermostat starts at A.
    temperature : float or Schedule
        T.
    """

    diffusion: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_real("diffusion", self.diffusion, low=0, strict=True)

    def init(self, position: Tensor, noise: Tensor) -> SGNHTState:
        thermostat = torch.full_like(position[:, :1], self.diffusion)
        return SGNHTState(position, at(self.temperature, 0) ** 0.5 * noise, thermostat)

    def update(
        self, state: SGNHTState, potential: OnBatch, noise: Tensor, controls: Controls
    ) -> tuple[SGNHTState, Info]:
        info = Info(*potential(state.position))
        new = sgmcmc.sgnht(
            *state,
            info.gradient,
            noise,
            controls.step_size,
            self.diffusion,
            controls.temperature,
        )
        return SGNHTState(*new), info

    def kinetic(self, state: SGNHTState, info: Info, controls: Controls) -> Tensor:
        return (state.momentum - 0.5 * controls.step_size * info.gradient).square()

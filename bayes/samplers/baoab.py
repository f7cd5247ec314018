r"""Underdamped Langevin dynamics by the splitting B-A-O-A-B.

.. math:: dq = p\,dt, \qquad dp = -\nabla U\,dt - \gamma p\,dt + \sqrt{2\gamma T}\,dW

B kicks (half a step), A drifts (half a step), O solves friction and noise exactly
(`kernels.sgmcmc.naive.baoab`); one gradient a step. Bias of second order in the step; on a Gaussian
the law of q is exact without gradient noise, for every stable step
(:math:`\varepsilon^2\lambda < 4`). Gradient noise of variance v adds about
:math:`\varepsilon v/(2\gamma)` to the temperature: halve the step to see it.

References
----------
Leimkuhler and Matthews (2013), Rational construction of stochastic numerical methods for molecular
sampling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from kernels import sgmcmc
from kernels.checks import check_real

from .._validation import check_instance
from .base import Controls, Info, OnBatch, Sampler, at


class BAOABState(NamedTuple):
    position: Tensor  # (C, P)
    momentum: Tensor  # (C, P), before the half kick at position


@dataclass(frozen=True)
class BAOAB(Sampler):
    """Underdamped Langevin dynamics, second-order splitting.

    Parameters
    ----------
    step_size : float or Schedule
        epsilon, a step of time at unit mass.
    friction : float
        gamma > 0, per unit of time.
    scale : Tensor or None
        (P,) units of length: the equations are those of q / scale, as if masses were 1 / scale^2.
        The stiffest direction in these units limits the step, and the softest is the last to be
        explored: good units make them alike. None for ones.
    temperature : float or Schedule
        T.
    """

    friction: float = 1.0
    scale: Tensor | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_real("friction", self.friction, low=0, strict=True)
        if self.scale is not None:
            check_instance("scale", self.scale, Tensor, "a tensor (P,) or None")
            for value in self.scale.flatten().tolist():
                check_real("scale", value, low=0, strict=True)

    def init(self, position: Tensor, noise: Tensor) -> BAOABState:
        return BAOABState(position, at(self.temperature, 0) ** 0.5 * noise)

    def update(
        self, state: BAOABState, potential: OnBatch, noise: Tensor, controls: Controls
    ) -> tuple[BAOABState, Info]:
        info = Info(*potential(state.position))
        start, gradient = state.position, info.gradient
        scale = self._scale(start)
        if scale is not None:
            start, gradient = torch.zeros_like(start), scale * gradient
        position, momentum = sgmcmc.baoab(
            start,
            state.momentum,
            gradient,
            noise,
            controls.step_size,
            self.friction,
            controls.temperature,
        )
        if scale is not None:
            position = torch.addcmul(state.position, scale, position)
        return BAOABState(position, momentum), info

    def kinetic(self, state: BAOABState, info: Info, controls: Controls) -> Tensor:
        scale, gradient = self._scale(state.position), info.gradient
        kick = gradient if scale is None else scale * gradient
        return (state.momentum - 0.5 * controls.step_size * kick).square()

    def _scale(self, like: Tensor) -> Tensor | None:
        return None if self.scale is None else self.scale.to(like)

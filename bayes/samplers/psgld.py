r"""Langevin dynamics under the RMSprop preconditioner.

.. math::
    V \leftarrow V + r\,(g^2 - V), \qquad G = 1/(\lambda + \sqrt V), \qquad
    q' = q - h G g + \sqrt{2hTG}\,\xi

V starts at 1, adapts during burn-in and is frozen then. Li et al. adapt for ever and leave out the
drift :math:`\nabla\cdot G`, which biases the law they sample; with V frozen the drift is zero,
and what is left is `SGLD` in rescaled coordinates.

References
----------
Li, Chen, Carlson, Carin (2016), Preconditioned stochastic gradient Langevin dynamics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from kernels import sgmcmc
from kernels.checks import check_real

from .base import Controls, Info, OnBatch, Sampler


class PSGLDState(NamedTuple):
    position: Tensor  # (C, P)
    second_moment: Tensor  # (C, P)
    n_seen: Tensor  # (C, 1) gradients in the average, a first one of size 1 included


@dataclass(frozen=True)
class PSGLD(Sampler):
    """Preconditioned stochastic-gradient Langevin dynamics.

    Parameters
    ----------
    step_size : float or Schedule
        h: a position moves by h times the gradient over its root mean square.
    averaging : float
        Weight of the past in the average of squared gradients, in [0, 1).
    damping : float
        Added to the root mean square, in the gradient's unit.
    temperature : float or Schedule
        T.
    """

    averaging: float = 0.99
    damping: float = 1e-5

    adapts: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_real("averaging", self.averaging, low=0, high=1)
        check_real("damping", self.damping, low=0, strict=True)

    def init(self, position: Tensor, noise: Tensor) -> PSGLDState:
        ones = torch.ones_like(position)
        return PSGLDState(position, ones, ones[:, :1])

    def update(
        self, state: PSGLDState, potential: OnBatch, noise: Tensor, controls: Controls
    ) -> tuple[PSGLDState, Info]:
        info = Info(*potential(state.position))
        second_moment, n_seen = state.second_moment, state.n_seen
        if controls.adapt:
            n_seen = n_seen + 1
            rate = torch.clamp(1 / n_seen, min=1 - self.averaging)  # a plain mean at first
            second_moment = second_moment + rate * (info.gradient.square() - second_moment)
        position = sgmcmc.psgld(
            state.position,
            second_moment,
            info.gradient,
            noise,
            controls.step_size,
            self.damping,
            controls.temperature,
        )
        return PSGLDState(position, second_moment, n_seen), info

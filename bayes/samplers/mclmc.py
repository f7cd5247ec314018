r"""Microcanonical Langevin Monte Carlo, on the full data.

.. math::
    \dot q = u, \qquad \dot u = -(1 - uu^\top)\,\nabla U/(T(P-1)), \qquad |u| = 1

preserves :math:`e^{-U/T}` in q: a chain moves at unit speed and only its direction is random,
turned a little each step so that it is forgotten over a length L. The isokinetic splitting
B/2-O-B/2-A has bias of second order in the step.
`kernels.sgmcmc.naive.mclmc` has the equations. Gradient noise would bias it at any step.

References
----------
Robnik, De Luca, Silverstein, Seljak (2023), Microcanonical Hamiltonian Monte Carlo.
Robnik and Seljak (2024), Fluctuation without dissipation: microcanonical Langevin Monte Carlo.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from kernels import sgmcmc
from kernels.checks import check_real

from .base import Controls, Info, OnBatch, Sampler

MAX_TURN = 100.0
"""Decoherence lengths in a step: long before, a direction is forgotten, and numbers overflow."""


class MCLMCState(NamedTuple):
    position: Tensor  # (C, P)
    direction: Tensor  # (C, P)


@dataclass(frozen=True)
class MCLMC(Sampler):
    """Microcanonical Langevin Monte Carlo, for P >= 2 parameters and full batches.

    Parameters
    ----------
    step_size : float or Schedule
        epsilon, the distance a chain moves in a step.
    decoherence_length : float
        L, at least a hundredth of the step: the distance over which the direction is forgotten;
        about the square root of the target's total variance is a good choice.
    temperature : float or Schedule
        T > 0.
    """

    decoherence_length: float = 1.0

    full_batch_only: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_real("decoherence_length", self.decoherence_length, low=0, strict=True)
        if isinstance(self.step_size, int | float):
            least = self.step_size / MAX_TURN
            check_real("decoherence_length", self.decoherence_length, low=least)
        if not callable(self.temperature):
            check_real("temperature", self.temperature, low=0, strict=True)

    def init(self, position: Tensor, noise: Tensor) -> MCLMCState:
        if position.shape[1] < 2:
            raise ValueError("The sampler MCLMC needs at least 2 parameters; got 1.")
        return MCLMCState(position, noise / torch.linalg.vector_norm(noise, dim=1, keepdim=True))

    def update(
        self, state: MCLMCState, potential: OnBatch, noise: Tensor, controls: Controls
    ) -> tuple[MCLMCState, Info]:
        info = Info(*potential(state.position))
        new = sgmcmc.mclmc(
            *state,
            info.gradient,
            noise,
            controls.step_size,
            self.decoherence_length,
            controls.temperature,
        )
        return MCLMCState(*new), info

r"""Scale-adapted stochastic-gradient Hamiltonian Monte Carlo.

`SGHMC` with a mass for every weight, the root mean square of its gradient, found in burn-in and
frozen then:

.. math::
    m = \sqrt V, \qquad p' = (1 - a)\,p - \varepsilon g
        + \sqrt{2 a m T - \varepsilon^2 V}\,\xi, \qquad q' = q + \varepsilon p'/m

with V averaged over a window that adapts (`kernels.sgmcmc.scale_adaptation`). In terms of
:math:`v = \varepsilon p/m` the injected variance is
:math:`2\varepsilon^2 a T/\sqrt V - \varepsilon^4`: Springenberg et al. take V itself for the
variance of the gradient. Where :math:`\sqrt V > 2aT/\varepsilon^2` that is negative, no noise
can be injected, and the gradient's own noise heats the weight above T. Here the decay of just
those weights is raised to :math:`\varepsilon^2\sqrt V/(2T)`, at which injected noise 0 is
right, and `faults` says so.

References
----------
Springenberg, Klein, Falkner, Hutter (2016), Bayesian optimization with robust Bayesian neural
networks, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from kernels import sgmcmc
from kernels.checks import check_choice, check_real

from .base import Controls, Info, OnBatch, Sampler, at


class AdaptiveSGHMCState(NamedTuple):
    position: Tensor  # (C, P)
    momentum: Tensor  # (C, P)
    window: Tensor  # (C, P)
    mean_gradient: Tensor  # (C, P)
    second_moment: Tensor  # (C, P)


@dataclass(frozen=True)
class AdaptiveSGHMC(Sampler):
    """Scale-adapted stochastic-gradient Hamiltonian Monte Carlo.

    Parameters
    ----------
    step_size : float or Schedule
        epsilon; a weight moves about epsilon^2 a step where gradients are mostly noise.
    momentum_decay : float
        a in (0, 1], the part of the momentum that a step takes away.
    noise_estimate : {"second moment", "none"}
        What is taken for the variance of a gradient: V, or 0 as is right for full batches.
    temperature : float or Schedule
        T.
    """

    momentum_decay: float = 0.05
    noise_estimate: Literal["second moment", "none"] = "second moment"

    adapts: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_real("momentum_decay", self.momentum_decay, low=0, high=1, strict=True)
        check_choice("noise_estimate", self.noise_estimate, ("second moment", "none"))

    def init(self, position: Tensor, noise: Tensor) -> AdaptiveSGHMCState:
        ones = torch.ones_like(position)
        momentum = at(self.temperature, 0) ** 0.5 * noise
        return AdaptiveSGHMCState(position, momentum, ones, ones, ones)

    def update(
        self, state: AdaptiveSGHMCState, potential: OnBatch, noise: Tensor, controls: Controls
    ) -> tuple[AdaptiveSGHMCState, Info]:
        info = Info(*potential(state.position))
        scale = (state.window, state.mean_gradient, state.second_moment)
        momentum = state.momentum
        if controls.adapt:
            old_mass = _mass(state.second_moment)
            scale = sgmcmc.scale_adaptation(*scale, info.gradient)
            momentum = momentum * torch.sqrt(_mass(scale[2]) / old_mass)  # p^2 / m stays
        mass = _mass(scale[2])
        noise_variance: Tensor | float = 0.0
        decay: Tensor | float = self.momentum_decay
        if self.noise_estimate == "second moment":
            noise_variance = scale[2]
            decay = self._decay(mass, noise_variance, controls)
        position, momentum = sgmcmc.sghmc(
            state.position,
            momentum,
            info.gradient,
            noise,
            controls.step_size,
            decay,
            mass,
            noise_variance,
            controls.temperature,
        )
        return AdaptiveSGHMCState(position, momentum, *scale), info

    def kinetic(self, state: AdaptiveSGHMCState, info: Info, controls: Controls) -> Tensor:
        mass = _mass(state.second_moment)
        decay: Tensor | float = self.momentum_decay
        if self.noise_estimate == "second moment":
            decay = self._decay(mass, state.second_moment, controls)
        return (1 - decay / 2) * state.momentum.square() / mass

    def faults(self, state: AdaptiveSGHMCState, controls: Controls) -> list[str]:
        if self.noise_estimate == "none" or controls.temperature == 0:
            return []
        mass = _mass(state.second_moment)
        decay = self._decay(mass, state.second_moment, controls)
        raised = decay > self.momentum_decay
        if not bool(raised.any()):
            return []
        weights = raised.any(0).nonzero()[:, 0].tolist()
        limit = 2 * self.momentum_decay * controls.temperature / controls.step_size**2
        sentence = (
            f"The injected noise would have negative variance at {len(weights)} of "
            f"{mass.shape[1]} weights, the first of them {weights[:5]}: their gradients have a "
            f"root mean square of up to {float(mass.max()):.3g}, above "
            f"2 momentum_decay temperature / step_size^2 = {limit:.3g}. Their momentum decay was "
            f"raised to up to {float(decay.max()):.3g}, which keeps the temperature; a smaller "
            f"step size avoids it."
        )
        if bool((decay == 1).any()):
            sentence += " Decay 1 is not enough for some of them: they run too hot."
        return [sentence]

    def _decay(self, mass: Tensor, noise_variance: Tensor, controls: Controls) -> Tensor:
        return sgmcmc.sufficient_decay(
            self.momentum_decay, controls.step_size, mass, noise_variance, controls.temperature
        )


def _mass(second_moment: Tensor) -> Tensor:
    """Root mean square, kept above 0 where a gradient has always been 0."""
    return torch.sqrt(second_moment.clamp(min=1e-16))

r"""A cyclical schedule over any sampler.

Each cycle of n steps starts with a large step and ends with a small one
(`schedules.CosineCycles`). In its first part noise is off (T = 0) and the chain looks for a mode;
in the rest it samples, and only there are draws taken.

References
----------
Zhang, Li, Zhang, Chen, Wilson (2020), Cyclical stochastic gradient MCMC for Bayesian deep learning,
algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from kernels.checks import check_int, check_real

from .._validation import check_instance
from .base import Controls, Info, OnBatch, Sampler, State
from .schedules import CosineCycles


@dataclass(frozen=True)
class Cyclical:
    """Cycles of exploration and sampling.

    The law sampled is biased by the changing step and by how cycles weigh modes.

    Parameters
    ----------
    sampler : Sampler
        Its ``step_size``, a number, is that at the start of a cycle.
    cycle_length : int
        Steps of a cycle.
    exploration : float
        Part of a cycle without noise, in [0, 1).

    Examples
    --------
    >>> from bayes.samplers import SGLD
    >>> cycles = Cyclical(SGLD(0.1), cycle_length=100, exploration=0.8)
    >>> cycles.controls(50, 0).temperature, cycles.collects(50), cycles.collects(90)
    (0.0, False, True)
    """

    sampler: Sampler
    cycle_length: int
    exploration: float = 0.8
    _steps: CosineCycles = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_instance("sampler", self.sampler, Sampler, "a Sampler")
        check_int("cycle_length", self.cycle_length, 2)
        check_real("exploration", self.exploration, low=0, high=1 - 1 / self.cycle_length)
        step_size = check_real("step_size", self.sampler.step_size, low=0, strict=True)
        if self.sampler.full_batch_only and self.exploration:
            raise ValueError(
                f"The 'exploration' parameter must be 0 with {type(self.sampler).__name__}, which "
                f"has no temperature 0; got {self.exploration!r}."
            )
        object.__setattr__(self, "_steps", CosineCycles(step_size, self.cycle_length))

    @property
    def step_size(self) -> CosineCycles:
        return self._steps

    @property
    def temperature(self) -> Any:
        return self.sampler.temperature

    @property
    def full_batch_only(self) -> bool:
        return self.sampler.full_batch_only

    @property
    def adapts(self) -> bool:
        return self.sampler.adapts

    def init(self, position: Tensor, noise: Tensor) -> State:
        return self.sampler.init(position, noise)

    def update(
        self, state: State, potential: OnBatch, noise: Tensor, controls: Controls
    ) -> tuple[State, Info]:
        return self.sampler.update(state, potential, noise, controls)

    def kinetic(self, state: State, info: Info, controls: Controls) -> Tensor | None:
        return self.sampler.kinetic(state, info, controls)

    def controls(self, step: int, burn_in: int) -> Controls:
        own = self.sampler.controls(step, burn_in)
        temperature = own.temperature if self.collects(step) else 0.0
        return Controls(self._steps(step), temperature, own.adapt)

    def collects(self, step: int) -> bool:
        return step % self.cycle_length >= self.exploration * self.cycle_length

    def faults(self, state: State, controls: Controls) -> list[str]:
        return self.sampler.faults(state, controls)


AnySampler = Sampler | Cyclical

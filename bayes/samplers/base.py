r"""How samplers work, in five minutes.

The target is :math:`\pi(q) \propto \exp(-U(q)/T)`. C chains of P parameters advance together as
rows of (C, P) tensors, and never look at each other.

* A `Potential` gives U and its gradient at the C positions, on the whole data or on a batch.
* A `Sampler` is a frozen set of hyperparameters with two pure functions: `init` makes a `State`
  from positions, `update` makes the next state and an `Info`. A state holds what the next update
  needs; an info holds what was seen on the way.
* Randomness comes in as a tensor of standard normal ``noise``, drawn outside.
* What changes from step to step (step size, temperature, whether to adapt) comes in as `Controls`;
  a hyperparameter may be a number or a `Schedule`.

One chain loop is then::

    state = sampler.init(position, noise)
    for t in range(n_steps):
        state, info = sampler.update(state, potential_on_batch, noise, sampler.controls(t, burn_in))

and `chains.run` is that loop with keyed noise, fusion, divergence, checkpoints and thinning.
Every update takes the gradient at the position it starts from, so a draw, its potential and its
gradient belong together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

from torch import Tensor

from kernels.checks import check_real

Schedule = Callable[[int], float]
"""A value for every step t = 0, 1, ..."""

Number = float | Tensor
"""A number, or a tensor that broadcasts against (C, P)."""

State = Any
"""A NamedTuple of tensors whose first field is ``position`` (C, P)."""


class Potential(Protocol):
    """U and its gradient at C positions."""

    def __call__(
        self,
        position: Tensor,  # (C, P)
        batch: Tensor | None,  # (C, B) indices of observations, or None for all of them
    ) -> tuple[Tensor, Tensor]:  # (C,), (C, P)
        ...


OnBatch = Callable[[Tensor], tuple[Tensor, Tensor]]
"""A potential with its batch chosen."""


class Info(NamedTuple):
    """What an update saw at the position it started from."""

    potential: Tensor  # (C,)
    gradient: Tensor  # (C, P)


class Controls(NamedTuple):
    """What one step is given beside state and noise."""

    step_size: float | Tensor
    temperature: float | Tensor
    adapt: bool


@dataclass(frozen=True)
class Sampler(ABC):
    """Hyperparameters of an algorithm.

    Parameters
    ----------
    step_size : float or Schedule
        Unit and meaning are the algorithm's.
    temperature : float or Schedule
        T; 1 samples the target, 0 climbs to its mode.
    """

    step_size: float | Schedule | Tensor
    temperature: float | Schedule = field(default=1.0, kw_only=True)

    full_batch_only: ClassVar[bool] = False
    adapts: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if isinstance(self.step_size, Tensor):
            for value in self.step_size.flatten().tolist():
                check_real("step_size", value, low=0, strict=True)
        elif not callable(self.step_size):
            check_real("step_size", self.step_size, low=0, strict=True)
        if not callable(self.temperature):
            check_real("temperature", self.temperature, low=0)

    @abstractmethod
    def init(
        self,
        position: Tensor,  # (C, P)
        noise: Tensor,  # (C, P)
    ) -> State:
        """The state that a chain starts from; ``noise`` makes its momentum, if it has one."""

    @abstractmethod
    def update(
        self,
        state: State,
        potential: OnBatch,
        noise: Tensor,  # (C, P)
        controls: Controls,
    ) -> tuple[State, Info]:
        """One step."""

    def kinetic(
        self,
        state: State,
        info: Info,
        controls: Controls,
    ) -> Tensor | None:  # (C, P)
        """p^2 / m of the state an update starts from, whose mean is T; None without momentum."""
        return None

    def controls(self, step: int, burn_in: int) -> Controls:
        """Step size, temperature and whether to adapt in this step."""
        return Controls(
            at(self.step_size, step), at(self.temperature, step), self.adapts and step < burn_in
        )

    def collects(self, step: int) -> bool:
        """Whether the chain's position at this step may be a draw."""
        return True

    def faults(self, state: State, controls: Controls) -> list[str]:
        """Sentences on what these hyperparameters do badly at this state."""
        return []


def at(value: Any, step: int) -> Any:
    """A number as it is, or a schedule's value at a step."""
    return value(step) if callable(value) else value

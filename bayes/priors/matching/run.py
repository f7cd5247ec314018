"""The steps of a fit: descend, check on held-out inputs, stop, save, go on.

All that the next step needs is in `State`, which a checkpoint holds whole.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..base import Prior
from ..energy import distances, mean_within
from ..measurement import MeasurementSet
from ..targets import FunctionTarget
from .checkpoint import read_checkpoint, write_checkpoint
from .method import Method

N_HELD_OUT = 1024
"""Functions of each in a check. Between close laws the error of an energy distance falls as one
over their number, not as one over its root."""


@dataclass(frozen=True)
class Progress:
    """One check at the held-out measurement set.

    Attributes
    ----------
    method : str
    step : int
        Steps taken with this method.
    held_out : float
        Energy distance of 1024 functions of prior and target at inputs never trained on, under the
        parameters averaged over the steps since the check before.
    seconds : float
        Process CPU time since the fit began.
    """

    method: str
    step: int
    held_out: float
    seconds: float


@dataclass(frozen=True)
class FitRecord:
    """How a prior was fitted: its checks in order, the best of them, and how each method ended."""

    checks: tuple[Progress, ...]
    best: Progress
    status: tuple[str, ...]


@dataclass
class State:
    """Where a fit stands; ``moments`` are Adam's, by parameter.

    ``best`` are averages over the steps between two checks (Polyak and Juditsky, 1992), which are
    free of most of the steps' noise; ``parameters`` are where the descent is.
    """

    stage: int
    step: int
    stale: int
    checks: list[Progress]
    status: list[str]
    best: dict[str, Tensor]
    parameters: dict[str, Tensor]
    moments: dict[str, Tensor] = field(default_factory=dict)

    @property
    def best_check(self) -> Progress:
        return min(self.checks, key=lambda check: check.held_out)


@dataclass
class Run:
    """A fit with all its choices made."""

    prior: Prior
    target: FunctionTarget
    measurement: MeasurementSet
    methods: list[Method]
    n_measurement: int
    check_every: int
    patience: int
    generator: torch.Generator

    def to_the_end(
        self, callback: Callable[[Progress], None] | None, checkpoint: Path | None
    ) -> Prior:
        """Run all methods; the fitted prior."""
        self.began = time.process_time()
        if checkpoint is not None and checkpoint.exists():
            state = self._resume(checkpoint)
        else:
            self.judge = Judge.draw(self)
            state = State(0, 0, 0, [], [], {}, self._parameters())
            self._check(state, self._parameters(), callback)
        while state.stage < len(self.methods):
            self._check(state, self._advance(state), callback)
            self._turn(state)
            if checkpoint is not None:
                self._save(state, checkpoint)
        self._restore(state.best)
        self.prior.requires_grad_(False)
        self.prior.fit_ = FitRecord(tuple(state.checks), state.best_check, tuple(state.status))
        return self.prior

    def _advance(self, state: State) -> dict[str, Tensor]:
        """Steps of Adam up to the next check; the average of the parameters over them."""
        method = self.methods[state.stage]
        parameters = dict(self.prior.named_parameters())
        total = {name: torch.zeros_like(p) for name, p in self._parameters().items()}
        n_steps = min(self.check_every, method.n_steps - state.step)
        for _ in range(n_steps):
            X = self.measurement.sample(self.n_measurement, self.generator)
            loss = method.loss(self.prior, self.target, X, self.generator)
            if not bool(torch.isfinite(loss)):
                raise ValueError(
                    f"The loss of {method} is not finite after {state.step} steps; lower "
                    "its learning_rate, or start from a prior of smaller scale."
                )
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            state.step += 1
            rate = cosine(method.learning_rate, state.step, method.n_steps)
            for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
                if gradient is not None:
                    adam(name, parameter, gradient, rate, state)
                total[name] += parameter.detach()
        state.parameters = self._parameters()
        return {name: value / n_steps for name, value in total.items()}

    def _check(
        self,
        state: State,
        average: dict[str, Tensor],
        callback: Callable[[Progress], None] | None,
    ) -> None:
        seconds = time.process_time() - self.began
        name = self.methods[state.stage].name
        self._restore(average)
        held_out = self.judge.energy_distance(self.prior)
        self._restore(state.parameters)
        progress = Progress(name, state.step, held_out, seconds)
        improved = not state.checks or held_out < state.best_check.held_out
        state.checks.append(progress)
        state.stale = 0 if improved else state.stale + 1
        if improved:
            state.best = average
        if callback is not None:
            callback(progress)

    def _turn(self, state: State) -> None:
        """To the next method, from the best parameters so far, if this one is done."""
        method = self.methods[state.stage]
        stopped = state.stale >= self.patience
        if not stopped and state.step < method.n_steps:
            return
        why = f"no better in {self.patience} checks" if stopped else "all steps taken"
        state.status.append(f"{method.name}: {why}, {state.step} of {method.n_steps}")
        state.stage, state.step, state.stale = state.stage + 1, 0, 0
        state.parameters, state.moments = state.best, {}
        self._restore(state.best)

    def _parameters(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self.prior.named_parameters()}

    def _restore(self, parameters: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.prior.named_parameters():
                parameter.copy_(parameters[name])

    def _choices(self) -> dict[str, object]:
        """What a checkpoint must agree with."""
        return {
            "family": self.prior.family,
            "settings": self.prior.settings,
            "net": self.prior.net.signature(),
            "methods": [repr(method) for method in self.methods],
            "n_measurement": self.n_measurement,
            "check_every": self.check_every,
            "patience": self.patience,
        }

    def _save(self, state: State, path: Path) -> None:
        write_checkpoint(path, self._choices(), state, self.judge, self.generator.get_state())

    def _resume(self, path: Path) -> State:
        state, self.judge, generator = read_checkpoint(path, self, self._choices())
        self.generator.set_state(generator)
        self.began -= state.checks[-1].seconds
        self._restore(state.parameters)
        return state


@dataclass(frozen=True)
class Judge:
    """A held-out measurement set, functions of the target there, and a seed for the prior's: the
    same for every check, so that differences between checks are free of most of the noise."""

    X: Tensor
    target: Tensor
    within: float
    seed: int

    @classmethod
    def draw(cls, run: Run) -> Judge:
        X = run.measurement.sample(run.n_measurement, run.generator)
        g = run.target.sample_functions(X, N_HELD_OUT, run.generator).flatten(1).float()
        seed = int(torch.randint(2**31, (), generator=run.generator))
        return cls(X, g, float(mean_within(g)), seed)

    def energy_distance(self, prior: Prior) -> float:
        """Unbiased, hence below zero by chance for a perfect match."""
        with torch.no_grad():
            f = prior.rsample_functions(self.X, len(self.target), self.seed).flatten(1)
            return float(2 * distances(f, self.target).mean() - mean_within(f)) - self.within


def cosine(rate: float, step: int, n_steps: int) -> float:
    """From the rate down to a tenth of it."""
    return rate * (0.1 + 0.45 * (1 + math.cos(math.pi * step / n_steps)))


def adam(name: str, parameter: Tensor, gradient: Tensor, rate: float, state: State) -> None:
    """One step of Adam with decays .9 and .99 (Kingma and Ba, 2015)."""
    first = state.moments.get(f"first.{name}", torch.zeros_like(gradient))
    second = state.moments.get(f"second.{name}", torch.zeros_like(gradient))
    first = state.moments[f"first.{name}"] = first.lerp(gradient, 0.1)
    second = state.moments[f"second.{name}"] = second.lerp(gradient.square(), 0.01)
    unbiased = second / (1 - 0.99**state.step)
    with torch.no_grad():
        parameter -= rate / (1 - 0.9**state.step) * first / (unbiased.sqrt() + 1e-12)

"""C chains from block to block of steps: noise, Gibbs steps, fusion, divergence.

A block's length depends on the number of parameters alone, so a chain's path depends neither on the
number of chains nor on where a run was interrupted.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .base import Controls, Info, State
from .checkpoint import Checkpoint
from .cyclical import AnySampler
from .divergence import cause, is_finite
from .draws import Divergence
from .gibbs import draw_log_scale
from .interweaving import FIRST_REACH, interweave
from .recorder import Recorder
from .streams import ChainStreams

BLOCK_NUMBERS = 2**14
"""Random numbers of a chain in a block, if P is not larger."""

MAX_BLOCK_STEPS = 128


class Loop:
    """What a run holds between blocks.

    Parameters
    ----------
    potential, sampler, position, burn_in, seed, n_observations, batch_size, gibbs_every
        As in `chains.run`.
    """

    recorder: Recorder

    def __init__(
        self,
        potential: Any,
        sampler: AnySampler,
        position: Tensor,
        burn_in: int,
        seed: int,
        n_observations: int | None,
        batch_size: int | None,
        gibbs_every: int | None,
    ) -> None:
        self.potential, self.sampler, self.burn_in, self.seed = potential, sampler, burn_in, seed
        self.n_observations, self.batch_size = n_observations, batch_size
        self.gibbs_every = gibbs_every
        n_chains, self.n_parameters = position.shape
        self.streams = ChainStreams(seed, n_chains, position.device)
        noise = self.streams.normal(1, self.n_parameters, position.dtype)[0]
        self.state: State = sampler.init(position.clone(), noise)
        self.step = 0
        self.seconds = 0.0
        self.log_scale: Tensor | None = None
        self.reach: Tensor | None = None
        if gibbs_every is not None:
            self.log_scale = self._drawn_log_scale(position)
            self.reach = torch.full_like(self.log_scale, FIRST_REACH)
        self.divergences: list[Divergence] = []
        self.alive = torch.ones(n_chains, dtype=torch.bool, device=position.device)
        self.n_block = block_steps(self.n_parameters)
        self.start = self.value()

    @property
    def done(self) -> bool:
        return not self.recorder.coming or not bool(self.alive.any())

    def control(self) -> Controls:
        """Controls of the next step."""
        return self.sampler.controls(self.step, self.burn_in)

    def value(self) -> Tensor:
        """U on all data where the chains are, (C,)."""
        given = {} if self.log_scale is None else {"log_scale": self.log_scale}
        value: Tensor = self.potential(self.state.position, None, **given)[0]
        return value

    def block(self, advance: Callable[..., Any], chunk: int) -> None:
        """One block of steps, all or nothing: what it changes, it changes at its end."""
        before = self.streams.state()
        try:
            self._block(advance, min(chunk, self.n_block))
        except BaseException:
            self.streams.restore(before)
            raise

    def checkpoint(self) -> Checkpoint:
        """All that the next block needs."""
        state, recorder = self.state._asdict(), self.recorder
        if self.log_scale is not None:
            state |= {"log_scale": self.log_scale, "reach": self.reach}
        return Checkpoint(
            state=state,
            streams=self.streams.state(),
            draws=recorder.draws[:, : recorder.n_recorded],
            potential=recorder.values[:, : recorder.n_recorded],
            moments=recorder.moments.as_tensors(),
            at_start=self.start,
            at_position=self.value(),
            step=self.step,
            seconds=self.seconds,
            divergences=tuple(self.divergences),
            n_draws=recorder.n_taken,
            chunks=[] if recorder.folder is None else recorder.folder.sizes,
        )

    def restore(self, saved: Checkpoint, path: Any) -> None:
        """Continue from a checkpoint.

        Raises
        ------
        StorageError
            If it is of another density.
        """
        device = self.state.position.device
        tensors = {name: value.to(device) for name, value in saved.state.items()}
        self.log_scale, self.reach = tensors.pop("log_scale", None), tensors.pop("reach", None)
        self.state = type(self.state)(**tensors)
        saved.check_potential(self.value(), path)
        self.streams.restore(saved.streams)
        self.recorder.restore(saved)
        self.start = saved.at_start
        self.step, self.seconds = saved.step, saved.seconds
        self.divergences = list(saved.divergences)
        for divergence in self.divergences:
            self.alive[divergence.chain] = False

    def _block(self, advance: Callable[..., Any], chunk: int) -> None:
        began, log_scale, reach = self._scale_step()
        position = began.position
        noise = self.streams.normal(self.n_block, self.n_parameters, position.dtype)
        batches = None
        if self.batch_size is not None and self.n_observations is not None:
            batches = self.streams.indices(self.n_block, self.n_observations, self.batch_size)
        state, seen = began, []
        wanted = iter(self.recorder.coming)
        target = next(wanted, -1)
        end = self.step + self.n_block
        for start in range(self.step, end, chunk):
            steps = range(start, start + chunk)
            piece = slice(start - self.step, start - self.step + chunk)
            state, records = advance(
                state,
                noise[piece],
                None if batches is None else batches[piece],
                self._controls(steps, compiled=chunk > 1),
                target in steps,
                log_scale,
            )
            while target in steps:
                seen.append((target, records[target - start]))
                target = next(wanted, -1)
        bad = self.alive & ~is_finite(state)
        if bool(bad.any()):
            self._stop(bad, began, noise, batches, log_scale)
        self.recorder.add(seen, log_scale, self.divergences)
        self.log_scale, self.reach = log_scale, reach
        self.state = type(state)(*map(self._choose, state, self.state))
        self.step = end

    def _scale_step(self) -> tuple[State, Tensor | None, Tensor | None]:
        """State, log scales and reaches after a Gibbs step and a move of each group, if due."""
        every, state, reach = self.gibbs_every, self.state, self.reach
        if not every or not self.step or self.step % every >= self.n_block:
            return state, self.log_scale, reach
        log_scale = self._drawn_log_scale(state.position)
        temperature = float(self.control().temperature)
        if reach is None or not self.potential.groups or temperature == 0:  # modes do not move
            return state, log_scale, reach
        gain = (self.step // every) ** -0.5 if self.step < self.burn_in else 0.0
        position, log_scale, reach = interweave(
            self.potential, state.position, log_scale, reach, temperature, self.streams, gain
        )
        return state._replace(position=position), log_scale, reach

    def _drawn_log_scale(self, position: Tensor) -> Tensor:
        return draw_log_scale(self.potential, position, self.control().temperature, self.streams)

    def _controls(self, steps: range, *, compiled: bool = False) -> list[Controls]:
        """Controls of each step, or the one of all of them if they do not differ.

        A compiled call looks at each, and takes numbers that change as tensors.
        """
        controls = [self.sampler.controls(t, self.burn_in) for t in steps]
        if compiled and (callable(self.sampler.step_size) or callable(self.sampler.temperature)):
            like = self.state.position
            number = functools.partial(torch.as_tensor, dtype=like.dtype, device=like.device)
            return [Controls(number(c[0]), number(c[1]), c.adapt) for c in controls]
        return controls[:1] if all(c == controls[0] for c in controls) else controls

    def _choose(self, new: Tensor, old: Tensor) -> Tensor:
        """The new value for chains that go on, the old one for those that were stopped."""
        if bool(self.alive.all()):
            return new
        return torch.where(self.alive.view(-1, *[1] * (new.ndim - 1)), new, old)

    def _stop(
        self,
        bad: Tensor,  # (C,)
        state: State,  # that the block began with
        noise: Tensor,
        batches: Tensor | None,
        log_scale: Tensor | None,
    ) -> None:
        """Find the step and the cause by taking the block again, one step at a time."""
        waiting = bad.clone()
        given = {} if log_scale is None else {"log_scale": log_scale}
        for k in range(self.n_block):
            batch = None if batches is None else batches[k]
            new, info = self.sampler.update(
                state,
                functools.partial(self.potential, batch=batch, **given),
                noise[k],
                self.sampler.controls(self.step + k, self.burn_in),
            )
            ended = waiting & ~(is_finite(new) & torch.isfinite(info.gradient).all(1))
            for chain in ended.nonzero()[:, 0].tolist():
                why = cause(state.position[chain], Info(*(v[chain] for v in info)))
                self.divergences.append(Divergence(chain, self.step + k, why))
            waiting &= ~ended
            state = new
        for chain in waiting.nonzero()[:, 0].tolist():  # compiled and plain steps may round apart
            last = self.step + self.n_block
            self.divergences.append(
                Divergence(chain, self.step, f"it left the finite numbers before step {last}")
            )
        self.alive = self.alive & ~bad


def block_steps(n_parameters: int) -> int:
    """The power of two in [1, MAX_BLOCK_STEPS] whose steps need at most BLOCK_NUMBERS numbers."""
    fitting = max(1, BLOCK_NUMBERS // n_parameters)
    return min(MAX_BLOCK_STEPS, 1 << (fitting.bit_length() - 1))

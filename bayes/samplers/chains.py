"""The loop over steps: C chains, blocks of noise, fusion, divergence, interruption, checkpoints.

Steps are taken in blocks. Noise and batches of a block are drawn at once, from a generator of each
chain's own, and a block is the unit of everything else: after it chains are checked, progress is
reported, Ctrl-C is answered and a checkpoint can be written. Its length depends on P alone, so a
chain's path depends neither on the number of chains nor on where a run was interrupted.

In memory are the draws, ``C * max(P, BLOCK_NUMBERS)`` random numbers, and at most ``48 + 16 n``
tensors of ``C * P`` numbers (states, gradients, sums in float64), where a block takes n draws, plus
what the potential needs for its own.
"""

from __future__ import annotations

import functools
import itertools
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kernels.checks import check_int
from kernels.sgmcmc import can_compile

from ..storage import StorageError
from .base import Controls, Info, Potential, State
from .checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from .cyclical import AnySampler
from .divergence import cause, is_finite
from .draws import ChainDraws, Divergence, Moments
from .folder import DrawFolder
from .gibbs import ConjugatePotential, draw_log_scale
from .steps import Record, fused_steps, take_steps
from .streams import ChainStreams

BLOCK_NUMBERS = 2**14
"""Random numbers of a chain in a block, if P is not larger."""

MAX_BLOCK_STEPS = 128

FUSED_STEPS = 16
"""Steps in one compiled call, or a block's if that is shorter."""


class SamplingWarning(UserWarning):
    """Chains diverged, or hyperparameters do not do what they should."""


@dataclass(frozen=True)
class Progress:
    """What a callback is told after every block."""

    step: int
    n_steps: int
    n_draws: int
    seconds: float
    potential: Tensor  # (C, n_draws) of the draws so far
    diverged: tuple[Divergence, ...]

    def rhat(self) -> float:
        """Rank-normalised split R-hat of the potential so far; NaN below 8 draws."""
        from .diagnostics import rhat

        kept = [c for c in range(len(self.potential)) if c not in {d.chain for d in self.diverged}]
        return float(rhat(self.potential[kept][..., None])[0])


@torch.no_grad()  # the density may close over tensors that require gradients
def run(
    potential: Potential | ConjugatePotential,
    sampler: AnySampler,
    position: Tensor,  # (C, P)
    *,
    n_draws: int,
    burn_in: int,
    thin: int = 1,
    seed: int,
    n_observations: int | None = None,
    batch_size: int | None = None,
    gibbs_every: int | None = None,
    compile: bool = False,
    callback: Callable[[Progress], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 60.0,
    stream_to: str | os.PathLike[str] | None = None,
    names: dict[str, slice] | None = None,
) -> ChainDraws:
    """Run C chains and keep every ``thin``-th position after ``burn_in`` updates.

    Parameters
    ----------
    potential : Potential or ConjugatePotential
        U and its gradient; called with batches if ``batch_size`` is given, and with log scales if
        ``gibbs_every`` is.
    sampler : Sampler
    position : Tensor
        (C, P), where chains start; its dtype and device are the run's.
    n_draws, burn_in, thin : int
    seed : int
    n_observations, batch_size : int or None
        A batch is ``batch_size`` of the ``n_observations`` indices, drawn with replacement for each
        chain and step; None for full batches.
    gibbs_every : int or None
        Steps after which log scales are drawn anew, at the start of the next block; draws are then
        (C, S, P + G). None for a potential without them.
    compile : bool
        Fuse `FUSED_STEPS` steps into one compiled call. It takes seconds to compile, and pays
        where a step is short.
    callback : callable or None
        Called with a `Progress` after every block. If it raises KeyboardInterrupt, the run ends as
        it does on Ctrl-C.
    checkpoint : path or None
        A file written every ``checkpoint_seconds`` and at the end. If it is there, the run
        continues from it, to the same draws bit by bit; ``n_draws`` may have grown.
    checkpoint_seconds : float
    stream_to : path or None
        A folder that draws are written to (`read_draws`), for more than memory holds. It has its
        own checkpoint. The run hands back every k-th draw, for the smallest k with which they take
        at most `folder.RETURNED_BYTES`, as if ``thin`` were k times as large.
    names : dict of slice, or None
        Blocks of parameters, for reports.

    Returns
    -------
    ChainDraws

    Raises
    ------
    ValueError
        If a parameter is outside its range.
    StorageError
        If the checkpoint is not one of this run, or draws cannot be streamed: those taken before
        stay in the folder, and the same call goes on from there.

    Warns
    -----
    SamplingWarning
        If chains diverge or the sampler reports a fault.
    """
    check_int("n_draws", n_draws, 1)
    check_int("burn_in", burn_in, 0)
    check_int("thin", thin, 1)
    if batch_size is not None:
        check_int("batch_size", batch_size, 1, n_observations)
        if sampler.full_batch_only:
            raise ValueError(
                f"The 'batch_size' parameter must be None with {sampler!r}, which needs full "
                f"batches; got {batch_size}."
            )
    if compile and not can_compile(position.device):
        raise ValueError("The 'compile' parameter needs a C++ compiler (g++, clang++, or CXX).")
    folder = None
    if stream_to is not None:
        if checkpoint is not None:
            raise ValueError(
                f"The 'checkpoint' parameter must be None with 'stream_to', whose folder has its "
                f"own; got {str(checkpoint)!r}."
            )
        folder = DrawFolder(stream_to)
        checkpoint = folder.state
    loop = _Loop(
        potential, sampler, position, burn_in, seed, n_observations, batch_size, gibbs_every
    )
    loop.plan(n_draws, thin, folder)
    fingerprint = {
        "sampler": repr(sampler),
        "n_chains": position.shape[0],
        "n_parameters": position.shape[1],
        "dtype": str(position.dtype),
        "device": position.device.type,
        "seed": seed,
        "burn_in": burn_in,
        "thin": thin,
        "n_observations": n_observations,
        "batch_size": batch_size,
        "gibbs_every": gibbs_every,
    }
    on_disk = 0, 0
    if checkpoint is not None and os.path.exists(checkpoint):
        saved_run = read_checkpoint(checkpoint, fingerprint)
        loop.restore(saved_run, checkpoint)
        on_disk = saved_run.step, saved_run.n_draws
    advance: Callable[..., Any] = functools.partial(take_steps, sampler, potential)
    if compile:
        advance = fused_steps(sampler, potential)  # type: ignore[arg-type]
    began = saved = time.perf_counter()
    before = loop.seconds
    interrupted = False
    while not loop.done:
        try:
            loop.block(advance, FUSED_STEPS if compile else 1)
            loop.seconds = before + time.perf_counter() - began
            if callback is not None:
                callback(loop.progress())
        except KeyboardInterrupt:
            interrupted = True
            break
        due = time.perf_counter() - saved > checkpoint_seconds or (folder and folder.is_full)
        if checkpoint is not None and due:
            _save(checkpoint, loop, fingerprint)
            saved = time.perf_counter()
    if checkpoint is not None and (loop.step, loop.n_taken) > on_disk:
        _save(checkpoint, loop, fingerprint)
    return loop.result(interrupted, names)


class _Loop:
    """What a run holds between blocks."""

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
        self.log_scale = None if gibbs_every is None else self._drawn_log_scale()
        self.n_recorded = 0
        self.seconds = 0.0
        self.divergences: list[Divergence] = []
        self.alive = torch.ones(n_chains, dtype=torch.bool, device=position.device)
        self.moments = Moments.zeros(n_chains, self.n_parameters)
        self.n_block = _block_steps(self.n_parameters)

    def plan(self, n_draws: int, thin: int, folder: DrawFolder | None) -> None:
        """Choose the steps at whose start a draw is taken, and make room for the draws.

        The last block is recorded to its end, so that a longer run can go on from there.
        """
        self.thin, self.n_draws, self.folder = thin, n_draws, folder
        collected = (t for t in itertools.count(self.burn_in + 1) if self.sampler.collects(t))
        steps = itertools.islice(collected, thin - 1, None, thin)
        self.draw_steps = list(itertools.islice(steps, n_draws))
        self.n_steps = self.draw_steps[-1] + 1
        end = -(-self.n_steps // self.n_block) * self.n_block
        self.draw_steps += itertools.takewhile(lambda t: t < end, steps)
        position = self.state.position
        n_chains, n = position.shape[0], len(self.draw_steps)
        in_memory = 0 if folder else n
        width = position.shape[1] + (0 if self.log_scale is None else self.log_scale.shape[1])
        shape = (n_chains, in_memory, width)
        self.draws = torch.full(shape, torch.nan, dtype=position.dtype)
        self.values = torch.full((n_chains, n), torch.nan, dtype=position.dtype)

    @property
    def n_taken(self) -> int:
        """How many of the draws asked for there are."""
        return min(self.n_recorded, self.n_draws)

    @property
    def done(self) -> bool:
        return self.n_recorded >= self.n_draws or not bool(self.alive.any())

    def block(self, advance: Callable[..., Any], chunk: int) -> None:
        """One block of steps, all or nothing: what it changes, it changes at its end."""
        before = self.streams.state()
        try:
            self._block(advance, min(chunk, self.n_block))
        except BaseException:
            self.streams.restore(before)
            raise

    def _block(self, advance: Callable[..., Any], chunk: int) -> None:
        position, log_scale = self.state.position, self.log_scale
        if self.gibbs_every and self.step and self.step % self.gibbs_every < self.n_block:
            log_scale = self._drawn_log_scale()
        noise = self.streams.normal(self.n_block, self.n_parameters, position.dtype)
        batches = None
        if self.batch_size is not None and self.n_observations is not None:
            batches = self.streams.indices(self.n_block, self.n_observations, self.batch_size)
        state, seen = self.state, []
        wanted = iter(self.draw_steps[self.n_recorded :])
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
            self._stop(bad, noise, batches, log_scale)
        self._record(seen, log_scale)
        self.log_scale = log_scale
        self.state = type(state)(*map(self._choose, state, self.state))
        self.step = end

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

    def _control(self, step: int) -> Controls:
        return self.sampler.controls(step, self.burn_in)

    def _choose(self, new: Tensor, old: Tensor) -> Tensor:
        """The new value for chains that go on, the old one for those that were stopped."""
        if bool(self.alive.all()):
            return new
        return torch.where(self.alive.view(-1, *[1] * (new.ndim - 1)), new, old)

    def _drawn_log_scale(self) -> Tensor:
        temperature = self._control(self.step).temperature
        return draw_log_scale(self.potential, self.state.position, temperature, self.streams)

    def _stop(
        self, bad: Tensor, noise: Tensor, batches: Tensor | None, log_scale: Tensor | None
    ) -> None:
        """Find the step and the cause by taking the block again, one step at a time."""
        state, waiting = self.state, bad.clone()
        given = {} if log_scale is None else {"log_scale": log_scale}
        for k in range(self.n_block):
            batch = None if batches is None else batches[k]
            new, info = self.sampler.update(
                state,
                functools.partial(self.potential, batch=batch, **given),
                noise[k],
                self._control(self.step + k),
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

    def _record(self, seen: list[tuple[int, Record]], log_scale: Tensor | None) -> None:
        if not seen:
            return
        steps = torch.tensor([step for step, _ in seen])
        positions = torch.stack([record[0] for _, record in seen], 1).detach()  # (C, n, P)
        values = torch.stack([record[1].potential for _, record in seen], 1).detach()
        gradients = torch.stack([record[1].gradient for _, record in seen], 1).detach()
        kinetic = [record[2] for _, record in seen if record[2] is not None]
        going = torch.ones(values.shape, dtype=torch.bool)
        for divergence in self.divergences:
            going[divergence.chain] = steps < divergence.step
        new = slice(self.n_recorded, self.n_recorded + len(seen))
        whole = positions
        if log_scale is not None:
            held = log_scale[:, None].expand(-1, len(seen), -1)
            whole = torch.cat([positions, held], 2)
        draws = whole.cpu().masked_fill(~going[..., None], torch.nan)
        if self.folder is None:
            self.draws[:, new] = draws
        else:
            self.folder.add(draws)
        self.values[:, new] = values.cpu().masked_fill(~going, torch.nan)
        self.moments.add(
            going.to(positions.device),
            positions,
            gradients,
            torch.stack(kinetic, 1).detach() if kinetic else None,
        )
        self.n_recorded += len(seen)

    def progress(self) -> Progress:
        return Progress(
            min(self.step, self.n_steps),
            self.n_steps,
            self.n_taken,
            self.seconds,
            self.values[:, : self.n_taken],
            tuple(self.divergences),
        )

    def snapshot(self) -> Checkpoint:
        state = self.state._asdict()
        if self.log_scale is not None:
            state["log_scale"] = self.log_scale
        return Checkpoint(
            state=state,
            streams=self.streams.state(),
            draws=self.draws[:, : self.n_recorded],
            potential=self.values[:, : self.n_recorded],
            moments=self.moments.as_tensors(),
            at_position=self._value(),
            step=self.step,
            seconds=self.seconds,
            divergences=tuple(self.divergences),
            n_draws=self.n_taken,
            chunks=[] if self.folder is None else self.folder.sizes,
        )

    def _value(self) -> Tensor:
        """U on all data where the chains are, (C,)."""
        given = {} if self.log_scale is None else {"log_scale": self.log_scale}
        value: Tensor = self.potential(self.state.position, None, **given)[0]
        return value

    def restore(self, saved: Checkpoint, path: Any) -> None:
        device = self.state.position.device
        tensors = {name: value.to(device) for name, value in saved.state.items()}
        self.log_scale = tensors.pop("log_scale", None)
        self.state = type(self.state)(**tensors)
        saved.check_potential(self._value(), path)
        self.streams.restore(saved.streams)
        self.n_recorded = min(saved.potential.shape[1], len(self.draw_steps))
        if self.folder is None:
            self.draws[:, : self.n_recorded] = saved.draws[:, : self.n_recorded]
        else:
            self.folder.sizes = saved.chunks
        self.values[:, : self.n_recorded] = saved.potential[:, : self.n_recorded]
        self.moments = Moments.from_tensors(saved.moments)
        self.step, self.seconds = saved.step, saved.seconds
        self.divergences = list(saved.divergences)
        for divergence in self.divergences:
            self.alive[divergence.chain] = False

    def result(self, interrupted: bool, names: dict[str, slice] | None) -> ChainDraws:
        temperature = self.sampler.temperature
        n, k = self.n_taken, 1
        if self.folder is None:
            draws = self.draws[:, :n]
        else:
            n_chains, _, width = self.draws.shape
            k = self.folder.stride(n * n_chains * width * self.draws.element_size())
            draws = self.folder.every(k, n) if n else self.draws
        result = ChainDraws(
            draws=draws,
            potential=self.values[:, :n][:, k - 1 :: k],
            moments=self.moments,
            sampler=self.sampler,
            temperature=None if callable(temperature) else float(temperature),
            divergences=tuple(self.divergences),
            faults=tuple(self.sampler.faults(self.state, self._control(self.step))),
            seed=self.seed,
            burn_in=self.burn_in,
            thin=self.thin * k,
            n_steps=self.step,
            seconds=self.seconds,
            interrupted=interrupted,
            names=names or {},
        )
        for sentence in (*(str(d) for d in result.divergences[:3]), *result.faults):
            warnings.warn(sentence, SamplingWarning, stacklevel=4)
        return result


def _save(path: str | os.PathLike[str], loop: _Loop, fingerprint: dict[str, Any]) -> None:
    """Write a checkpoint; if that fails say so and go on, if the draws are still in memory."""
    if loop.folder is not None:
        loop.folder.flush()
        write_checkpoint(path, loop.snapshot(), fingerprint)
        return
    try:
        write_checkpoint(path, loop.snapshot(), fingerprint)
    except StorageError as error:
        warnings.warn(str(error), SamplingWarning, stacklevel=4)


def _block_steps(n_parameters: int) -> int:
    """The power of two in [1, MAX_BLOCK_STEPS] whose steps need at most BLOCK_NUMBERS numbers."""
    fitting = max(1, BLOCK_NUMBERS // n_parameters)
    return min(MAX_BLOCK_STEPS, 1 << (fitting.bit_length() - 1))

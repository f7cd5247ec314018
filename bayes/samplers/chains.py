"""A run: blocks of steps (`loop`) until the draws are taken; progress, interruption, checkpoints.

Noise and batches of a block are drawn at once, from a generator of each chain's own, and a block is
the unit of everything else: after it chains are checked, progress is reported, Ctrl-C is answered
and a checkpoint can be written.

In memory are the draws, ``C * max(P, loop.BLOCK_NUMBERS)`` random numbers, and at most
``48 + 16 n`` tensors of ``C * P`` numbers (states, gradients, sums in float64), where a block takes
n draws, plus what the potential needs for its own.
"""

from __future__ import annotations

import functools
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kernels.checks import check_bool, check_int
from kernels.sgmcmc import can_compile

from .._validation import check_callable, check_instance, check_path, check_size
from ..storage import StorageError
from .base import Potential, at
from .checkpoint import read_checkpoint, write_checkpoint
from .cyclical import AnySampler
from .divergence import astray
from .draws import ChainDraws, Divergence
from .folder import DrawFolder
from .gibbs import ConjugatePotential
from .loop import Loop
from .recorder import Recorder
from .steps import fused_steps, take_steps

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
        Steps after which log scales are drawn anew (`gibbs`) and, where they are standard
        deviations of parameters, moved with these (`interweaving`), at the start of the next block;
        draws are then (C, S, P + G). None for a potential without them.
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
    check_instance("sampler", sampler, AnySampler, "a Sampler")
    check_bool("compile", compile)
    if callback is not None:
        check_callable("callback", callback, "of a Progress")
    n_bytes = position.numel() * position.element_size()  # of a draw
    check_size("n_draws", n_draws, 1, n_bytes if stream_to is None else 8)
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
    loop = Loop(
        potential, sampler, position, burn_in, seed, n_observations, batch_size, gibbs_every
    )
    loop.recorder = Recorder(
        sampler,
        position,
        0 if loop.log_scale is None else loop.log_scale.shape[1],
        n_draws=n_draws,
        thin=thin,
        burn_in=burn_in,
        n_block=loop.n_block,
        folder=folder,
    )
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
    if checkpoint is not None and check_path("checkpoint", checkpoint).exists():
        saved_run = read_checkpoint(
            checkpoint, fingerprint, loop.checkpoint(), in_memory=folder is None
        )
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
                callback(_progress(loop))
        except KeyboardInterrupt:
            interrupted = True
            break
        due = time.perf_counter() - saved > checkpoint_seconds or (folder and folder.is_full)
        if checkpoint is not None and due:
            _save(checkpoint, loop, fingerprint)
            saved = time.perf_counter()
    if checkpoint is not None and (loop.step, loop.recorder.n_taken) > on_disk:
        _save(checkpoint, loop, fingerprint)
    return _result(loop, interrupted, names)


def _progress(loop: Loop) -> Progress:
    recorder = loop.recorder
    return Progress(
        min(loop.step, recorder.n_steps),
        recorder.n_steps,
        recorder.n_taken,
        loop.seconds,
        recorder.values[:, : recorder.n_taken],
        tuple(loop.divergences),
    )


def _result(loop: Loop, interrupted: bool, names: dict[str, slice] | None) -> ChainDraws:
    sampler, now = loop.sampler, loop.control()
    draws, potential, k = loop.recorder.taken()
    temperature = float(at(sampler.temperature, loop.step))
    left = astray(
        potential, loop.start.cpu(), loop.alive.cpu(), loop.n_parameters, temperature, loop.step
    )
    result = ChainDraws(
        draws=draws,
        potential=potential,
        moments=loop.recorder.moments,
        sampler=sampler,
        temperature=None if callable(sampler.temperature) else temperature,
        divergences=(*loop.divergences, *left),
        faults=tuple(sampler.faults(loop.state, now)),
        seed=loop.seed,
        burn_in=loop.burn_in,
        thin=loop.recorder.thin * k,
        n_steps=loop.step,
        seconds=loop.seconds,
        interrupted=interrupted,
        names=names or {},
    )
    for sentence in (*(str(d) for d in result.divergences[:3]), *result.faults):
        warnings.warn(sentence, SamplingWarning, stacklevel=4)
    return result


def _save(path: str | os.PathLike[str], loop: Loop, fingerprint: dict[str, Any]) -> None:
    """Write a checkpoint; if that fails say so and go on, if the draws are still in memory."""
    if loop.recorder.folder is not None:
        loop.recorder.folder.flush()
        write_checkpoint(path, loop.checkpoint(), fingerprint)
        return
    try:
        write_checkpoint(path, loop.checkpoint(), fingerprint)
    except StorageError as error:
        warnings.warn(str(error), SamplingWarning, stacklevel=4)

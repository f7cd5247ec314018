"""A step size for a sampler, from a short run at many of them at once.

Every rung of a geometric ladder of step sizes gets a few chains, side by side in the chain
dimension. The step chosen is the largest at which no chain diverges and both temperatures
(`diagnostics`) are T within a tolerance: temperatures are the averages whose right values are known
without knowing the target. They are averages over all parameters; one stiff direction among many
soft ones can be sampled worse than they say.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kernels.checks import check_bool, check_int, check_real

from .._validation import check_callable, check_instance
from .base import Potential, Sampler
from .chains import SamplingWarning, run
from .diagnostics import mean_of_others
from .potentials import LogDensity, potential_of
from .streams import seed_of

LADDER = tuple(2 ** (k / 2) for k in range(-20, 9))
"""Rungs, as multiples of the sampler's own step size."""


@dataclass(frozen=True)
class Rung:
    """What a step size did: largest deviation of a temperature from T, relative, and its error."""

    step_size: float
    deviation: float
    error: float
    diverged: bool


@dataclass(frozen=True)
class StepSize:
    """A step size and the ladder it was chosen from."""

    step_size: float
    rungs: tuple[Rung, ...]


def find_step_size(
    log_density: LogDensity,
    init: Tensor,
    sampler: Sampler,
    *,
    tolerance: float = 0.05,
    n_steps: int = 2000,
    random_state: int | None = None,
    batched: bool = False,
) -> StepSize:
    """The largest step size whose temperatures are right.

    Parameters
    ----------
    log_density : callable
        As in `sample_density`.
    init : Tensor
        (P,), better a draw of an earlier run than a mode: small steps need long to leave it.
    sampler : Sampler
        Its number ``step_size`` is the middle of the ladder, which reaches 1/1024 to 16 times it.
    tolerance : float
        Largest relative deviation of a temperature from T, its standard error added.
    n_steps : int
        Updates of the run; its first half is not looked at.
    random_state : int or None
    batched : bool
        As in `sample_density`.

    Returns
    -------
    StepSize

    Raises
    ------
    ValueError
        If no step size of the ladder will do.

    Examples
    --------
    >>> from bayes.samplers import SGLD, find_step_size
    >>> found = find_step_size(
    ...     lambda q: -2 * q.square().sum(), torch.ones(20), SGLD(0.1), random_state=0)
    >>> 0.01 < found.step_size < 0.05  # bias h lambda / 2 = 2 h
    True
    """
    check_callable("log_density", log_density, "of a tensor (P,)")
    check_instance("sampler", sampler, Sampler, "a Sampler")
    check_bool("batched", batched)
    if not isinstance(init, Tensor) or not init.is_floating_point() or init.ndim != 1:
        got = f"shape {tuple(init.shape)}" if isinstance(init, Tensor) else repr(init)
        raise ValueError(f"The 'init' parameter must be a floating-point tensor (P,); got {got}.")
    potential = potential_of(log_density, batched=batched)
    return climb(potential, init, sampler, tolerance, n_steps, seed_of(random_state))


def climb(
    potential: Potential,
    position: Tensor,  # (P,)
    sampler: Sampler,
    tolerance: float,
    n_steps: int,
    seed: int,
    n_chains: int = 8,
    **batches: Any,
) -> StepSize:
    """`find_step_size` for a potential; ``batches`` as in `chains.run`."""
    start = check_real("step_size", sampler.step_size, low=0, strict=True)
    target = check_real("temperature", sampler.temperature, low=0, strict=True)
    check_real("tolerance", tolerance, low=0, strict=True)
    check_int("n_steps", n_steps, 100)
    steps = start * torch.tensor(LADDER, dtype=position.dtype, device=position.device)
    ladder = replace(sampler, step_size=steps.repeat_interleave(n_chains)[:, None])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SamplingWarning)  # most of the ladder is meant to diverge
        seen = run(
            potential,
            ladder,
            position.detach().expand(len(steps) * n_chains, -1).clone(),
            n_draws=n_steps // 2,
            burn_in=n_steps - n_steps // 2,
            seed=seed,
            **batches,
        )
    sums, stopped = seen.moments, {d.chain for d in seen.divergences}
    of_rung = (len(steps), n_chains, -1)
    centre = mean_of_others((sums.position / sums.count).view(of_rung))
    offset = centre * (sums.gradient / sums.count).view(of_rung)
    averages = [((sums.product / sums.count).view(of_rung) - offset).mean(2).flatten()]
    if sums.has_kinetic:
        averages.append((sums.kinetic / sums.count).mean(1))
    rungs = []
    for k, step in enumerate(steps.tolist()):
        chains = range(k * n_chains, (k + 1) * n_chains)
        off = torch.stack([a[list(chains)] / target - 1 for a in averages])
        worst = int(off.mean(1).abs().argmax())
        error = float(off[worst].std()) / n_chains**0.5
        rungs.append(Rung(step, float(off[worst].mean()), error, not stopped.isdisjoint(chains)))
    for rung in reversed(rungs):
        if not rung.diverged and abs(rung.deviation) + rung.error < tolerance:
            return StepSize(rung.step_size, tuple(rungs))
    best = min(rungs, key=lambda r: abs(r.deviation) if not r.diverged else torch.inf)
    raise ValueError(
        f"The 'tolerance' parameter must be within reach of {n_steps} steps; got {tolerance}, and "
        f"the best step size of the ladder, {best.step_size:.3g}, has temperatures off by "
        f"{best.deviation:+.1%} ± {best.error:.1%}. Start nearer to the bulk of the density, take "
        f"more steps, or another 'step_size' as the middle of the ladder."
    )

"""Draws from any differentiable density of a flat vector."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kernels.checks import check_bool

from .._validation import check_callable, check_size
from .chains import Progress, run
from .cyclical import AnySampler
from .draws import ChainDraws
from .potentials import LogDensity, potential_of
from .streams import seed_of


def sample_density(
    log_density: LogDensity,
    init: Tensor,
    sampler: AnySampler,
    n_chains: int | None = None,
    n_draws: int = 1000,
    burn_in: int = 1000,
    thin: int = 1,
    random_state: int | None = None,
    *,
    batched: bool = False,
    compile: bool = False,
    names: dict[str, slice] | None = None,
    callback: Callable[[Progress], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    stream_to: str | os.PathLike[str] | None = None,
) -> ChainDraws:
    r"""Sample :math:`\pi(q)^{1/T}`, up to its constant, with C chains at once.

    Parameters
    ----------
    log_density : callable
        log pi: (P,) -> scalar, written with torch; or (C, P) -> (C,) if ``batched``.
    init : Tensor
        (C, P), where chains start, or (P,) for all of them. Its dtype and device are the run's;
        far-apart starts make R-hat meaningful.
    sampler : Sampler
    n_chains : int or None
        C; may be left out if ``init`` has a row for each.
    n_draws, burn_in, thin : int
        Updates before the first draw, and from a draw to the next. Samplers that adapt do so
        during burn-in.
    random_state : int or None
        The run's seed; None draws a fresh one, which the result records.
    batched : bool
        Whether ``log_density`` takes all chains at once.
    compile : bool
        Fuse steps into compiled calls: seconds to compile, then several times faster where a
        step is short. The draws differ from those of the plain form by rounding.
    names : dict of slice, or None
        Blocks of the parameters, for reports and ArviZ.
    callback : callable or None
        Called with a `Progress` after every block of steps.
    checkpoint, stream_to : path or None
        See `chains.run`.

    Returns
    -------
    ChainDraws
        ``draws`` (C, S, P) and statistics.

    Raises
    ------
    ValueError
        If a parameter is outside its range, or the log density does not give a finite real number
        at a start.

    Examples
    --------
    >>> from bayes.samplers import BAOAB, sample_density
    >>> run = sample_density(
    ...     lambda q: -0.5 * (q - 3).square().sum(), torch.zeros(2), BAOAB(0.5),
    ...     n_chains=4, n_draws=500, burn_in=100, random_state=0,
    ... )
    >>> run.draws.shape, bool((run.mean() - 3).abs().max() < 5 * run.mean_error().max())
    (torch.Size([4, 500, 2]), True)
    """
    check_callable("log_density", log_density, "of a tensor (P,)")
    check_bool("batched", batched)
    position = _starts(init, n_chains)
    potential = potential_of(log_density, batched=batched)
    _check_start(potential(position, None), position)
    return run(
        potential,
        sampler,
        position,
        n_draws=n_draws,
        burn_in=burn_in,
        thin=thin,
        seed=seed_of(random_state),
        compile=compile,
        names=names,
        callback=callback,
        checkpoint=checkpoint,
        stream_to=stream_to,
    )


def _starts(init: Any, n_chains: int | None) -> Tensor:
    if not isinstance(init, Tensor) or not init.is_floating_point() or init.ndim not in (1, 2):
        got = f"shape {tuple(init.shape)}" if isinstance(init, Tensor) else repr(init)
        raise ValueError(
            f"The 'init' parameter must be a floating-point tensor (C, P) or (P,); got {got}."
        )
    if not init.numel():
        raise ValueError(f"The 'init' parameter must have a number; got {tuple(init.shape)}.")
    if n_chains is not None:
        check_size("n_chains", n_chains, 1, 8 * init.shape[-1])
    if init.ndim == 1:
        return init.detach().expand(n_chains or 1, -1).clone()
    if n_chains is not None and len(init) != n_chains:
        raise ValueError(
            f"The 'init' parameter must have one row a chain; got {len(init)} rows with "
            f"n_chains={n_chains}."
        )
    return init.detach().clone()


def _check_start(seen: tuple[Tensor, Tensor], position: Tensor) -> None:
    value, gradient = seen
    if value.shape != position.shape[:1] or gradient.shape != position.shape:
        raise ValueError(
            f"The 'log_density' parameter must give one number a chain; got shape "
            f"{tuple(value.shape)} for {len(position)} chains."
        )
    for what, bad in (
        ("log density", ~torch.isfinite(value)),
        ("gradient", ~torch.isfinite(gradient).all(1)),
    ):
        if bool(bad.any()):
            chain = int(bad.nonzero()[0, 0])
            raise ValueError(
                f"The 'init' parameter must be where log density and gradient are finite; the "
                f"{what} is not at the start of chain {chain}."
            )

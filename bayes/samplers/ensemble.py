r"""A deep ensemble: chains start where a short optimisation from draws of the prior ends.

Adam (Kingma and Ba, 2015) on U, which has the modes of the posterior as its minima, with
:math:`\eta_t = \frac\eta2 (1 + \cos \pi t/n)`, all chains in one batched step.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kernels.checks import check_int, check_real

from .._validation import check_instance
from .base import Potential
from .streams import ChainStreams

N_STEPS = 500
LEARNING_RATE = 0.05


@torch.no_grad()
def deep_ensemble(
    potential: Potential,
    position: Tensor,  # (C, P)
    *,
    seed: int,
    n_observations: int,
    batch_size: int | None = None,
    n_steps: int = N_STEPS,
    learning_rate: float = LEARNING_RATE,
) -> Tensor:
    """Positions (C, P) near modes, each depending on its own start and batches alone.

    Parameters
    ----------
    potential : Potential
    position : Tensor
        (C, P), where each member starts.
    seed : int
        Of the batches.
    n_observations, batch_size : int, int or None
        As in `chains.run`.
    n_steps : int
    learning_rate : float
        Adam's, at the first step: at most how far a parameter moves in it.

    Raises
    ------
    ValueError
        If the potential is not finite where a member ends.
    """
    check_instance("position", position, Tensor, "a tensor (C, P)")
    check_int("n_steps", n_steps, 1)
    check_real("learning_rate", learning_rate, low=0, strict=True)
    check_int("n_observations", n_observations, 1)
    if batch_size is not None:
        check_int("batch_size", batch_size, 1, n_observations)
    streams = ChainStreams(seed, len(position), position.device)
    first, second = torch.zeros_like(position), torch.zeros_like(position)
    for t in range(n_steps):
        batch = None
        if batch_size is not None:
            batch = streams.indices(1, n_observations, batch_size)[0]
        _, gradient = potential(position, batch)
        first = first.lerp(gradient, 0.1)
        second = second.lerp(gradient.square(), 0.001)
        rate = 0.5 * learning_rate * (1 + math.cos(math.pi * t / n_steps))
        scale = torch.sqrt(second / (1 - 0.999 ** (t + 1))) + 1e-8
        position = position - rate / (1 - 0.9 ** (t + 1)) * first / scale
    bad = ~torch.isfinite(potential(position, None)[0])
    if bool(bad.any()):
        raise ValueError(
            f"The 'init' parameter cannot be 'ensemble' here: the optimisation of chain "
            f"{int(bad.nonzero()[0, 0])} left the finite numbers. Scale X and y, or start from "
            f"the prior."
        )
    return position

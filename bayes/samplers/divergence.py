r"""When a chain is stopped, and why.

A chain that leaves the finite numbers is stopped there. One that comes to rest far out, at 1e15
say, where rounding and heavy tails let it live, is found at the end by its potential. The U of
draws concentrates: if :math:`e^{-U/T}` is log-concave,

.. math:: E[U] - \min U \le P\,T, \qquad \mathrm{Var}[U] \le P\,T^2,

and weights of a t law stay within a small multiple of it. A start is no lower than the minimum,
so half of a chain's draws cannot be further than :math:`10\,(P + 10)\,T` above the lowest of the
starts if they are draws of the density.

References
----------
Fradelizi, Madiman and Wang (2016), Optimal concentration of information content for log-concave
densities.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from .base import Info, State
from .draws import Divergence

ASTRAY = 10.0
"""Potential above the lowest, in units of (P + 10) T, at which a chain is given up."""


def is_finite(state: State) -> Tensor:
    """Whether each chain's state is finite and its position can be squared, (C,)."""
    parts = [torch.isfinite(v).flatten(1).all(1) for v in state]
    limit = torch.finfo(state.position.dtype).max ** 0.5
    parts.append((state.position.abs() < limit).all(1))
    return functools.reduce(torch.logical_and, parts)


def cause(
    position: Tensor,  # (P,)
    info: Info,  # of one chain
) -> str:
    """Why a step from this position left the finite numbers."""
    bad = ~torch.isfinite(info.gradient)
    if bool(torch.isnan(info.gradient).any()):
        first = int(bad.nonzero()[0, 0])
        largest = float(position.abs().max())
        return (
            f"the gradient is NaN at {int(bad.sum())} of {len(position)} parameters, first "
            f"{first}, where the largest parameter is {largest:.3g} and the potential "
            f"{float(info.potential):.3g}"
        )
    return (
        f"its position grew without bound (the potential was {float(info.potential):.3g}): the "
        f"step size is too large"
    )


def astray(
    potential: Tensor,  # (C, S) of the draws
    start: Tensor,  # (C,)
    alive: Tensor,  # (C,)
    n_parameters: int,
    temperature: float,
    step: int,
) -> list[Divergence]:
    """Chains among those alive whose draws are not from the bulk of the density, after `step`.

    Examples
    --------
    >>> potential = torch.tensor([[3.0, 4.0, 3.0], [3.0, 1e30, 1e30]])
    >>> alive = torch.tensor([True, True])
    >>> [str(d) for d in astray(potential, torch.tensor([9.0, 9.0]), alive, 5, 1.0, 300)]
    ['Chain 1 was stopped at step 300: half of its draws have a potential above 1e+30, ...
    """
    if not potential.shape[1] or temperature == 0:
        return []
    middle = potential.double().median(1).values
    limit = ASTRAY * (n_parameters + 10) * temperature
    lowest = start.double().min()
    return [
        Divergence(
            chain,
            step,
            f"half of its draws have a potential above {float(middle[chain]):.3g}, more than "
            f"{ASTRAY:.0f} (P + 10) T = {limit:.4g} above the lowest of the starts: they are not "
            f"from the bulk of the density, and the step size is too large",
        )
        for chain in (alive & (middle > lowest + limit)).nonzero()[:, 0].tolist()
    ]

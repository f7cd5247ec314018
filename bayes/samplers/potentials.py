"""Potentials of log densities: U = -log density, with its gradient by autodiff."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .base import Potential

LogDensity = Callable[[Tensor], Tensor]


def potential_of(log_density: LogDensity, *, batched: bool = False) -> Potential:
    """The potential of a log density of a flat vector.

    Parameters
    ----------
    log_density : callable
        (P,) -> scalar, differentiable by ``torch.func`` and mapped over chains by ``vmap``; or,
        if ``batched``, (C, P) -> (C,), each entry of its own row alone.
    batched : bool

    Returns
    -------
    Potential
        It has no batches: the ``batch`` it is called with is None.

    Examples
    --------
    >>> potential = potential_of(lambda q: -0.5 * q.square().sum())
    >>> potential(torch.tensor([[1.0, 2.0]]), None)
    (tensor([2.5000]), tensor([[1., 2.]]))
    """
    if batched:

        def total(position: Tensor) -> tuple[Tensor, Tensor]:
            value = -log_density(position)
            return value.sum(), value

        both = torch.func.grad(total, has_aux=True)
    else:

        def negative(position: Tensor) -> Tensor:
            return -log_density(position)

        both = torch.func.vmap(torch.func.grad_and_value(negative))

    def potential(position: Tensor, batch: Tensor | None) -> tuple[Tensor, Tensor]:
        gradient, value = both(position)
        return value, gradient

    return potential

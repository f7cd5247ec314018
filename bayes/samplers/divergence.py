"""When a chain is stopped, and why."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from .base import Info, State


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

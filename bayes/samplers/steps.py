"""K steps of C chains, one after the other or fused into one compiled call."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .base import Controls, Info, State
from .cyclical import AnySampler

Record = tuple[Tensor, Info, Tensor | None]
"""What a step saw: position, potential with gradient, p^2 / m."""


def take_steps(
    sampler: AnySampler,
    potential: Callable[..., tuple[Tensor, Tensor]],
    state: State,
    noise: Tensor,  # (K, C, P)
    batches: Tensor | None,  # (K, C, B)
    controls: list[Controls],
    record: bool,
    log_scale: Tensor | None = None,  # (C, G)
) -> tuple[State, list[Record]]:
    """K steps, and what was seen at the start of each; one `Controls` may serve them all."""
    if len(controls) < len(noise):
        controls = controls * len(noise)
    if log_scale is not None:
        potential = functools.partial(potential, log_scale=log_scale)
    records = []
    for k in range(len(noise)):
        batch = None if batches is None else batches[k]
        new, info = sampler.update(
            state, functools.partial(potential, batch=batch), noise[k], controls[k]
        )
        if record:
            kinetic = sampler.kinetic(state, info, controls[k])
            records.append((state.position, info, kinetic))
        state = new
    return state, records


@functools.lru_cache(maxsize=8)
def fused_steps(
    sampler: AnySampler, potential: Callable[..., tuple[Tensor, Tensor]]
) -> Callable[..., Any]:
    """`take_steps` of a sampler and a potential as one compiled program."""

    def program(
        state: State,
        noise: Tensor,
        batches: Tensor | None,
        controls: Any,
        record: bool,
        log_scale: Tensor | None,
    ) -> Any:
        return take_steps(sampler, potential, state, noise, batches, controls, record, log_scale)

    # Dynamo counts recompilations by code object: give every program one of its own.
    code = program.__code__.replace(co_name=f"chains_{id(program):x}")
    own = types.FunctionType(code, globals(), code.co_name, None, program.__closure__)
    return torch.compile(own, dynamic=False, fullgraph=True)

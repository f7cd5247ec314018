"""The updates as one fused pass over the state, through ``torch.compile``.

Inductor turns each formula of ``naive.py`` into one loop that reads every tensor once and writes
the new state once. Numbers enter as 0-dimensional tensors, so that a changing step size compiles
nothing anew.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def update(formula: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Run a formula of ``naive.py`` compiled, with these arguments by name."""
    like: Tensor = arguments["position"]
    names = tuple(arguments)
    values = [
        value
        if isinstance(value, Tensor)
        else torch.tensor(value, dtype=like.dtype, device=like.device)
        for value in arguments.values()
    ]
    return _program(formula, names)(*values)


@functools.cache
def _program(formula: Callable[..., Any], names: tuple[str, ...]) -> Callable[..., Any]:
    def program(*values: Tensor) -> Any:
        return formula(**dict(zip(names, values, strict=True)))

    # Dynamo counts recompilations by code object: give every program one of its own.
    code = program.__code__.replace(co_name=f"sgmcmc_{formula.__name__}_{id(program):x}")
    own = types.FunctionType(code, globals(), code.co_name, None, program.__closure__)
    return torch.compile(own, dynamic=True, fullgraph=True)

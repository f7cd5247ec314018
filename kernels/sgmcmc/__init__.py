"""Updates of stochastic-gradient Markov chain Monte Carlo on (C, P) tensors.

One function a sampler; `naive` has the equations. Small states run in plain PyTorch, large ones in
a compiled pass. Inside a ``torch.compile`` of many steps the plain form is traced and fused there.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from ..compiler import has_compiler
from . import naive
from .naive import scale_adaptation, sufficient_decay

__all__ = [
    "baoab",
    "can_compile",
    "mclmc",
    "psgld",
    "scale_adaptation",
    "sghmc",
    "sgld",
    "sgnht",
    "sufficient_decay",
]

MIN_COMPILED_NUMBERS = 2**17
"""Numbers in the position from which a compiled pass is used; the choice depends on nothing else,
so a result does not depend on what ran before it."""

Formula = TypeVar("Formula", bound=Callable[..., Any])


def _dispatching(formula: Formula) -> Formula:
    """The formula with one more argument: ``backend`` in {"auto", "naive", "compiled"}."""
    signature = inspect.signature(formula)

    @functools.wraps(formula)
    def update(*args: Any, backend: str = "auto", **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return formula(*args, **kwargs)
        position = args[0] if args else kwargs["position"]
        large = position.numel() >= MIN_COMPILED_NUMBERS and can_compile(position.device)
        if backend == "compiled" or (backend == "auto" and large):
            from . import compiled

            return compiled.update(formula, signature.bind(*args, **kwargs).arguments)
        return formula(*args, **kwargs)

    return update  # type: ignore[return-value]


def can_compile(device: torch.device) -> bool:
    """Whether ``torch.compile`` finds what it needs: on a CPU, a C++ compiler."""
    return device.type != "cpu" or has_compiler()


sgld = _dispatching(naive.sgld)
psgld = _dispatching(naive.psgld)
sghmc = _dispatching(naive.sghmc)
baoab = _dispatching(naive.baoab)
sgnht = _dispatching(naive.sgnht)
mclmc = _dispatching(naive.mclmc)

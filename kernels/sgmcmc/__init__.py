"""Updates of stochastic-gradient Markov chain Monte Carlo on (C, P) tensors.

One function a sampler; `naive` has the equations. Small states run in plain PyTorch, large ones in
a compiled pass, and states on a GPU in a hand-written kernel where there is one. ``noise`` is a
tensor, or a `kernels.philox.Stream` whose normals are drawn where they are used. Inside a
``torch.compile`` of many steps the plain form is traced and fused there.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from .. import compiler, gpu
from ..checks import check_choice
from ..philox import Stream
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

IN_TRITON = ("sgld", "sghmc", "baoab")
"""Updates with a hand-written GPU kernel; scale-adapted SGHMC is `sghmc` with tensors for mass,
decay and noise variance."""

Formula = TypeVar("Formula", bound=Callable[..., Any])


def _dispatching(formula: Formula) -> Formula:
    """The formula with one more argument: ``backend`` in {"auto", "naive", "compiled", "triton"},
    and with a `Stream` allowed for ``noise``."""
    signature = inspect.signature(formula)
    name = formula.__name__

    @functools.wraps(formula)
    def update(*args: Any, backend: str = "auto", **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return formula(*args, **kwargs)
        position: Tensor = args[0] if args else kwargs["position"]
        drawn = any(isinstance(value, Stream) for value in (*args, *kwargs.values()))
        small = position.numel() < MIN_COMPILED_NUMBERS
        if backend == "auto" and small and not drawn and not position.is_cuda:
            return formula(*args, **kwargs)
        check_choice("backend", backend, ("auto", "naive", "compiled", "triton"))
        given = signature.bind(*args, **kwargs).arguments
        if backend == "triton" and name not in IN_TRITON:
            raise ValueError(
                f"The 'backend' parameter must be 'naive' or 'compiled' for {name}, which has no "
                f"Triton kernel; got 'triton'."
            )
        if backend == "triton" and _tracks(given):
            raise ValueError(
                "The 'backend' parameter must not be 'triton' for tensors that require a gradient: "
                "the kernel has no derivative."
            )
        if backend == "triton" or (backend == "auto" and _in_triton(name, given)):
            from . import triton

            return triton.update(name, given)
        if drawn:
            given["noise"] = given["noise"].normal(tuple(position.shape), position)
        large = not small and can_compile(position.device)
        if backend == "compiled" or (backend == "auto" and large):
            from . import compiled

            return compiled.update(formula, given)
        return formula(**given)

    return update  # type: ignore[return-value]


def can_compile(device: torch.device) -> bool:
    """Whether ``torch.compile`` has what it needs: a C++ compiler for a CPU, Triton for a GPU."""
    return not compiler.missing() if device.type == "cpu" else not gpu.missing()


def _in_triton(name: str, given: dict[str, Any]) -> bool:
    """Whether an update of tensors on a GPU has a kernel; says once why not."""
    position: Tensor = given["position"]
    if not position.is_cuda:
        return False
    reason = gpu.missing()
    if name not in IN_TRITON:
        reason = "it has none"
    elif position.dtype not in (torch.float32, torch.float64):
        reason = f"it takes float32 and float64, not {position.dtype}"
    elif _tracks(given):
        reason = "it has no derivative"
    if reason:
        gpu.warn_slower(f"the {name} update", reason)
    return not reason


def _tracks(given: dict[str, Any]) -> bool:
    tensors = (value for value in given.values() if isinstance(value, Tensor))
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


sgld = _dispatching(naive.sgld)
psgld = _dispatching(naive.psgld)
sghmc = _dispatching(naive.sghmc)
baoab = _dispatching(naive.baoab)
sgnht = _dispatching(naive.sgnht)
mclmc = _dispatching(naive.mclmc)

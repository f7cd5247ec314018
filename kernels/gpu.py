"""Where the hand-written GPU kernels can run, and one warning where they cannot.

Triton is imported by the kernels that need it and by nothing else, so that the library works, and
imports as quickly, without it. Without a GPU the kernels run in Triton's interpreter, which is slow
and meant for tests: it must be asked for with ``TRITON_INTERPRET=1`` before Triton is imported.
"""

from __future__ import annotations

import functools
import warnings
from importlib.metadata import PackageNotFoundError, version

import torch

MIN_TRITON = (3, 6)
"""The oldest Triton the kernels are written for: the one of torch 2.11."""


def is_available(device: torch.device | None = None) -> bool:
    """Whether the Triton kernels run: on a device, or, given none, on any of this machine.

    Examples
    --------
    >>> isinstance(is_available(), bool)
    True
    """
    if missing():
        return False
    if device is None:
        return torch.cuda.is_available() or is_interpreting()
    return device.type == "cuda" or (device.type == "cpu" and is_interpreting())


def require(device: torch.device) -> None:
    """Refuse a device on which the Triton kernels do not run.

    Raises
    ------
    ImportError
        If Triton is missing or too old.
    ValueError
        If the tensors are neither on a CUDA device nor, under the interpreter, on the CPU.
    """
    if reason := missing():
        raise ImportError(f"The 'triton' backend needs Triton 3.6 or newer; {reason}.")
    if not is_available(device):
        raise ValueError(
            "The 'triton' backend needs tensors on a CUDA device, or on the CPU with "
            f"TRITON_INTERPRET=1 set before Triton is imported; got tensors on {str(device)!r}."
        )


@functools.cache
def missing() -> str:
    """What keeps Triton from being used, or nothing."""
    try:
        found = version("triton")
    except PackageNotFoundError:
        return "it is not installed"
    if tuple(int(part) for part in found.split(".")[:2]) < MIN_TRITON:
        return f"version {found} is installed"
    return ""


@functools.cache
def is_interpreting() -> bool:
    """Whether Triton runs kernels in its interpreter, as it decided when it was imported."""
    import triton

    return not isinstance(triton.language.cdiv, triton.JITFunction)


@functools.cache
def warn_slower(operation: str, reason: str) -> None:
    """Say once, for an operation and a reason, that a slower path runs on a GPU."""
    warnings.warn(
        f"The fused GPU kernel of {operation} is not used: {reason}. A slower path gives the same "
        "results.",
        RuntimeWarning,
        stacklevel=4,
    )

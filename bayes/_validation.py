"""Checks of inputs at the public boundary, and explicit randomness."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kernels.checks import check_int, check_memory


def as_inputs(name: str, value: Any, *, min_rows: int = 1) -> Tensor:
    """Finite inputs (..., N, D) as a floating-point tensor, at least ``min_rows`` rows."""
    try:
        tensor = value if isinstance(value, Tensor) else torch.tensor(np.asarray(value))
        if tensor.is_complex():
            raise TypeError("complex numbers")
        tensor = tensor if tensor.is_floating_point() else tensor.to(torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"The {name!r} parameter must be numeric; got {value!r}.") from error
    if tensor.ndim < 2:
        raise ValueError(
            f"The {name!r} parameter must have shape (N, D), one row an observation; "
            f"got shape {tuple(tensor.shape)}. Reshape one feature with x[:, None]."
        )
    if len(tensor) < min_rows:
        raise ValueError(
            f"The {name!r} parameter must have at least {min_rows} rows; got {len(tensor)}."
        )
    if not bool(torch.isfinite(tensor).all()):
        rows = (~torch.isfinite(tensor)).flatten(1).any(1).nonzero()[:, 0].tolist()
        raise ValueError(
            f"The {name!r} parameter must be finite; got NaN or infinity in {len(rows)} rows, "
            f"first row {rows[0]}. Drop or impute them."
        )
    return tensor


def as_values(name: str, value: Any, n: int) -> Tensor:
    """Finite numbers (N,), or one for all, as a float64 tensor."""
    try:
        tensor = value if isinstance(value, Tensor) else torch.tensor(np.asarray(value))
        if tensor.is_complex():
            raise TypeError("complex numbers")
        tensor = tensor.to(torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"The {name!r} parameter must be numeric; got {value!r}.") from error
    if tensor.ndim > 1 or tensor.shape not in ((), (n,)) or not bool(tensor.isfinite().all()):
        raise ValueError(
            f"The {name!r} parameter must be {n} finite numbers, one a row; got {value!r}."
        )
    return tensor


def check_instance(name: str, value: Any, kind: Any, what: str) -> Any:
    """An object of a class, which ``what`` describes."""
    if not isinstance(value, kind):
        raise ValueError(f"The {name!r} parameter must be {what}; got {value!r}.")
    return value


def check_callable(name: str, value: Any, form: str) -> Any:
    """Something that can be called as ``form`` shows."""
    if not callable(value):
        raise ValueError(f"The {name!r} parameter must be a callable {form}; got {value!r}.")
    return value


def check_sequence(name: str, value: Any, what: str) -> list[Any]:
    """The items of a list, tuple or array of one dimension."""
    is_array = isinstance(value, np.ndarray | Tensor) and value.ndim == 1
    if not is_array and (isinstance(value, str | bytes) or not isinstance(value, Sequence)):
        raise ValueError(f"The {name!r} parameter must be a sequence of {what}; got {value!r}.")
    return list(value)


def check_size(name: str, value: Any, low: int, n_bytes: int) -> int:
    """An int of at least ``low`` that fits in memory, at so many bytes for each."""
    size = check_int(name, value, low)
    check_memory(name, size, size * n_bytes)
    return size


def check_weights(name: str, value: Any, n_weights: int) -> Tensor:
    """Weights (..., P). Their numbers are not looked at: a chain may have gone astray."""
    if not isinstance(value, Tensor) or not value.is_floating_point() or not value.ndim:
        raise ValueError(
            f"The {name!r} parameter must be a floating-point tensor (..., {n_weights}); "
            f"got {value!r}."
        )
    if value.shape[-1] != n_weights:
        raise ValueError(
            f"The {name!r} parameter must have shape (..., {n_weights}); "
            f"got shape {tuple(value.shape)}."
        )
    return value


def check_path(name: str, value: Any) -> Path:
    """Where a file or folder is, or may be made."""
    if not isinstance(value, str | os.PathLike) or not os.fspath(value) or "\0" in str(value):
        raise ValueError(f"The {name!r} parameter must be the path of a file; got {value!r}.")
    return Path(value)


def torch_generator(
    random_state: Any = None, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A torch generator from a seed, a NumPy generator or None; a torch generator is handed on.

    A generator that is handed on is advanced by whoever draws from it.

    Examples
    --------
    >>> torch.rand(1, generator=torch_generator(3)) == torch.rand(1, generator=torch_generator(3))
    tensor([True])
    """
    if isinstance(random_state, torch.Generator):
        return random_state
    try:
        rng = np.random.default_rng(random_state)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "The 'random_state' parameter must be None, a non-negative int, a NumPy generator "
            f"or a torch.Generator; got {random_state!r}."
        ) from error
    return torch.Generator(device).manual_seed(int(rng.integers(2**63)))

"""Checks of inputs at the public boundary, and explicit randomness."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from torch import Tensor


def as_inputs(name: str, value: Any, *, min_rows: int = 1) -> Tensor:
    """Finite inputs (..., N, D) as a floating-point tensor, at least ``min_rows`` rows."""
    try:
        tensor = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
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


def check_memory(name: str, value: int, n_bytes: int) -> None:
    """Refuse what needs more memory than the machine has."""
    if not hasattr(os, "sysconf"):  # not POSIX: torch itself says so when it runs out
        return
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if n_bytes > limit:
        raise ValueError(
            f"The {name!r} parameter must fit in memory ({limit / 2**30:.3g} GiB); "
            f"got {value}, which needs {n_bytes / 2**30:.3g} GiB. Take a smaller one."
        )

"""Checks at the public boundary: parameter, rule, value."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def as_tensor(name: str, value: Any, *, like: Tensor | None = None) -> Tensor:
    """A finite floating-point tensor; Python numbers and integers become float64."""
    try:
        if not isinstance(value, Tensor | np.ndarray):
            value = np.asarray(value, dtype=np.float64)
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"The {name!r} parameter must be numeric; got {value!r}.") from error
    if tensor.is_complex():
        raise ValueError(f"The {name!r} parameter must be real; got {value!r}.")
    if not tensor.is_floating_point():
        tensor = tensor.to(torch.float64)
    if like is not None:
        tensor = tensor.to(like)
    if not bool(torch.isfinite(tensor).all()):
        raise ValueError(
            f"The {name!r} parameter must be finite; got NaN or infinity in {value!r}."
        )
    return tensor


def per_expert(name: str, value: Any, slope: Tensor) -> Tensor:
    """One number an expert, (..., E), for a slope of shape (..., E, D)."""
    tensor = as_tensor(name, value, like=slope)
    if tensor.shape != slope.shape[:-1]:
        raise ValueError(
            f"The {name!r} parameter must have shape {tuple(slope.shape[:-1])}, one number an "
            f"expert as 'slope' has; got shape {tuple(tensor.shape)}."
        )
    return tensor


def check_shape(name: str, tensor: Tensor, ndim: int, shape: str) -> Tensor:
    if tensor.ndim < ndim:
        raise ValueError(
            f"The {name!r} parameter must have shape {shape}; got shape {tuple(tensor.shape)}."
        )
    return tensor


def check_features(X: Any, n_features: int) -> Tensor:
    """X as a finite tensor (..., N, D) with the model's number of features."""
    X = as_tensor("X", X)
    if X.ndim < 2 or X.shape[-1] != n_features:
        raise ValueError(
            f"The 'X' parameter must have shape (..., N, {n_features}); got shape {tuple(X.shape)}."
        )
    return X


def generator(random_state: Any) -> np.random.Generator:
    """A NumPy generator from a seed, a SeedSequence, a generator or None (fresh entropy).

    A legacy ``RandomState`` is accepted because scikit-learn hands them out; it is advanced.
    """
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(0, 2**32, size=4, dtype=np.uint32))
    try:
        return np.random.default_rng(random_state)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "The 'random_state' parameter must be None, a non-negative int, a SeedSequence or a "
            f"NumPy generator; got {random_state!r}."
        ) from error

"""Checks of single parameters at a public boundary: parameter, rule, value."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np


def check_int(name: str, value: Any, low: int, high: int | None = None, *, why: str = "") -> int:
    """An int in [low, high]; ``why`` says where the bound comes from."""
    is_int = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_int or value < low or (high is not None and value > high):
        top = "inf)" if high is None else f"{high}]"
        raise ValueError(
            f"The {name!r} parameter must be an int in [{low}, {top}{why}; got {value!r}."
        )
    return int(value)


def check_real(
    name: str, value: Any, *, low: float = -np.inf, high: float = np.inf, strict: bool = False
) -> float:
    """A real number in [low, high], or in (low, high] if strict."""
    is_real = isinstance(value, int | float | np.integer | np.floating)
    is_real = is_real and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if not is_real or value > high or value < low or (strict and value == low):
        bracket = "(" if strict else "["
        raise ValueError(
            f"The {name!r} parameter must be a real number in {bracket}{low}, {high}]; "
            f"got {value!r}."
        )
    return float(value)


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """One of some words."""
    if not isinstance(value, str) or value not in choices:
        options = ", ".join(repr(c) for c in choices)
        raise ValueError(f"The {name!r} parameter must be one of {{{options}}}; got {value!r}.")
    return str(value)

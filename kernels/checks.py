"""Checks of single parameters at a public boundary: parameter, rule, value."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np

MAX_COUNT = 1_000_000
"""Most repetitions (starts, rounds, iterations, replicates, nodes) that anyone means: a larger
number is a slip, such as a seed in a count's place, and what it asks for would not end."""

MAX_ROWS = 10**12
"""Most observations that are drawn or read chunk by chunk: months of work at 1e5 a second."""


def check_int(name: str, value: Any, low: int, high: int | None = None, *, why: str = "") -> int:
    """An int in [low, high]; ``why`` says where the bound comes from."""
    is_int = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_int or value < low or (high is not None and value > high):
        top = "inf)" if high is None else f"{high}]"
        raise ValueError(
            f"The {name!r} parameter must be an int in [{low}, {top}{why}; got {value!r}."
        )
    return int(value)


def check_count(name: str, value: Any, low: int = 1) -> int:
    """How often something is done, or how much of it there is: an int in [low, `MAX_COUNT`]."""
    return check_int(name, value, low, MAX_COUNT)


def check_memory(name: str, value: int, n_bytes: int) -> None:
    """Refuse a size for whose ``n_bytes`` the machine has no memory."""
    if not hasattr(os, "sysconf"):  # not POSIX: who allocates says so
        return
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if n_bytes > limit:
        raise ValueError(
            f"The {name!r} parameter must fit in memory ({limit / 2**30:.3g} GiB); got {value!r}, "
            f"which needs {n_bytes / 2**30:.3g} GiB."
        )


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


def check_bool(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"The {name!r} parameter must be True or False; got {value!r}.")
    return bool(value)


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """One of some words."""
    if not isinstance(value, str) or value not in choices:
        options = ", ".join(repr(c) for c in choices)
        raise ValueError(f"The {name!r} parameter must be one of {{{options}}}; got {value!r}.")
    return str(value)

"""One rule for all counts."""

from __future__ import annotations

from numbers import Integral
from typing import Any


def check_count(name: str, value: Any, low: int = 1) -> int:
    """The int, if it is one and at least ``low``."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < low:
        raise ValueError(f"The {name!r} parameter must be an int of at least {low}; got {value!r}.")
    return int(value)

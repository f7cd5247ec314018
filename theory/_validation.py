"""Checks of arrays at the public boundary: parameter, rule, value."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def as_array(name: str, value: Any, *, finite: bool = True) -> NDArray[np.float64]:
    """Numbers as float64, finite ones unless said otherwise."""
    try:
        numbers = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"The {name!r} parameter must be numeric; got {value!r}.") from error
    if finite and not np.isfinite(numbers).all():
        raise ValueError(
            f"The {name!r} parameter must be finite; got NaN or infinity in {value!r}."
        )
    return numbers

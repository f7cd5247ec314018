"""Values as JSON holds them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def plain(value: Any) -> Any:
    """A value in JSON's types: None for what is missing or not finite, text for paths.

    Examples
    --------
    >>> from pathlib import Path
    >>> plain({"path": Path("a"), "found": (1, float("nan"), float("inf"))})
    {'path': 'a', 'found': [1, None, None]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if hasattr(value, "item"):  # NumPy's scalars
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)

"""Simple forecasters behind the protocol of `CGLUBNF`, to compare with.

Each offers ``fit(df)``, ``predict``, ``predict_quantiles`` and ``predict_interval``; `base` says
how their intervals come about.
"""

from importlib import import_module
from typing import Any

from ..records import Schema

_HOMES = {
    "Boosting": "boosting",
    "Climatology": "climatology",
    "Interpolation": "interpolation",
    "InverseDistance": "inverse_distance",
    "Persistence": "persistence",
    "SVGP": "svgp",
}

__all__ = sorted([*_HOMES, "standard"])


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def standard(schema: Schema, random_state: int = 0) -> dict[str, Any]:
    """All baselines for a table, by name, as `evaluate` takes them.

    Examples
    --------
    >>> sorted(standard(Schema("time", ["x"], "pm25")))[:3]
    ['Boosting', 'Climatology', 'Interpolation']
    """
    return {name: __getattr__(name)(**vars(schema), random_state=random_state) for name in _HOMES}

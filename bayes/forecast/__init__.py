"""Forecasts of incomplete space-time records, with intervals that hold.

`Schema` and `read_records` check a table, `CGLUBNF` and the `baselines` learn from it,
`make_mask` hides parts of it, `Conformal` recalibrates, `evaluate` compares, `synthetic_city`
makes a table to try it all on.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "CGLUBNF": "estimator",
    "Conformal": "calibration",
    "ForecastTask": "evaluation",
    "MaskTask": "evaluation",
    "Records": "records",
    "RowsTask": "evaluation",
    "Schema": "records",
    "evaluate": "evaluation",
    "make_mask": "masks",
    "pit_histogram": "calibration",
    "read_records": "records",
    "reliability": "calibration",
    "score_table": "scores",
    "synthetic_city": "city",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)

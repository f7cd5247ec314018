"""Standard errors, identifiability and confidence intervals of fitted models.

`covariance` and `delta_intervals` serve batches of fits, `interval` one function of one fit, by
three methods; each says where its limit law fails. `identifiability_report` says in words what a
model's density leaves open.
"""

from .covariance import Covariance, covariance
from .families import FlatFamily
from .identifiability import IdentifiabilityReport, NullDirection, identifiability_report
from .intervals import Interval, delta_intervals, interval

__all__ = [
    "Covariance",
    "FlatFamily",
    "IdentifiabilityReport",
    "Interval",
    "NullDirection",
    "covariance",
    "delta_intervals",
    "identifiability_report",
    "interval",
]

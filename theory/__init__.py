"""What the theorems say, as code: losses, distances, predicted exponents, rates and verdicts.

Everything here takes models and tidy tables as arguments and computes in float64; nothing reads
a store. `voronoi_loss` and `hellinger` measure a fit, `fit_rate` and `verdict` judge how errors
shrink, `exponent` says what was predicted, `attainable_distance` what is attainable at all,
`independence_report` which activations identify their gate, `get_claim` what is claimed and what
could refute it.
"""

from .algebra import Rbar, rbar
from .attainable import AttainableDistance, attainable_distance
from .boundaries import boundary_deviation, selection_distance
from .claims import Claim, claim_names, get_claim
from .distances import Distance, hellinger, total_variation
from .exponents import exponent
from .independence import IndependenceReport, independence_report
from .rates import Rate, fit_rate
from .verdict import Verdict, verdict
from .voronoi import VoronoiLoss, voronoi_loss

__all__ = [
    "AttainableDistance",
    "Claim",
    "Distance",
    "IndependenceReport",
    "Rate",
    "Rbar",
    "Verdict",
    "VoronoiLoss",
    "attainable_distance",
    "boundary_deviation",
    "claim_names",
    "exponent",
    "fit_rate",
    "get_claim",
    "hellinger",
    "independence_report",
    "rbar",
    "selection_distance",
    "total_variation",
    "verdict",
    "voronoi_loss",
]

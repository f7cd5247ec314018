"""Inverse bounds by quadrature: at which order the density notices a deviation, without data.

`Neighbourhood` is the set of fitted measures, `discrepancy` their distance from the truth to the
last digit, `local_exponent` the smallest distance with one deviation fixed, `inverse_bound` the
verdict on a loss; `settle` runs a named setting. `flat` holds families of equal densities,
`two_point` lower bounds on every estimator.
"""

from .flat import FlatFamily, every_cell_over_fitted, temperature_ray
from .inverse_bound import InverseBound, inverse_bound, ratios
from .local_exponent import LocalExponent, local_exponent
from .neighbourhood import Neighbourhood
from .quotient import Discrepancy, discrepancy
from .settings import SETTINGS, Setting, Settlement, settle
from .sufficiency import Sufficiency, topk_sufficiency
from .two_point import TwoPoint, moving_pairs, pointwise_pairs

__all__ = [
    "SETTINGS",
    "Discrepancy",
    "FlatFamily",
    "InverseBound",
    "LocalExponent",
    "Neighbourhood",
    "Setting",
    "Settlement",
    "Sufficiency",
    "TwoPoint",
    "discrepancy",
    "every_cell_over_fitted",
    "inverse_bound",
    "local_exponent",
    "moving_pairs",
    "pointwise_pairs",
    "ratios",
    "settle",
    "temperature_ray",
    "topk_sufficiency",
]

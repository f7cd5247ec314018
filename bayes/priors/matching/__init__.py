"""Methods that match a prior's functions with those of a target, one a file."""

from .bures import Bures
from .energy import Energy
from .fit import fit_functional_prior
from .method import Method
from .moments import Moments
from .run import FitRecord, Progress
from .sinkhorn import Sinkhorn
from .sliced import Sliced
from .wasserstein import Wasserstein

__all__ = [
    "Bures",
    "Energy",
    "FitRecord",
    "Method",
    "Moments",
    "Progress",
    "Sinkhorn",
    "Sliced",
    "Wasserstein",
    "fit_functional_prior",
]

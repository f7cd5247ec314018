"""Gated Gaussian mixtures of experts: models, simulation and maximum likelihood.

Start with `GaussianMoE` (a gate and experts), draw data with a design such as `Uniform`, fit
with `GaussianMoERegressor`, ask what is identified and how well (`inference`), how many experts
there are (`selection`), and look (`plots`). `gates/base.py` says what a gate is.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .designs import Design, Grid, Normal, Uniform
from .experts import ConstantExperts, LinearExperts
from .fit.certificate import Stationarity
from .fit.mle import MLE, fit_mle
from .gates import (
    ActivationDenseToSparseGate,
    DenseToSparseGate,
    Gate,
    GateTemplate,
    LaplaceGate,
    SigmoidGate,
    SoftmaxGate,
    TopKGate,
)
from .inference import (
    Covariance,
    IdentifiabilityReport,
    Interval,
    covariance,
    identifiability_report,
    interval,
)
from .mixing_measure import MixingMeasure
from .model import GaussianMoE
from .selection import (
    Dendrogram,
    InformationCriteria,
    SelectionResult,
    dendrogram,
    information_criteria,
    select_n_experts,
)

if TYPE_CHECKING:
    from .regressor import GaussianMoERegressor, PredictiveDistribution

_HOME = {"GaussianMoERegressor": "regressor", "PredictiveDistribution": "regressor"}

__all__ = [
    "MLE",
    "ActivationDenseToSparseGate",
    "ConstantExperts",
    "Covariance",
    "Dendrogram",
    "DenseToSparseGate",
    "Design",
    "Gate",
    "GateTemplate",
    "GaussianMoE",
    "GaussianMoERegressor",
    "Grid",
    "IdentifiabilityReport",
    "InformationCriteria",
    "Interval",
    "LaplaceGate",
    "LinearExperts",
    "MixingMeasure",
    "Normal",
    "PredictiveDistribution",
    "SelectionResult",
    "SigmoidGate",
    "SoftmaxGate",
    "Stationarity",
    "TopKGate",
    "Uniform",
    "covariance",
    "dendrogram",
    "fit_mle",
    "identifiability_report",
    "information_criteria",
    "interval",
    "select_n_experts",
]


def __getattr__(name: str) -> Any:
    """Import what needs scikit-learn on first use, so that `import moe_stats` is quick."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

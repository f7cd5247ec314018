"""Gated Gaussian mixtures of experts: models, simulation and maximum likelihood.

Start with `GaussianMoE` (a gate and experts), draw data with a design such as `Uniform`, fit
with `GaussianMoERegressor`, ask what is identified and how well (`inference`), how many experts
there are (`selection`), and look (`plots`). `gates/base.py` says what a gate is.
"""

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
from .regressor import GaussianMoERegressor, PredictiveDistribution
from .selection import (
    Dendrogram,
    InformationCriteria,
    SelectionResult,
    dendrogram,
    information_criteria,
    select_n_experts,
)

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

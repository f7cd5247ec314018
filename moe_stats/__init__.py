"""Gated Gaussian mixtures of experts: models, simulation and maximum likelihood.

Start with `GaussianMoE` (a gate and experts), draw data with a design such as `Uniform`, fit
with `GaussianMoERegressor`. `gates/base.py` says what a gate is.
"""

from .designs import Design, Grid, Normal, Uniform
from .experts import LinearExperts
from .fit.certificate import Stationarity
from .fit.mle import MLE, fit_mle
from .gates import Gate, GateTemplate, SoftmaxGate, TopKGate
from .mixing_measure import MixingMeasure
from .model import GaussianMoE
from .regressor import GaussianMoERegressor, PredictiveDistribution

__all__ = [
    "MLE",
    "Design",
    "Gate",
    "GateTemplate",
    "GaussianMoE",
    "GaussianMoERegressor",
    "Grid",
    "LinearExperts",
    "MixingMeasure",
    "Normal",
    "PredictiveDistribution",
    "SoftmaxGate",
    "Stationarity",
    "TopKGate",
    "Uniform",
    "fit_mle",
]

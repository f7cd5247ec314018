"""Priors over a network's weights that mean something as priors over functions.

`fit_functional_prior` gives a family of priors (`GaussianPrior`, ...) the functions of a Gaussian
process.
"""

from ..networks import MLP, BayesianNetwork, ConvNet, as_network
from .base import Prior
from .baselines import fixed_gaussian, fixed_hierarchical
from .flow import FlowPrior
from .gaussian import GaussianPrior
from .hierarchical import HierarchicalPrior
from .matching import fit_functional_prior
from .measurement import Box, Density, Grid, Mixture, TrainingRows
from .report import PriorReport
from .storage import load_prior
from .student_t import StudentTPrior
from .targets import CallableTarget, GaussianProcessTarget, hierarchical_rbf

FAMILIES: dict[str, type[Prior]] = {
    f.family: f for f in (GaussianPrior, HierarchicalPrior, FlowPrior, StudentTPrior)
}
"""Families by the name under which they are saved."""

__all__ = [
    "FAMILIES",
    "MLP",
    "BayesianNetwork",
    "Box",
    "CallableTarget",
    "ConvNet",
    "Density",
    "FlowPrior",
    "GaussianPrior",
    "GaussianProcessTarget",
    "Grid",
    "HierarchicalPrior",
    "Mixture",
    "Prior",
    "PriorReport",
    "StudentTPrior",
    "TrainingRows",
    "as_network",
    "fit_functional_prior",
    "fixed_gaussian",
    "fixed_hierarchical",
    "hierarchical_rbf",
    "load_prior",
]

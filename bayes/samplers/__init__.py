"""SG-MCMC: many chains at once, exact where it says so.

`base` says how samplers work. `sample_density` draws from any differentiable density, `sample` from
the posterior of a network; `SAMPLERS` lists the algorithms.
"""

from ..storage import StorageError
from .adaptive_sghmc import AdaptiveSGHMC
from .baoab import BAOAB
from .base import Controls, Info, Potential, Sampler, Schedule
from .chains import Progress, SamplingWarning
from .control_variates import ControlVariate
from .cyclical import Cyclical
from .density import sample_density
from .draws import ChainDraws, Divergence
from .ensemble import deep_ensemble
from .folder import read_draws
from .likelihoods import Categorical, Gaussian, HeteroscedasticGaussian, Likelihood, StudentT
from .mclmc import MCLMC
from .network import sample
from .network_potential import NetworkPotential
from .posterior import Posterior
from .predictions import Classes, Mixture
from .psgld import PSGLD
from .references import LinearRegression, NUTSDraws, nuts_reference
from .schedules import CosineCycles, PolynomialDecay
from .sghmc import SGHMC
from .sgld import SGLD
from .sgnht import SGNHT
from .step_size import StepSize, find_step_size

__all__ = [
    "BAOAB",
    "MCLMC",
    "PSGLD",
    "SAMPLERS",
    "SGHMC",
    "SGLD",
    "SGNHT",
    "AdaptiveSGHMC",
    "Categorical",
    "ChainDraws",
    "Classes",
    "ControlVariate",
    "Controls",
    "CosineCycles",
    "Cyclical",
    "Divergence",
    "Gaussian",
    "HeteroscedasticGaussian",
    "Info",
    "Likelihood",
    "LinearRegression",
    "Mixture",
    "NUTSDraws",
    "NetworkPotential",
    "PolynomialDecay",
    "Posterior",
    "Potential",
    "Progress",
    "Sampler",
    "SamplingWarning",
    "Schedule",
    "StepSize",
    "StorageError",
    "StudentT",
    "deep_ensemble",
    "find_step_size",
    "nuts_reference",
    "read_draws",
    "sample",
    "sample_density",
]

SAMPLERS: dict[str, type[Sampler]] = {
    "sgld": SGLD,
    "psgld": PSGLD,
    "sghmc": SGHMC,
    "adaptive-sghmc": AdaptiveSGHMC,
    "baoab": BAOAB,
    "sgnht": SGNHT,
    "mclmc": MCLMC,
}

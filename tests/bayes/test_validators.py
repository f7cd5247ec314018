"""Every public function of networks, priors and samplers: works, or names the parameter."""

import pytest
import torch
from gpytorch.kernels import RBFKernel
from hostile import Entry, check, each

from bayes.networks import MLP, Activation, BayesianNetwork, ConvNet, as_network
from bayes.priors import (
    Box,
    CallableTarget,
    Density,
    FlowPrior,
    GaussianPrior,
    GaussianProcessTarget,
    Grid,
    HierarchicalPrior,
    StudentTPrior,
    TrainingRows,
    fit_functional_prior,
    fixed_gaussian,
    fixed_hierarchical,
    hierarchical_rbf,
    load_prior,
)
from bayes.priors import Mixture as MixtureOfSets
from bayes.priors.matching import Bures, Energy, Moments, Sinkhorn, Sliced, Wasserstein
from bayes.samplers import (
    BAOAB,
    MCLMC,
    PSGLD,
    SGHMC,
    SGLD,
    SGNHT,
    AdaptiveSGHMC,
    Categorical,
    ControlVariate,
    CosineCycles,
    Cyclical,
    Gaussian,
    HeteroscedasticGaussian,
    LinearRegression,
    NetworkPotential,
    PolynomialDecay,
    StudentT,
    deep_ensemble,
    find_step_size,
    read_draws,
    sample,
    sample_density,
)
from bayes.samplers.diagnostics import ess, rhat

NET = MLP(1, [3], 1)
CLASSIFIER = MLP(1, [3], 2)
MODULE = torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.Tanh(), torch.nn.Linear(2, 1))
X = torch.linspace(-1, 1, 6, dtype=torch.float64)[:, None]
Y = X[:, 0].sin()
PRIOR = GaussianPrior.per_layer(NET)
TARGET = GaussianProcessTarget(RBFKernel())
W = PRIOR.sample(2, random_state=0)
RUN = {"n_chains": 2, "n_draws": 2, "burn_in": 1, "thin": 1, "random_state": 0}
POSTERIOR = sample(NET, PRIOR, X, Y, SGHMC(1e-3), batch_size=None, **RUN)
LAW = POSTERIOR.predict(X)
CLASSES = sample(
    CLASSIFIER, fixed_gaussian(CLASSIFIER), X, [0, 1] * 3, SGLD(1e-3), batch_size=None,
    likelihood=Categorical(), **RUN,
).predict(X)  # fmt: skip
DRAWS = torch.randn(2, 10, 2, generator=torch.Generator().manual_seed(0))
LINEAR = LinearRegression(X, Y, 1.0, 1.0)


def log_density(q):
    return -0.5 * q.square().sum()


def density(prior):
    """Its shape: at NaN, where a chain went astray, a log density is NaN."""
    return lambda weights: prior.log_prob(weights).shape


def draw(X, n, generator):
    return torch.randn(n, len(X), generator=generator)


def fit(**options):
    options = {"inputs": X, "method": Energy(1, n_functions=4), **options}
    arguments = {"net": NET, "prior": PRIOR, "target": TARGET, "n_measurement": 3, **options}
    return fit_functional_prior(**arguments).gaussian_scale()


def matched(method):
    """A method of matching, tried."""

    def run(**options):
        return fit(method=method(**options), random_state=0)

    return run


def chains(**options):
    return sample_density(
        **{"log_density": log_density, "init": torch.zeros(2), "sampler": SGLD(0.1), **options}
    ).draws


def stepped(sampler):
    """A sampler, run."""

    def run(**options):
        ran = sample_density(
            log_density, torch.zeros(2), sampler(**options), n_draws=2, burn_in=1, random_state=0
        )
        return ran.draws[ran.kept]  # of the others a warning says that they were stopped

    return run


def posterior(**options):
    arguments = {"net": NET, "prior": PRIOR, "X": X, "y": Y, "sampler": SGLD(1e-3), **RUN}
    return sample(**{**arguments, "batch_size": None, **options}).weights


def schedule(kind):
    return lambda **options: kind(**options)(3)


ENTRIES = {
    # networks
    "Activation": Entry(lambda name: Activation(name)(X), {"name": "tanh"}),
    "MLP": Entry(
        lambda **k: MLP(**k).n_weights,
        {"n_inputs": 1, "hidden": [2], "n_outputs": 1, "activation": "erf", "fan_in_scaling": True},
    ),
    "ConvNet": Entry(
        lambda **k: ConvNet(**k).n_weights,
        {
            "image_shape": (1, 4, 4),
            "channels": [2],
            "n_outputs": 1,
            "activation": "relu",
            "fan_in_scaling": True,
        },
    ),
    "BayesianNetwork": Entry(
        lambda **k: BayesianNetwork(**k).n_weights, {"module": MODULE, "fan_in_scaling": True}
    ),
    "as_network": Entry(as_network, {"network": MODULE}, called={"network": ("module",)}),
    "a network": Entry(lambda **k: NET(**k).shape, {"weights": W, "X": X}),
    "unflatten": Entry(lambda **k: NET.unflatten(**k).keys(), {"weights": W}),
    "flatten": Entry(NET.flatten, {"parameters": NET.unflatten(W)}),
    # priors
    "GaussianPrior": Entry(
        lambda **k: GaussianPrior(**k).scale,
        {"net": NET, "by": "layer", "scale": 1.0},
        called={"net": ("module",)},
    ),
    "HierarchicalPrior": Entry(
        lambda **k: HierarchicalPrior(**k).rate,
        {"net": NET, "by": "ard", "shape": 1.0, "rate": 1.0},
        called={"net": ("module",)},
    ),
    "StudentTPrior": Entry(
        lambda **k: StudentTPrior(**k).scale,
        {"net": NET, "by": "layer", "scale": 1.0, "df": 5.0},
        called={"net": ("module",)},
    ),
    "FlowPrior": Entry(
        lambda **k: FlowPrior(**k).gaussian_scale(),
        {"net": NET, "n_couplings": 1, "width": 2, "base": PRIOR, "random_state": 0},
        called={"net": ("module",)},
    ),
    "fixed_gaussian": Entry(fixed_gaussian, {"net": NET}, called={"net": ("module",)}),
    "fixed_hierarchical": Entry(fixed_hierarchical, {"net": NET}, called={"net": ("module",)}),
    "Prior.sample": Entry(PRIOR.sample, {"n": 2, "random_state": 0}),
    "Prior.sample_functions": Entry(PRIOR.sample_functions, {"X": X, "n": 2, "random_state": 0}),
    "Prior.log_prob": Entry(density(PRIOR), {"weights": W}),
    "StudentTPrior.log_prob": Entry(density(StudentTPrior(NET)), {"weights": W}),
    "FlowPrior.log_prob": Entry(density(FlowPrior(NET, 1, 2)), {"weights": W}),
    "HierarchicalPrior.log_prob": Entry(density(HierarchicalPrior(NET)), {"weights": W}),
    "sample_precision": Entry(
        HierarchicalPrior(NET).sample_precision, {"weights": W, "random_state": 0}
    ),
    "Prior.save": Entry(PRIOR.save, {"path": "x"}),
    "load_prior": Entry(load_prior, {"path": "saved", "net": NET}, called={"net": ("module",)}),
    "Prior.report": Entry(
        lambda **k: PRIOR.report(**k).prior_functions,
        {
            "target": TARGET,
            "inputs": X,
            "n_functions": 8,
            "n_measurement": 3,
            "n_repeats": 2,
            "random_state": 0,
        },
    ),
    "to_pyro": Entry(PRIOR.to_pyro, {"net": NET}, called={"net": ("module",)}),
    "TrainingRows": Entry(
        lambda X: TrainingRows(X).sample(3, 0), {"X": X}, called={"X": ("inputs",)}
    ),
    "TrainingRows.sample": Entry(TrainingRows(X).sample, {"n": 3, "random_state": 0}),
    "Box": Entry(
        lambda **k: Box(**k).sample(3, 0), {"X": X, "margin": 0.1}, called={"X": ("inputs",)}
    ),
    "Box.sample": Entry(Box(X).sample, {"n": 3, "random_state": 0}),
    "Density": Entry(
        lambda draw: Density(draw).sample(3, 0),
        {"draw": lambda n, g: torch.rand(n, 1, generator=g)},
    ),
    "Grid": Entry(
        lambda **k: Grid(**k).points,
        {"low": 0.0, "high": 1.0, "n_points": 4},
        called={"low": ("high",)},
    ),
    "Grid.sample": Entry(Grid(0, 1, 5).sample, {"n": 3, "random_state": 0}),
    "Mixture": Entry(
        lambda **k: MixtureOfSets(**k).sample(4, 0),
        {"parts": [Box(X), TrainingRows(X)], "shares": [0.5, 0.5]},
        called={"parts": ("shares",)},
    ),
    "Mixture.sample": Entry(MixtureOfSets([Box(X)], [1.0]).sample, {"n": 3, "random_state": 0}),
    "CallableTarget": Entry(
        lambda **k: CallableTarget(**k).sample_functions(X, 2, 0),
        {"draw": draw, "n_outputs": 1},
        called={"draw": ("target",)},
    ),
    "GaussianProcessTarget": Entry(
        lambda **k: GaussianProcessTarget(**k).sample_functions(X, 2, 0),
        {"kernel": RBFKernel(), "mean": None, "n_outputs": 1},
    ),
    "GaussianProcessTarget.sample_functions": Entry(
        TARGET.sample_functions, {"X": X, "n": 2, "random_state": 0}
    ),
    "GaussianProcessTarget.moments": Entry(TARGET.moments, {"X": X, "n": 2, "random_state": 0}),
    "hierarchical_rbf": Entry(hierarchical_rbf, {"n_features": 1, "n_outputs": 1}),
    "fit_functional_prior": Entry(
        fit,
        {
            "net": NET,
            "prior": PRIOR,
            "target": TARGET,
            "inputs": X,
            "method": Energy(1, n_functions=4),
            "n_measurement": 3,
            "random_state": 0,
            "check_every": 1,
            "patience": 1,
            "checkpoint": None,
        },
        called={"net": ("module",)},
    ),
    "Moments": Entry(
        matched(Moments), {"n_steps": 1, "learning_rate": 0.1, "n_hyperparameters": 2}
    ),
    "Energy": Entry(matched(Energy), {"n_steps": 1, "learning_rate": 0.1, "n_functions": 4}),
    "Bures": Entry(matched(Bures), {"n_steps": 1, "learning_rate": 0.1, "n_functions": 4}),
    "Sliced": Entry(
        matched(Sliced),
        {"n_steps": 1, "learning_rate": 0.1, "n_functions": 4, "n_projections": 2},
    ),
    "Sinkhorn": Entry(
        matched(Sinkhorn),
        {"n_steps": 1, "learning_rate": 0.1, "n_functions": 4, "regularisation": 0.1},
    ),
    "Wasserstein": Entry(
        matched(Wasserstein),
        {
            "n_steps": 1,
            "learning_rate": 0.1,
            "n_functions": 4,
            "n_critic_steps": 1,
            "critic_learning_rate": 0.1,
            "width": 2,
            "penalty": 10.0,
            "n_penalised": 2,
        },
    ),
    # samplers
    "SGLD": Entry(stepped(SGLD), {"step_size": 0.1, "temperature": 1.0}),
    "PSGLD": Entry(
        stepped(PSGLD), {"step_size": 0.1, "averaging": 0.9, "damping": 1e-3, "temperature": 1.0}
    ),
    "SGHMC": Entry(
        stepped(SGHMC),
        {"step_size": 0.1, "momentum_decay": 0.1, "noise_variance": 0.1, "temperature": 1.0},
    ),
    "AdaptiveSGHMC": Entry(
        stepped(AdaptiveSGHMC),
        {"step_size": 0.1, "momentum_decay": 0.1, "noise_estimate": "none", "temperature": 1.0},
    ),
    "BAOAB": Entry(
        stepped(BAOAB),
        {"step_size": 0.1, "friction": 1.0, "scale": torch.ones(2), "temperature": 1.0},
    ),
    "SGNHT": Entry(stepped(SGNHT), {"step_size": 0.1, "diffusion": 1.0, "temperature": 1.0}),
    "MCLMC": Entry(
        stepped(MCLMC),
        {"step_size": 0.1, "decoherence_length": 1.0, "temperature": 1.0},
        called={"step_size": ("decoherence_length",)},
    ),
    "Cyclical": Entry(
        stepped(Cyclical), {"sampler": SGLD(0.1), "cycle_length": 3, "exploration": 0.3}
    ),
    "PolynomialDecay": Entry(
        schedule(PolynomialDecay), {"initial": 0.1, "delay": 10.0, "power": 0.5}
    ),
    "CosineCycles": Entry(schedule(CosineCycles), {"initial": 0.1, "length": 4}),
    "sample_density": Entry(
        chains,
        {
            "log_density": log_density,
            "init": torch.zeros(2),
            "sampler": SGLD(0.1),
            "n_chains": 1,
            "n_draws": 2,
            "burn_in": 1,
            "thin": 1,
            "random_state": 0,
            "batched": False,
            "compile": False,
            "names": {"a": slice(0, 2)},
            "checkpoint": None,
            "stream_to": None,
        },
    ),
    "sample": Entry(
        posterior,
        {
            "net": NET,
            "prior": PRIOR,
            "X": X,
            "y": Y,
            "sampler": SGLD(1e-3),
            **RUN,
            "batch_size": 2,
            "likelihood": Gaussian(0.1),
            "gibbs_every": None,
            "init": "prior",
            "compile": False,
        },
        called={"net": ("module",)},
    ),
    "Posterior.functions": Entry(POSTERIOR.functions, {"X": X}),
    "Posterior.predict": Entry(lambda X: POSTERIOR.predict(X).mean, {"X": X}),
    "Posterior.log_likelihood": Entry(POSTERIOR.log_likelihood, {"X": X, "y": Y}),
    "Posterior.rhat": Entry(lambda X: POSTERIOR.functions(X), {"X": X}),
    "Posterior.to_datatree": Entry(POSTERIOR.to_datatree, {"n_prior": 0, "random_state": 0}),
    "Posterior.save": Entry(POSTERIOR.save, {"path": "x"}),
    "read_draws": Entry(lambda path: list(read_draws(path)), {"path": "drawn"}),
    "Mixture.cdf": Entry(LAW.cdf, {"y": Y}),
    "Mixture.quantile": Entry(LAW.quantile, {"level": 0.5}),
    "Mixture.interval": Entry(LAW.interval, {"coverage": 0.5}),
    "Mixture.log_prob": Entry(lambda y: LAW.log_prob(y).exp(), {"y": Y}),
    "Mixture.gaussian_nll": Entry(lambda y: (-LAW.gaussian_nll(y)).exp(), {"y": Y}),
    "Mixture.rmse": Entry(lambda y: 1 / (1 + LAW.rmse(y)), {"y": Y}),
    "Mixture.calibration": Entry(LAW.calibration, {"y": Y, "n_levels": 3}),
    "Classes.log_prob": Entry(CLASSES.log_prob, {"y": [0, 1] * 3}),
    "Classes.accuracy": Entry(CLASSES.accuracy, {"y": [0, 1] * 3}),
    "Classes.ece": Entry(CLASSES.ece, {"y": [0, 1] * 3, "n_bins": 3}),
    "Gaussian": Entry(
        lambda **k: Gaussian(**k).start(2, X), {"scale": None, "shape": 1.0, "rate": 0.1}
    ),
    "HeteroscedasticGaussian": Entry(HeteroscedasticGaussian, {"min_scale": 1e-3}),
    "StudentT": Entry(lambda **k: StudentT(**k).standard_log_prob(Y), {"scale": 1.0, "df": 4.0}),
    "NetworkPotential": Entry(
        lambda **k: NetworkPotential(**k)(W, None)[0],
        {"net": NET, "prior": PRIOR, "X": X, "y": Y, "likelihood": Gaussian(0.1)},
    ),
    "find_step_size": Entry(
        lambda **k: find_step_size(**k).step_size,
        {
            "log_density": log_density,
            "init": torch.zeros(2),
            "sampler": SGLD(0.1),
            "tolerance": 100.0,
            "n_steps": 100,
            "random_state": 0,
            "batched": False,
        },
        called={"batched": ("log_density", "tensor")},
    ),
    "LinearRegression": Entry(
        lambda **k: LinearRegression(**k).mean,
        {"X": X, "y": Y, "noise_scale": 1.0, "prior_scale": 1.0},
        called={"X": ("y",)},
    ),
    "LinearRegression.predict": Entry(LINEAR.predict, {"X": X}),
    "ControlVariate": Entry(
        lambda **k: ControlVariate(**k).gradient,
        {"potential": lambda q, batch: (q.sum(1), torch.ones_like(q)), "anchor": torch.zeros(2)},
    ),
    "rhat": Entry(lambda draws: rhat(draws).shape, {"draws": DRAWS}),
    "ess": Entry(lambda **k: ess(**k).shape, {"draws": DRAWS, "method": "bulk"}),
    "deep_ensemble": Entry(
        lambda **k: deep_ensemble(lambda q, batch: (q.square().sum(1), 2 * q), seed=0, **k),
        {
            "position": torch.ones(2, 2),
            "n_observations": 4,
            "batch_size": 2,
            "n_steps": 2,
            "learning_rate": 0.1,
        },
    ),
}


def make_artefacts() -> None:
    """A good file of each kind, in the working directory."""
    PRIOR.save("saved")
    chains(n_draws=2, burn_in=1, random_state=0, stream_to="drawn")


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """A working directory of its own, for what is saved."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("saved"))
        make_artefacts()
        yield


@pytest.mark.filterwarnings("ignore")
@each(ENTRIES)
def test_a_hostile_value_is_refused_by_name_or_does_no_harm(function, parameter):
    check(ENTRIES[function], parameter)

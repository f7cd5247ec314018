"""Posteriors of networks: the potential, likelihoods, predictive laws, storage."""

import math

import numpy as np
import pytest
import torch

from bayes.networks import MLP
from bayes.priors import GaussianPrior
from bayes.samplers import (
    BAOAB,
    SGHMC,
    AdaptiveSGHMC,
    Categorical,
    Classes,
    Gaussian,
    HeteroscedasticGaussian,
    LinearRegression,
    Mixture,
    NetworkPotential,
    Posterior,
    StorageError,
    StudentT,
    deep_ensemble,
    sample,
)

EXACT = 1e-10
"""Two ways to the same number of order 1 to 100, float64."""


def data(n=12, d=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n, d, generator=generator).double()
    return X, (X[:, 0] - 0.5 * X[:, 1] + 0.3 * torch.randn(n, generator=generator).double())


def network(n_outputs=1, hidden=(4,)):
    net = MLP(2, list(hidden), n_outputs)
    return net, GaussianPrior.per_layer(net).double()


LIKELIHOODS = {
    "fixed": (Gaussian(0.4), 1),
    "learned": (Gaussian(), 1),
    "heteroscedastic": (HeteroscedasticGaussian(), 2),
    "student": (StudentT(0.4, df=5.0), 1),
}


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_densities_integrate_to_one_and_match_their_distribution_function(name):
    likelihood, k = LIKELIHOODS[name]
    outputs = torch.tensor([0.3, -0.2]).double()[:k].expand(1, 1, k)
    extra = torch.full((1, likelihood.n_extra), -0.7).double()
    y = torch.linspace(-60, 60, 200_001).double()
    density = likelihood.log_prob(outputs.expand(1, len(y), k), y, extra).exp()[0]
    assert float(torch.trapezoid(density, y)) == pytest.approx(1, abs=1e-5)  # t's tail beyond 60
    location, scale = likelihood.location_scale(outputs, extra)
    cdf = likelihood.standard_cdf((y - location[0]) / scale[0])
    mass = torch.cumulative_trapezoid(density, y)
    assert float((mass - cdf[1:]).abs().max()) < 1e-5
    variance = likelihood.standard_variance * float(scale[0, 0]) ** 2
    second = torch.trapezoid(density * (y - location[0]) ** 2, y)
    assert float(second) == pytest.approx(variance, rel=1e-2)  # t with 5 degrees: slow tail


def test_learned_noise_has_a_gamma_prior_on_the_precision():
    likelihood = Gaussian(shape=2.5, rate=0.7)
    log_scale = torch.linspace(-6, 6, 20_001).double()
    density = likelihood.log_prior(log_scale[:, None]).exp()
    precision = torch.exp(-2 * log_scale)
    mean = torch.trapezoid(density * precision, log_scale) / torch.trapezoid(density, log_scale)
    assert float(mean) == pytest.approx(2.5 / 0.7, rel=1e-6)


def test_potential_of_all_batches_is_that_of_all_data():
    """The mean over batches of one is the whole, in value and gradient: no factor N is lost."""
    X, y = data()
    net, prior = network()
    potential = NetworkPotential(net, prior, X, y, Gaussian(0.4))
    q = prior.sample(3, 0)
    value, gradient = potential(q, None)
    parts = [potential(q, torch.full((3, 1), i)) for i in range(len(X))]
    assert torch.allclose(sum(p[0] for p in parts) / len(X), value, rtol=EXACT)
    assert torch.allclose(sum(p[1] for p in parts) / len(X), gradient, rtol=0, atol=1e-8)
    own = -(
        torch.distributions.Normal(net(q, X)[..., 0], 0.4).log_prob(y).sum(1) + prior.log_prob(q)
    )
    assert torch.allclose(value, own.detach(), rtol=EXACT)
    step = torch.zeros_like(q)
    step[:, 3] = 1e-6
    slope = (potential(q + step, None)[0] - potential(q - step, None)[0]) / 2e-6
    assert torch.allclose(slope, gradient[:, 3], rtol=1e-6)


def linear_posterior(scale=0.4, **options):
    """A network without hidden layers is linear regression on sqrt(1/D) X and a constant."""
    X, y = data()
    net, prior = network(hidden=())
    posterior = sample(net, prior, X, y, likelihood=Gaussian(scale), random_state=3, **options)
    features = torch.cat([X / math.sqrt(2), torch.ones(len(X), 1).double()], 1)
    return posterior, LinearRegression(features, y, noise_scale=0.4, prior_scale=1.0), features


def _deviation(posterior, model):
    own = posterior.weights.mean(1)  # independent chains
    return float(((own.mean(0) - model.mean) / (own.std(0) / len(own) ** 0.5)).abs().max())


def test_a_linear_network_has_the_conjugate_posterior():
    """Null: the means are the closed form's. Statistic: in standard errors across 200 chains; 5 has
    a false-alarm probability of 2e-6."""
    options = {"sampler": BAOAB(0.1), "n_chains": 200, "n_draws": 20, "thin": 10, "burn_in": 100}
    posterior, model, features = linear_posterior(batch_size=None, **options)
    assert _deviation(posterior, model) < 5
    mean, scale = model.predict(features)
    law = posterior.predict(posterior.X)
    assert torch.allclose(law.mean, mean, atol=0.03)
    assert torch.allclose(law.scale, scale, rtol=0.05)
    wrong, _, _ = linear_posterior(scale=0.8, batch_size=None, **options)
    assert _deviation(wrong, model) > 5


def test_a_deep_ensemble_starts_at_the_mode():
    """The linear network has one mode, the closed form's mean; Adam with a rate that falls to 0
    ends within 1e-3 of it. Draws of the prior, which start it, are far from it."""
    X, y = data()
    net, prior = network(hidden=())
    potential = NetworkPotential(net, prior, X, y, Gaussian(0.4))
    _, model, _ = linear_posterior(sampler=BAOAB(0.1), n_chains=1, n_draws=1, batch_size=None)
    starts = prior.sample(5, 0)
    modes = deep_ensemble(potential, starts, seed=1, n_observations=len(X))
    assert float((modes - model.mean).abs().max()) < 1e-3
    assert float((starts - model.mean).abs().max(1).values.min()) > 0.1
    options = {"seed": 1, "n_observations": len(X), "batch_size": 4, "n_steps": 60}
    many = deep_ensemble(potential, starts, **options)
    assert torch.allclose(many[:2], deep_ensemble(potential, starts[:2], **options), atol=EXACT)
    assert float((many - modes).abs().max()) > 1e-3  # batches are at work


def test_chains_start_from_the_ensemble():
    """A step so small that nothing moves: the first draws are where the chains started."""
    X, y = data()
    net, prior = network()
    options = {"n_chains": 3, "n_draws": 1, "thin": 1, "burn_in": 0, "random_state": 0}
    run = {
        init: sample(
            net, prior, X, y, BAOAB(1e-9), likelihood=Gaussian(0.4), batch_size=None, init=init,
            **options,
        ).run
        for init in ("prior", "ensemble")
    }  # fmt: skip
    assert bool((run["ensemble"].potential < run["prior"].potential).all())
    potential = NetworkPotential(net, prior, X, y, Gaussian(0.4))
    slopes = {k: potential(r.draws[:, 0], None)[1].norm(dim=1) for k, r in run.items()}
    assert float((slopes["ensemble"] / slopes["prior"]).max()) < 0.1
    with pytest.raises(ValueError, match="optimisation of chain 0 left the finite numbers"):
        sample(net, prior, X, y * 1e200, BAOAB(1e-9), init="ensemble", batch_size=None)


def test_mixture_against_one_component_and_sampling():
    law = Mixture(torch.tensor([[1.0]]).double(), torch.tensor([[0.5]]).double(), Gaussian(0.5))
    normal = torch.distributions.Normal(1.0, 0.5)
    y = torch.tensor([0.2]).double()
    assert float(law.log_prob(y)) == pytest.approx(float(normal.log_prob(y)))
    assert float(law.gaussian_nll(y)) == pytest.approx(-float(normal.log_prob(y)))
    low, high = law.interval(0.9)
    assert float(low) == pytest.approx(1 - 0.5 * 1.6448536, abs=1e-6)
    assert float(high) == pytest.approx(1 + 0.5 * 1.6448536, abs=1e-6)
    two = Mixture(
        torch.tensor([[-3.0], [3.0]]).double(), torch.full((2, 1), 0.1).double(), Gaussian(0.1)
    )
    assert float(two.log_prob(y * 0)) < -300  # the mixture knows that nothing is between
    assert float(two.gaussian_nll(y * 0)) < 3  # one Gaussian does not
    assert float(two.scale) == pytest.approx(math.sqrt(9 + 0.01))
    assert float(two.cdf(torch.zeros(1))) == pytest.approx(0.5)
    assert float(two.quantile(0.75)) == pytest.approx(3.0, abs=1e-6)


def test_calibration():
    n = 20_000
    generator = torch.Generator().manual_seed(0)
    law = Mixture(torch.zeros(1, n).double(), torch.ones(1, n).double(), Gaussian(1.0))
    y = torch.randn(n, generator=generator).double()
    levels, below = law.calibration(y)
    error = torch.sqrt(levels * (1 - levels) / n)
    assert bool(((below - levels).abs() < 5 * error).all())  # 9 levels: false alarm 5e-6
    _, below = law.calibration(2 * y)
    assert not bool(((below - levels).abs() < 5 * error).all())
    probs = torch.tensor([[0.8, 0.2]], dtype=torch.float64).expand(10, 2)
    right = torch.tensor([0] * 8 + [1] * 2)
    assert Classes(probs).ece(right) == pytest.approx(0, abs=1e-12)
    assert Classes(probs).ece(1 - right) == pytest.approx(0.6)
    assert Classes(probs).accuracy(right) == pytest.approx(0.8)


@pytest.fixture(scope="module")
def posterior():
    X, y = data()
    net, prior = network()
    return sample(
        net, prior, X, y, AdaptiveSGHMC(0.02), 3, 12, 2, 30, 4,
        likelihood=Gaussian(), random_state=1,
    )  # fmt: skip


def test_shapes_and_scores(posterior):
    assert posterior.functions(posterior.X).shape == (3, 12, 12, 1)
    assert posterior.log_likelihood().shape == (3, 12, 12)
    assert posterior.extra.shape == (3, 12, 1)
    law = posterior.predict(np.zeros((5, 2)))
    assert law.mean.shape == law.scale.shape == law.interval(0.5)[0].shape == (5,)
    assert posterior.rhat().shape == (12, 1)
    assert list(posterior.run.names)[-1] == "log_noise"
    assert "log_noise" not in posterior.run.temperatures().blocks  # no sampler moved it
    assert isinstance(posterior.diagnose(), list)


def test_log_joint_is_minus_the_potential(posterior):
    potential = NetworkPotential(
        posterior.net, posterior.prior, posterior.X, posterior.y, posterior.likelihood
    )
    value, _ = potential(posterior.run.draws.flatten(0, 1), None)
    assert torch.allclose(posterior.log_joint().flatten(), -value.detach(), rtol=EXACT)


def test_datatree(posterior):
    tree = posterior.to_datatree(n_prior=7, random_state=0)
    assert set(tree.children) == {
        "posterior", "sample_stats", "log_likelihood", "observed_data", "prior",
    }  # fmt: skip
    names = [b.name for b in posterior.net.blocks]
    assert list(tree.posterior.data_vars) == [*names, "log_noise"]
    assert tree.prior[names[0]].shape[:2] == (1, 7)
    lp = torch.from_numpy(tree.sample_stats["lp"].values)
    assert torch.equal(lp, posterior.log_joint())


def test_save_and_load(posterior, tmp_path):
    path = tmp_path / "posterior.safetensors"
    posterior.save(path)
    own = (posterior.net, posterior.prior, posterior.likelihood, posterior.run.sampler)
    again = Posterior.load(path, *own)
    assert torch.equal(again.run.draws, posterior.run.draws)
    assert again.diagnose() == posterior.diagnose()
    assert torch.equal(again.predict(again.X).mean, posterior.predict(posterior.X).mean)
    with pytest.raises(StorageError, match="another likelihood"):
        Posterior.load(path, *own[:2], Gaussian(0.1), own[3])
    other, prior = network(hidden=(5,))
    with pytest.raises(StorageError, match="another net"):
        Posterior.load(path, other, prior, *own[2:])
    path.write_bytes(b"x" * 50)
    with pytest.raises(StorageError, match="torn"):
        Posterior.load(path, *own)


def test_labels():
    X, y = data(20)
    net, prior = network(n_outputs=3)
    labels = (y > 0).long() + (y > 1).long()
    options = {"n_chains": 2, "n_draws": 5, "thin": 2, "burn_in": 10, "batch_size": 5}
    posterior = sample(
        net, prior, X, labels, SGHMC(0.02), likelihood=Categorical(), random_state=0, **options
    )
    law = posterior.predict(X)
    assert torch.allclose(law.probs.sum(1), torch.ones(20).double())
    assert law.log_prob(labels).shape == (20,)
    with pytest.raises(ValueError, match=r"labels in \[0, 3\).*\[3, 3"):
        sample(net, prior, X, labels + (labels == 2), SGHMC(0.02), likelihood=Categorical())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 13}, r"'batch_size' parameter must be an int in \[1, 12\]; got 13"),
        ({"y": torch.zeros(5)}, "one value a row of X; got 5 for 12 rows"),
        ({"y": torch.full((12,), torch.nan)}, "'y' parameter must be finite"),
        ({"init": torch.zeros(2, 3)}, "'init' parameter must have shape"),
        ({"prior": network(hidden=(5,))[1]}, "'prior' parameter .* has 17; got one over 21"),
        ({"init": "mode"}, "'init' parameter must be one of"),
        ({"likelihood": HeteroscedasticGaussian()}, "must have 2 outputs"),
        ({"X": torch.full((12, 2), torch.nan)}, "'X' parameter must be finite"),
    ],
)
def test_bad_input(change, message):
    X, y = data()
    net, prior = network()
    given = {"prior": prior, "X": X, "y": y, "sampler": SGHMC(0.02), "batch_size": 4}
    with pytest.raises(ValueError, match=message):
        sample(net, **{**given, **change})


@pytest.mark.parametrize(
    ("net", "y", "message"),
    [
        (MLP(2, [5], 1), 1.0, "n_parameters was 17, now 21"),
        (MLP(2, [4], 1, activation="relu"), 1.0, "of another density or of other data"),
        (MLP(2, [4], 1), 2.0, "of another density or of other data"),
    ],
)
def test_checkpoints_of_another_model_are_refused(net, y, message, tmp_path):
    """And the checkpoint is as it was: its own model goes on from it."""
    X, responses = data()
    own, path = MLP(2, [4], 1), tmp_path / "run"

    def posterior_of(net, y, n_draws):
        return sample(
            net, GaussianPrior.per_layer(net).double(), X, y, BAOAB(0.02), 2, n_draws, 2, 5, None,
            likelihood=Gaussian(0.4), random_state=1, checkpoint=path,
        )  # fmt: skip

    first = posterior_of(own, responses, 20)
    with pytest.raises(StorageError, match=message):
        posterior_of(net, y * responses, 20)
    again = posterior_of(own, responses, 40)
    assert torch.equal(again.weights[:, :20], first.weights)


def test_a_step_too_large_for_a_network_names_its_chains():
    """Weights that are drawn far out diverge, the other chain's are summarised alone."""
    X, y = data()
    net = MLP(2, [4], 1, activation="relu")
    prior = GaussianPrior.per_layer(net).double()
    start = prior.sample(2, 0)
    start[1] *= 300
    with pytest.warns(UserWarning, match=r"Chain 1 was stopped at step \d+: .*too large"):
        found = sample(
            net, prior, X, y, BAOAB(0.05), 2, 60, 2, 5, None,
            likelihood=Gaussian(0.4), init=start, random_state=1,
        )  # fmt: skip
    assert found.weights.shape[0] == 1
    assert bool(torch.isfinite(found.predict(X).mean).all())
    assert "Chain 1 was stopped" in found.diagnose()[0]

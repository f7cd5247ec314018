"""Gibbs steps for scales, and gradients written out, against closed forms and quadrature."""

import math

import pytest
import torch

from bayes.networks import MLP, ConvNet
from bayes.priors import GaussianPrior, HierarchicalPrior
from bayes.samplers import (
    BAOAB,
    AdaptiveSGHMC,
    Categorical,
    Gaussian,
    HeteroscedasticGaussian,
    NetworkPotential,
    StorageError,
    StudentT,
    loop,
    sample,
)
from bayes.samplers.backpropagation import PULLS, stack_of
from bayes.samplers.gibbs import draw_log_scale
from bayes.samplers.network_potential import ConjugateNetworkPotential
from bayes.samplers.streams import ChainStreams

EXACT = 1e-9
"""Two ways to the same number of order 1 to 1000, float64."""


def data(n=7, d=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n, d, generator=generator).double()
    return X, X[:, 0] - 0.5 * X[:, 1] + 0.3 * torch.randn(n, generator=generator).double()


def gradient_of(function, at):
    at = at.detach().clone().requires_grad_(True)
    value = function(at)
    (slope,) = torch.autograd.grad(value.sum(), at)
    return value.detach(), slope


@pytest.mark.parametrize("name", PULLS)
@pytest.mark.parametrize("own_rows", [False, True])
def test_gradients_written_out_are_those_of_autodiff(name, own_rows):
    """Control: the derivative of another activation is seen."""
    net = MLP(2, [4, 3], 2, activation=name)
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(5, net.n_weights, generator=generator, dtype=torch.float64)
    X = torch.randn(*((5,) if own_rows else ()), 6, 2, generator=generator, dtype=torch.float64)
    direction = torch.randn(5, 6, 2, generator=generator, dtype=torch.float64)
    stack = stack_of(net)
    outputs, tape = stack.forward(weights, X)
    assert torch.equal(outputs, net(weights, X))
    _, slope = gradient_of(lambda w: (net(w, X) * direction).sum((1, 2)), weights)
    own = stack.backward(tape, direction)
    assert torch.allclose(own, slope, rtol=EXACT, atol=EXACT)
    other = MLP(2, [4, 3], 2, activation="tanh" if name != "tanh" else "erf")
    wrong_tape = stack_of(other).forward(weights, X)[1]
    wrong = stack_of(other).backward(wrong_tape, direction)
    assert not torch.allclose(wrong, slope, rtol=1e-3, atol=1e-3)


def test_what_is_not_written_out_is_left_to_autodiff():
    assert stack_of(ConvNet((1, 4, 4), [2], 1)) is None
    layer = torch.nn.Linear(3, 3)
    shared = torch.nn.Sequential(layer, torch.nn.Tanh(), layer)
    from bayes.networks import as_network

    assert stack_of(as_network(shared)) is None


PROBLEMS = {
    "gaussian": (Gaussian(0.4), 1, GaussianPrior.ard),
    "learned noise": (Gaussian(), 1, GaussianPrior.per_layer),
    "heteroscedastic": (HeteroscedasticGaussian(), 2, GaussianPrior.per_layer),
    "student": (StudentT(0.4, df=5.0), 1, HierarchicalPrior.per_layer),
    "labels": (Categorical(), 3, HierarchicalPrior.ard),
}


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("batched", [False, True])
def test_the_potential_is_minus_the_log_joint(name, batched):
    """Value and gradient against autodiff of the density as it is written."""
    likelihood, n_outputs, family = PROBLEMS[name]
    X, y = data()
    net = MLP(2, [4], n_outputs)
    y = (y > 0).long() + (y > 0.5).long() if name == "labels" else y
    prior = family(net, 1.3).double()
    potential = NetworkPotential(net, prior, X, y, likelihood)
    position = torch.cat([prior.sample(3, 0), likelihood.start(3, X)], 1)
    batch = torch.tensor([[0, 1, 1], [4, 2, 0], [6, 6, 3]]) if batched else None
    value, gradient = potential(position, batch)
    log_joint, slope = gradient_of(lambda q: potential.log_joint(q, batch), position)
    assert torch.allclose(value.detach(), -log_joint, rtol=EXACT)
    assert torch.allclose(gradient.detach(), -slope, rtol=EXACT, atol=1e-7)


def conjugate(likelihood, prior_of, hidden=(3,)):
    X, y = data()
    net = MLP(2, list(hidden), 1)
    prior = prior_of(net).double()
    return net, prior, ConjugateNetworkPotential(net, prior, X, y, likelihood)


CONJUGATE = {
    "noise": (Gaussian(shape=2.5, rate=0.7), GaussianPrior.per_layer, 1),
    "scales": (Gaussian(0.4), lambda net: HierarchicalPrior.per_layer(net, 1.5, 0.8), 4),
    "both": (Gaussian(), lambda net: HierarchicalPrior.ard(net, 1.5, 0.8), 6),
}


@pytest.mark.parametrize("name", CONJUGATE)
def test_the_conditional_is_that_of_the_joint(name):
    """As a function of the log scales, -U is the Gamma law's log density but for a constant.
    Control: a shape that lacks half of an observation is seen."""
    likelihood, prior_of, n_scales = CONJUGATE[name]
    net, _, potential = conjugate(likelihood, prior_of)
    position = torch.randn(3, net.n_weights, dtype=torch.float64)
    shape, rate = potential.conditional(position)
    assert shape.shape == rate.shape == (3, n_scales)
    generator = torch.Generator().manual_seed(2)
    one, two = torch.randn(2, 3, n_scales, generator=generator, dtype=torch.float64)

    def log_density(s, shape):
        return (-2 * shape * s - rate * torch.exp(-2 * s)).sum(1)

    change = potential(position, None, two)[0] - potential(position, None, one)[0]
    expected = log_density(one, shape) - log_density(two, shape)
    assert torch.allclose(change, expected, rtol=EXACT)
    wrong = log_density(one, shape - 0.5) - log_density(two, shape - 0.5)
    assert not torch.allclose(change, wrong, rtol=1e-3)


@pytest.mark.parametrize("name", CONJUGATE)
def test_given_the_scales_the_gradient_is_that_of_the_value(name):
    likelihood, prior_of, n_scales = CONJUGATE[name]
    net, _, potential = conjugate(likelihood, prior_of)
    position = torch.randn(3, net.n_weights, dtype=torch.float64)
    log_scale = torch.full((3, n_scales), -0.3, dtype=torch.float64)
    value, slope = gradient_of(lambda q: potential(q, None, log_scale)[0], position)
    assert torch.allclose(potential(position, None, log_scale)[1], slope, rtol=EXACT, atol=1e-8)
    batches = [potential(position, torch.full((3, 1), i), log_scale)[0] for i in range(7)]
    assert torch.allclose(sum(batches) / 7, value, rtol=EXACT)


def test_integrating_the_scales_out_gives_the_priors_density():
    """Trapezoid in the log scale of one group of weights against `HierarchicalPrior.log_prob`."""
    X, y = data()
    net = MLP(2, [], 1)
    prior = HierarchicalPrior.per_layer(net, 2.0, 0.5).double()
    potential = ConjugateNetworkPotential(net, prior, X, y, Gaussian(0.4))
    marginal = NetworkPotential(net, prior, X, y, Gaussian(0.4))
    s = torch.linspace(-4, 5, 601).double()
    grid = torch.cartesian_prod(s, s)
    totals = []
    for w in torch.tensor([[0.3, -0.8, 0.1], [1.2, 0.4, -0.6]]).double():
        values = potential(w.expand(len(grid), -1), None, grid)[0]
        totals.append(torch.logsumexp(-values, 0) + marginal(w[None], None)[0][0].detach())
    assert float(totals[0]) == pytest.approx(float(totals[1]), abs=1e-6)  # what lies beyond e^5


class Tempered:
    def conditional(self, position):
        return torch.full((4000, 1), 3.0).double(), torch.full((4000, 1), 12.0).double()


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_draws_have_the_tempered_gamma_law(temperature):
    """Null: precisions are Gamma(3/T, 12/T). Statistic: mean in standard errors of 4,000 chains;
    5 has a false-alarm probability of 6e-7. Control: the law at another temperature has another
    variance, seen in the same way."""
    streams = ChainStreams(0, 4000, torch.device("cpu"))
    drawn = draw_log_scale(Tempered(), torch.zeros(4000, 1), temperature, streams)
    precision = torch.exp(-2 * drawn)[:, 0]
    error = math.sqrt(3 * temperature) / 12 / math.sqrt(4000)
    assert abs(float(precision.mean()) - 3 / 12) < 5 * error
    squares = (precision - 3 / 12).square() / (3 * temperature / 144)
    assert abs(float(squares.mean()) - 1) < 5 * float(squares.std()) / math.sqrt(4000)
    assert abs(float(squares.mean()) * 2 - 1) > 5 * 2 * float(squares.std()) / math.sqrt(4000)


class HalfTheShape(Gaussian):
    def conditional(self, outputs, y):
        shape, rate = super().conditional(outputs, y)
        return 0.5 * shape, rate


def test_a_linear_network_with_learned_noise_against_quadrature(monkeypatch):
    """Integrating w out leaves p(tau | y) on a line. Null: means of log sigma and of w are those.
    Statistic: in standard errors across 100 independent chains; 5 has a false-alarm probability of
    2e-6 over four means. Control: half the shape in the Gibbs step."""
    monkeypatch.setattr(loop, "MAX_BLOCK_STEPS", 32)  # Gibbs steps come between blocks
    X, y = data()
    net = MLP(2, [], 1)
    prior = GaussianPrior.per_layer(net).double()
    features = torch.cat([X / math.sqrt(2), torch.ones(len(X), 1).double()], 1)
    log_scale = torch.linspace(-3, 2, 1001).double()
    logs, means = [], []
    for s in log_scale:
        covariance = features @ features.T + torch.exp(2 * s) * torch.eye(len(X)).double()
        law = torch.distributions.MultivariateNormal(torch.zeros(len(X)).double(), covariance)
        logs.append(law.log_prob(y) + Gaussian().log_prior(s.view(1, 1))[0])
        means.append(features.T @ torch.linalg.solve(covariance, y))
    density = torch.softmax(torch.stack(logs), 0)
    expected = torch.cat([density @ torch.stack(means), (density @ log_scale)[None]])

    def deviation(likelihood):
        run = sample(
            net, prior, X, y, BAOAB(0.05), 100, 30, 64, 500, None, likelihood=likelihood,
            gibbs_every=32, random_state=5,
        ).run  # fmt: skip
        assert not run.divergences
        assert list(run.names) == ["0.weight", "0.bias", "log_noise"]
        own = run.draws.mean(1)
        return float(((own.mean(0) - expected) / (own.std(0) / 10)).abs().max())

    assert deviation(Gaussian()) < 5
    assert deviation(HalfTheShape()) > 5


def test_scales_drawn_and_scales_integrated_out_have_one_posterior():
    """Means of w^2 and of the log prior scale under both, in combined standard errors of 60 chains
    each: 5 has a false-alarm probability of 3e-6. Control: the chains under another prior."""
    X, y = data()
    net = MLP(2, [], 1)

    def squares(rate, **options):
        prior = HierarchicalPrior.per_layer(net, 3.0, rate).double()
        posterior = sample(
            net, prior, X, y, BAOAB(0.15), 60, 30, 16, 100, None, likelihood=Gaussian(0.4),
            random_state=6, **options,
        )  # fmt: skip
        return posterior.weights.square().mean(1)

    def deviation(a, b):
        error = torch.sqrt((a.var(0) + b.var(0)) / len(a))
        return float(((a.mean(0) - b.mean(0)) / error).abs().max())

    apart = squares(0.2, gibbs_every=None)
    assert deviation(squares(0.2, gibbs_every=10), apart) < 5
    assert deviation(squares(5.0, gibbs_every=10), apart) > 5


def test_gibbs_runs_resume_bit_by_bit(tmp_path):
    """Stopped between Gibbs steps, which come at every other block here."""
    X, y = data(20)
    net = MLP(2, [40, 40], 1)
    prior = HierarchicalPrior.per_layer(net).double()
    seen = []

    def stop(progress):
        seen.append(progress.step)
        if len(seen) == 5:
            raise KeyboardInterrupt

    def run(**options):
        return sample(
            net, prior, X, y, AdaptiveSGHMC(1e-3), 2, 40, 2, 10, 4, gibbs_every=16,
            random_state=0, **options,
        ).run  # fmt: skip

    plain, path = run(), tmp_path / "run"
    assert plain.draws.shape == (2, 40, net.n_weights + 1 + 6)
    held = plain.draws[0, :, -1]
    assert 3 < len(held.unique()) < 20  # drawn, and held in between
    assert run(checkpoint=path, callback=stop).interrupted
    assert torch.equal(run(checkpoint=path).draws, plain.draws)
    assert "prior_log_scale" in plain.to_datatree().posterior
    assert "prior_log_scale" not in plain.temperatures().blocks
    with pytest.raises(StorageError, match="gibbs_every"):
        sample(
            net, prior, X, y, AdaptiveSGHMC(1e-3), 2, 40, 2, 10, 4, gibbs_every=32,
            random_state=0, checkpoint=path,
        )  # fmt: skip


@pytest.mark.slow
def test_fused_steps_take_the_scales():
    """On a convex potential, where rounding apart does not grow; a Gibbs step every other block."""
    X, y = data(20)
    net = MLP(2, [], 1)
    prior = GaussianPrior.per_layer(net).double()

    def run(every, **options):
        return sample(
            net, prior, X, y, BAOAB(0.05), 2, 40, 10, 10, None, gibbs_every=every, random_state=0,
            **options,
        ).run.draws  # fmt: skip

    plain = run(256)
    assert torch.allclose(run(256, compile=True), plain, atol=1e-9)
    assert not torch.allclose(run(128), plain, atol=1e-3)


def test_streamed_draws_hold_the_scales(tmp_path):
    X, y = data(20)
    net = MLP(2, [3], 1)
    prior = GaussianPrior.per_layer(net).double()

    def run(**options):
        return sample(
            net, prior, X, y, AdaptiveSGHMC(1e-2), 2, 30, 2, 10, 4, random_state=0, **options
        )

    streamed, held = run(stream_to=tmp_path), run()
    assert torch.equal(streamed.run.draws, held.run.draws)
    assert held.extra.shape == (2, 30, 1)


def test_bad_gibbs_every():
    X, y = data()
    net = MLP(2, [3], 1)
    with pytest.raises(ValueError, match=r"'gibbs_every' parameter must be an int in \[1"):
        sample(net, GaussianPrior.per_layer(net), X, y, BAOAB(0.1), batch_size=None, gibbs_every=0)

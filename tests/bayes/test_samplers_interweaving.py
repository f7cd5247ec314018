"""Moves of scales that take their weights along, against quadrature."""

import math
from contextlib import nullcontext

import pytest
import torch

from bayes.networks import MLP
from bayes.priors import HierarchicalPrior
from bayes.samplers import BAOAB, Gaussian, SamplingWarning, loop, network, sample
from bayes.samplers.interweaving import ACCEPTANCE, interweave
from bayes.samplers.network_potential import ConjugateNetworkPotential
from bayes.samplers.streams import ChainStreams

NOISE = 0.4
LEVEL = 5.0
"""Standard errors; a false alarm has probability 6e-7 for each mean compared."""


def data(n=7):
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(n, 2, generator=generator).double()
    return X, X[:, 0] - 0.5 * X[:, 1] + 0.3 * torch.randn(n, generator=generator).double()


class NoPrior(ConjugateNetworkPotential):
    """Control: the move without its prior ratio."""

    def log_scale_prior(self, log_scale):
        return torch.zeros_like(log_scale)


class JacobianTwice(ConjugateNetworkPotential):
    """Control: as if weights, not standardised weights, were held."""

    def log_scale_prior(self, log_scale):
        sizes = torch.stack([members.sum() for members in self.groups.values()])
        return super().log_scale_prior(log_scale) + sizes * log_scale


def linear(kind=ConjugateNetworkPotential):
    net, (X, y) = MLP(2, [], 1), data()
    prior = HierarchicalPrior.per_layer(net, 3.0, 0.5).double()
    return kind(net, prior, X, y, Gaussian(NOISE))


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("kind", [ConjugateNetworkPotential, NoPrior, JacobianTwice])
def test_the_move_alone_leaves_the_law_given_standardised_weights(kind, temperature):
    """Null: with z held, the log scale of two weights has density exp(-U(z e^s, s) / T + 2 s), here
    by quadrature of U. Statistic: its mean over 1,500 chains in standard errors; the start is
    forgotten in 60 moves of twice its standard deviation."""
    n, m = 1500, 2
    z = torch.tensor([1.1, -0.4, 0.3]).double()
    grid = torch.linspace(-4, 4, 2001).double()
    scales = torch.stack([grid, torch.full_like(grid, -0.2)], 1)
    position = z * torch.exp(torch.stack([grid, grid, torch.full_like(grid, -0.2)], 1))
    exact = linear()
    weights = torch.softmax(-exact(position, None, scales)[0] / temperature + m * grid, 0)
    mean = float(weights @ grid)

    potential = linear(kind)
    potential.groups = {0: exact.groups[0]}
    q, s = position[1000].expand(n, -1).clone(), scales[1000].expand(n, -1).clone()
    reach, streams = torch.full((n, 2), 0.5).double(), ChainStreams(1, n, torch.device("cpu"))
    for _ in range(60):
        q, s, reach = interweave(potential, q, s, reach, temperature, streams)
    assert torch.allclose(q[:, :2] * torch.exp(-s[:, :1]), z[:2].expand(n, -1))
    assert bool((reach == 0.5).all())
    off = abs(float(s[:, 0].mean()) - mean) / (float(s[:, 0].std()) / math.sqrt(n))
    assert (off < LEVEL) == (kind is ConjugateNetworkPotential)


def by_quadrature():
    """Means of the log scales of weights and of the bias, given y."""
    X, y = data()
    shape, rate = 3.0, 0.5
    grid = torch.linspace(-4, 4, 161).double()
    pairs = torch.cartesian_prod(grid, grid)
    slopes, ones = X @ X.T / 2, torch.ones(len(X), len(X)).double()
    widths = torch.exp(2 * pairs)[..., None, None]
    noise = NOISE**2 * torch.eye(len(X)).double()
    covariance = widths[:, 0] * slopes + widths[:, 1] * ones + noise
    law = torch.distributions.MultivariateNormal(torch.zeros(len(X)).double(), covariance)
    prior = (-2 * shape * pairs - rate * torch.exp(-2 * pairs)).sum(1)
    return torch.softmax(law.log_prob(y) + prior, 0) @ pairs


@pytest.mark.parametrize("kind", [ConjugateNetworkPotential, NoPrior, JacobianTwice])
def test_moves_and_gibbs_steps_together_leave_the_posterior(kind, monkeypatch):
    """Null: the means of both log scales are those of quadrature over them, with weights integrated
    out. Statistic: in standard errors across 300 chains. The wrong moves disturb what is right
    without them, Gibbs steps and dynamics."""
    monkeypatch.setattr(loop, "MAX_BLOCK_STEPS", 16)
    monkeypatch.setattr(network, "ConjugateNetworkPotential", kind)
    X, y = data()
    net = MLP(2, [], 1)
    prior = HierarchicalPrior.per_layer(net, 3.0, 0.5).double()
    astray = kind is NoPrior  # scales without a prior have nothing to hold them
    with pytest.warns(SamplingWarning, match=r"Chain \d+ was stopped") if astray else nullcontext():
        draws = sample(
            net, prior, X, y, BAOAB(0.05), 300, 30, 32, 400, None, likelihood=Gaussian(NOISE),
            gibbs_every=16, random_state=2,
        ).run.draws  # fmt: skip
    own = draws[..., 3:].mean(1)
    off = ((own.mean(0) - by_quadrature()) / (own.std(0) / math.sqrt(300))).abs().max()
    assert (float(off) < LEVEL) == (kind is ConjugateNetworkPotential)


def test_reaches_are_adapted_to_their_acceptance():
    """On data that allow little: reaches shrink until nearly `ACCEPTANCE` of 200 x 50 moves is
    accepted. The tolerance is that of the gain's last steps. Control: without a gain, fewer are."""
    X, y = data()
    net = MLP(2, [], 1)
    prior = HierarchicalPrior.per_layer(net).double()
    potential = ConjugateNetworkPotential(net, prior, X, y, Gaussian(0.01))
    features = torch.cat([X / math.sqrt(2), torch.ones(len(X), 1).double()], 1)
    q = torch.linalg.lstsq(features, y).solution.expand(200, -1).clone()

    def accepted(adapt):
        streams = ChainStreams(3, 200, torch.device("cpu"))
        state = q, torch.zeros(200, 2).double(), torch.full((200, 2), 1.0).double()
        for k in range(100):
            state = interweave(potential, *state, 1.0, streams, (k + 1) ** -0.5 if adapt else 0)
        moved = 0.0
        for _ in range(50):
            new = interweave(potential, *state, 1.0, streams)
            moved += float((new[1] != state[1]).double().mean()) / 50
            state = new
        return moved

    assert accepted(adapt=True) == pytest.approx(ACCEPTANCE, abs=0.1)
    assert accepted(adapt=False) < 0.1

"""The published algorithm, transcribed: two routes to its critic's step, and what its target is."""

import math

import numpy as np
import torch

from bayes.priors import hierarchical_rbf
from bayes.priors.matching.critic import Critic
from experiments.published_prior import CriticTraining, softplus_rbf


def test_both_critics_have_the_same_gradients():
    """Differentiating twice against the slope written out, in float32: sums of some 1e3 terms err
    by 1e-5 of the largest. Without the penalty, the control, they are far apart."""
    generator = torch.Generator().manual_seed(0)
    f, g = (torch.randn(40, 7, generator=generator) * size for size in (1.0, 1.5))
    training = CriticTraining(7, 0.02, generator)
    first, _, second, _, last = training.critic
    critic = Critic(7, 200, generator)
    critic.parameters = [
        p.detach().clone() for p in (first.weight, first.bias, second.weight, second.bias)
    ] + [last.weight.detach()[0].clone()]
    state = generator.get_state()
    epsilon = torch.rand(40, 1, generator=generator)
    generator.set_state(state)
    training.step(f, g)
    expected = [first.weight, first.bias, second.weight, second.bias, last.weight]
    for penalty, equal in ((10.0, True), (0.0, False)):
        got = critic.gradients(f, g, epsilon, 0, penalty)
        for ours, theirs in zip(got, expected, strict=True):
            gradient = -theirs.grad.reshape(ours.shape)
            assert torch.allclose(ours, gradient, atol=1e-5 * float(gradient.abs().max())) is equal


def test_the_published_target_has_softplus_over_its_hyperparameters():
    """Null: the variance at a point is E softplus(exp(.1 + z)), by Gauss-Hermite quadrature. The
    sample variance of 20,000 functions in its own standard error; 1e-5 two-sided is 4.42. The
    target that reads the text, E exp(.1 + z) = exp(.6), is the control."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    expected = float(np.logaddexp(0, np.exp(0.1 + nodes)) @ weights / weights.sum())
    X = torch.tensor([[0.0], [9.0]]).double()
    z = []
    for f in (
        softplus_rbf(X, 20_000, torch.Generator().manual_seed(0)),
        hierarchical_rbf(1).sample_functions(X, 20_000, 0)[..., 0],
    ):
        square = f[:, 0].square()
        z.append(float((square.mean() - expected) / (square.std() / math.sqrt(len(f)))))
    assert abs(z[0]) < 4.42
    assert abs(z[1]) > 4.42

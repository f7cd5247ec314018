"""`GaussianMoE`: one density seen through log_prob, cdf, moments and samples."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from moe_stats import GateTemplate, GaussianMoE, LinearExperts, SoftmaxGate, TopKGate

EXACT = 1e-12
"""Two ways to the same number, float64, of quantities of order 1."""

QUADRATURE = 1e-9
"""Trapezoid rule over y on 4,001 points to ten scales beyond every mean: exponentially exact
for Gaussians."""

GATES = {
    "softmax": lambda b0, b1: SoftmaxGate(b0, b1),
    "slope": lambda b0, b1: TopKGate(b0, b1, top_k=2, rank="slope"),
    "logit": lambda b0, b1: TopKGate(b0, b1, top_k=1, rank="logit"),
}


def random_model(gate="slope", n_experts=3, n_features=2, batch=(), seed=0):
    rng = np.random.default_rng(seed)
    shape = (*batch, n_experts)
    b0, b1 = rng.normal(size=shape), 1.5 * rng.normal(size=(*shape, n_features))
    a, b = 2 * rng.normal(size=(*shape, n_features)), 2 * rng.normal(size=shape)
    return GaussianMoE(GATES[gate](b0, b1), LinearExperts(a, b, rng.uniform(0.3, 0.9, shape)))


def features(n=30, n_features=2, batch=(), seed=1):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(*batch, n, n_features)))


def quadrature(model, X):
    """Nodes (M, N) over y and the trapezoid's weights (N,)."""
    means, reach = model.experts.mean(X), 10 * float(model.experts.scale.max())
    low, high = means.amin(-1) - reach, means.amax(-1) + reach
    t = torch.linspace(0, 1, 4001, dtype=torch.float64)[:, None]
    return low + t * (high - low), (high - low) / 4000


@pytest.mark.parametrize("gate", GATES)
def test_log_prob_is_the_formula(gate):
    model, X = random_model(gate), features()
    y = torch.from_numpy(np.random.default_rng(2).normal(size=30))
    means = X.numpy() @ model.experts.slope.numpy().T + model.experts.intercept.numpy()
    density = stats.norm.pdf(y.numpy()[:, None], means, model.experts.scale.numpy())
    expected = np.log((model.gate_probs(X).numpy() * density).sum(-1))
    assert np.allclose(model.log_prob(y, X).numpy(), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("gate", GATES)
def test_density_integrates_to_one_and_gives_the_moments(gate):
    model, X = random_model(gate), features()
    y, weight = quadrature(model, X)
    density = torch.exp(model.log_prob(y, X))  # (M, N)
    assert torch.allclose((density * weight).sum(0), torch.ones(30).double(), atol=QUADRATURE)
    mean = (density * y * weight).sum(0)
    assert torch.allclose(model.mean(X), mean, rtol=0, atol=10 * QUADRATURE)
    variance = (density * (y - mean).square() * weight).sum(0)
    assert torch.allclose(model.variance(X), variance, rtol=0, atol=100 * QUADRATURE)


def test_cdf_is_the_integral_of_the_density():
    model, X = random_model(), features()
    y, weight = quadrature(model, X)
    density = torch.exp(model.log_prob(y, X))
    below = torch.cumsum((density[1:] + density[:-1]) / 2, 0) * weight
    # the running trapezoid rule errs by h^2 |p'| / 12, and |p'| <= 0.25 / scale^2
    bound = float(weight.max()) ** 2 * 0.25 / float(model.experts.scale.min()) ** 2 / 12
    assert torch.allclose(model.cdf(y[1:], X), below, rtol=0, atol=bound + QUADRATURE)


@pytest.mark.parametrize("gate", GATES)
def test_samples_follow_the_law(gate, false_alarm):
    """Null: y given x has the model's law, so u = cdf(y | x) is uniform, whatever x.
    Statistic: Kolmogorov-Smirnov, on all of u and on the half where the first feature is
    positive. Controls that must be rejected at the same level: a scale ten percent too large,
    and gate slopes of the other sign."""
    model, X = random_model(gate), features(40_000)
    y = model.sample(X, random_state=4)
    u, half = model.cdf(y, X).numpy(), (X[:, 0] > 0).numpy()
    assert stats.kstest(u, "uniform").pvalue > false_alarm
    assert stats.kstest(u[half], "uniform").pvalue > false_alarm

    e = model.experts
    wider = GaussianMoE(model.gate, LinearExperts(e.slope, e.intercept, 1.1 * e.scale))
    mirrored = GaussianMoE(GATES[gate](model.gate.intercept, -model.gate.slope), e)
    for wrong in (wider, mirrored):
        u = wrong.cdf(y, X).numpy()
        assert min(stats.kstest(v, "uniform").pvalue for v in (u, u[half])) < false_alarm


def test_sampling_is_by_its_seed():
    model, X = random_model(), features()
    assert torch.equal(model.sample(X, 3), model.sample(X, np.random.default_rng(3)))
    assert not torch.equal(model.sample(X, 3), model.sample(X, 4))


def test_responsibilities_are_bayes_rule():
    model, X = random_model(), features()
    y = model.sample(X, 0)
    r = model.responsibilities(X, y)
    normal = torch.distributions.Normal(model.experts.mean(X), model.experts.scale)
    joint = model.gate_probs(X) * torch.exp(normal.log_prob(y[:, None]))
    assert torch.allclose(r, joint / joint.sum(-1, keepdim=True), rtol=0, atol=EXACT)
    assert bool((r[model.gate_probs(X) == 0] == 0).all())


def test_far_from_every_expert_nothing_underflows():
    model, X = random_model("softmax"), features()
    y = torch.full((30,), 1e4, dtype=torch.float64)
    assert bool(torch.isfinite(model.log_prob(y, X)).all())
    assert torch.allclose(model.responsibilities(X, y).sum(-1), torch.ones(30).double())


@pytest.mark.parametrize("gate", GATES)
def test_a_batch_is_a_loop(gate):
    models, X = random_model(gate, batch=(3,)), features(batch=(3,))
    y = models.sample(X, 0)
    assert y.shape == (3, 30)
    together = {
        "log_prob": models.log_prob(y, X),
        "gate_probs": models.gate_probs(X),
        "responsibilities": models.responsibilities(X, y),
        "mean": models.mean(X),
        "variance": models.variance(X),
        "cdf": models.cdf(y, X),
    }
    for r in range(3):
        one = models[r]
        assert one.batch_shape == ()
        assert torch.equal(one.to_params(), models.to_params()[r])
        alone = {
            "log_prob": one.log_prob(y[r], X[r]),
            "gate_probs": one.gate_probs(X[r]),
            "responsibilities": one.responsibilities(X[r], y[r]),
            "mean": one.mean(X[r]),
            "variance": one.variance(X[r]),
            "cdf": one.cdf(y[r], X[r]),
        }
        for name, value in alone.items():
            # 1e-12 of log densities that reach hundreds of nats
            assert torch.allclose(together[name][r], value, rtol=EXACT, atol=EXACT), name


def test_models_and_data_broadcast():
    models, X = random_model(batch=(3,)), features()
    y = models[0].sample(X, 0)
    assert models.log_prob(y, X).shape == (3, 30)
    one, many = random_model(), features(batch=(4,))
    assert one.mean(many).shape == (4, 30)
    assert one.gate_probs(many).shape == (4, 30, 3)


def test_parameters_come_back():
    for gate in GATES:
        model = random_model(gate, batch=(2,))
        template = GateTemplate(type(model.gate), model.gate.options)
        again = GaussianMoE.from_params(model.to_params(), template, 3)
        assert torch.allclose(again.to_params(), model.to_params(), rtol=EXACT, atol=0)


def test_mixing_measure():
    model = random_model()
    measure = model.mixing_measure()
    assert measure.n_atoms == 3
    assert measure.translates == ("log_weight", "gate_slope")
    assert torch.allclose(measure.weight, torch.exp(model.gate.intercept))
    assert torch.allclose(measure.atoms["variance"][:, 0], model.experts.scale**2)
    parts = random_model(batch=(4,)).mixing_measure()[1:3]
    assert parts.log_weight.shape == (2, 3)
    assert parts.atoms["slope"].shape == (2, 3, 2)


def test_float32_stays_float32():
    double, X = random_model(), features()
    y = double.sample(X, 0)
    gate = TopKGate(double.gate.intercept.float(), double.gate.slope.float(), top_k=2)
    e = double.experts
    single = GaussianMoE(gate, LinearExperts(*(v.float() for v in vars(e).values())))
    for one, two in [
        (single.log_prob(y, X), double.log_prob(y, X)),
        (single.mean(X), double.mean(X)),
        (single.cdf(y.float(), X), double.cdf(y, X)),
        (single.sample(X, 0), y),
    ]:
        assert one.dtype == torch.float32
        assert torch.allclose(one.double(), two, rtol=1e-4, atol=1e-4)


def test_two_far_experts_are_a_sum_of_two():
    """A closed form away from special points: equal gates, mean and variance by hand."""
    model = GaussianMoE(
        SoftmaxGate([0.4, 0.4], [[1.7], [1.7]]), LinearExperts([[2.0], [-1.0]], [3, 1], [0.5, 0.7])
    )
    X = torch.tensor([[0.5]]).double()
    low, high = 0.5, 4.0
    assert math.isclose(float(model.mean(X)), (low + high) / 2, rel_tol=EXACT)
    expected = (0.5**2 + 0.7**2) / 2 + (high - low) ** 2 / 4
    assert math.isclose(float(model.variance(X)), expected, rel_tol=EXACT)

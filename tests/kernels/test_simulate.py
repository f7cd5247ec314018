"""Likelihoods of data that are drawn where they are used: the data's law, and their sums."""

import math

import pytest
import torch
from scipy import stats

from kernels import gating, simulate
from kernels.philox import Stream
from kernels.simulate import Design, Truth, naive
from moe_stats import GaussianMoE, LinearExperts, Normal, SoftmaxGate, TopKGate, Uniform

FALSE_ALARM = 1e-6
"""Of each test of a law. The streams are fixed: a failure is a change of code."""

N = 40_000

SAME = 1e-11
"""The same sums in another order, float64, of their largest entry."""

DESIGNS = {
    "uniform": (Design("uniform", -1.0, 2.0, 2), Uniform(-1, 1, 2)),
    "normal": (Design("normal", 0.5, 1.5, 2), Normal(0.5, 1.5, 2)),
}

MODEL = GaussianMoE(
    TopKGate([0.2, 0.0, -0.3], [[2, 1], [0, -1], [-2, 0.5]], top_k=2, rank="logit"),
    LinearExperts([[3, 0], [-2, 1], [1, -1]], [4, 0, -4], [0.4, 0.5, 0.45]),
)
OTHER = GaussianMoE(
    SoftmaxGate([0.1, 0.0], [[1, 0.5], [0, 0]]),
    LinearExperts([[1, 1], [-1, 0]], [2, -2], [1.4, 1.5]),
)


def truth_of(model, design, dtype=torch.float64):
    return Truth(model.to_params().to(dtype), model.gate.form, design)


@pytest.mark.parametrize("law", DESIGNS)
def test_the_law_is_that_of_sample(law):
    """H0: (x, y) has the law of `GaussianMoE.sample`. Two-sample Kolmogorov-Smirnov for y and each
    feature; cdf(y | x) uniform, and uncorrelated with x. Control: an intercept off by 0.2."""
    design, own = DESIGNS[law]
    X = own.sample(N, 0)
    y = MODEL.sample(X, 1)

    def p_values(model):
        x, response = simulate.draw(truth_of(model, design), Stream(0), 0, N)
        yield stats.ks_2samp(response[0].numpy(), y.numpy()).pvalue
        for d in range(2):
            yield stats.ks_2samp(x[0, d].numpy(), X[:, d].numpy()).pvalue
        rank = MODEL.cdf(response[0], x[0].mT)
        yield stats.kstest(rank.numpy(), "uniform").pvalue
        for feature in x[0]:
            r = float(torch.corrcoef(torch.stack([rank, feature]))[0, 1])
            yield 2 * stats.norm.sf(abs(r) * math.sqrt(N))

    assert min(p_values(MODEL)) > FALSE_ALARM
    e = MODEL.experts
    off = LinearExperts(e.slope, e.intercept + torch.tensor([0.0, 0.2, 0.0]), e.scale)
    assert min(p_values(GaussianMoE(MODEL.gate, off))) < FALSE_ALARM


def test_experts_speak_as_often_as_they_should():
    """H0: expert e with probability g_e(x), told apart by means 100 scales away from each other;
    chi-squared with 2 degrees. Control: the frequencies of a gate with another intercept."""
    far = LinearExperts([[0.0]] * 3, [-100.0, 0.0, 100.0], [1.0] * 3)
    model = GaussianMoE(SoftmaxGate([0.0, 0.5, 1.0], [[1.0], [0.0], [-1.0]]), far)
    x, y = simulate.draw(truth_of(model, Design()), Stream(1), 0, N)
    counts = torch.histc(y, 3, -150, 150)

    def p_value(gate):
        return stats.chisquare(counts.numpy(), gate.probs(x[0].mT).sum(0).numpy()).pvalue

    assert p_value(model.gate) > FALSE_ALARM
    assert p_value(SoftmaxGate([0.0, 0.6, 1.0], [[1.0], [0.0], [-1.0]])) < FALSE_ALARM


@pytest.mark.parametrize("law", DESIGNS)
@pytest.mark.parametrize("n_features", [1, 2, 3, 4, 5])
def test_any_stretch_is_the_same(law, n_features):
    model = GaussianMoE(
        SoftmaxGate([0.0, 0.0], torch.ones(2, n_features)),
        LinearExperts(torch.ones(2, n_features), [0.0, 1.0], [1.0, 2.0]),
    )
    truth = truth_of(model, Design(law, 0.0, 1.0, n_features))
    x, y = simulate.draw(truth, Stream(4), 0, 100)
    part_x, part_y = simulate.draw(truth, Stream(4), 31, 57)
    assert torch.equal(part_x, x[..., 31:57])
    assert torch.equal(part_y, y[:, 31:57])
    columns = torch.cat([x[0], y])
    assert len(torch.unique(columns)) == columns.numel()  # no word is used twice


@pytest.mark.parametrize("order", ["value", "gradient", "information", "hessian"])
def test_sums_are_those_of_the_drawn_data(order, monkeypatch):
    design, _ = DESIGNS["uniform"]
    truth, stream = truth_of(MODEL, design), Stream(5, 6)
    params = torch.stack([OTHER.to_params(), 1.1 * OTHER.to_params()])
    x, y = simulate.draw(truth, stream, 0, 1000)
    stored = gating.evaluate(params, OTHER.gate.form, x, y, order=order)
    monkeypatch.setattr(naive, "CHUNK", 301)
    drawn = simulate.evaluate(params, OTHER.gate.form, truth, stream, 1000, order=order)
    for name, wanted in vars(stored).items():
        if wanted is not None:
            error = (getattr(drawn, name) - wanted).abs().max()
            assert float(error) < SAME * float(wanted.abs().max())
    other = simulate.evaluate(params, OTHER.gate.form, truth, Stream(5, 7), 1000)
    assert float((other.value - drawn.value).abs().min()) > 1


def test_no_more_than_a_chunk_is_drawn(monkeypatch):
    drawn = []

    def spy(truth, stream, start, stop):
        drawn.append((start, stop))
        return original(truth, stream, start, stop)

    original = naive.draw
    monkeypatch.setattr(naive, "draw", spy)
    monkeypatch.setattr(naive, "CHUNK", 64)
    design, _ = DESIGNS["normal"]
    simulate.evaluate(
        MODEL.to_params()[None], MODEL.gate.form, truth_of(MODEL, design), Stream(0), 150
    )
    assert drawn == [(0, 64), (64, 128), (128, 150)]


def test_the_truth_beats_its_neighbours(monkeypatch):
    """At the truth the gradient is noise of variance n I: H0 that it is 0 in the mean, by its
    information. Control: a neighbour. Degrees: the parameters, less one intercept and two slopes
    of the gate that no data can tell."""
    monkeypatch.setattr(naive, "CHUNK", 2**13)  # too little to compile for
    params, form = OTHER.to_params()[None], OTHER.gate.form
    truth = truth_of(OTHER, Design("uniform", -1.0, 2.0, 2))

    def statistic(params):
        found = simulate.evaluate(params, form, truth, Stream(8), N, order="hessian")
        inverse = torch.linalg.pinv(-found.hessian[0], rtol=1e-9, hermitian=True)
        return float(found.gradient[0] @ inverse @ found.gradient[0])

    bound = stats.chi2.isf(FALSE_ALARM, params.shape[1] - 3)
    assert statistic(params) < bound
    assert statistic(params + 0.05) > bound


def test_what_is_out_of_range_is_refused():
    params, form = OTHER.to_params()[None], OTHER.gate.form
    truth = truth_of(MODEL, DESIGNS["uniform"][0])
    for n in (0, -1, 1.5):
        with pytest.raises(ValueError, match="'n' parameter must be an int in"):
            simulate.evaluate(params, form, truth, Stream(0), n)
    with pytest.raises(ValueError, match="'backend' parameter must be one of"):
        simulate.evaluate(params, form, truth, Stream(0), 1, backend="compiled")
    with pytest.raises(ValueError, match="must have the dtype and device of 'params'"):
        simulate.evaluate(params.float(), form, truth, Stream(0), 1)
    for options, name in [
        ({"law": "grid"}, "law"),
        ({"spread": 0.0}, "spread"),
        ({"location": math.inf}, "location"),
        ({"n_features": 0}, "n_features"),
    ]:
        with pytest.raises(ValueError, match=f"'{name}' parameter must be"):
            Design(**options)

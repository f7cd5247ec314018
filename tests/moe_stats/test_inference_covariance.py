"""Standard errors: closed forms, invariances, and the words where they do not apply."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from kernels.gating import GateForm, naive
from moe_stats import (
    ActivationDenseToSparseGate,
    ConstantExperts,
    Gate,
    GaussianMoE,
    LinearExperts,
    SoftmaxGate,
    TopKGate,
    Uniform,
    fit_mle,
)
from moe_stats.gates.activations import activation_of
from moe_stats.inference import covariance, interval
from moe_stats.inference.scores import score_products

AT_MAXIMUM = 1e-6
"""Relative error of a standard error at a maximum found to a scaled gradient of 1e-6."""

TRUTH = GaussianMoE(
    SoftmaxGate([0.3, 0.0], [[5.0], [0.0]]), LinearExperts([[2.0], [-1.0]], [1.0, 0.2], [0.3, 0.4])
)
THREE = LinearExperts([[3.0], [-2.0], [1.0]], [4.0, 0.0, -4.0], [0.4, 0.5, 0.45])


ONE_START = {"n_rounds": 0, "quasi_newton": False}


def fitted(truth=TRUTH, n=600, seed=0, X=None, gate=None, **options):
    """The maximum nearest a model, on data drawn from it."""
    X = Uniform(-1, 1, truth.n_features).sample(n, seed) if X is None else X
    y = truth.sample(X, seed + 1)
    options = {"init": truth, **ONE_START, **options}
    gate = truth.gate if gate is None else gate
    return fit_mle(X[None], y[None], n_experts=truth.n_experts, gate=gate, **options)


def refitted(fit, init, **options):
    """The same data, from another start."""
    X, y = fit._problem.x.mT, fit._problem.y
    return fit_mle(X, y, n_experts=init.n_experts, init=init, **ONE_START, **options)


def top_k(rank, k, slope=((2.0,), (0.0,), (-2.0,))):
    return TopKGate([0.2, 0.0, -0.3], torch.tensor(slope).double(), top_k=k, rank=rank)


@pytest.fixture(scope="module")
def fit():
    return fitted()


@pytest.fixture(scope="module")
def regression():
    X = Uniform(-1, 2, 2).sample(300, 0)
    model = GaussianMoE(
        SoftmaxGate([0.0], [[0.0, 0.0]]), LinearExperts([[1.0, -2.0]], [0.5], [0.7])
    )
    y = model.sample(X, 1) * (1 + X[:, 0].abs())  # noise that grows: the sandwich differs
    mle = fit_mle(X[None], y[None], n_experts=1, n_init=1, random_states=[0], **ONE_START)
    design = torch.cat([X, torch.ones(300, 1)], 1)
    return mle, design, y - design @ torch.linalg.lstsq(design, y[:, None]).solution[:, 0]


class TestOneExpertIsLinearRegression:
    """With one expert the fit is least squares, whose covariances are textbook formulae."""

    def test_observed(self, regression):
        mle, design, residual = regression
        variance = residual.square().mean()
        expected = variance * torch.linalg.inv(design.mT @ design)
        found = covariance(mle)
        torch.testing.assert_close(found.matrix[0, 3:6, 3:6], expected, rtol=AT_MAXIMUM, atol=1e-12)
        assert float(found.standard_errors[0, 6]) == pytest.approx(600**-0.5, rel=AT_MAXIMUM)
        assert found.standard_errors[0, :3].tolist() == [0.0, 0.0, 0.0]  # its gate is pinned

    def test_sandwich(self, regression):
        """White's HC0, for the slopes and intercept."""
        mle, design, residual = regression
        bread = torch.linalg.inv(design.mT @ design)
        white = bread @ (design * residual[:, None].square()).mT @ design @ bread
        found = covariance(mle, "sandwich").matrix[0, 3:6, 3:6]
        torch.testing.assert_close(found, white, rtol=AT_MAXIMUM, atol=1e-12)
        observed = covariance(mle).matrix[0, 3:6, 3:6]
        assert not torch.allclose(observed, white, rtol=0.05)  # control: they can be told apart


def test_score_products_are_those_of_automatic_derivatives(fit, monkeypatch):
    problem, params = fit._problem, fit._params[0] + 0.1
    x, y = problem.x[0].mT, problem.y[0]

    def log_prob(p):
        p = p[None]
        joint = naive.log_joint(p, problem.form, x.mT[None], y[None], problem.layout)
        return torch.logsumexp(joint, -2)[0]

    rows = torch.autograd.functional.jacobian(log_prob, params)  # (N, P)
    expected = rows.mT @ rows
    whole = score_products(problem, params[None], torch.tensor([0]))[0]
    torch.testing.assert_close(whole, expected, rtol=1e-10, atol=1e-8)
    monkeypatch.setattr(naive, "MAX_ELEMENTS", 1000)  # many chunks, models apart
    apart = score_products(problem, params.repeat(3, 1), torch.tensor([0, 0, 0]))
    torch.testing.assert_close(apart, whole.repeat(3, 1, 1), rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize(("unit", "origin"), [(1e4, 0.0), (1e-4, 0.0), (1.0, 50.0)])
def test_units_and_origin_of_features_play_no_part(fit, unit, origin):
    """Slopes scale, nothing is flagged, and the share of information retained stays."""
    X, here = fit._problem.x[0].mT, covariance(fit)
    slope, line = TRUTH.gate.slope / unit, TRUTH.experts.slope / unit
    moved = GaussianMoE(
        SoftmaxGate(TRUTH.gate.intercept - origin * slope[:, 0], slope),
        LinearExperts(line, TRUTH.experts.intercept - origin * line[:, 0], TRUTH.experts.scale),
    )
    there = covariance(
        fit_mle((X * unit + origin)[None], fit._problem.y, n_experts=2, init=moved, **ONE_START)
    )
    assert there.flags == ((),)
    slopes = [1, 2, 7]
    torch.testing.assert_close(
        there.standard_errors[0, slopes] * unit, here.standard_errors[0, slopes], rtol=1e-5, atol=0
    )
    torch.testing.assert_close(there.retained, here.retained, rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", ["observed", "sandwich"])
def test_the_gauge_of_the_fit_plays_no_part(fit, kind):
    """A translated model is the same model: its report must be the same."""
    here = covariance(fit, kind)
    gate = fit.model[0].gate
    moved = GaussianMoE(SoftmaxGate(gate.intercept + 1.7, gate.slope - 2.3), fit.model[0].experts)
    again = refitted(fit, moved)
    assert float((again._params - fit._params).abs().max()) > 1  # control: the raw fit did move
    there = covariance(again, kind)
    torch.testing.assert_close(there.estimate, here.estimate, rtol=0, atol=1e-6)
    torch.testing.assert_close(there.standard_errors, here.standard_errors, rtol=1e-5, atol=0)


def test_a_batch_is_a_loop(fit):
    fits = [fitted(seed=s) for s in (0, 5)]
    X = torch.cat([f._problem.x.mT for f in fits])
    y = torch.cat([f._problem.y for f in fits])
    both = covariance(fit_mle(X, y, n_experts=2, init=TRUTH, **ONE_START), "sandwich")
    for r, one in enumerate(fits):
        alone = covariance(one, "sandwich")
        torch.testing.assert_close(
            both.standard_errors[r], alone.standard_errors[0], rtol=AT_MAXIMUM, atol=0
        )


def test_an_ordinary_fit_raises_no_flag(fit):
    found = covariance(fit)
    assert found.flags == ((),)
    assert found.unreliable == ("",)
    assert bool(torch.isfinite(found.standard_errors).all())
    assert found.standard_errors[0, 5:7].tolist() == [0.0, 0.0]  # the last gate is pinned
    assert int((found.standard_errors == 0).sum()) == 2


def test_slope_ranking_with_one_feature_has_standard_errors():
    """Only x = 0 is a boundary, and no parameter moves it."""
    found = covariance(fitted(GaussianMoE(top_k("slope", 2), THREE)))
    assert found.flags == ((),)
    assert bool(torch.isfinite(found.standard_errors).all())


def test_logit_ranking_bars_the_gates_that_move_a_boundary():
    """Third and second place change hands between experts 0 and 2, at x = -.125."""
    truth = GaussianMoE(top_k("logit", 2), THREE)
    found = covariance(fitted(truth, max_iter=0))
    moved = {f.split(":")[0] for f in found.flags[0] if "selection boundary" in f}
    assert {f"gate intercept[{e}]" for e in (0, 2)} <= moved
    assert {f"gate slope[{e}, 0]" for e in (0, 2)} <= moved
    assert all(name.startswith("gate") for name in moved)


def test_slope_ranking_with_two_features_bars_slopes_only():
    slope = ((2.0, 1.0), (0.0, -1.5), (-2.0, 0.5))
    experts = LinearExperts(
        [[3.0, 0.0], [-2.0, 1.0], [1.0, 1.0]], [4.0, 0.0, -4.0], [0.4, 0.5, 0.45]
    )
    truth = GaussianMoE(top_k("slope", 2, slope), experts)
    found = covariance(fitted(truth, n=1000, max_iter=0))
    moved = {f.split(":")[0] for f in found.flags[0] if "selection boundary" in f}
    assert moved == {f"gate slope[{e}, {d}]" for e in range(3) for d in range(2)}


def test_top_1_experts_keep_their_standard_errors():
    """The gate drops out of a top-1 likelihood: each expert is a regression on its own rows."""
    gate = TopKGate([0.0, 0.0], [[1.0], [-1.0]], top_k=1)
    fit = fitted(GaussianMoE(gate, TRUTH.experts))
    found = covariance(fit)
    rows = fit._problem.x[0, 0] > 0
    x = fit._problem.x[0, 0, rows]
    scale = float(fit.model.experts.scale[0, 0])
    expected = scale / float((x - x.mean()).square().sum().sqrt())
    assert float(found.standard_errors[0, 2]) == pytest.approx(expected, rel=AT_MAXIMUM)
    assert found.standard_errors[0, :2].tolist() == [torch.inf, torch.inf]
    assert "gate slope[0, 0]: not identified" in found.flags[0]


def test_an_expert_never_selected_has_none():
    X = Uniform(0.1, 1).sample(400, 0)
    found = covariance(fitted(GaussianMoE(top_k("slope", 2), THREE), X=X))
    assert bool(torch.isinf(found.standard_errors[0, 10:]).all())
    assert bool(torch.isfinite(found.standard_errors[0, :10]).all())
    assert found.reference.tolist() == [1]  # the last expert that speaks
    assert "scale[2]: not identified" in found.flags[0]


def test_a_bound_that_holds_is_named():
    found = covariance(fitted(min_scale=0.45))
    errors = dict(zip(found.names, found.standard_errors[0].tolist(), strict=True))
    assert np.isnan(errors["scale[0]"])
    assert errors["slope[0, 0]"] > 0
    assert any("scale[0]: on a bound" in flag for flag in found.flags[0])


def test_a_gate_bound_ends_a_translation():
    """Three gates in a row, the outer slopes held at +-1: the middle one stays identified."""
    truth = GaussianMoE(SoftmaxGate([0.2, 0.0, -0.3], [[4.0], [0.0], [-4.0]]), THREE)
    found = covariance(fitted(truth, gate_bound=1.0))
    held = {f.split(":")[0] for f in found.flags[0] if "on a bound" in f}
    assert held == {"gate slope[0, 0]", "gate slope[2, 0]"}
    errors = dict(zip(found.names, found.standard_errors[0].tolist(), strict=True))
    assert np.isnan(errors["gate slope[1, 0]"])  # a difference from one that is held
    assert 0 < errors["gate intercept[0]"] < 1
    free = covariance(fitted(truth))
    assert free.flags == ((),)  # control


def test_a_weight_that_binds_is_named():
    found = covariance(fitted(min_weight=0.49))
    assert "min_weight=0.49" in found.unreliable[0]
    assert bool(torch.isnan(found.standard_errors).all())


@pytest.mark.parametrize(("distance", "named"), [(1.0, True), (0.001, False)])
def test_a_point_off_the_maximum_is_named(fit, distance, named):
    """A standard error off matters, a thousandth of one does not."""
    params = fit._params[0].clone()
    params[3] += distance * covariance(fit).standard_errors[0, 3]
    off = GaussianMoE.from_params(params[None], SoftmaxGate.template(), 2)
    found = covariance(replace(fit, model=off))
    assert ("not stationary" in found.unreliable[0]) == named
    assert bool(torch.isnan(found.standard_errors).all()) == named


@pytest.mark.parametrize(
    ("noise", "reason"), [("skewed in x", "no local maximum"), ("balanced", "singular in")]
)
def test_two_copies_of_a_smaller_fit_are_named(noise, reason):
    """Their information vanishes in the direction that moves weight from one to the other; where
    the noise changes with x, another direction leads up.

    Balanced noise is a full factorial of x and flat residuals: every moment that could tell the
    copies apart is 0 or, for the scales (kurtosis 1.8), negative.
    """
    x = torch.linspace(-1, 1, 20, dtype=torch.float64).repeat_interleave(21)
    z = torch.linspace(-1, 1, 21, dtype=torch.float64).repeat(20)
    y = x + z * (1 + 0.5 * x if noise == "skewed in x" else 1)
    one = fit_mle(
        x[None, :, None], y[None], n_experts=1, n_init=1, random_states=[0], **ONE_START
    )._params[0]
    copies = GaussianMoE.from_params(torch.cat([one, one]), SoftmaxGate.template(), 2)
    found = covariance(
        fit_mle(x[None, :, None], y[None], n_experts=2, init=copies, max_iter=0, **ONE_START)
    )
    assert reason in found.unreliable[0]
    assert found.flags[0][0] == found.unreliable[0]
    weight_and_lines = found.standard_errors[0, [0, 1, 2, 3, 7, 8]]
    assert not bool(torch.isfinite(weight_and_lines).any())


def test_a_failed_fit_of_a_batch_spoils_only_itself():
    good = fitted()
    X = torch.cat([good._problem.x.mT, good._problem.x.mT])
    y = torch.cat([good._problem.y, torch.zeros_like(good._problem.y)])
    batch = fit_mle(X, y, n_experts=2, init=TRUTH, **ONE_START)
    found = covariance(batch)
    assert found.flags[0] == ()
    assert found.flags[1]
    torch.testing.assert_close(
        found.standard_errors[0], covariance(good).standard_errors[0], rtol=AT_MAXIMUM, atol=0
    )


def test_kind_is_checked(fit):
    with pytest.raises(ValueError, match="'kind' parameter must be one of"):
        covariance(fit, "expected")


@dataclass(frozen=True, eq=False)
class TemperateGate(Gate):
    """softmax((b0 + b1'x) / temperature): a gate that could be added, with a ray of its own."""

    intercept: torch.Tensor
    slope: torch.Tensor
    temperature: torch.Tensor

    translates = ("log_weight", "gate_slope")
    shared_names = ("log temperature",)

    @classmethod
    def form_of(cls, **options):
        curved = {"score_curvature": temperate_curvature}
        return GateForm(temperate, temperate_gradient, n_shared=1, **curved)

    @classmethod
    def from_parameters(cls, own, shared, **options):
        return cls(own[..., 0], own[..., 1:], torch.exp(shared[..., 0]))

    def pack(self):
        own = torch.cat([self.intercept.unsqueeze(-1), self.slope], -1)
        return own, torch.log(self.temperature).unsqueeze(-1)

    @property
    def options(self):
        return {}

    def atoms(self):
        scale = self.temperature[..., None]
        return self.intercept / scale, {"gate_slope": self.slope / scale[..., None]}

    def flat_directions(self):
        own, shared = self.pack()
        return {"all scaled together": (own, torch.ones_like(shared))}


def temperate(own: Sequence, shared: Sequence, x: Sequence):
    return (own[0] + own[1] * x[0]) * torch.exp(-shared[0])


def temperate_gradient(own, shared, x):
    cool = torch.exp(-shared[0])
    return cool, x[0] * cool, -temperate(own, shared, x)


def temperate_curvature(own, shared, x):
    cool = torch.exp(-shared[0])
    return {(0, 2): -cool, (1, 2): -x[0] * cool, (2, 2): temperate(own, shared, x)}


@pytest.fixture(scope="module")
def pair():
    gate = TemperateGate(
        torch.tensor([0.12, 0.0]).double(),
        torch.tensor([[2.0], [0.0]]).double(),
        torch.tensor(0.4).double(),
    )
    warm = GaussianMoE(gate, TRUTH.experts)
    softmax = GaussianMoE(SoftmaxGate(gate.intercept / 0.4, gate.slope / 0.4), TRUTH.experts)
    X = Uniform(-1, 1).sample(600, 0)
    y = softmax.sample(X, 1)
    return tuple(
        fit_mle(X[None], y[None], init=m, gate=m.gate, n_experts=2, **ONE_START)
        for m in (warm, softmax)
    )


class TestAGateWithATemperature:
    """Only b1 / temperature and b0 / temperature are identified, which softmax fits directly."""

    def test_raw_parameters_are_not_identified(self, pair):
        found = covariance(pair[0])
        assert not found.unreliable[0]  # an invariance of the gate, not a singular fit
        errors = dict(zip(found.names, found.standard_errors[0].tolist(), strict=True))
        for name in ("gate intercept[0]", "gate slope[0, 0]", "log temperature"):
            assert errors[name] == torch.inf, name
        assert 0 < errors["slope[0, 0]"] < torch.inf
        with pytest.raises(ValueError, match="must be identified"):
            interval(pair[0], lambda m: m.gate.slope[0, 0])

    def test_identified_ratios_have_the_softmax_gates_errors(self, pair):
        warm, softmax = pair
        ours = interval(warm, lambda m: m.gate.slope[0, 0] / m.gate.temperature)
        theirs = interval(softmax, "gate slope[0, 0]")
        assert ours.low == pytest.approx(theirs.low, rel=AT_MAXIMUM)
        assert ours.high == pytest.approx(theirs.high, rel=AT_MAXIMUM)


class TestHomogeneousActivations:
    """Behind psi of degree p only b1 / tau^(1/p) is identified, and with one feature the gate is
    the softmax gate of psi(x)."""

    @pytest.mark.parametrize(
        ("activation", "degree"), [("identity", 1), (torch.square, 2), (torch.abs, 1)]
    )
    def test_identified_ratios_have_the_softmax_gates_errors(self, activation, degree):
        psi = activation_of(activation).value
        experts = ConstantExperts([1.0, -1.0], [0.4, 0.5])
        X = Uniform(0.2, 1.5).sample(600, 0)
        truth = SoftmaxGate([0.5, 0.0], [[2.0], [0.0]])
        y = GaussianMoE(truth, experts).sample(psi(X), 1)
        gate = ActivationDenseToSparseGate([0.1, 0.0], [[2.0], [1.0]], 0.5, activation)
        warm, softmax = (
            fit_mle(
                features[None], y[None], n_experts=2, experts="constant", gate=start,
                init=GaussianMoE(start, experts), **ONE_START,
            )
            for features, start in ((X, gate), (psi(X), truth))
        )  # fmt: skip
        assert float(warm.log_likelihood) == pytest.approx(float(softmax.log_likelihood), abs=1e-8)
        found = covariance(warm)
        assert not found.unreliable[0]  # invariances of the gate, not a singular fit
        errors = dict(zip(found.names, found.standard_errors[0].tolist(), strict=True))
        assert errors["gate slope[0, 0]"] == errors["log temperature"] == torch.inf
        with pytest.raises(ValueError, match="must be identified"):
            interval(warm, lambda m: m.gate.slope[0, 0] / m.gate.temperature ** (1 / degree))

        def steepness(model):
            return (psi(model.gate.slope[0, 0]) - psi(model.gate.slope[1, 0])) / (
                model.gate.temperature
            )

        ours, theirs = interval(warm, steepness), interval(softmax, "gate slope[0, 0]")
        assert ours.low == pytest.approx(theirs.low, rel=AT_MAXIMUM)
        assert ours.high == pytest.approx(theirs.high, rel=AT_MAXIMUM)

"""Confidence intervals: closed forms, agreement of methods, refusals with their reasons."""

import math

import pytest
import torch
from scipy.stats import chi2, norm

from kernels.gating import Layout
from moe_stats import (
    GaussianMoE,
    GaussianMoERegressor,
    LinearExperts,
    SoftmaxGate,
    TopKGate,
    Uniform,
    fit_mle,
)
from moe_stats.inference import covariance, delta_intervals, interval
from moe_stats.inference.bootstrap import match_experts

ONE_START = {"n_rounds": 0, "quasi_newton": False}
TRUTH = GaussianMoE(
    SoftmaxGate([0.3, 0.0], [[5.0], [0.0]]), LinearExperts([[2.0], [-1.0]], [1.0, 0.2], [0.3, 0.4])
)
THREE = LinearExperts([[3.0], [-2.0], [1.0]], [4.0, 0.0, -4.0], [0.4, 0.5, 0.45])

ROOT = 1e-5
"""Relative to a standard error: likelihood-ratio ends are found to 1e-6 of one."""


def fitted(truth=TRUTH, n=400, seed=0, X=None, **options):
    X = Uniform(-1, 1).sample(n, seed) if X is None else X
    y = truth.sample(X, seed + 1)
    options = {"init": truth, **ONE_START, **options}
    return fit_mle(X[None], y[None], n_experts=truth.n_experts, gate=truth.gate, **options)


@pytest.fixture(scope="module")
def fit():
    return fitted()


@pytest.fixture(scope="module")
def line():
    """Linear regression: the fit, n, the slope's estimate, its sum of squares and the scale."""
    model = GaussianMoE(SoftmaxGate([0.0], [[0.0]]), LinearExperts([[1.0]], [0.5], [0.7]))
    mle = fitted(model, n=40)
    x = mle._problem.x[0, 0]
    squares = float((x - x.mean()).square().sum())
    return mle, 40, float(mle.model.experts.slope), squares, float(mle.model.experts.scale)


class TestOneExpertIsLinearRegression:
    def test_delta(self, line):
        mle, n, slope, squares, scale = line
        found = interval(mle, "slope[0, 0]", level=0.9)
        reach = norm.ppf(0.95) * scale / squares**0.5
        assert found.low == pytest.approx(slope - reach, abs=1e-7)
        assert found.high == pytest.approx(slope + reach, abs=1e-7)
        spread = interval(mle, "scale[0]", level=0.9)
        factor = math.exp(norm.ppf(0.95) / (2 * n) ** 0.5)
        assert spread.low == pytest.approx(scale / factor, rel=1e-7)
        assert spread.high == pytest.approx(scale * factor, rel=1e-7)

    def test_likelihood_ratio(self, line):
        """n log(1 + squares d^2 / (n scale^2)) = chi^2, solved for d."""
        mle, n, slope, squares, scale = line
        found = interval(mle, "slope[0, 0]", level=0.9, method="likelihood-ratio")
        reach = scale * (n * math.expm1(chi2.ppf(0.9, 1) / n) / squares) ** 0.5
        error = scale / squares**0.5
        assert found.low == pytest.approx(slope - reach, abs=ROOT * error)
        assert found.high == pytest.approx(slope + reach, abs=ROOT * error)
        delta = interval(mle, "slope[0, 0]", level=0.9)
        assert found.high - delta.high > 100 * ROOT * error  # control: not the delta method's

    def test_likelihood_ratio_of_a_scale(self, line):
        """2 n (log(s / scale) + (scale^2 / s^2 - 1) / 2) = chi^2 at both ends s."""
        mle, n, _, _, scale = line
        found = interval(mle, "scale[0]", method="likelihood-ratio")
        for end in (found.low, found.high):
            ratio = end / scale
            deviance = 2 * n * (math.log(ratio) + (ratio**-2 - 1) / 2)
            assert deviance == pytest.approx(chi2.ppf(0.95, 1), abs=1e-3)
        assert found.low < scale < found.high


def test_a_function_may_be_a_name_a_tensor_or_a_number(fit):
    named = interval(fit, "slope[1, 0]")
    traced = interval(fit, lambda m: m.experts.slope[1, 0])
    plain = interval(fit, lambda m: float(m.experts.slope[1, 0]))
    for other in (traced, plain):
        assert (other.low, other.high) == pytest.approx((named.low, named.high), abs=1e-9)


def test_functions_see_the_pinned_gauge(fit):
    """A raw gate slope differs between equal models; in the pinned gauge it is a difference."""
    moved = GaussianMoE(SoftmaxGate(TRUTH.gate.intercept + 1, TRUTH.gate.slope + 2), TRUTH.experts)
    X, y = fit._problem.x.mT, fit._problem.y
    again = fit_mle(X, y, n_experts=2, init=moved, **ONE_START)
    for method in ("delta", "likelihood-ratio"):
        here, there = (
            interval(f, lambda m: m.gate.slope[0, 0], method=method) for f in (fit, again)
        )
        assert (here.low, here.high) == pytest.approx((there.low, there.high), abs=1e-4)


def test_the_delta_method_is_linear_algebra(fit):
    """Variance of a difference of two parameters from the covariance matrix, by hand."""
    found = covariance(fit)
    here = interval(fit, lambda m: m.experts.intercept[0] - m.experts.intercept[1])
    v = found.matrix[0]
    error = float((v[3, 3] + v[8, 8] - 2 * v[3, 8]).sqrt())
    assert here.high - here.low == pytest.approx(2 * norm.ppf(0.975) * error, rel=1e-9)


def test_the_profile_is_a_constrained_maximum(fit):
    """At each end no point of the constraint set that a random search finds is higher, and the
    likelihood there is chi^2 / 2 below the maximum."""
    from moe_stats.inference.profile import Profile

    found = covariance(fit)
    direction = torch.zeros(10, dtype=torch.float64)
    direction[2] = 1.0  # slope[0, 0]
    params = fit._params[0]
    profile = Profile(fit._problem, 0, params, direction, found.matrix[0] @ direction)
    _, high = profile.interval(0.95, float(found.standard_errors[0, 2]))
    assert profile.deviance(high) == pytest.approx(chi2.ppf(0.95, 1), abs=1e-3)
    top = profile.start
    rng = torch.Generator().manual_seed(0)
    noise = 1e-3 * torch.randn(200, 10, generator=rng, dtype=torch.float64)
    noise[:, 2] = 0.0
    rows = torch.zeros(201, dtype=torch.long)
    values = fit._problem.evaluate(torch.cat([top[None], top + noise]), rows, "value").value
    assert int(values.argmax()) == 0
    assert profile.highest <= profile.top + 1e-8


def test_batched_delta_intervals_are_single_ones():
    fits = fit_mle(
        torch.stack([Uniform(-1, 1).sample(400, s) for s in range(3)]),
        torch.stack([TRUTH.sample(Uniform(-1, 1).sample(400, s), s + 9) for s in range(3)]),
        n_experts=2,
        init=TRUTH,
        **ONE_START,
    )
    low, high = delta_intervals(fits, 0.8)
    assert low.shape == high.shape == (3, 10)
    alone = interval(fits, "gate slope[0, 0]", level=0.8, row=2)
    assert (float(low[2, 1]), float(high[2, 1])) == pytest.approx((alone.low, alone.high))


class TestBootstrap:
    def test_it_agrees_with_the_delta_method_where_that_holds(self, fit):
        """Widths of 120 refits have a relative error of about 10% (quantiles at 2.5%), and the
        normal limit is off by a few per cent at n = 400; half the width is told apart."""
        delta = interval(fit, "slope[0, 0]")
        here = interval(fit, "slope[0, 0]", method="bootstrap", n_replicates=120, random_state=0)
        ratio = (here.high - here.low) / (delta.high - delta.low)
        assert 0.7 < ratio < 1.4
        assert here.estimate == delta.estimate
        assert here.notes == ()

    def test_a_seed_decides_it(self, fit):
        options = {"method": "bootstrap", "n_replicates": 50}
        first, again, other = (
            interval(fit, "scale[0]", random_state=s, **options) for s in (1, 1, 2)
        )
        assert first == again
        assert first != other
        assert 0 < first.low < first.high

    def test_experts_are_matched(self, fit):
        layout = Layout.of(fit._problem.form, 2, 1)
        target = TRUTH.to_params()
        swapped = torch.cat([target[5:], target[:5]])
        X = fit._problem.x[0].mT
        both = match_experts(torch.stack([swapped + 0.01, target - 0.01]), target, layout, X)
        torch.testing.assert_close(both, torch.stack([target + 0.01, target - 0.01]))


class TestRefusals:
    def test_a_function_of_the_unidentified(self):
        X = Uniform(0.1, 1).sample(300, 0)
        gate = TopKGate([0.2, 0.0, -0.3], [[2.0], [0.0], [-2.0]], top_k=2)
        silent = fitted(GaussianMoE(gate, THREE), X=X)
        for method in ("delta", "likelihood-ratio", "bootstrap"):
            with pytest.raises(ValueError, match=r"must be identified .* slope\[2, 0\]"):
                interval(silent, "slope[2, 0]", method=method)
        assert interval(silent, "slope[0, 0]").low < 3.0  # the others keep their intervals

    @pytest.mark.parametrize("method", ["delta", "likelihood-ratio"])
    def test_a_boundary_parameter(self, method):
        """Top-1 by logit: the boundary moves with the gates, the experts stay regular."""
        gate = TopKGate([0.0, 0.0], [[1.0], [-1.0]], top_k=1, rank="logit")
        jump = fitted(GaussianMoE(gate, TRUTH.experts))

        def place(m):
            return -m.gate.intercept[0] / m.gate.slope[0, 0]

        with pytest.raises(ValueError, match=r"moves a selection boundary.*use 'bootstrap'"):
            interval(jump, place, method=method)
        with pytest.raises(ValueError, match="must be identified"):  # its size means nothing
            interval(jump, "gate slope[0, 0]", method=method)
        found = interval(jump, "slope[1, 0]", method=method)  # experts come left to right
        assert found.low < 2.0 < found.high

    @pytest.mark.parametrize("method", ["delta", "likelihood-ratio"])
    def test_a_bound(self, method):
        held = fitted(min_scale=0.45)
        with pytest.raises(ValueError, match=r"scale\[0\]: on a bound"):
            interval(held, "scale[0]", method=method)

    @pytest.mark.parametrize("method", ["delta", "likelihood-ratio"])
    def test_a_weight_that_binds(self, method):
        with pytest.raises(ValueError, match=r"min_weight=0.49.*use 'bootstrap'"):
            interval(fitted(min_weight=0.49), "slope[0, 0]", method=method)

    def test_a_singular_fit(self):
        """Two copies of one line: delta and likelihood ratio are refused, whatever the function."""
        x = torch.linspace(-1, 1, 20, dtype=torch.float64).repeat_interleave(21)
        y = x + torch.linspace(-1, 1, 21, dtype=torch.float64).repeat(20)
        one = fit_mle(
            x[None, :, None], y[None], n_experts=1, n_init=1, random_states=[0], **ONE_START
        )
        pair = one._params[0].repeat(2)
        copies = GaussianMoE.from_params(pair, SoftmaxGate.template(), 2)
        tied = fit_mle(x[None, :, None], y[None], n_experts=2, init=copies, max_iter=0, **ONE_START)
        for method in ("delta", "likelihood-ratio"):
            with pytest.raises(ValueError, match=r"singular.*use 'bootstrap'"):
                interval(tied, "slope[0, 0]", method=method)
        low, high = delta_intervals(tied)
        assert bool((torch.isnan(low) & torch.isnan(high)).all())

    def test_a_nonlinear_function_for_the_likelihood_ratio(self, fit):
        with pytest.raises(ValueError, match="linear in the flat parameters"):
            interval(fit, lambda m: m.experts.slope[0, 0] ** 2, method="likelihood-ratio")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"level": 1.0}, r"'level' parameter must be in \(0, 1\)"),
            ({"method": "jackknife"}, "'method' parameter must be one of"),
            ({"row": 1}, "'row' parameter must be an int"),
            ({"n_replicates": 10}, "'n_replicates' parameter must be an int"),
            ({"function": "slope[7]"}, "'function' parameter must be a parameter's name"),
            ({"function": "gate slope[1, 0]"}, "must not be pinned"),
            ({"function": lambda m: m.experts.slope}, "must return one number"),
            ({"function": lambda m: (m.experts.slope[0, 0] - m.experts.slope[0, 0]).sqrt()},
             "must be differentiable"),
        ],
    )  # fmt: skip
    def test_arguments(self, fit, options, message):
        with pytest.raises(ValueError, match=message):
            interval(fit, **{"function": "slope[0, 0]", **options})


def test_an_estimator_is_as_good_as_its_fit():
    X = Uniform(-1, 1).sample(400, 0)
    y = TRUTH.sample(X, 1)
    estimator = GaussianMoERegressor(2, init=TRUTH, **ONE_START).fit(X, y)
    here, there = interval(estimator, "slope[0, 0]"), interval(fitted(), "slope[0, 0]")
    assert (here.low, here.high) == pytest.approx((there.low, there.high), rel=1e-6)
    assert "(delta, 95%)" in str(here)

"""Experts whose means do not depend on x: models, fits and reports."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import ndtri
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from moe_stats import (
    ActivationDenseToSparseGate,
    ConstantExperts,
    DenseToSparseGate,
    GaussianMoE,
    GaussianMoERegressor,
    LinearExperts,
    SoftmaxGate,
    TopKGate,
    Uniform,
    covariance,
    dendrogram,
    fit_mle,
    identifiability_report,
    information_criteria,
    interval,
)
from moe_stats.fit.em import m_step
from moe_stats.fit.problem import Problem

EXACT = 1e-12
"""Two ways to the same number of order 1 to 100, float64."""

AT_MAXIMUM = 1e-4
"""Two fits that both stop at a scaled gradient of 1e-6, and what follows from them, relative."""

EXPERTS = ConstantExperts([1.0, -1.0, 0.2], [0.3, 0.4, 0.2])
INTERCEPT, SLOPE = [0.2, 0.0, -0.3], [[4.0], [0.5], [-4.0]]
GATES = {
    "softmax": SoftmaxGate(INTERCEPT, SLOPE),
    "dense-to-sparse": DenseToSparseGate(INTERCEPT, SLOPE, 1.3),
    "activation": ActivationDenseToSparseGate(INTERCEPT, SLOPE, 0.2, activation="sigmoid"),
    "topk": TopKGate(INTERCEPT, SLOPE, top_k=2, rank="slope"),
    "top-1": TopKGate(INTERCEPT, SLOPE, top_k=1, rank="logit"),
}
every_gate = pytest.mark.parametrize("name", GATES)


def simulated(model, n=200, seed=0, n_features=1):
    X = Uniform(-1, 1, n_features).sample(n, random_state=seed)
    return X, model.sample(X, random_state=seed + 1)


@pytest.fixture(scope="module")
def fits():
    """By gate: features, responses and the fit."""
    found = {}
    for name, gate in GATES.items():
        X, y = simulated(GaussianMoE(gate, EXPERTS))
        fit = fit_mle(
            X[None], y[None], n_experts=3, gate=gate, experts="constant", random_states=[0]
        )
        found[name] = X, y, fit
    return found


class TestModels:
    @every_gate
    def test_they_are_linear_experts_without_slopes(self, name):
        model = GaussianMoE(GATES[name], EXPERTS)
        linear = LinearExperts(torch.zeros(3, 1).double(), EXPERTS.intercept, EXPERTS.scale)
        flat = GaussianMoE(GATES[name], linear)
        X, y = simulated(model)
        assert torch.equal(y, flat.sample(X, 1))
        assert torch.equal(model.log_prob(y, X), flat.log_prob(y, X))
        assert torch.equal(model.responsibilities(X, y), flat.responsibilities(X, y))
        assert torch.equal(EXPERTS.mean(X), EXPERTS.intercept.expand(len(X), -1))

    @every_gate
    def test_atoms_have_no_slope(self, name):
        measure = GaussianMoE(GATES[name], EXPERTS).mixing_measure()
        assert list(measure.atoms)[-2:] == ["intercept", "variance"]
        assert "slope" not in measure.atoms

    def test_parameters_come_back(self):
        gate = SoftmaxGate(torch.zeros(2, 3), torch.ones(2, 3, 4))
        batch = GaussianMoE(gate, ConstantExperts(torch.randn(2, 3), torch.ones(2, 3), 4))
        again = GaussianMoE.from_params(
            batch.to_params(), SoftmaxGate.template(), 3, ConstantExperts
        )
        for other in (again, again[:], copy.deepcopy(batch), pickle.loads(pickle.dumps(batch))):
            assert type(other.experts) is ConstantExperts
            assert torch.equal(other.to_params(), batch.to_params())
        assert batch[1].n_features == 4
        assert batch[1].batch_shape == ()

    def test_slopes_are_refused(self):
        params = GaussianMoE(
            GATES["softmax"], LinearExperts([[0.0], [0.1], [0.0]], *2 * [[1.0] * 3])
        ).to_params()
        with pytest.raises(ValueError, match=r"'slope' .* constant experts must be 0; got 0\.1"):
            GaussianMoE.from_params(params, SoftmaxGate.template(), 3, ConstantExperts)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: ConstantExperts([0.0], [0.0]), "'scale' parameter must be positive"),
            (lambda: ConstantExperts([0.0], [1.0, 1.0]), "'scale' parameter must have shape"),
            (lambda: ConstantExperts(0.0, 1.0), "'intercept' parameter must have shape"),
            (lambda: ConstantExperts([np.nan], [1.0]), "'intercept' parameter must be finite"),
            (lambda: ConstantExperts([0.0], [1.0], 0), "'n_features' .*int in .*got 0"),
            (
                lambda: GaussianMoE(SoftmaxGate([0.0], [[0.0, 1.0]]), ConstantExperts([0.0], [1])),
                "must have the same shape",
            ),
        ],
    )
    def test_bad_input(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()

    def test_merging_is_refused(self):
        with pytest.raises(ValueError, match=r"must have linear experts.*got constant"):
            dendrogram(GaussianMoE(GATES["softmax"], EXPERTS))


def log_likelihood(gate, free, X, y):
    """Of a model with constant experts as a function of its free parameters, and its gradient."""
    theta = torch.tensor(free, dtype=torch.float64, requires_grad=True)
    own = theta[: 3 * 2].view(3, 2)
    b, log_scale = theta[6:9], theta[9:12]
    model = GaussianMoE(
        type(gate).from_parameters(own, theta[12:], **gate.options),
        ConstantExperts(b, torch.exp(log_scale)),
    )
    value = model.log_prob(y, X).sum()
    (gradient,) = torch.autograd.grad(value, theta)
    return value.item(), gradient.nan_to_num()


def best_of(gate, X, y, n_starts):
    """The highest likelihood that SciPy's L-BFGS-B reaches over the free parameters."""
    rng = np.random.default_rng(3)
    n_shared = gate.form.n_shared
    floor = float(torch.log(1e-3 * y.std()))
    free = [(None, None)] * 9 + [(floor, 3.0)] * 3 + [(-6.9, 6.9)] * n_shared
    values = []
    for _ in range(n_starts):
        start = np.concatenate([rng.normal(0, 2, 6), rng.normal(0, 1, 3), np.full(3, -0.7)])
        start = np.append(start, np.full(n_shared, -1.0))

        def negative(theta):
            value, gradient = log_likelihood(gate, theta, X, y)
            return -value, -gradient.numpy()

        end = minimize(negative, start, jac=True, method="L-BFGS-B", bounds=free)
        values.append(-float(end.fun))
    return max(values)


class TestFits:
    @every_gate
    def test_slopes_stay_0_and_the_fit_is_certified(self, fits, name):
        X, y, fit = fits[name]
        assert fit.status().startswith("converged")
        assert type(fit.model.experts) is ConstantExperts
        assert not bool(fit.model.experts.slope.any())
        found = fit.stationarity()
        assert found.is_local_maximum, str(found)
        assert float(fit.model.log_prob(y, X).sum()) == pytest.approx(float(fit.log_likelihood))

    @every_gate
    def test_no_gradient_is_left_in_free_parameters(self, fits, name):
        """By automatic differentiation. Left out are gates that select, whose maxima may lie on
        walls, and a scale at its bound."""
        X, y, fit = fits[name]
        model = fit.model[0]
        own, shared = model.gate.pack()
        e = model.experts
        theta = torch.cat([own.flatten(), e.intercept, e.scale.log(), shared])
        gradient = log_likelihood(model.gate, theta.tolist(), X, y)[1]
        free = torch.ones(len(theta), dtype=torch.bool)
        free[:6] = model.gate.form.top_k is None
        free[9:12] = e.scale > 1.001e-3 * y.std()
        assert float(gradient[free].abs().max()) <= 1e-6 * len(y)  # standard errors above 1 / 200
        by_slope = model.responsibilities(X, y) * (y[:, None] - e.intercept) / e.scale**2
        assert float((X.mT @ by_slope).abs().max()) > 1.0  # control: the slopes would move

    @every_gate
    def test_it_is_no_lower_than_what_scipy_reaches(self, fits, name):
        X, y, fit = fits[name]
        reference = best_of(GATES[name], X, y, n_starts=5)
        assert float(fit.log_likelihood) >= reference - 1e-6

    def test_linear_experts_reach_more_on_data_with_slopes(self):
        sloped = LinearExperts([[2.0], [-1.0], [0.5]], [1.0, -1.0, 0.2], [0.3, 0.4, 0.2])
        X, y = simulated(GaussianMoE(GATES["softmax"], sloped))
        options = {"n_experts": 3, "n_init": 3, "n_rounds": 0, "random_states": [0]}
        constant, linear = (
            fit_mle(X[None], y[None], experts=kind, **options) for kind in ("constant", "linear")
        )
        assert float(linear.log_likelihood) > float(constant.log_likelihood) + 10

    def test_top_1_on_the_line_is_the_best_cut(self):
        gate = TopKGate([0.0, 0.0], [[1.0], [-1.0]], top_k=1, rank="logit")
        X, y = simulated(GaussianMoE(gate, ConstantExperts([1.0, 0.0], [0.4, 0.4])), 60)
        fit = fit_mle(
            X[None], y[None], n_experts=2, gate=gate, experts="constant", random_states=[0]
        )
        sorted_y = y[X[:, 0].argsort()]

        def normal(part):
            return -0.5 * len(part) * (math.log(2 * math.pi * float(part.var(correction=0))) + 1)

        cuts = [normal(sorted_y[:c]) + normal(sorted_y[c:]) for c in range(2, 59)]
        assert float(fit.log_likelihood) >= float(max(cuts)) - 1e-9
        assert float(max(cuts)) > float(sorted(cuts)[-2])  # control: a cut matters

    def test_a_lone_expert_is_the_mean(self):
        X, y = simulated(GaussianMoE(GATES["softmax"], EXPERTS))
        fit = GaussianMoERegressor(1, experts="constant").fit(X, y)
        assert float(fit.model_.experts.intercept) == pytest.approx(float(y.mean()))
        assert float(fit.model_.experts.scale) == pytest.approx(float(y.std(correction=0)))
        assert int(fit.model_.n_identified()) == 2

    def test_the_m_step_is_a_weighted_mean(self):
        model = GaussianMoE(GATES["softmax"], EXPERTS)
        X, y = simulated(model)
        floor = torch.tensor([1e-3], dtype=torch.float64)
        problem = Problem(X.mT[None], y[None], model.gate.form, 3, floor, experts=ConstantExperts)
        params, rows = model.to_params()[None], torch.tensor([0])
        change, _ = m_step(problem, params, problem.evaluate(params, rows, "information"))
        new = model.with_params((params + change)[0]).experts
        r = model.responsibilities(X, y)
        mean = (r * y[:, None]).sum(0) / r.sum(0)
        variance = (r * (y[:, None] - mean).square()).sum(0) / r.sum(0)
        assert torch.allclose(new.intercept, mean, rtol=1e-8)  # the ridge is 1e-9
        assert torch.allclose(new.scale.square(), variance, rtol=1e-8)

    def test_weights_and_several_features(self):
        """The interior point method, with two features."""
        gate = SoftmaxGate([0.2, 0.0], [[3.0, -1.0], [0.0, 0.0]])
        X, y = simulated(GaussianMoE(gate, ConstantExperts([1.0, -1.0], [0.3, 0.4], 2)), 300, 0, 2)
        fit = GaussianMoERegressor(
            2, experts="constant", min_weight=0.1, n_init=3, random_state=0
        ).fit(X, y)
        assert fit.status_.startswith("converged")
        assert not bool(fit.model_.experts.slope.any())

    def test_many_rows_are_climbed_from_a_subsample(self):
        model = GaussianMoE(GATES["softmax"], EXPERTS)
        X, y = simulated(model, 11_000)
        fit = fit_mle(
            X[None], y[None], n_experts=3, experts="constant", n_init=2, n_rounds=0,
            quasi_newton=False, random_states=[0],
        )  # fmt: skip
        assert fit.status().startswith("converged")
        assert float(fit.log_likelihood) > float(model.log_prob(y, X).sum())

    def test_oracle_starts(self):
        model = GaussianMoE(GATES["softmax"], EXPERTS)
        X, y = simulated(model)
        fit = fit_mle(
            X[None], y[None], n_experts=4, experts="constant", init="oracle", truth=model,
            random_states=[0],
        )  # fmt: skip
        assert not bool(fit.model.experts.slope.any())

    @pytest.mark.parametrize("what", ["init", "truth"])
    def test_models_with_slopes_are_refused(self, what):
        X, y = simulated(GaussianMoE(GATES["softmax"], EXPERTS), 60)
        sloped = GaussianMoE(GATES["softmax"], LinearExperts(SLOPE, INTERCEPT, [1.0] * 3))
        options = {"init": sloped} if what == "init" else {"init": "oracle", "truth": sloped}
        with pytest.raises(ValueError, match=f"'{what}' model .* without slopes .*slope of 4"):
            fit_mle(X[None], y[None], n_experts=3, experts="constant", **options)

    def test_an_unknown_kind(self):
        X, y = simulated(GaussianMoE(GATES["softmax"], EXPERTS), 60)
        with pytest.raises(ValueError, match=r"'experts' .*one of \{'linear', 'constant'\}; got"):
            GaussianMoERegressor(2, experts="quadratic").fit(X, y)


class TestReports:
    @every_gate
    def test_slopes_are_in_none(self, fits, name):
        X, _, fit = fits[name]
        report = identifiability_report(fit.model[0], X)
        spoken = [
            *fit.active_bounds(), *fit.not_identified(), *covariance(fit).names, *report.weakest,
            *(parameter for d in report.null_directions for parameter in d.coefficients),
        ]  # fmt: skip
        assert not [text for text in spoken if text.startswith("slope")]
        assert any(text.startswith("intercept") for text in covariance(fit).names)
        layout_size = fit.model.to_params().shape[-1]
        assert len(report.eigenvalues) == len(covariance(fit).names) == layout_size - 3
        assert all(d.vector.shape == (layout_size,) for d in report.null_directions)

    @every_gate
    def test_criteria_count_what_is_estimated(self, fits, name):
        X, y, fit = fits[name]
        open_numbers = {"softmax": 2, "dense-to-sparse": 3, "activation": 1, "topk": 2, "top-1": 2}
        estimated = 3 * 4 + GATES[name].form.n_shared - open_numbers[name]
        found = information_criteria(fit, X, y)
        assert found.n_parameters.tolist() == [estimated]
        bic = -2 * float(fit.log_likelihood) + math.log(len(y)) * estimated
        assert float(found.bic) == pytest.approx(bic)

    @pytest.mark.parametrize(("name", "n_pinned"), [("softmax", 2), ("activation", 1)])
    def test_standard_errors_invert_the_free_information(self, fits, name, n_pinned):
        """Hessian of the density by automatic differentiation, pinned parameters left out."""
        X, y, fit = fits[name]
        found = covariance(fit)
        assert found.flags[0] == ()
        model = fit.model[0]
        hessian = torch.autograd.functional.hessian(
            lambda p: model.with_params(
                torch.zeros(fit._params.shape[1]).double().index_copy(0, found.places, p)
            ).log_prob(y, X).sum(),
            fit._params[0, found.places],
        )  # fmt: skip
        errors = found.standard_errors[0]
        free = errors > 0
        assert int((~free).sum()) == n_pinned
        inverse = torch.linalg.inv(-hessian[free][:, free]).diagonal().sqrt()
        assert torch.allclose(errors[free], inverse, rtol=AT_MAXIMUM)
        sandwich = covariance(fit, "sandwich").standard_errors[0]
        assert torch.allclose(sandwich[free], errors[free], rtol=1.0)  # of the same order
        assert not torch.allclose(sandwich[free], errors[free], rtol=1e-3)

    def test_intervals(self):
        """Of a normal mean: the likelihood-ratio interval has a closed form, and the others'
        ends are near it; with a slope the interval would be wider."""
        X = Uniform(0, 1).sample(200, random_state=0)
        y = GaussianMoE(SoftmaxGate([0.0], [[0.0]]), ConstantExperts([1.0], [0.5])).sample(X, 1)
        fit = GaussianMoERegressor(1, experts="constant").fit(X, y)
        spread, z = float(y.std(correction=0)), ndtri(0.975)
        exact = spread * np.sqrt(np.expm1(z**2 / 200))
        ratio = interval(fit, "intercept[0]", method="likelihood-ratio")
        delta = interval(fit, lambda m: m.experts.mean(X[:1]).sum())
        assert (ratio.high - ratio.low) / 2 == pytest.approx(exact, rel=1e-4)
        assert (delta.high - delta.low) / 2 == pytest.approx(z * spread / np.sqrt(200), rel=1e-6)
        linear = GaussianMoERegressor(1).fit(X, y)
        wide = interval(linear, "intercept[0]", method="likelihood-ratio")
        assert wide.high - wide.low > 1.5 * (ratio.high - ratio.low)
        boot = interval(
            fit, lambda m: float(m.experts.intercept[0]), method="bootstrap", n_replicates=50,
            random_state=0,
        )  # fmt: skip
        assert boot.low < float(fit.model_.experts.intercept) < boot.high


def test_the_estimator_follows_the_protocol():
    X, y = simulated(GaussianMoE(GATES["softmax"], EXPERTS), 120)
    fit = GaussianMoERegressor(2, experts="constant", n_init=2, n_rounds=0, random_state=0)
    assert clone(fit).get_params()["experts"] == "constant"
    search = GridSearchCV(fit, {"experts": ["linear", "constant"]}, cv=2).fit(X.numpy(), y.numpy())
    assert len(search.cv_results_["params"]) == 2
    assert search.best_params_["experts"] in ("linear", "constant")
    fitted = clone(fit).fit(X.numpy(), y.numpy())
    assert set(fitted.standard_errors()) == {
        f"{part}[{e}{', 0' * ('slope' in part)}]"
        for part in ("gate intercept", "gate slope", "intercept", "scale")
        for e in range(2)
    }
    assert fitted.bic(X, y) == pytest.approx(float(information_criteria(fitted, X, y).bic))

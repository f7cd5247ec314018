"""`GaussianMoERegressor`: the estimator protocol and what a fit offers."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from moe_stats import (
    GaussianMoE,
    GaussianMoERegressor,
    LinearExperts,
    SoftmaxGate,
    TopKGate,
    Uniform,
    fit_mle,
)
from moe_stats.fit import mle

TRUTH = GaussianMoE(
    SoftmaxGate([0.3, 0.0], [[5.0], [0.0]]), LinearExperts([[2.0], [-1.0]], [1.0, 0.2], [0.3, 0.4])
)
X = Uniform(-1, 1).sample(400, random_state=0)
y = TRUTH.sample(X, random_state=1)

TOO_FEW = "its data have fewer observations than a mixture of this size has parameters"
EXPECTED_FAILURES = {
    1: {},
    2: {
        "check_regressors_no_decision_function": f"10 for 17: {TOO_FEW}",
        "check_n_features_in_after_fitting": f"15 for 17: {TOO_FEW}",
        "check_estimators_nan_inf": f"10 for 14: {TOO_FEW}",
    },
}
"""Checks of scikit-learn that fail on purpose, by number of experts, and why."""


@parametrize_with_checks(
    [GaussianMoERegressor(e, n_init=2, n_rounds=0, random_state=0) for e in EXPECTED_FAILURES],
    expected_failed_checks=lambda estimator: EXPECTED_FAILURES[estimator.n_experts],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def fit():
    return GaussianMoERegressor(2, random_state=0).fit(X, y)


def test_attributes(fit):
    assert isinstance(fit.model_, GaussianMoE)
    assert fit.log_likelihood_ == pytest.approx(float(fit.model_.log_prob(y, X).sum()), rel=1e-12)
    assert fit.status_.startswith("converged: scaled gradient")
    assert fit.n_features_in_ == 1
    assert fit.n_iter_ >= 1
    assert fit.restarts_.shape == (8 + 8 + 2 * 8,)  # both climbs, two rounds of as many moves
    assert fit.restarts_.max() == pytest.approx(fit.log_likelihood_, rel=1e-7)


def test_estimator_is_fit_mle_on_one_data_set(fit):
    batch = fit_mle(X[None], y[None], n_experts=2, random_states=[0])
    assert float(batch.log_likelihood) == fit.log_likelihood_
    assert torch.equal(batch.model[0].to_params(), fit.model_.to_params())


def test_the_truth_is_recovered(fit, false_alarm):
    """Null: the fit has the truth's experts. Statistic: the likelihood ratio of the true
    parameters, chi-square with the 8 identified parameters by Wilks. Control: a wrong truth."""
    from scipy.stats import chi2

    def ratio(model):
        return 2 * (fit.log_likelihood_ - float(model.log_prob(y, X).sum()))

    assert 0 < ratio(TRUTH) < chi2.isf(false_alarm, 8)
    wrong = GaussianMoE(TRUTH.gate, LinearExperts([[2.0], [-1.0]], [1.2, 0.2], TRUTH.experts.scale))
    assert ratio(wrong) > chi2.isf(false_alarm, 8)


def test_reports_are_lazy_and_follow_a_new_fit(monkeypatch):
    calls, certify = [], mle.certify
    monkeypatch.setattr(mle, "certify", lambda *a: calls.append(a) or certify(*a))
    estimator = GaussianMoERegressor(2, n_init=2, n_rounds=0, random_state=0).fit(X, y)
    assert not calls
    first = estimator.stationarity_
    assert len(calls) == 1
    estimator.fit(X[:200], y[:200])
    assert estimator.stationarity_.scaled_gradient != first.scaled_gradient


def test_predictions_are_the_models(fit):
    assert np.array_equal(fit.predict(X), fit.model_.mean(X).numpy())
    assert np.array_equal(fit.gate_probs(X), fit.model_.gate_probs(X).numpy())
    assert np.allclose(fit.log_prob(X, y), fit.model_.log_prob(y, X).numpy(), rtol=0, atol=0)
    residual = y.numpy() - fit.predict(X)
    spread = ((y - y.mean()) ** 2).sum().item()
    assert fit.score(X, y.numpy()) == pytest.approx(1 - (residual**2).sum() / spread)


def test_quantiles_invert_the_distribution_function(fit):
    predicted = fit.predict_dist(X)
    for level in (1e-6, 0.03, 0.5, 0.8, 1 - 1e-6):
        at = torch.from_numpy(predicted.quantile(level))
        assert np.allclose(fit.model_.cdf(at, X).numpy(), level, rtol=1e-9, atol=1e-12)
    low, high = predicted.interval(0.8)
    assert np.allclose(low, predicted.quantile(0.1))
    assert np.allclose(high, predicted.quantile(0.9))
    assert np.array_equal(predicted.mean, fit.predict(X))
    assert np.allclose(predicted.sd**2, fit.model_.variance(X).numpy())


def test_intervals_cover(fit, false_alarm):
    """Null: the true model's interval covers a new y with its nominal probability; binomial
    test. Control: half the width is rejected."""
    from scipy.stats import binomtest

    new_X = Uniform(-1, 1).sample(5_000, random_state=7)
    new_y = TRUTH.sample(new_X, random_state=8).numpy()
    estimator = clone(fit).fit(X, y)
    estimator.model_ = TRUTH
    low, high = estimator.predict_dist(new_X).interval(0.8)
    inside = int(((low < new_y) & (new_y < high)).sum())
    assert binomtest(inside, 5_000, 0.8).pvalue > false_alarm
    centre, half = (low + high) / 2, (high - low) / 4
    assert binomtest(int((abs(new_y - centre) < half).sum()), 5_000, 0.8).pvalue < false_alarm


@pytest.mark.parametrize("level", [0, 1, -0.2, 1.5, float("nan")])
def test_quantile_levels_are_inside_the_unit_interval(fit, level):
    with pytest.raises(ValueError, match=r"'level' parameter must be in \(0, 1\)"):
        fit.predict_dist(X).quantile(level)


def test_information_criteria(fit):
    free = 2 * 5 - 2  # five numbers an expert, less the gate's two translations
    assert fit.bic(X, y) == pytest.approx(-2 * fit.log_likelihood_ + free * np.log(400))
    assert fit.aic(X, y) == pytest.approx(-2 * fit.log_likelihood_ + free * 2)
    one = GaussianMoERegressor(1, random_state=0).fit(X, y)
    assert one.bic(X, y) > fit.bic(X, y)


def test_one_expert_is_least_squares():
    one = GaussianMoERegressor(1, random_state=0).fit(X, y)
    slope, intercept = np.polyfit(X[:, 0].numpy(), y.numpy(), 1)
    assert np.allclose(one.predict(X), intercept + slope * X[:, 0].numpy(), rtol=0, atol=1e-6)
    rms = np.sqrt(np.mean((y.numpy() - one.predict(X)) ** 2))
    assert float(one.model_.experts.scale) == pytest.approx(rms, rel=1e-6)


def test_fit_follows_the_units_of_the_data(fit):
    """An affine change of x and of y leaves the maximum where it was, up to the Jacobian."""
    scaled = GaussianMoERegressor(2, random_state=0).fit(100 * X + 7, 0.01 * y - 3)
    assert scaled.log_likelihood_ == pytest.approx(
        fit.log_likelihood_ - 400 * np.log(0.01), abs=1e-6
    )
    assert np.allclose(scaled.predict(100 * X + 7), 0.01 * fit.predict(X) - 3, atol=1e-6)


def test_tables_arrays_and_tensors_are_the_same(fit):
    table = pd.DataFrame({"length": X[:, 0].numpy()})
    named = GaussianMoERegressor(2, random_state=0).fit(table, pd.Series(y.numpy()))
    assert named.log_likelihood_ == fit.log_likelihood_
    assert list(named.feature_names_in_) == ["length"]
    arrays = GaussianMoERegressor(2, random_state=0).fit(X.numpy(), y.numpy())
    assert arrays.log_likelihood_ == fit.log_likelihood_
    lists = GaussianMoERegressor(2, random_state=0).fit(X.tolist(), y.tolist())
    assert lists.log_likelihood_ == fit.log_likelihood_


def test_tables_cause_no_warnings():
    """A column of a table arrives as an array that must not be written to."""
    column = X.numpy().copy()
    column.flags.writeable = False
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            table = pd.DataFrame(column, columns=["length"])
            fitted = GaussianMoERegressor(2, n_init=2, n_rounds=0, random_state=0)
            fitted.fit(table, pd.Series(y.numpy())).predict(table)
            fitted.fit(column, y.numpy()).predict(column)
    finally:
        torch.set_warn_always(always)


def test_copies(fit):
    again = pickle.loads(pickle.dumps(fit))
    assert np.array_equal(again.predict(X), fit.predict(X))
    assert again.status_ == fit.status_
    assert str(again.stationarity_) == str(fit.stationarity_)
    with pytest.raises(NotFittedError):
        _ = clone(fit).status_
    gated = GaussianMoERegressor(3, TopKGate.template(top_k=2), min_weight=0.1)
    assert clone(gated).get_params() == gated.get_params()


@pytest.mark.parametrize("method", ["predict", "predict_dist", "gate_probs"])
def test_not_fitted(method):
    with pytest.raises(NotFittedError):
        getattr(GaussianMoERegressor(), method)(X)


@pytest.mark.parametrize("name", ["status_", "stationarity_", "not_identified_"])
def test_reports_need_a_fit(name):
    with pytest.raises(NotFittedError):
        getattr(GaussianMoERegressor(), name)


def test_search_and_pipeline():
    search = GridSearchCV(
        make_pipeline(StandardScaler(), GaussianMoERegressor(n_init=2, n_rounds=0, random_state=0)),
        {"gaussianmoeregressor__n_experts": [1, 2]},
        cv=2,
    ).fit(X.numpy(), y.numpy())
    assert search.best_params_ == {"gaussianmoeregressor__n_experts": 2}


def test_random_state():
    def fitted(seed):
        return GaussianMoERegressor(2, n_init=3, n_rounds=1, random_state=seed).fit(X, y)

    assert np.array_equal(fitted(3).restarts_, fitted(3).restarts_)
    legacy = [fitted(np.random.RandomState(3)).restarts_ for _ in range(2)]
    assert np.array_equal(*legacy)
    fresh = fitted(np.random.default_rng(3))
    assert np.array_equal(fresh.restarts_, fitted(3).restarts_)


def test_gate_by_name_and_by_template():
    by_name = GaussianMoERegressor(2, "softmax", random_state=0).fit(X, y)
    by_template = GaussianMoERegressor(2, SoftmaxGate.template(), random_state=0).fit(X, y)
    by_gate = GaussianMoERegressor(2, TRUTH.gate, random_state=0).fit(X, y)
    assert by_name.log_likelihood_ == by_template.log_likelihood_ == by_gate.log_likelihood_


def test_a_fit_cut_short_says_so():
    with pytest.warns(ConvergenceWarning, match="stopped before convergence"):
        short = GaussianMoERegressor(
            2, max_iter=1, n_rounds=0, quasi_newton=False, random_state=0
        ).fit(X, y)
    assert short.status_.startswith("stopped before convergence")
    assert not short.stationarity_.is_stationary


def test_oracle_starts():
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)  # a published protocol, as asked
        oracle = GaussianMoERegressor(2, init="oracle", truth=TRUTH, random_state=0).fit(X, y)
    assert oracle.restarts_.shape == (8,)


def test_d_of_three():
    """Three features: the fit is likelier than the truth and predicts nearly as well."""
    rng = np.random.default_rng(0)
    truth = GaussianMoE(
        SoftmaxGate([0.2, -0.1], [[3.0, -1.0, 0.5], [0.0, 1.0, -2.0]]),
        LinearExperts([[1.0, 2.0, -1.0], [-1.0, 0.4, 2.0]], [2.0, -2.0], [0.3, 0.4]),
    )
    wide = Uniform(-1, 1, n_features=3).sample(600, rng)
    response = truth.sample(wide, rng)
    fit = GaussianMoERegressor(2, n_init=4, random_state=0).fit(wide, response)
    assert fit.log_likelihood_ > float(truth.log_prob(response, wide).sum())
    assert fit.stationarity_.is_local_maximum

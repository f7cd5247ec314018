"""Bad input: parameter, rule, value in every message, or a status that says what happened."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.checks import check_choice, check_int, check_real
from moe_stats import (
    GaussianMoE,
    GaussianMoERegressor,
    Grid,
    LinearExperts,
    Normal,
    SoftmaxGate,
    TopKGate,
    Uniform,
    fit_mle,
)
from moe_stats._validation import as_tensor, generator

NO_DEADLINE = settings(deadline=None)  # timings are benchmarks, not tests
RNG = np.random.default_rng(0)
X = RNG.uniform(-1, 1, (60, 2))
Y = np.where(X[:, 0] > 0, 2 * X[:, 1], 3 - X[:, 1]) + 0.3 * RNG.normal(size=60)
TRUTH = GaussianMoE(
    SoftmaxGate([0.0, 0.0], [[3.0, 0.0], [0.0, 0.0]]),
    LinearExperts([[0.0, 2.0], [0.0, -1.0]], [0.0, 3.0], [0.3, 0.3]),
)


def estimator(**options):
    return GaussianMoERegressor(**{"n_init": 2, "n_rounds": 0, "random_state": 0, **options})


def spoiled(values, bad):
    out = values.copy()
    out.flat[3] = bad
    return out


@pytest.mark.parametrize(("bad", "message"), [(np.nan, "NaN"), (np.inf, "infinity")])
def test_data_that_are_not_finite(bad, message):
    with pytest.raises(ValueError, match=f"Input X contains {message}"):
        estimator().fit(spoiled(X, bad), Y)
    with pytest.raises(ValueError, match=f"Input y contains {message}"):
        estimator().fit(X, spoiled(Y, bad))
    fit = estimator().fit(X, Y)
    with pytest.raises(ValueError, match=f"Input X contains {message}"):
        fit.predict(spoiled(X, bad))


def test_data_of_wrong_shapes():
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array"):
        estimator().fit(X[:, 0], Y)
    with pytest.raises(ValueError, match="Found array with dim 3"):
        estimator().fit(X[None], Y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        estimator().fit(X, Y[:-1])
    with pytest.raises(ValueError, match="y should be a 1d array"):
        estimator().fit(X, np.stack([Y, Y], 1))
    with pytest.raises(ValueError, match=r"X has 1 features, but .* is expecting 2"):
        estimator().fit(X, Y).predict(X[:, :1])


def test_words_for_numbers():
    with pytest.raises(ValueError, match="could not convert string to float"):
        estimator().fit([["a"], ["b"]] * 20, Y[:40])


def test_a_constant_feature():
    with pytest.raises(ValueError, match=r"no constant feature.*got column 1 constant at"):
        estimator().fit(np.column_stack([X[:, 0], np.full(60, 0.7)]), Y)


def test_fewer_observations_than_parameters():
    with pytest.raises(ValueError, match="got 10 observations for 11 parameters"):
        estimator().fit(X[:10], Y[:10])  # 14 numbers, less 3 that translate the gate
    assert math.isfinite(estimator().fit(X[:11], Y[:11]).log_likelihood_)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("distinct", [3, 10, 30])
def test_duplicated_rows(distinct):
    """They can be fitted without noise: the scale floor holds, and the status says so."""
    fit = estimator().fit(np.repeat(X[:distinct], 6, 0), np.repeat(Y[:distinct], 6))
    assert math.isfinite(fit.log_likelihood_)
    assert bool(torch.isfinite(fit.model_.to_params()).all())
    if distinct == 3:
        assert "scale[0] at its lower bound" in fit.status_


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_constant_response():
    fit = estimator().fit(X, np.full(60, 4.2))
    assert np.allclose(fit.predict(X), 4.2)
    assert "at its lower bound" in fit.status_


def test_integer_arrays():
    x, y = RNG.integers(-9, 10, (80, 1)), RNG.integers(-20, 20, 80)
    whole = estimator().fit(x, y)
    assert (
        whole.log_likelihood_ == estimator().fit(x.astype(float), y.astype(float)).log_likelihood_
    )
    assert whole.predict(x).dtype == np.float64
    assert TRUTH.mean(torch.tensor([[1, -2]])).dtype == torch.float64


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("shift", "size"), [(0, 1e100), (0, 1e-100), (1e5, 1)])
def test_data_of_any_size(shift, size):
    fit = estimator().fit(size * X + shift, size * Y)
    assert math.isfinite(fit.log_likelihood_)
    assert bool(np.isfinite(fit.predict(size * X + shift)).all())


ESTIMATOR_OPTIONS = [
    ({"n_experts": 0}, r"'n_experts' parameter must be an int in \[1, 1000000\]; got 0"),
    ({"n_experts": 2.0}, "'n_experts' parameter must be an int"),
    ({"n_experts": True}, "'n_experts' parameter must be an int"),
    ({"gate": "sofmax"}, r"'gate' parameter must be one of \{'softmax', 'topk'.*got 'sofmax'"),
    ({"gate": TopKGate.template(top_k=3)}, r"'top_k' .* in \[1, 2\] with n_experts=2; got 3"),
    ({"min_scale": -0.1}, "'min_scale' parameter must be a real number"),
    ({"min_scale": 0}, "'min_scale' parameter must be a real number"),
    ({"min_scale": np.nan}, "'min_scale' parameter must be a real number"),
    ({"min_weight": 0.5}, "'min_weight' parameter must be below 1 / n_experts = 0.5.*got 0.5"),
    ({"min_weight": -0.1}, "'min_weight' parameter must be a real number"),
    ({"gate_bound": 0}, "'gate_bound' parameter must be a real number"),
    ({"gate_bound": np.inf}, "'gate_bound' parameter must be a real number"),
    ({"tol": 0}, "'tol' parameter must be a real number"),
    ({"tol": -1e-6}, "'tol' parameter must be a real number"),
    ({"tol": "small"}, "'tol' parameter must be a real number.*got 'small'"),
    ({"max_iter": -1}, "'max_iter' parameter must be an int"),
    ({"max_iter": 10.5}, "'max_iter' parameter must be an int"),
    ({"n_init": 0}, "'n_init' parameter must be an int"),
    ({"n_rounds": -1}, "'n_rounds' parameter must be an int"),
    ({"init": "orcale"}, "'init' parameter must be one of"),
    ({"init": "oracle"}, "'truth' parameter must be a GaussianMoE for init='oracle'"),
    ({"init": "oracle", "truth": "digest"}, "'truth' parameter must be a GaussianMoE"),
    ({"n_experts": 1, "init": "oracle", "truth": TRUTH}, "at most n_experts=1 experts; got 2"),
    ({"n_experts": 3, "init": TRUTH}, "'init' model must have n_experts experts"),
]


@pytest.mark.parametrize(("options", "message"), ESTIMATOR_OPTIONS)
def test_estimator_options(options, message):
    with pytest.raises(ValueError, match=message):
        estimator(**options).fit(X, Y)


def test_a_truth_of_other_features():
    line = GaussianMoE(SoftmaxGate([0.0], [[1.0]]), LinearExperts([[1.0]], [0.0], [1.0]))
    with pytest.raises(ValueError, match="'truth'"):
        estimator(init="oracle", truth=line).fit(X, Y)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_weight_that_no_selection_can_give_is_a_status():
    """Slope ranking, features of one sign, top 1: one of two experts never speaks, so a floor
    on its weight cannot hold. No crash, and no number that looks like a fit."""
    fit = fit_mle(
        torch.from_numpy(abs(X[None, :, :1])), torch.from_numpy(Y[None]), n_experts=2,
        gate=TopKGate.template(top_k=1), min_weight=0.2, n_init=2, random_states=[0],
    )  # fmt: skip
    assert fit.status().startswith("failed: no start has a finite likelihood inside the bounds")
    assert "min_weight=0.2" in fit.status()
    assert not bool(fit.converged)
    assert not math.isfinite(float(fit.log_likelihood))


def test_one_bad_data_set_does_not_spoil_a_batch():
    """A replicate whose response is constant ends with its own status; its neighbour's fit is
    what it is alone."""
    X_pair = torch.from_numpy(np.stack([X, X]))
    y_pair = torch.from_numpy(np.stack([Y, np.full(60, 2.0)]))
    options = {"n_experts": 2, "n_init": 2, "n_rounds": 0}
    pair = fit_mle(X_pair, y_pair, random_states=[0, 0], **options)
    alone = fit_mle(X_pair[:1], y_pair[:1], random_states=[0], **options)
    assert float(pair.log_likelihood[0]) == pytest.approx(float(alone.log_likelihood), abs=1e-8)
    assert "at its lower bound" in pair.status(1)


def test_experts():
    with pytest.raises(ValueError, match=r"'scale' parameter must be positive; got -0\.3"):
        LinearExperts([[1.0], [2.0]], [0.0, 0.0], np.array([0.5, -0.3]))
    with pytest.raises(ValueError, match=r"'scale' parameter must be positive; got 0\.0"):
        LinearExperts([[1.0]], [0.0], [0.0])
    with pytest.raises(ValueError, match=r"'intercept' parameter must have shape \(2,\)"):
        LinearExperts([[1.0], [2.0]], [0.0], [1.0, 1.0])
    with pytest.raises(ValueError, match=r"'slope' parameter must have shape \(..., E, D\)"):
        LinearExperts([1.0, 2.0], [0.0, 0.0], [1.0, 1.0])
    with pytest.raises(ValueError, match="'slope' parameter must be finite; got NaN or infinity"):
        LinearExperts([[np.nan]], [0.0], [1.0])
    with pytest.raises(ValueError, match="'slope' parameter must be numeric; got 'steep'"):
        LinearExperts("steep", [0.0], [1.0])


def test_gates():
    with pytest.raises(ValueError, match=r"'top_k' .* in \[1, 2\] with n_experts=2; got 9"):
        TopKGate([0.0, 1.0], [[1.0], [2.0]], top_k=9)
    with pytest.raises(ValueError, match="'top_k' parameter must be an int"):
        TopKGate.template(top_k=0)
    with pytest.raises(ValueError, match=r"'rank' parameter must be one of \{'slope', 'logit'\}"):
        TopKGate.template(rank="weight")
    with pytest.raises(ValueError, match=r"TopKGate's options .* got \['k'\]"):
        TopKGate.template(k=2)
    with pytest.raises(ValueError, match=r"SoftmaxGate has no options; got \['top_k'\]"):
        SoftmaxGate.template(top_k=2)
    with pytest.raises(ValueError, match=r"'intercept' parameter must have shape \(2,\)"):
        SoftmaxGate([0.0, 1.0, 2.0], [[1.0], [2.0]])
    with pytest.raises(ValueError, match="'intercept' parameter must be finite"):
        SoftmaxGate([np.inf, 0.0], [[1.0], [2.0]])


def test_models():
    with pytest.raises(ValueError, match="'slope' must have the same shape"):
        GaussianMoE(SoftmaxGate([0.0], [[1.0]]), LinearExperts([[1.0, 2.0]], [0.0], [1.0]))
    single = LinearExperts(torch.ones(1, 1), torch.ones(1), torch.ones(1))
    with pytest.raises(ValueError, match=r"same dtype; got torch\.float64 and torch\.float32"):
        GaussianMoE(SoftmaxGate([0.0], [[1.0]]), single)
    with pytest.raises(ValueError, match=r"'X' parameter must have shape \(..., N, 2\)"):
        TRUTH.mean(torch.zeros(5, 3))
    with pytest.raises(ValueError, match=r"'X' parameter must have shape \(..., N, 2\)"):
        TRUTH.gate_probs(torch.zeros(2))
    with pytest.raises(ValueError, match=r"'y' parameter must have shape \(..., 5\)"):
        TRUTH.log_prob(torch.zeros(4), torch.zeros(5, 2))
    with pytest.raises(ValueError, match="'y' parameter must be finite"):
        TRUTH.log_prob(torch.tensor([np.nan]), torch.zeros(1, 2))


def test_designs():
    with pytest.raises(ValueError, match="'high' parameter must be a real number"):
        Uniform(1, 1)
    with pytest.raises(ValueError, match="'high' parameter must be a real number"):
        Grid(1, 0)
    with pytest.raises(ValueError, match="'scale' parameter must be a real number"):
        Normal(scale=-1)
    with pytest.raises(ValueError, match="'n_features' parameter must be an int"):
        Uniform(n_features=0)
    with pytest.raises(ValueError, match="'n' parameter must be an int"):
        Uniform().sample(0)


@NO_DEADLINE
@given(st.integers(), st.integers(), st.integers() | st.none())
def test_check_int_accepts_exactly_its_range(value, low, high):
    inside = value >= low and (high is None or value <= high)
    for as_type in (int, np.int64) if abs(value) < 2**62 else (int,):
        if inside:
            assert check_int("n", as_type(value), low, high) == value
        else:
            with pytest.raises(ValueError, match="'n' parameter must be an int in"):
                check_int("n", as_type(value), low, high)


@NO_DEADLINE
@given(st.floats() | st.booleans() | st.text() | st.none())
def test_check_int_refuses_what_is_no_int(value):
    with pytest.raises(ValueError, match="'n' parameter must be an int in"):
        check_int("n", value, -(10**9))


@NO_DEADLINE
@given(st.floats(), st.floats(allow_nan=False, max_value=1e3), st.floats(1e3, 1e6), st.booleans())
def test_check_real_accepts_exactly_its_range(value, low, high, strict):
    inside = math.isfinite(value) and low <= value <= high and not (strict and value == low)
    if inside:
        assert check_real("s", value, low=low, high=high, strict=strict) == value
    else:
        with pytest.raises(ValueError, match="'s' parameter must be a real number in"):
            check_real("s", value, low=low, high=high, strict=strict)


@NO_DEADLINE
@given(st.text(max_size=5))
def test_check_choice(value):
    if value in ("a", "b"):
        assert check_choice("c", value, ("a", "b")) == value
    else:
        with pytest.raises(ValueError, match=r"'c' parameter must be one of \{'a', 'b'\}"):
            check_choice("c", value, ("a", "b"))


@NO_DEADLINE
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=4))
def test_numbers_become_float64_unchanged(values):
    assert as_tensor("v", values).tolist() == values
    assert as_tensor("v", np.array(values)).tolist() == values
    single = torch.tensor(values, dtype=torch.float32)
    if bool(torch.isfinite(single).all()):
        assert as_tensor("v", single).dtype == torch.float32


def test_generators():
    assert generator(3).random() == generator(np.random.default_rng(3)).random()
    shared = np.random.default_rng(3)
    assert generator(shared) is shared
    assert generator(None).random() != generator(None).random()
    assert generator(np.random.SeedSequence(4)).random() == generator(4).random()

"""Every public function of `moe_stats` and `kernels` that checks: works, or names the parameter."""

import pytest
from hostile import Entry, check, each, is_finite, refuses_huge, sizes

from kernels.philox import Stream
from kernels.simulate import Design as StreamDesign
from moe_stats import (
    ActivationDenseToSparseGate,
    ConstantExperts,
    DenseToSparseGate,
    GaussianMoE,
    GaussianMoERegressor,
    Grid,
    LaplaceGate,
    LinearExperts,
    Normal,
    SigmoidGate,
    SoftmaxGate,
    TopKGate,
    Uniform,
    covariance,
    dendrogram,
    fit_mle,
    identifiability_report,
    information_criteria,
    interval,
    select_n_experts,
)
from moe_stats.inference.shared_profile import shared_profile

GATE = {"intercept": [0.3, 0.0], "slope": [[5.0], [0.0]]}
EXPERTS = {"slope": [[2.0], [-1.0]], "intercept": [1.0, 0.2], "scale": [0.3, 0.4]}
MODEL = GaussianMoE(SoftmaxGate(**GATE), LinearExperts(**EXPERTS))
X = Uniform(-1, 1).sample(40, random_state=0)
Y = MODEL.sample(X, random_state=1)
SEARCH = {"n_init": 1, "n_rounds": 0, "max_iter": 3, "min_scale": 0.05}
TEMPERED = GaussianMoE(DenseToSparseGate(**GATE, temperature=0.5), LinearExperts(**EXPERTS))


def fitted(gate="softmax", **options):
    options = {"n_experts": 2, "random_states": [0], **SEARCH, **options}
    return fit_mle(X[None], Y[None], gate=gate, **options)


FIT = fitted()
TEMPERED_FIT = fitted(DenseToSparseGate.template())


def numbers(gate):
    """What a gate or a design makes of good features."""
    return gate.log_probs(X).exp()


def regress(X, y, **options):
    return GaussianMoERegressor(n_experts=2, **SEARCH, **options).fit(X, y).log_likelihood_


def quadrature(**options):
    return Uniform(-1, 1).quadrature(**options)


ENTRIES = {
    "Uniform": Entry(
        Uniform, {"low": 0.0, "high": 1.0, "n_features": 1}, called={"low": ("high",)}
    ),
    "Normal": Entry(Normal, {"mean": 0.0, "scale": 1.0, "n_features": 1}),
    "Grid": Entry(Grid, {"low": 0.0, "high": 1.0, "n_features": 1}, called={"low": ("high",)}),
    "Uniform.sample": Entry(Uniform().sample, {"n": 3, "random_state": 0}),
    "Grid.sample": Entry(Grid().sample, {"n": 3}),
    "quadrature": Entry(quadrature, {"n_nodes": 4, "breaks": [0.5]}),
    "Normal.quadrature": Entry(Normal().quadrature, {"n_nodes": 4, "breaks": [0.5]}),
    "SoftmaxGate": Entry(lambda **k: numbers(SoftmaxGate(**k)), GATE),
    "SigmoidGate": Entry(lambda **k: numbers(SigmoidGate(**k)), GATE),
    "LaplaceGate": Entry(lambda **k: numbers(LaplaceGate(**k)), {**GATE, "softening": 0.1}),
    "TopKGate": Entry(TopKGate, {**GATE, "top_k": 1, "rank": "slope"}),
    "DenseToSparseGate": Entry(DenseToSparseGate, {**GATE, "temperature": 0.5}),
    "ActivationDenseToSparseGate": Entry(
        ActivationDenseToSparseGate, {**GATE, "temperature": 0.5, "activation": "tanh"}
    ),
    "TopKGate.template": Entry(TopKGate.template, {"top_k": 1, "rank": "slope"}),
    "LaplaceGate.template": Entry(LaplaceGate.template, {"softening": 0.1}),
    "ActivationDenseToSparseGate.template": Entry(
        ActivationDenseToSparseGate.template, {"activation": "tanh"}
    ),
    "LinearExperts": Entry(LinearExperts, EXPERTS),
    "ConstantExperts": Entry(
        ConstantExperts,
        {"intercept": [1.0, 0.2], "scale": [0.3, 0.4], "n_features": 1},
        called={"intercept": ("scale",)},
    ),
    "gate_probs": Entry(MODEL.gate_probs, {"X": X}),
    "experts.mean": Entry(MODEL.experts.mean, {"X": X}),
    "mean": Entry(MODEL.mean, {"X": X}),
    "log_prob": Entry(MODEL.log_prob, {"y": Y, "X": X}),
    "responsibilities": Entry(MODEL.responsibilities, {"X": X, "y": Y}),
    "cdf": Entry(MODEL.cdf, {"y": Y, "X": X}),
    "sample": Entry(MODEL.sample, {"X": X, "random_state": 0}),
    "fit_mle": Entry(
        lambda **k: fitted(**k).log_likelihood,
        {
            "n_experts": 2,
            "gate": "softmax",
            "experts": "linear",
            "n_init": 1,
            "init": "auto",
            "truth": None,
            "min_scale": 0.05,
            "min_weight": 0.0,
            "gate_bound": 20.0,
            "tol": 1e-6,
            "max_iter": 3,
            "n_rounds": 0,
            "quasi_newton": True,
            "random_states": [0],
        },
        called={"random_states": ("random_state",)},
    ),
    "fit_mle data": Entry(
        lambda X, y: fit_mle(X, y, n_experts=2, random_states=[0], **SEARCH).log_likelihood,
        {"X": X[None], "y": Y[None]},
    ),
    "GaussianMoERegressor": Entry(
        regress,
        {"X": X.numpy(), "y": Y.numpy(), "gate": "softmax", "random_state": 0},
        called={"X": ("",), "y": ("",)},  # scikit-learn's words
    ),
    "covariance": Entry(covariance, {"mle": FIT, "kind": "observed"}, ("kind",)),
    "interval": Entry(
        lambda **k: interval(FIT, lambda model: model.experts.slope[..., 0, 0], **k),
        {"level": 0.9, "method": "delta", "row": 0, "kind": "observed", "n_replicates": 50},
    ),
    "identifiability_report": Entry(identifiability_report, {"model": MODEL, "X": X[:20]}, ("X",)),
    "information_criteria": Entry(information_criteria, {"fit": MODEL, "X": X, "y": Y}, ("X", "y")),
    "dendrogram": Entry(dendrogram, {"model": MODEL, "X": X}, ("X",)),
    "select_n_experts": Entry(
        lambda **k: select_n_experts(X.numpy(), Y.numpy(), **SEARCH, random_state=0, **k),
        {"max_experts": 1, "method": "bic"},
    ),
    "shared_profile": Entry(
        lambda **k: shared_profile(TEMPERED_FIT, **k),
        {"index": 0, "width": 0.1, "n_points": 3, "row": 0},
    ),
    "Stream": Entry(Stream, {"seed": 0, "number": 0}),
    "simulate.Design": Entry(
        StreamDesign, {"law": "uniform", "location": 0.0, "spread": 1.0, "n_features": 1}
    ),
}


@sizes(ENTRIES)
def test_a_size_that_nobody_means_is_refused_at_once(function, parameter):
    refuses_huge(ENTRIES[function], parameter)


@pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning",
    "ignore::sklearn.exceptions.DataConversionWarning",
)
@each(ENTRIES)
def test_a_hostile_value_is_refused_by_name_or_does_no_harm(function, parameter):
    check(ENTRIES[function], parameter)


@pytest.mark.parametrize("temperature", [1e-320, 1e-309, 1e-307])
def test_a_temperature_at_which_scores_overflow_is_refused(temperature):
    with pytest.raises(ValueError, match=f"'temperature' .* got {temperature}"):
        DenseToSparseGate([0.3, 0.0], [[50.0], [0.0]], temperature=temperature)


def test_a_small_temperature_gives_every_x_to_the_best_expert():
    gate = DenseToSparseGate([0.3, 0.0], [[5.0], [0.0]], temperature=6.7e-306)
    assert bool((gate.probs(X)[:, 0] == (X[:, 0] > -0.06)).all())


GATES = [SoftmaxGate(**GATE), SigmoidGate(**GATE), LaplaceGate(**GATE), TEMPERED.gate]


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("name", ["gate_probs", "mean", "log_prob", "responsibilities", "cdf"])
def test_features_beyond_all_bounds_are_refused_where_something_overflows(gate, name):
    model = GaussianMoE(gate, MODEL.experts)
    others = {} if name in ("gate_probs", "mean") else {"y": Y}
    assert is_finite(getattr(model, name)(X=1e150 * X, **others))
    if isinstance(gate, SigmoidGate) and name == "gate_probs":  # a score in [-inf, 0]
        assert is_finite(model.gate_probs(1.7e308 * X))
    else:
        with pytest.raises(ValueError, match="'X'"):
            getattr(model, name)(X=1.7e308 * X, **others)


@pytest.mark.parametrize("name", ["log_prob", "responsibilities"])
def test_a_response_whose_square_overflows_is_refused(name):
    with pytest.raises(ValueError, match="'y' parameters must leave"):
        getattr(MODEL, name)(X=X, y=0 * Y + 1e200)
    assert is_finite(getattr(MODEL, name)(X=X, y=0 * Y + 1e150))


def test_silence_names_and_faults_are_caught():
    """Controls: NaN that comes back, a message without the name, an error of another kind."""

    def silent(n):
        return float("nan")

    def nameless(n):
        raise ValueError("bad input")

    def breaks(n):
        return [0][n]

    for wrong in (silent, nameless, breaks):
        with pytest.raises((AssertionError, IndexError, ExceptionGroup)):
            check(Entry(wrong, {"n": 0}), "n")

"""Fits of gates with a temperature: where they end, and what bounds them."""

import pytest
import torch
from temperature_cases import EXACT, EXPERTS, INTERCEPT, SLOPE, activated, close

from kernels import gating
from moe_stats import GaussianMoE, SoftmaxGate, Uniform, fit_mle
from moe_stats.gates import GATES, DenseToSparseGate, LaplaceGate, SigmoidGate

FIT = {"n_experts": 2, "n_init": 3, "n_rounds": 0, "quasi_newton": False, "random_states": [0]}


def simulated(gate, n=1000, seed=1):
    X = Uniform(-3, 3).sample(n, random_state=seed)
    return X[None], GaussianMoE(gate, EXPERTS).sample(X, seed + 1)[None]


def test_with_the_temperature_divided_out_it_is_the_softmax_gate():
    """The same maximum: fits stop within 1e-6 standard errors of it, 1e-12 nats."""
    X, y = simulated(DenseToSparseGate([-0.25, 0.0], [[2.0], [0.5]], 0.5))
    warm = fit_mle(X, y, gate="dense-to-sparse", **FIT)
    plain = fit_mle(X, y, gate="softmax", **FIT)
    assert warm.status().startswith("converged")
    assert float(warm.log_likelihood) == pytest.approx(float(plain.log_likelihood), abs=1e-8)
    ours, theirs = warm.model[0].gate, plain.model[0].gate
    swapped = torch.sign((ours.slope[0] - ours.slope[1]) * (theirs.slope[0] - theirs.slope[1]))
    assert float(swapped) == 1.0
    difference = ours.atoms()[1]["gate_slope"].diff(dim=0)
    assert torch.allclose(difference, theirs.slope.diff(dim=0), rtol=1e-5)  # scaled gradient 1e-6


def test_at_temperature_1_it_is_the_softmax_gate():
    X, y = simulated(SoftmaxGate(INTERCEPT, SLOPE), 200)
    gates = DenseToSparseGate(INTERCEPT, SLOPE, 1.0), SoftmaxGate(INTERCEPT, SLOPE)
    params = [GaussianMoE(gate, EXPERTS).to_params()[None] for gate in gates]
    assert torch.equal(gates[0].probs(X[0]), gates[1].probs(X[0]))
    warm, plain = (
        gating.evaluate(theta, gate.form, X.mT, y, order="hessian")
        for theta, gate in zip(params, gates, strict=True)
    )
    close(warm.gradient[:, :-1], plain.gradient, EXACT)
    close(warm.hessian[:, :-1, :-1], plain.hessian, EXACT)


@pytest.mark.parametrize(
    "gate",
    [
        DenseToSparseGate(INTERCEPT, SLOPE, 0.1),
        activated("gelu"),
        SigmoidGate([-0.25, 0.0], [[2.0], [-1.0]]),
        LaplaceGate([-0.25, 0.0], [[1.0], [-1.0]], softening=0.4),
    ],
)
def test_fits_converge(gate):
    """From starts of the library's own, to the maximum above the truth."""
    X, y = simulated(gate)
    fit = fit_mle(X, y, gate=gate, **FIT)
    assert fit.status().startswith("converged")
    at_truth = float(GaussianMoE(gate, EXPERTS).log_prob(y[0], X[0]).sum())
    assert at_truth < float(fit.log_likelihood) < at_truth + 25  # chi-square / 2, 10 parameters
    flat = fit.stationarity().flat_directions
    assert flat == int(gate.n_open())


class TestTheBoundOfATemperature:
    def test_behind_an_activation_it_ends_a_fit_on_its_way_to_another_gate(self):
        """A softmax gate is the limit of sigmoid ones as slopes and temperature tend to 0."""
        X, y = simulated(SoftmaxGate([-0.5, 0.0], [[4.0], [1.0]]), 300)
        fit, plain = (
            fit_mle(X, y, gate=gate, **{**FIT, "quasi_newton": True})
            for gate in (activated("sigmoid"), "softmax")
        )
        assert fit.active_bounds() == ("log temperature at its lower bound",)
        assert fit.status().startswith("converged")
        assert float(fit.model.gate.temperature) == pytest.approx(1e-3)
        assert 0 < float(plain.log_likelihood - fit.log_likelihood) < 1e-3

    def test_on_a_ray_it_stops_no_fit(self):
        gate = DenseToSparseGate(INTERCEPT, SLOPE, 0.1)
        data = [simulated(gate, 200, seed) for seed in range(8)]
        X, y = (torch.cat(part) for part in zip(*data, strict=True))
        options = {"n_experts": 2, "n_init": 2, "n_rounds": 0}
        fits = fit_mle(X, y, gate=gate, random_states=range(8), **options)
        assert bool(fits.converged.all())
        reported = [bound for row in range(8) for bound in fits.active_bounds(row)]
        assert not any("temperature" in bound for bound in reported)


def test_an_unregistered_gate():
    X, y = simulated(SoftmaxGate(INTERCEPT, SLOPE), 50)
    with pytest.raises(ValueError, match=r"'gate' .*one of \{.*'laplace'\}; got 'cosine'"):
        fit_mle(X, y, gate="cosine", **FIT)
    assert list(GATES)[:2] == ["softmax", "topk"]

"""What a temperature gets wrong: deviations, equivalents and expected precision."""

import math

import numpy as np
import pytest
import torch

from moe_stats import (
    ActivationDenseToSparseGate,
    DenseToSparseGate,
    GaussianMoE,
    LinearExperts,
    SoftmaxGate,
    Uniform,
    fit_mle,
)
from moe_stats.inference.fisher import fisher_information
from theory import hellinger, voronoi_loss
from theory.precision import gate_precision
from theory.temperature import temperature_deviations

EXPERTS = LinearExperts([[-1.0], [1.0]], [4.0, -4.0], [0.3, 0.4])
DESIGN = Uniform(-3, 3)
CELLS = torch.tensor([0, 1])


def dense(scale=1.0, shift=0.0):
    slopes = [[5.0 * scale + shift], [0.5 * scale + shift]]
    return GaussianMoE(DenseToSparseGate([-0.25 * scale, 0.0], slopes, 0.1 * scale), EXPERTS)


def activated(activation, slopes=((5.0,), (0.5,)), tau=0.1):
    gate = ActivationDenseToSparseGate([-0.25, 0.0], slopes, tau, activation=activation)
    return GaussianMoE(gate, EXPERTS)


def test_the_ray_moves_raw_parameters_and_no_quotient():
    """Scaling by c = 1.7 moves tau by .07 and b1's difference by .7 * 4.5; shifts move nothing."""
    found = temperature_deviations(dense(1.7, shift=2.0), dense(), CELLS)
    assert float(found["temperature_deviation"]) == pytest.approx(0.07, abs=1e-12)
    assert float(found["raw_gate_slope_deviation"]) == pytest.approx(0.7 * 4.5, abs=1e-12)
    assert float(found["scaled_gate_slope_deviation"]) == pytest.approx(0, abs=1e-12)
    assert float(hellinger(dense(1.7, 2.0), dense(), DESIGN).value) < 1e-7


def test_behind_an_activation_no_shift_is_taken_out():
    off = activated("tanh", slopes=((5.2,), (0.7,)))
    found = temperature_deviations(off, activated("tanh"), CELLS)
    assert float(found["raw_gate_slope_deviation"]) == pytest.approx(0.2)
    assert float(found["scaled_gate_slope_deviation"]) == pytest.approx(2.0)


def test_the_mirror_image_is_no_error():
    truth = activated("sigmoid")
    (mirror,) = truth.gate.equivalents()
    image = GaussianMoE(mirror, EXPERTS)
    assert float(hellinger(image, truth, DESIGN).value) < 1e-7
    assert float(voronoi_loss(image, truth).value) == pytest.approx(0, abs=1e-12)
    found = temperature_deviations(image, truth, CELLS)
    assert float(found["raw_gate_slope_deviation"]) == pytest.approx(0, abs=1e-12)


def test_behind_gelu_the_mirror_image_is_an_error():
    truth = activated("gelu")
    image = activated("gelu", slopes=((-0.5,), (-5.0,)))
    assert truth.gate.equivalents() == ()
    assert float(hellinger(image, truth, DESIGN).value) > 0.1
    assert float(voronoi_loss(image, truth).value) > 1


def test_a_batch_takes_the_nearest_equivalent_each():
    truth = activated("tanh")
    (mirror,) = truth.gate.equivalents()
    both = torch.stack([truth.to_params(), GaussianMoE(mirror, EXPERTS).to_params()])
    batch = GaussianMoE.from_params(
        both, ActivationDenseToSparseGate.template(activation="tanh"), 2
    )
    loss = voronoi_loss(batch, truth)
    assert loss.value.tolist() == pytest.approx([0, 0], abs=1e-12)
    assert loss.largest["gate_slope", "single"].tolist() == pytest.approx([0, 0], abs=1e-12)
    assert loss.cells.tolist() == [[0, 1], [0, 1]]


def test_gates_without_a_temperature_have_no_such_columns():
    softmax = GaussianMoE(SoftmaxGate([0.0, 0.0], [[1.0], [0.0]]), EXPERTS)
    assert temperature_deviations(softmax, dense(), CELLS) == {}


def test_raw_and_identified_losses():
    scaled = dense(1.7)
    assert float(voronoi_loss(scaled, dense()).value) == pytest.approx(0, abs=1e-12)
    raw = voronoi_loss(scaled.mixing_measure(raw=True), dense().mixing_measure(raw=True))
    assert float(raw.largest["temperature", "single"]) == pytest.approx(0.07)
    assert float(raw.value) > 0.1


def test_an_oracle_start_shares_mass_in_units_of_the_temperature():
    """Three experts beside two: where shares are log m instead of tau log m, the start's density is
    far from the truth's, as the control shows."""
    truth = dense()
    X = DESIGN.sample(500, 0)
    y = truth.sample(X, 1)
    fit = fit_mle(
        X[None],
        y[None],
        n_experts=3,
        gate=truth.gate,
        init="oracle",
        n_init=1,
        truth=truth,
        max_iter=0,
        random_states=[0],
    )
    assert float(hellinger(fit.model, truth, DESIGN).value) < 0.01
    own, shared = truth.gate.pack()
    split = torch.cat([own, own[:1]])
    split[[0, 2], 0] -= math.log(2)
    wrong = DenseToSparseGate.from_parameters(split, shared)
    experts = LinearExperts([[-1.0], [1.0], [-1.0]], [4.0, -4.0, 4.0], [0.3, 0.4, 0.3])
    assert float(hellinger(GaussianMoE(wrong, experts), truth, DESIGN).value) > 0.02


def test_with_tau_known_the_softmax_fit_is_the_same():
    """One family of densities, two parametrisations: equal maxima, up to the stopping rule."""
    truth = dense()
    X = torch.stack([DESIGN.sample(1_000, s) for s in range(3)])
    y = torch.stack([truth.sample(x, 10 + s) for s, x in enumerate(X)])
    fits = [
        fit_mle(X, y, n_experts=2, gate=gate, n_init=4, random_states=[0, 1, 2])
        for gate in ("dense-to-sparse", "softmax")
    ]
    gap = (fits[0].log_likelihood - fits[1].log_likelihood).abs()
    assert float(gap.max()) < 1e-6
    scaled = fits[0].model.gate.atoms()[1]["gate_slope"]
    slopes = fits[1].model.gate.slope
    away = (scaled[:, 0] - scaled[:, 1]).abs() - (slopes[:, 0] - slopes[:, 1]).abs()
    assert float(away.abs().max()) < 1e-2


def test_precision_is_the_inverse_of_the_pinned_information():
    truth = GaussianMoE(SoftmaxGate([0.4, 0.0], [[2.0], [0.0]]), EXPERTS)
    X = DESIGN.sample(1_000, 0)
    information = fisher_information(truth, X)
    free = [0, 1, 2, 3, 4, 7, 8, 9]  # the last expert's gate is 0
    covariance = torch.linalg.inv(information[free][:, free])
    expected = math.sqrt(covariance[1, 1]) / 2.0
    found = gate_precision(truth, DESIGN)
    assert found.relative["gate_slope[0]"] == pytest.approx(expected, rel=1e-8)
    assert found.n_needed == math.ceil((expected / 0.2) ** 2)


def test_precision_leaves_out_what_no_data_tell():
    identity = gate_precision(activated("identity"), DESIGN)
    assert (identity.n_null, identity.relative) == (3, {})
    assert set(gate_precision(dense(), DESIGN).relative) == {"gate_slope[0]"}
    tanh = gate_precision(activated("tanh"), DESIGN)
    assert set(tanh.relative) == {"gate_slope[0]", "gate_slope[1]", "temperature"}


@pytest.mark.parametrize(("activation", "slope"), [("tanh", 2.0), ("gelu", 2.0)])
def test_a_truth_of_mirrored_slopes_is_called_singular(activation, slope):
    mirrored = gate_precision(activated(activation, ((slope,), (-slope,)), tau=0.5), DESIGN)
    assert len(mirrored.singular) == 1
    assert "The truth is singular" in str(mirrored)
    regular = gate_precision(activated(activation, ((slope,), (-0.6 * slope,)), tau=0.5), DESIGN)
    assert regular.singular == ()


@pytest.mark.slow
def test_precision_foretells_the_spread_of_fits():
    """Standard deviation of tau over 200 fits of n = 4,000 against the predicted one.

    Under the null the ratio is 1 with standard error about 1 / sqrt(400) = .05, beside terms of
    order 1 / n; outside [.8, 1.2] with probability below 1e-4.
    """
    truth = activated("tanh")
    X = torch.stack([DESIGN.sample(4_000, s) for s in range(200)])
    y = torch.stack([truth.sample(x, 1_000 + s) for s, x in enumerate(X)])
    fit = fit_mle(X, y, n_experts=2, gate=truth.gate, init=truth, random_states=list(range(200)))
    spread = float(np.std(fit.model.gate.temperature.numpy(), ddof=1)) / 0.1
    predicted = gate_precision(truth, DESIGN).relative["temperature"] / math.sqrt(4_000)
    assert 0.8 < spread / predicted < 1.2

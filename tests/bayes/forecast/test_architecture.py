"""The parts against their formulas, and members against each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from bayes.forecast.architecture import Architecture, Inputs, Network
from bayes.forecast.architecture.activation import MixedActivation
from bayes.forecast.architecture.attention import ProposalAttention
from bayes.forecast.architecture.cglu import ChannelGatedUnit
from bayes.forecast.architecture.dense import Dense
from bayes.forecast.architecture.dense_unit import DenseUnit
from bayes.forecast.architecture.encoder import Encoder
from bayes.forecast.architecture.fourier import octave_fourier
from bayes.forecast.architecture.harmonics import seasonal_harmonics

M, B, J, E, G = 3, 5, 4, 6, 2


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _randomise(module: torch.nn.Module) -> None:
    generator = _generator()
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))


def _inputs(seed: int = 0, present: float = 0.7) -> Inputs:
    g = torch.Generator().manual_seed(seed)
    return Inputs(
        torch.randn(B, 2, generator=g),
        torch.randn(B, 4, generator=g),
        torch.randn(B, 2, generator=g),
        torch.randn(B, J, generator=g),
        torch.rand(B, J, generator=g) < present,
        torch.randn(B, J, E, generator=g),
        torch.randn(B, G, generator=g),
        torch.randn(B, generator=g),
        0.1 * torch.randn(B, generator=g),
    )


def _network(**parts) -> Network:
    architecture = Architecture(
        n_coords=2, n_season=4, n_covariates=2, n_edge=E, n_summary=G, width=8, **parts
    )
    return Network(architecture, M, torch.zeros(E), _generator())


def test_harmonics_follow_the_formula_and_leave_out_repeated_frequencies():
    time = np.array([0.3, 7.1])
    features = seasonal_harmonics(time, [24.0, 168.0], [2, 7])
    frequencies = [(1, 24), (2, 24)] + [(h, 168) for h in range(1, 7)]  # 7/168 is 1/24
    expected = [np.cos(2 * np.pi * h * time / p) / h for h, p in frequencies]
    expected += [np.sin(2 * np.pi * h * time / p) / h for h, p in frequencies]
    np.testing.assert_allclose(features, np.stack(expected, axis=1), atol=1e-12)


def test_fourier_features_follow_the_formula():
    z = torch.tensor([[0.13, -0.4]], dtype=torch.float64)
    expected = [
        f(2 * math.pi * 2**d * x) / (d + 1)
        for f in (math.cos, math.sin)
        for x in (0.13, -0.4)
        for d in range(3)
    ]
    np.testing.assert_allclose(octave_fourier(z, 3)[0], expected, atol=1e-12)


def test_groups_are_scaled_by_softplus():
    encoder = Encoder(M, n_coords=2, n_season=4, n_covariates=0, degree=1, interactions=True)
    _randomise(encoder)
    coords, season = torch.randn(M, B, 2), torch.randn(M, B, 4)
    out = encoder(coords, season, torch.zeros(M, B, 0))
    assert out.shape == (M, B, encoder.n_features) == (M, B, 2 + 4 + 4 + 1)
    z = coords * encoder.input_scale.exp()
    scale = functional.softplus(encoder.group_scale)
    torch.testing.assert_close(out[..., :2], scale[..., :1] * z)
    torch.testing.assert_close(out[..., 2:6], scale[..., 1:2] * octave_fourier(z, 1))
    torch.testing.assert_close(out[..., 6:10], scale[..., 2:3] * season)
    torch.testing.assert_close(out[..., 10], scale[..., 3] * z[..., 0] * z[..., 1])


def test_a_dense_unit_is_the_layer_of_a_bayesian_neural_field():
    unit = DenseUnit(M, 4, 8, ("elu", "tanh"), _generator())
    _randomise(unit)
    h = torch.randn(M, B, 4)
    for m in range(M):
        w = torch.sigmoid(unit.activation.logits[m, 0] - unit.activation.logits[m, 1])
        inside = h[m] / math.sqrt(4) @ unit.dense.weight[m] + unit.dense.bias[m]
        inside = functional.softplus(unit.gain[m]) * inside
        expected = w * functional.elu(inside) + (1 - w) * torch.tanh(inside)
        torch.testing.assert_close(unit(h)[m], expected)


def test_the_mixed_activation_is_convex():
    activation = MixedActivation(M, ("identity", "tanh"))
    _randomise(activation)
    h = torch.linspace(0.1, 3, B).expand(M, 1, B)
    out = activation(h)
    assert (out <= h).all()
    assert (out >= torch.tanh(h)).all()


def test_a_closed_residual_gate_makes_the_unit_the_identity():
    unit = ChannelGatedUnit(M, 8, ("silu",), _generator())
    h = torch.randn(M, B, 8)
    with torch.no_grad():
        unit.residual.fill_(-40.0)
    torch.testing.assert_close(unit(h), h)
    with torch.no_grad():
        unit.residual.fill_(0.0)
    assert (unit(h) - h).abs().max() > 1e-3


def test_a_gated_unit_follows_the_formula():
    unit = ChannelGatedUnit(1, 8, ("identity",), _generator())
    _randomise(unit)
    h = torch.randn(1, B, 8)

    def dense(layer: Dense, x: torch.Tensor) -> torch.Tensor:
        return x @ layer.weight[0] / math.sqrt(x.shape[-1]) + layer.bias[0]

    u = (h[0] - h[0].mean(-1, keepdim=True)) / (
        h[0].var(-1, unbiased=False, keepdim=True) + 1e-5
    ).sqrt()
    v = dense(unit.value, u)
    channel = 2 * torch.sigmoid(dense(unit.excite, dense(unit.squeeze, v)))
    step = dense(unit.out, v * torch.sigmoid(dense(unit.gate, u)) * channel)
    torch.testing.assert_close(unit(h)[0], h[0] + torch.sigmoid(unit.residual[0]) * step)


def test_attention_is_a_masked_softmax_with_a_place_for_kriging():
    attention = ProposalAttention(M, 3, E, 2, 5, torch.zeros(E), _generator())
    _randomise(attention)
    g = torch.Generator().manual_seed(1)
    query, edge = torch.randn(M, B, 3, generator=g), torch.randn(M, B, J, E, generator=g)
    value, base = torch.randn(M, B, J, generator=g), torch.randn(M, B, generator=g)
    present = torch.rand(M, B, J, generator=g) < 0.6
    with torch.no_grad():
        seen = attention(query, base, value, present, edge)
    attention.requires_grad_(False)
    for m, b, n in np.ndindex(M, B, 2):
        logits = [float(attention.null(query)[m, b, n])]
        values = [float(base[m, b])]
        for j in range(J):
            if present[m, b, j]:
                key = (
                    edge[m, b, j] @ attention.key.weight[m] / math.sqrt(E)
                    + attention.key.bias[m, 0]
                )
                ask = (
                    query[m, b] @ attention.query.weight[m] / math.sqrt(3)
                    + attention.query.bias[m, 0]
                )
                hidden = functional.leaky_relu(key + ask, 0.2)[5 * n : 5 * n + 5]
                score = hidden @ attention.score[m, n] + edge[m, b, j] @ attention.kernel[m, :, n]
                logits.append(float(score))
                values.append(float(value[m, b, j]))
        weight = np.exp(np.array(logits) - max(logits))
        weight /= weight.sum()
        assert float(seen.alone[m, b, n]) == pytest.approx(weight[0], abs=1e-5)
        assert float(seen.location[m, b, n]) == pytest.approx(weight @ values, abs=1e-5)


def test_absent_proposals_do_not_matter_and_present_ones_do():
    network = _network()
    _randomise(network)
    inputs = _inputs().expand(M)
    junk = torch.where(inputs.present, inputs.value, torch.tensor(1e3))
    noise = torch.where(inputs.present[..., None], inputs.edge, torch.tensor(9.0))
    changed = inputs._replace(value=junk, edge=noise)
    for got, expected in zip(network(changed), network(inputs), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    moved = network(inputs._replace(value=inputs.value + 1))[0]
    assert (moved - network(inputs)[0]).abs().max() > 1e-2


def test_without_any_neighbour_outputs_are_finite():
    network = _network()
    inputs = _inputs(present=-1.0).expand(M)
    location, log_scale, _ = network(inputs)
    assert torch.isfinite(location).all()
    assert torch.isfinite(log_scale).all()
    location.sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in network.parameters())


@pytest.mark.parametrize("parts", [{}, {"attention": False}, {"gating": False}, {"context": False}])
def test_members_are_independent(parts):
    network = _network(**parts)
    _randomise(network)
    inputs = _inputs().expand(M)
    before = network(inputs)[0]
    with torch.no_grad():
        for p in network.parameters():
            p[1] += 0.3
    after = network(inputs)[0]
    torch.testing.assert_close(after[[0, 2]], before[[0, 2]], rtol=1e-5, atol=1e-6)
    assert (after[1] - before[1]).abs().max() > 1e-4


def test_homoscedastic_networks_have_one_scale():
    network = _network(context=False, heteroscedastic=False)
    _randomise(network)
    inputs = _inputs()._replace(log_spread=torch.zeros(B)).expand(M)
    log_scale = network(inputs)[1]
    assert (log_scale == log_scale[:, :1]).all()
    network = _network(context=False)
    _randomise(network)
    assert (network(inputs)[1] != network(inputs)[1][:, :1]).any()

"""What no likelihood of a gated mixture may depend on, for every gate.

On the naive form; that the compiled one equals it is tested in test_gating.py.
"""

import math

import gating_cases
import pytest
import torch
from gating_cases import FORMS
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import gating

ROUNDING = 1e-11
"""Sums of at most 80 terms in another order, float64; per term and size of the sum."""

models = given(
    name=st.sampled_from(sorted(FORMS)),
    n_experts=st.integers(2, 5),
    n_features=st.integers(1, 3),
    n=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
)
some = settings(max_examples=150, deadline=None)


def evaluate(params, form, x, y, rows):
    """Log-likelihoods (B,) and gradients (B, P)."""
    found = gating.evaluate(params, form, x, y, rows, order="gradient", backend="naive")
    return found.value, found.gradient


def assert_same(actual, expected, n_terms):
    for found, wanted in zip(actual, expected, strict=True):
        error, size = (found - wanted).abs().max(), n_terms + wanted.abs().max()
        assert error <= ROUNDING * size, error / size


def by_expert(params, form, n_experts):
    """Own parameters (B, E, width) and shared ones (B, S)."""
    end = params.shape[-1] - form.n_shared
    return params[:, :end].unflatten(1, (n_experts, -1)), params[:, end:]


def joined(own, shared):
    return torch.cat([own.flatten(1), shared], -1)


def random_order(count, seed):
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


@models
@some
def test_the_names_of_experts(name, n_experts, n_features, n, seed):
    params, form, x, y, rows = gating_cases.make(FORMS[name], n_experts, n_features, n, seed=seed)
    order = random_order(n_experts, seed)

    def renamed(values):
        own, shared = by_expert(values, form, n_experts)
        return joined(own[:, order], shared)

    value, gradient = evaluate(params, form, x, y, rows)
    after = evaluate(renamed(params), form, x, y, rows)
    assert_same(after, (value, renamed(gradient)), n)


@models
@some
def test_the_order_of_observations(name, n_experts, n_features, n, seed):
    params, form, x, y, rows = gating_cases.make(FORMS[name], n_experts, n_features, n, seed=seed)
    order = random_order(n, seed)
    shuffled = evaluate(params, form, x[..., order], y[..., order], rows)
    assert_same(shuffled, evaluate(params, form, x, y, rows), n)


@models
@some
def test_observations_add_up(name, n_experts, n_features, n, seed):
    gate = FORMS[name]
    params, form, x, y, rows = gating_cases.make(gate, n_experts, n_features, 2 * n, seed=seed)
    halves = [
        evaluate(params, form, x[..., half], y[..., half], rows)
        for half in (slice(None, n), slice(n, None))
    ]
    sums = [first + second for first, second in zip(*halves, strict=True)]
    assert_same(sums, evaluate(params, form, x, y, rows), 2 * n)


@models
@some
def test_the_other_models_of_a_batch(name, n_experts, n_features, n, seed):
    params, form, x, y, rows = gating_cases.make(FORMS[name], n_experts, n_features, n, seed=seed)
    batch = evaluate(params, form, x, y, rows)
    for i in range(len(params)):
        alone = evaluate(params[i : i + 1], form, x, y, rows[i : i + 1])
        assert_same(alone, [whole[i : i + 1] for whole in batch], n)


@given(
    scale=st.floats(1e-3, 1e3), name=st.sampled_from(sorted(FORMS)), seed=st.integers(0, 2**32 - 1)
)
@some
def test_the_unit_of_the_response(scale, name, seed):
    """In units of 1 / c a density is c times as small; the gate does not see the response."""
    n_experts, n_features, n = 3, 2, 30
    params, form, x, y, rows = gating_cases.make(FORMS[name], n_experts, n_features, n, seed=seed)
    value, gradient = evaluate(params, form, x, y, rows)
    lines = slice(-n_features - 2, -1)  # slopes and intercept
    own, shared = by_expert(params.clone(), form, n_experts)
    own[..., lines] *= scale
    own[..., -1] += math.log(scale)
    after = evaluate(joined(own, shared), form, x, scale * y, rows)
    own, shared = by_expert(gradient.clone(), form, n_experts)
    own[..., lines] /= scale
    assert_same(after, (value - n * math.log(scale), joined(own, shared)), n * (1 + 1 / scale))


@pytest.mark.parametrize("name", sorted(FORMS))
def test_a_common_shift_of_gate_intercepts(name):
    """Cancels in ratios of exponentials; ratings by a sigmoid are none, and change."""
    params, form, x, y, rows = gating_cases.make(FORMS[name], 3, 2, 30)
    own, shared = by_expert(params.clone(), form, 3)
    own[..., 0] += 0.7
    before, _ = evaluate(params, form, x, y, rows)
    after, _ = evaluate(joined(own, shared), form, x, y, rows)
    if name == "sigmoid ratings":
        assert bool(((after - before).abs() > 0.01).all())
    else:
        assert_same([after], [before], 30)


@pytest.mark.parametrize("name", sorted(FORMS))
def test_what_it_must_depend_on(name):
    """Gates given to other experts, and responses to other features, are another model."""
    params, form, x, y, rows = gating_cases.make(FORMS[name], 3, 2, 30)
    own, shared = by_expert(params.clone(), form, 3)
    own[..., :-4] = own[..., :-4].roll(1, 1)
    before, _ = evaluate(params, form, x, y, rows)
    for other, _ in (
        evaluate(joined(own, shared), form, x, y, rows),
        evaluate(params, form, x, y.roll(1, -1), rows),
    ):
        assert bool(((other - before).abs() > 0.01).all())

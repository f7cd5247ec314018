"""The gating likelihood: naive against compiled, both against the formula and autograd."""

import math
from functools import partial

import gating_cases
import pytest
import torch
from torch.func import grad, hessian, jacrev

from kernels import gating
from kernels.gating import Evaluation, GateForm, compiled, naive
from moe_stats import SoftmaxGate, TopKGate

EXACT = 1e-12
"""Two orders of the same sums, float64; of the largest entry of each model."""

AUTOGRAD = 1e-10
"""Derivatives against automatic ones, float64; of the largest entry of each model."""

DIFFERENCES = 1e-7
"""Gradients against central differences of step 1e-5, float64; of the largest entry."""

SINGLE = 2e-4
"""float32 against float64: sums of 1,001 terms; of the largest entry of each model."""

ORDERS = ("value", "gradient", "information", "hessian")
BACKENDS = ("naive", "compiled")
SOFTMAX = SoftmaxGate.template().form()
TOP_SLOPE = TopKGate.template(top_k=2, rank="slope").form()
TOP_LOGIT = TopKGate.template(top_k=2, rank="logit").form()


def squashed_score(own, shared, x):
    """(tanh(b1'x) + b0) / tau: one shared parameter, curved in b1 and tau."""
    return (torch.tanh(_dot(own, x)) + own[0]) / shared[0]


def squashed_gradient(own, shared, x):
    t, tau = torch.tanh(_dot(own, x)), shared[0]
    steepness = (1 - t * t) / tau
    return (1 / tau, *(steepness * column for column in x), -(t + own[0]) / (tau * tau))


def squashed_curvature(own, shared, x):
    t, tau, last = torch.tanh(_dot(own, x)), shared[0], len(x) + 1
    slope = 1 - t * t
    entries = {(0, last): -1 / tau**2, (last, last): 2 * (t + own[0]) / tau**3}
    for d, column in enumerate(x):
        entries[d + 1, last] = -slope * column / tau**2
        for f in range(d, len(x)):
            entries[d + 1, f + 1] = -2 * t * slope * column * x[f] / tau
    return entries


def tempered_score(own, shared, x):
    """(b1'x + b0) / tau: the dense-to-sparse gate."""
    return (_dot(own, x) + own[0]) / shared[0]


def tempered_gradient(own, shared, x):
    tau = shared[0]
    score = (_dot(own, x) + own[0]) / tau
    return (1 / tau, *(column / tau for column in x), -score / tau)


def tempered_curvature(own, shared, x):
    tau, last = shared[0], len(x) + 1
    entries = {(d + 1, last): -column / tau**2 for d, column in enumerate(x)}
    entries[0, last] = -1 / tau**2
    entries[last, last] = 2 * (_dot(own, x) + own[0]) / tau**3
    return entries


def _dot(own, x):
    return sum(b * column for b, column in zip(own[1:], x, strict=True))


SQUASHED = GateForm(
    squashed_score, squashed_gradient, top_k=2, score_curvature=squashed_curvature, n_shared=1
)
TEMPERED = GateForm(tempered_score, tempered_gradient, None, None, tempered_curvature, n_shared=1)


make = partial(gating_cases.make, tempered=True)


def assert_close(actual, expected, tolerance):
    """Largest error of each model, relative to the largest entry of what is expected."""
    dims = tuple(range(1, expected.ndim))
    error, size = (actual - expected).abs(), expected.abs()
    if dims:
        error, size = error.amax(dims), size.amax(dims)
    assert bool((error <= tolerance * size).all()), (error / size).max()


def assert_evaluations_close(actual, expected, tolerance):
    for name, wanted in vars(expected).items():
        if wanted is not None:
            assert_close(getattr(actual, name), wanted, tolerance)


def log_terms(theta, form, x, n_experts):
    """Log gates (E, N) and log densities' ingredients of one model, straight from the formula."""
    n_features = len(x)
    width = 2 * n_features + form.extra_parameters + 2
    blocks = theta[: n_experts * width].view(n_experts, width)
    shared, features = list(theta[n_experts * width :]), list(x)
    n_own = n_features + form.extra_parameters
    scores = [form.score(list(b[:n_own]), shared, features).expand(x.shape[1]) for b in blocks]
    scores = torch.stack(scores)
    if form.top_k is not None:
        ranks = scores
        if form.rank is not None:
            ranks = torch.stack([form.rank(list(b[:n_own]), shared, features) for b in blocks])
        kept = ranks.detach().sort(dim=0, descending=True, stable=True)[1][: form.top_k]
        mask = torch.zeros_like(ranks, dtype=torch.bool).scatter(0, kept, True)
        scores = torch.where(mask, scores, -1e5)  # exp is 0 and, unlike at -inf, differentiable
    means = blocks[:, n_own : n_own + n_features] @ x + blocks[:, -2:-1]
    return scores - torch.logsumexp(scores, 0), means, torch.exp(blocks[:, -1:])


def reference(theta, form, x, y, n_experts):
    """Log-likelihood of one model."""
    log_gate, means, scales = log_terms(theta, form, x, n_experts)
    density = -0.5 * ((y - means) / scales) ** 2 - torch.log(scales) - 0.5 * math.log(2 * math.pi)
    return torch.logsumexp(log_gate + density, 0).sum()


def reference_means(theta, form, x, n_experts):
    return torch.exp(log_terms(theta, form, x, n_experts)[0]).mean(1)


def reference_information(theta, form, x, y, n_experts):
    """Minus the expected second derivatives of the likelihood of (y, expert): for the gate
    -sum g d2 log g, for an expert of responsibility r: r u u' / scale^2 and 2 r."""
    log_gate, means, scales = log_terms(theta, form, x, n_experts)
    gate = torch.exp(log_gate)

    def gate_part(t):
        log_g = log_terms(t, form, x, n_experts)[0]
        return -(gate * log_g).sum()

    total = hessian(gate_part)(theta)
    joint = log_gate - 0.5 * ((y - means) / scales) ** 2 - torch.log(scales)
    r = torch.softmax(joint, 0)
    u = torch.cat([x, torch.ones_like(x[:1])])
    width = 2 * len(x) + form.extra_parameters + 2
    for e in range(n_experts):
        mean = slice((e + 1) * width - len(u) - 1, (e + 1) * width - 1)
        total[mean, mean] += (r[e] * u) @ u.T / scales[e] ** 2
        total[(e + 1) * width - 1, (e + 1) * width - 1] += 2 * r[e].sum()
    return total


CASES = {
    "one expert": (SOFTMAX, 1, 1, 1001),
    "softmax": (SOFTMAX, 5, 3, 7),
    "one observation": (SOFTMAX, 2, 3, 1),
    "by slope": (TOP_SLOPE, 5, 3, 1001),
    "by logit": (TOP_LOGIT, 5, 1, 1001),
    "all kept": (TOP_LOGIT, 2, 3, 7),
    "tempered": (TEMPERED, 3, 1, 1001),
    "squashed": (SQUASHED, 5, 3, 7),
}


@pytest.mark.parametrize("case", CASES)
def test_naive_derivatives_are_those_of_the_formula(case):
    params, form, x, y, rows = make(*CASES[case])
    n_experts = CASES[case][1]
    out = gating.evaluate(params, form, x, y, rows, order="hessian", backend="naive")
    routes = {
        "value": (reference, AUTOGRAD),
        "gradient": (grad(reference), AUTOGRAD),
        "information": (reference_information, AUTOGRAD),
        "hessian": (hessian(reference), AUTOGRAD),
    }
    for name, (function, tolerance) in routes.items():
        expected = [
            function(theta, form, x[r], y[r], n_experts)
            for theta, r in zip(params, rows, strict=True)
        ]
        assert_close(getattr(out, name), torch.stack(expected), tolerance)


@pytest.mark.parametrize("case", ["by slope", "squashed", "tempered"])
def test_gradient_is_that_of_finite_differences(case):
    params, form, x, y, rows = make(*CASES[case])
    out = gating.evaluate(params, form, x, y, rows, backend="naive")
    step = 1e-5
    shifts = step * torch.eye(params.shape[1], dtype=torch.float64)
    for b in range(len(params)):
        row = rows[b].expand(len(shifts))
        ends = [
            gating.evaluate(params[b] + sign * shifts, form, x, y, row, order="value").value
            for sign in (1, -1)
        ]
        slope = (ends[0] - ends[1]) / (2 * step)
        assert_close(out.gradient[b][None], slope[None], DIFFERENCES)


@pytest.mark.parametrize("case", ["one expert", "softmax", "by slope", "squashed", "tempered"])
def test_gate_means_and_their_derivatives(case):
    params, form, x, _, rows = make(*CASES[case])
    n_experts = CASES[case][1]
    tilt = torch.randn(3, n_experts, generator=torch.Generator().manual_seed(1)).double()
    means, jacobian, tilted = gating.gate_means(params, form, x, rows, tilt)
    for b, (theta, r) in enumerate(zip(params, rows, strict=True)):
        arguments = (theta, form, x[r], n_experts)
        assert torch.allclose(means[b], reference_means(*arguments), rtol=0, atol=EXACT)
        wanted = jacrev(reference_means)(*arguments)
        assert torch.allclose(jacobian[b], wanted, rtol=0, atol=AUTOGRAD)
        wanted = hessian(lambda *a, w=tilt[b]: (w * reference_means(*a)).sum())(*arguments)
        assert torch.allclose(tilted[b], wanted, rtol=0, atol=AUTOGRAD)
    alone, no_jacobian, no_hessian = gating.gate_means(params, form, x, rows)
    assert torch.equal(alone, means)
    assert no_jacobian is None
    assert no_hessian is None


def test_each_order_includes_the_ones_before():
    arguments = make(TOP_SLOPE, 3, 1, 200)
    full = gating.evaluate(*arguments, order="hessian")
    for rank, order in enumerate(ORDERS):
        part = gating.evaluate(*arguments, order=order)
        given = [name for name in vars(part) if getattr(part, name) is not None]
        assert given == list(ORDERS[: rank + 1])
        assert_evaluations_close(part, Evaluation(**{q: getattr(full, q) for q in given}), EXACT)


@pytest.mark.parametrize("backend", ["naive", "compiled"])
@pytest.mark.parametrize("order", ["value", "hessian"])
def test_responsibilities_come_on_request(backend, order):
    theta, _, x, y, rows = make(SOFTMAX, 3, 1, 400)
    evaluate = partial(gating.evaluate, order=order, backend=backend)
    plain = evaluate(theta, SOFTMAX, x, y, rows)
    assert plain.responsibilities is None
    asked = evaluate(theta, SOFTMAX, x, y, rows, responsibilities=True)
    joint = naive.log_joint(theta, SOFTMAX, x[rows], y[rows], gating.Layout.of(SOFTMAX, 3, 1))
    torch.testing.assert_close(asked.responsibilities, torch.softmax(joint, -2))
    torch.testing.assert_close(asked.value, plain.value)


def test_default_rows_pair_models_with_data_sets():
    params, form, x, y, _ = make(SOFTMAX, 2, 1, 50, n_sets=3)
    own = gating.evaluate(params, form, x, y)
    named = gating.evaluate(params, form, x, y, torch.arange(3))
    assert torch.equal(own.gradient, named.gradient)
    shared = gating.evaluate(params, form, x[:1], y[:1])
    named = gating.evaluate(params, form, x, y, torch.zeros(3, dtype=torch.long))
    assert torch.equal(shared.gradient, named.gradient)


# Programs compiled by the quick suite: the gradient and the second-order pass of two forms.
QUICK = [(TOP_SLOPE, 3, 1, 7), (TOP_SLOPE, 3, 1, 1001), (SQUASHED, 3, 2, 1001)]
SLOW = [
    (SOFTMAX, 1, 1, 1001),
    (SOFTMAX, 2, 3, 1),
    (SOFTMAX, 5, 1, 1001),
    (TOP_SLOPE, 3, 1, 1),
    (TOP_SLOPE, 4, 1, 7),
    (TOP_LOGIT, 4, 1, 1001),
    (TOP_LOGIT, 2, 3, 1001),
    (TEMPERED, 2, 1, 7),
]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "shape", [*QUICK, *(pytest.param(s, marks=pytest.mark.slow) for s in SLOW)]
)
def test_compiled_is_naive(shape, order):
    arguments = make(*shape)
    fast = gating.evaluate(*arguments, order=order, backend="compiled")
    plain = gating.evaluate(*arguments, order=order, backend="naive")
    assert_evaluations_close(fast, plain, EXACT)


@pytest.mark.slow
def test_compiled_is_naive_for_any_batch():
    for batch, n_sets in [(1, 1), (1, 2), (5, 2), (3, 1)]:
        arguments = make(TOP_SLOPE, 3, 1, 1001, batch=batch, n_sets=n_sets)
        fast = gating.evaluate(*arguments, order="gradient", backend="compiled")
        plain = gating.evaluate(*arguments, order="gradient", backend="naive")
        assert_evaluations_close(fast, plain, EXACT)


@pytest.mark.parametrize("backend", ["naive", pytest.param("compiled", marks=pytest.mark.slow)])
def test_float32_stays_float32(backend):
    arguments = make(TOP_SLOPE, 3, 1, 1001, dtype=torch.float32)
    out = gating.evaluate(*arguments, order="hessian", backend=backend)
    params, form, x, y, rows = arguments
    exact = gating.evaluate(params.double(), form, x.double(), y.double(), rows, order="hessian")
    for name in ("value", "gradient", "information", "hessian"):
        value = getattr(out, name)
        assert value.dtype == torch.float32, name
        assert_close(value.double(), getattr(exact, name), SINGLE)


@pytest.mark.parametrize("size", [1e300, 1e12, 1e-300])
@pytest.mark.parametrize("backend", BACKENDS)
def test_logits_of_any_size(backend, size):
    """Gate parameters times ``size``: with huge logits the best selected expert takes all, so
    the likelihood is its own; with tiny ones the selected share equally."""
    params, form, x, y, rows = make(TOP_SLOPE, 3, 1, 1001)
    blocks = params.view(3, 3, 5)
    blocks[..., :2] *= size
    out = gating.evaluate(params, form, x, y, rows, order="hessian", backend=backend)
    parts = [v for v in vars(out).values() if v is not None]
    assert all(bool(torch.isfinite(v).all()) for v in parts)

    expected = torch.zeros(3, 1001, dtype=torch.float64)
    for b in range(3):
        features = x[rows[b], 0]
        slopes, intercepts = blocks[b, :, 1, None] / size, blocks[b, :, 0, None] / size
        kept = (slopes * features).argsort(0, descending=True)[:2]
        logits = (slopes * features + intercepts).gather(0, kept)
        share = torch.softmax(logits * size, 0)
        means, scales = blocks[b, :, 2, None] * features + blocks[b, :, 3, None], blocks[b, :, 4]
        density = torch.distributions.Normal(means, torch.exp(scales)[:, None])
        picked = torch.exp(density.log_prob(y[rows[b]])).gather(0, kept)
        expected[b] = torch.log((share * picked).sum(0))
    assert_close(out.value, expected.sum(-1), 1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_unselected_experts_are_exactly_silent(backend):
    params, form, x, y, rows = make(TOP_SLOPE, 3, 1, 1001)
    positive = x.abs() + 0.1  # one side of 0: the lowest slope is never among the best two
    layout = gating.layout_of(form, params, x)
    pointwise = naive.terms if backend == "naive" else compiled.terms
    point = pointwise(params, form, positive[rows], y[rows], layout)
    gradient = gating.evaluate(params, form, positive, y, rows, backend=backend).gradient
    for b, slope in enumerate(params.view(3, 3, 5)[:, :, 1]):
        silent = int(slope.argmin())
        assert bool((point.responsibilities[b, silent] == 0).all())
        assert bool((point.gate[b, silent] == 0).all())
        assert bool((gradient[b].view(3, 5)[silent] == 0).all())
        others = [e for e in range(3) if e != silent]
        assert bool((point.gate[b, others] > 0).all())


@pytest.mark.parametrize("backend", BACKENDS)
def test_ties_go_to_the_first(backend):
    params, form, x, y, rows = make(TOP_SLOPE, 3, 1, 7)
    params.view(3, 3, 5)[:, :, 1] = 0.7
    layout = gating.layout_of(form, params, x)
    pointwise = naive.terms if backend == "naive" else compiled.terms
    gate = pointwise(params, form, x[rows], y[rows], layout).gate
    assert bool((gate[:, :2] > 0).all())
    assert bool((gate[:, 2] == 0).all())


@pytest.mark.parametrize("case", ["by slope", "squashed", "tempered"])
def test_chunks_do_not_change_the_sums(case, monkeypatch):
    params, form, x, y, rows = make(*CASES[case])
    tilt = torch.ones(3, CASES[case][1], dtype=torch.float64).cumsum(-1)
    whole = gating.evaluate(params, form, x, y, rows, order="hessian", backend="naive")
    means = gating.gate_means(params, form, x, rows, tilt)
    for elements in (1, 1000):
        monkeypatch.setattr(naive, "MAX_ELEMENTS", elements)
        parts = gating.evaluate(params, form, x, y, rows, order="hessian", backend="naive")
        assert_evaluations_close(parts, whole, EXACT)
        for mine, all_at_once in zip(
            gating.gate_means(params, form, x, rows, tilt), means, strict=True
        ):
            assert torch.allclose(mine, all_at_once, rtol=0, atol=EXACT)


def largest_allocation(function):
    """Bytes of the largest single block that a call allocates, by torch's own records."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        function()
    events = profile.profiler.kineto_results.events()
    return max(event.nbytes() for event in events if event.name() == "[memory]")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shape", [(TOP_SLOPE, 5, 1), (SOFTMAX, 2, 3), (SQUASHED, 3, 2)])
def test_no_temporary_exceeds_the_chunk(shape, order, monkeypatch):
    monkeypatch.setattr(naive, "MAX_ELEMENTS", 2**14)
    arguments = make(*shape, 20_001)

    def call():
        gating.evaluate(*arguments, order=order, backend="naive")

    assert largest_allocation(call) <= 8 * naive.MAX_ELEMENTS


def test_gate_means_have_no_temporary_above_the_chunk(monkeypatch):
    monkeypatch.setattr(naive, "MAX_ELEMENTS", 2**14)
    params, form, x, _, rows = make(SQUASHED, 3, 2, 20_001)
    tilt = torch.ones(3, 3, dtype=torch.float64)
    size = largest_allocation(lambda: gating.gate_means(params, form, x, rows, tilt))
    assert size <= 8 * naive.MAX_ELEMENTS


@pytest.mark.parametrize("order", ["gradient", "hessian"])
@pytest.mark.parametrize(
    "shape", [(TOP_SLOPE, 3, 1), pytest.param((SOFTMAX, 5, 1), marks=pytest.mark.slow)]
)
def test_no_compiled_temporary_exceeds_the_chunk(shape, order, monkeypatch):
    monkeypatch.setattr(naive, "MAX_ELEMENTS", 2**14)
    arguments = make(*shape, 20_001)

    def call():
        gating.evaluate(*arguments, order=order, backend="compiled")

    call()  # compile
    assert largest_allocation(call) <= 8 * naive.MAX_ELEMENTS


def test_forms_of_equal_templates_share_a_program():
    again = TopKGate.template(top_k=2, rank="slope").form()
    assert again == TOP_SLOPE
    assert hash(again) == hash(TOP_SLOPE)
    assert again != TOP_LOGIT

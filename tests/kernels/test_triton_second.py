"""Information and Hessian of the hand-written pass against the formulas in float64."""

import pytest
import torch
from gating_cases import FORMS, make

from kernels import gating
from kernels.gating import GateForm, naive

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5}
"""Against float64 naive, of the largest entry of each model."""

MATRICES = ("information", "hessian")


pytestmark = pytest.mark.usefixtures("poison")


def run(case, device, order="hessian", **options):
    params, form, *data = case
    there = [t.to(device) for t in data]
    return gating.evaluate(
        params.to(device), form, *there, order=order, backend="triton", **options
    )


def exact(case, order="hessian"):
    params, form, x, y, rows = case
    layout = gating.layout_of(form, params, x)
    return naive.evaluate(
        params.double(), form, x.double(), y.double(), rows, layout, order, responsibilities=True
    )


def assert_close(found, wanted, dtype):
    for name in ("value", "gradient", *MATRICES):
        actual, expected = getattr(found, name), getattr(wanted, name)
        assert (actual.dtype, actual.shape) == (dtype, expected.shape)
        if expected.numel():
            error, size = (
                part.flatten(1).amax(1) if part.ndim > 1 else part
                for part in ((actual.cpu().double() - expected).abs(), expected.abs())
            )
            assert bool((error <= TOLERANCE[dtype] * size).all()), (name, error / size)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, torch.float64) for name in FORMS),
        *((name, torch.float32) for name in ("softmax", "top-2 by slope", "sigmoid ratings")),
        ("gelu", torch.float32),
    ],
)
def test_every_gate(name, dtype, device):
    """A gate slope that is a little off is rejected by the Hessian alone."""
    case = make(FORMS[name], 3, 1, 29, batch=1, dtype=dtype)
    found, wanted = run(case, device), exact(case)
    assert_close(found, wanted, dtype)
    for matrix in (found.information, found.hessian):
        assert torch.equal(matrix, matrix.mT)
    moved = make(FORMS[name], 3, 1, 29, batch=1, dtype=dtype)
    moved[0][:, 1] += 0.1
    error = (found.hessian.cpu() - exact(moved).hessian).abs().amax((1, 2))
    assert bool((error > TOLERANCE[dtype] * wanted.hessian.abs().amax((1, 2))).all())


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("top-2 by slope", (1, 1, 1)),
        ("top-2 by slope", (2, 1, 131)),
        ("top-2 by slope", (5, 2, 7)),
        ("gelu", (1, 1, 1)),
        ("gelu", (2, 3, 11)),
    ],
)
def test_odd_shapes(name, shape, device):
    """One expert, as many as are selected, primes; several launches where features are many."""
    case = make(FORMS[name], *shape)
    assert_close(run(case, device), exact(case), torch.float64)


def test_no_data_and_no_models(device):
    empty = run(make(FORMS["temperature"], 2, 1, 0), device)
    for matrix in (empty.information, empty.hessian):
        assert torch.equal(matrix.cpu(), torch.zeros(3, 11, 11, dtype=torch.float64))
    params, form, x, y, rows = make(FORMS["temperature"], 2, 1, 5)
    assert run((params[:0], form, x, y, rows[:0]), device).hessian.shape == (0, 11, 11)


def test_information_alone(device):
    case = make(FORMS["temperature"], 3, 1, 17)
    found, wanted = run(case, device, "information"), exact(case)
    assert found.hessian is None
    assert torch.equal(found.information, run(case, device).information)
    assert torch.allclose(found.information.cpu(), wanted.information, rtol=1e-12, atol=1e-12)


def test_launches_in_parts(device, monkeypatch, poison):
    """Few pairs and few partial sums a launch: more launches, none above its bound."""
    from kernels.gating import triton_pairs, triton_sums

    case = make(FORMS["temperature"], 2, 1, 600, batch=1)
    whole = run(case, device)
    assert max(poison) > 100
    poison.clear()
    monkeypatch.setattr(triton_pairs, "MAX_PAIRS", 9)
    monkeypatch.setattr(triton_sums, "_MAX_PARTIAL", 100)
    monkeypatch.setattr(triton_sums, "_MIN_PROGRAMS", 2)
    parts = run(case, device)
    assert max(poison) <= 100
    assert_close(parts, exact(case), torch.float64)
    assert torch.allclose(parts.hessian, whole.hessian, rtol=1e-12, atol=1e-12)


def test_strided_tensors_and_responsibilities(device):
    params, form, x, y, rows = make(FORMS["softmax"], 3, 2, 19)
    case = (
        params,
        form,
        x.mT.contiguous().mT,
        torch.stack([y, y * float("nan")], -1)[..., 0],
        rows,
    )
    found, wanted = run(case, device, responsibilities=True), exact((params, form, x, y, rows))
    assert_close(found, wanted, torch.float64)
    assert torch.allclose(found.responsibilities.cpu(), wanted.responsibilities, atol=1e-12)


def test_nan_is_not_swallowed(device):
    params, form, x, y, rows = make(FORMS["top-2 by slope"], 3, 1, 20)
    y[0, 3] = float("nan")
    found = run((params, form, x, y, rows), device)
    assert torch.isnan(found.hessian).any((1, 2)).tolist() == (rows == 0).tolist()


def flat_score(own, shared, x):
    return own[0] + own[1] * x[0]


def flat_gradient(own, shared, x):
    return 1.0, x[0]


def bent(own, shared, x):
    return {(1, 1): torch.atan(x[0])}


def test_what_is_not_taken_is_refused(device):
    """The gradient of what has no Hessian is still taken."""
    wide = make(FORMS["softmax"], 2, 11, 3)
    curved = make(GateForm(flat_score, flat_gradient, score_curvature=bent), 2, 1, 3)
    for case, words in [
        (wide, "second derivatives of at most 24 columns are allowed, not 25"),
        (curved, r"the operation aten\.atan\.default"),
    ]:
        with pytest.raises(ValueError, match=words):
            run(case, device)
        assert run(case, device, "gradient").gradient is not None

"""The hand-written gating pass against the formulas in float64: every gate and every gradient."""

import warnings

import numpy as np
import pytest
import torch
from gating_cases import FORMS, make

from kernels import gating, gpu
from kernels.gating import GateForm, naive
from moe_stats import TopKGate

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
"""Against float64 naive, of the largest entry of each model: rounding of the terms, not of sums."""


pytestmark = pytest.mark.usefixtures("poison")


@pytest.fixture
def triton(poison):
    """The kernel's module."""
    from kernels.gating import triton

    return triton


def run(case, device, **options):
    params, form, x, y, rows = case
    there = [t.to(device) for t in (params, x, y, rows)]
    return gating.evaluate(
        there[0], form, *there[1:], **{"responsibilities": True, "backend": "triton", **options}
    )


def exact(case):
    params, form, x, y, rows = case
    double = [t.double() for t in (params, x, y)]
    layout = gating.layout_of(form, params, x)
    return naive.evaluate(
        double[0], form, *double[1:], rows, layout, "gradient", responsibilities=True
    )


def assert_close(found, wanted, dtype):
    for name in ("value", "gradient", "responsibilities"):
        actual, expected = getattr(found, name), getattr(wanted, name)
        assert actual.dtype == dtype
        assert actual.shape == expected.shape
        if expected.numel():
            dims = tuple(range(1, expected.ndim))
            error, size = (actual.cpu().double() - expected).abs(), expected.abs()
            if dims:
                error, size = error.amax(dims), size.amax(dims)
            assert bool((error <= TOLERANCE[dtype] * size).all()), (name, error / size)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", FORMS)
def test_every_gate(name, dtype, device):
    case = make(FORMS[name], 3, 2, 37, dtype=dtype)
    found = run(case, device)
    assert_close(found, exact(case), dtype)
    moved = make(FORMS[name], 3, 2, 37, dtype=dtype)
    moved[0][:, 1] += 0.01  # the same test rejects a gate slope that is a little off
    with pytest.raises(AssertionError):
        assert_close(found, exact(moved), dtype)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 5), (2, 1, 131), (5, 2, 257), (7, 5, 11)])
@pytest.mark.parametrize("name", ["softmax", "top-2 by slope", "top-2 by logit", "gelu"])
def test_odd_shapes(name, shape, device):
    """One expert, as many as are selected, primes: none a multiple of a block."""
    case = make(FORMS[name], *shape, batch=2)
    assert_close(run(case, device), exact(case), torch.float64)


@pytest.mark.parametrize("top_k", [1, 2, 3, 5])
@pytest.mark.parametrize("rank", ["slope", "logit"])
def test_any_number_selected(top_k, rank, device):
    case = make(TopKGate.template(top_k=top_k, rank=rank).form(), 5, 2, 33)
    found = run(case, device)
    assert_close(found, exact(case), torch.float64)
    assert bool(((found.responsibilities > 0).sum(1) <= top_k).all())


def test_no_data_and_no_models(device):
    empty = run(make(FORMS["softmax"], 2, 1, 0), device)
    assert empty.value.tolist() == [0, 0, 0]
    assert float(empty.gradient.abs().max()) == 0
    assert empty.responsibilities.shape == (3, 2, 0)
    params, form, x, y, rows = make(FORMS["softmax"], 2, 1, 5)
    assert run((params[:0], form, x, y, rows[:0]), device).gradient.shape == (0, 10)


def test_passes_in_parts(device, monkeypatch):
    """Several launches for the columns, slices of data, and runs of blocks."""
    from kernels.gating import triton_sums

    case = make(FORMS["temperature"], 3, 2, 700)
    whole = run(case, device)
    monkeypatch.setattr(triton_sums, "_MAX_COLUMNS", 4)
    monkeypatch.setattr(triton_sums, "_MAX_PARTIAL", 100)
    monkeypatch.setattr(triton_sums, "_MIN_PROGRAMS", 2)
    parts = run(case, device)
    assert_close(parts, exact(case), torch.float64)
    assert torch.allclose(parts.gradient, whole.gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_sixty_four_experts_and_features(device):
    case = make(TopKGate.template(top_k=3, rank="logit").form(), 64, 64, 5, batch=1, n_sets=1)
    assert_close(run(case, device), exact(case), torch.float64)


def test_strided_tensors(device):
    params, form, x, y, rows = make(FORMS["softmax"], 3, 2, 41)
    rows_of_features = x.mT.contiguous().mT  # as a table is stored: one observation after another
    every_other = torch.stack([y, torch.full_like(y, float("nan"))], -1)[..., 0]
    tall = params.T.contiguous().T
    assert not any(t.is_contiguous() for t in (rows_of_features, every_other, tall))
    case = (tall, form, rows_of_features, every_other, rows)
    assert_close(run(case, device), exact((params, form, x, y, rows)), torch.float64)


def test_offsets_beyond_32_bits(device, tmp_path):
    """A second data set 2^31 numbers after the first, in a file with a hole."""
    if device.type == "cuda":
        pytest.skip("a GPU would have to hold all of it")
    params, form, x, y, rows = make(FORMS["softmax"], 2, 1, 9)
    far = 2**31
    memory = torch.from_file(str(tmp_path / "far"), shared=True, size=far + 9, dtype=torch.float64)
    memory[:9], memory[far:] = x[:, 0]
    case = (params, form, memory.as_strided((2, 1, 9), (far, 9, 1)), y, rows)
    assert_close(run(case, device), exact((params, form, x, y, rows)), torch.float64)


def test_the_same_every_time_and_in_any_batch(device):
    params, form, x, y, rows = make(FORMS["softmax"], 3, 2, 300, dtype=torch.float32)
    together, again = (run((params, form, x, y, rows), device) for _ in range(2))
    for name in ("value", "gradient", "responsibilities"):
        assert torch.equal(getattr(together, name), getattr(again, name))
    alone = run((params[1:2], form, x, y, rows[1:2]), device)
    assert torch.equal(alone.value, together.value[1:2])
    assert torch.equal(alone.gradient, together.gradient[1:2])


def test_float32_sums_keep_their_digits(device, monkeypatch):
    """20,000 equal observations: an error of a sum shows in full. A run of 64 terms bounds it by 32
    units of rounding, half a unit a term; adding one by one, as a control, is far above."""
    from kernels.gating import triton_sums

    n = 20_000
    params, form, x, y, rows = make(FORMS["softmax"], 2, 1, 1, batch=1, dtype=torch.float32)
    case = (params, form, x.expand(2, 1, n), y.expand(2, n), rows)
    monkeypatch.setattr(triton_sums, "_MIN_PROGRAMS", 1)  # runs as long as they get
    found, wanted = run(case, device), exact(case)
    one = run((params, form, x, y, rows), device)
    terms = torch.cat([one.value, one.gradient[0]]).cpu()
    sums = torch.cat([found.value, found.gradient[0]]).cpu()
    wanted = torch.cat([wanted.value, wanted.gradient[0]])
    rounding = torch.finfo(torch.float32).eps
    by_sums = (sums.double() / (n * terms.double()) - 1).abs().max()
    one_by_one = torch.from_numpy(np.add.accumulate(terms.expand(n, -1).numpy())[-1])
    assert float(by_sums) < 32 * rounding
    assert float((one_by_one.double() / (n * terms.double()) - 1).abs().max()) > 320 * rounding
    assert float((sums / wanted - 1).abs().max()) < TOLERANCE[torch.float32]


def test_the_value_knows_its_gradient(device):
    params, form, x, y, rows = make(FORMS["temperature"], 3, 2, 50)
    weights = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    gradients = []
    for where, backend in ((device, "triton"), (torch.device("cpu"), "naive")):
        leaf = params.to(where).requires_grad_()
        found = run((leaf, form, x, y, rows), where, order="value", backend=backend)
        assert found.gradient is None
        (found.value @ weights.to(where)).backward()
        gradients.append(leaf.grad.cpu())
    assert torch.allclose(*gradients, rtol=1e-11, atol=1e-11)
    with torch.no_grad():
        assert not run((leaf.to(device), form, x, y, rows), device).value.requires_grad
    tracked = run((params.to(device).requires_grad_(), form, x, y, rows), device)
    assert not tracked.gradient.requires_grad


def test_logits_of_any_size(device):
    params, form, x, y, rows = make(FORMS["softmax"], 3, 1, 40)
    params[:, ::5] *= 1e4  # gate intercepts
    case = (params, form, x, y, rows)
    found = run(case, device)
    assert_close(found, exact(case), torch.float64)
    assert all(bool(torch.isfinite(part).all()) for part in (found.value, found.gradient))


def test_ties_go_to_the_first(device):
    params, form, x, y, rows = make(FORMS["top-2 by slope"], 4, 1, 20)
    params[:, 1::5] = 1.0  # all ranks equal
    case = (params, form, x, y, rows)
    found = run(case, device)
    assert_close(found, exact(case), torch.float64)
    assert float(found.responsibilities[:, 2:].abs().max()) == 0


@pytest.mark.parametrize("name", ["top-2 by slope", "relu", "sigmoid ratings", "Laplace"])
def test_nan_is_not_swallowed(name, device):
    params, form, x, y, rows = make(FORMS[name], 4, 1, 20)
    params[0, 1] = float("nan")
    assert torch.isnan(run((params, form, x, y, rows), device).value).tolist() == [1, 0, 0]
    params[0, 1], y[0, 3] = 0.0, float("nan")
    found = torch.isnan(run((params, form, x, y, rows), device).value)
    assert found.tolist() == (rows == 0).tolist()


def every_score(own, shared, x):
    """All that no built-in gate uses, without meaning."""
    z, w = own[0] + own[1] * x[0], 3 - x[0] / 2
    bent = torch.where(z >= w, torch.cos(z), torch.where(z <= 0.1, z**3 / 4 - 1, z**1))
    return bent * torch.log(2.0 + z.abs()) + torch.where(z < w, (z * z + 1) ** 0.5, w.detach())


def every_gradient(own, shared, x):
    def function(z):
        return (torch.tanh(z) + torch.sigmoid(z) * torch.sin(z) + torch.erf(z)).sum()

    z = own[0] + own[1] * x[0]
    slope = torch.func.grad(function)(z)
    return slope, torch.where(z > x[0], torch.zeros_like(z), slope) + (z <= x[0]).to(z)


def test_every_operation(device):
    case = make(GateForm(every_score, every_gradient), 3, 1, 41)
    assert_close(run(case, device), exact(case), torch.float64)


def arc_score(own, shared, x):
    return torch.atan(own[0] + own[1] * x[0])


def arc_gradient(own, shared, x):
    slope = 1 / (1 + (own[0] + own[1] * x[0]) ** 2)
    return slope, slope * x[0]


def test_a_gate_without_a_kernel_says_so_once(device):
    case = make(GateForm(arc_score, arc_gradient), 2, 1, 10)
    params, form, x, y, _ = case
    with pytest.raises(ValueError, match=r"the gate uses the operation aten\.atan\.default"):
        run(case, device)
    gpu.warn_slower.cache_clear()
    asked = (params, form, x, y, gating.layout_of(form, params, x))
    with pytest.warns(RuntimeWarning, match=r"kernel of the gating likelihood is not used.*atan"):
        assert not gating._in_triton(*asked, "gradient")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not gating._in_triton(*asked, "gradient")
        softmax = FORMS["softmax"]
        assert gating._in_triton(params, softmax, *asked[2:], "gradient")
    gpu.warn_slower.cache_clear()


def closing_over(constant):
    def score(own, shared, x):
        return own[0] + own[1] * x[0] + constant

    return GateForm(score, lambda own, shared, x: (1.0, x[0]))


def deciding(own, shared, x):
    return own[0] + own[1] * x[0] if float(x[0]) > 0 else own[0]


def test_forms_that_cannot_be_traced_are_refused(device):
    forms = {
        "the operation": closing_over(torch.ones(1, dtype=torch.float64)),
        "decisions on values": GateForm(deciding, lambda own, shared, x: (1.0, x[0])),
        "the power 2.5": GateForm(
            lambda own, shared, x: (own[0] + own[1] * x[0]) ** 2.5,
            lambda own, shared, x: (1.0, x[0]),
        ),
    }
    for words, form in forms.items():
        with pytest.raises(ValueError, match=words):
            run(make(form, 2, 1, 10), device)


def test_what_is_not_taken_is_refused(device, monkeypatch):
    params, form, x, y, rows = make(FORMS["softmax"], 2, 1, 10)
    half = (params.half(), form, x.half(), y.half(), rows)
    wide = make(FORMS["softmax"], 65, 1, 3, batch=1, n_sets=1)
    for words, case, options in [
        ("must be float32 or float64, not torch.float16", half, {}),
        ("'y' torch.float32", (params, form, x, y.float(), rows), {}),
        ("at most 64 experts and 64 features are allowed, not 65 and 1", wide, {}),
        ("no derivative in 'x' and 'y'", (params, form, x.requires_grad_(), y, rows), {}),
    ]:
        with pytest.raises(ValueError, match=words.replace(".", r"\.")):
            run(case or (params, form, x, y, rows), device, **options)
    with pytest.raises(ValueError, match=r"'x' parameter must be on the device of 'params'"):
        gating.evaluate(params, form, x.to("meta"), y)
    with pytest.raises(ValueError, match=r"'backend' parameter must be one of"):
        run((params, form, x, y, rows), device, backend="cuda")
    monkeypatch.setattr(gpu, "missing", lambda: "it is not installed")
    with pytest.raises(ImportError, match=r"needs Triton 3\.6 or newer; it is not installed"):
        run((params, form, x.detach(), y, rows), device)


def test_a_cpu_runs_what_it_ran_before(triton, monkeypatch):
    """Also where the interpreter could run the kernel."""
    monkeypatch.setattr(triton, "evaluate", None)
    params, form, x, y, rows = make(FORMS["softmax"], 2, 1, 10)
    assert gating.evaluate(params, form, x, y, rows).gradient is not None

"""Simulate and accumulate in one kernel: the sums of the same data drawn outside."""

import pytest
import torch

from kernels import gpu, simulate
from kernels.philox import Stream
from kernels.simulate import Design, Truth
from moe_stats import GaussianMoE, LinearExperts, SoftmaxGate, TopKGate
from moe_stats.gates import DenseToSparseGate

TOLERANCE = {torch.float64: 1e-11, torch.float32: 3e-5}
"""Of the largest entry of each model. In float32 the data are rounded too."""

STREAM, NEXT = Stream(9, 2**31), Stream(9, 2**31 + 1)


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    """Memory that a kernel forgets to write is NaN."""

    def new_empty(like, *shape, **options):
        made = original(like, *shape, **options)
        return made.fill_(float("nan")) if made.is_floating_point() else made

    original = torch.Tensor.new_empty
    monkeypatch.setattr(torch.Tensor, "new_empty", new_empty)


def numbers(*shape, seed):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def truth_of(n_features, n_experts=3, top_k=2):
    return GaussianMoE(
        TopKGate(numbers(n_experts, seed=0), numbers(n_experts, n_features, seed=1), top_k=top_k),
        LinearExperts(
            numbers(n_experts, n_features, seed=2),
            numbers(n_experts, seed=3),
            0.3 + numbers(n_experts, seed=4).abs(),
        ),
    )


def models_of(n_features):
    """Two models of another gate and another number of experts, (2, P), and their form."""
    model = GaussianMoE(
        DenseToSparseGate(numbers(2, seed=5), numbers(2, n_features, seed=6), 0.7),
        LinearExperts(numbers(2, n_features, seed=7), numbers(2, seed=8), [0.8, 1.3]),
    )
    return torch.stack([model.to_params(), 1.1 * model.to_params()]), model.gate.form


def both(design, truth, params, form, n, dtype, device, stream=STREAM, **options):
    """(plain in float64 on the CPU, Triton in a dtype on a device)."""
    found = []
    for backend, number, where in (
        ("naive", torch.float64, torch.device("cpu")),
        ("triton", dtype, device),
    ):
        source = Truth(truth.to_params().to(where, number), truth.gate.form, design)
        there = params.to(where, number)
        found.append(simulate.evaluate(there, form, source, stream, n, backend=backend, **options))
    return found


def assert_close(plain, fused, dtype):
    for name, expected in vars(plain).items():
        actual = getattr(fused, name)
        if expected is None:
            assert actual is None
            continue
        assert actual.dtype == dtype
        error, size = (actual.cpu().double() - expected).abs(), expected.abs()
        if dims := tuple(range(1, expected.ndim)):
            error, size = error.amax(dims), size.amax(dims)
        assert bool((error <= TOLERANCE[dtype] * size).all()), (name, error / size)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("law", ["uniform", "normal"])
@pytest.mark.parametrize("n_features", [1, 2, 3, 5])
def test_the_same_data(dtype, law, n_features, device):
    design = Design(law, -0.7, 1.9, n_features)
    truth, models = truth_of(n_features), models_of(n_features)
    plain, fused = both(design, truth, *models, 151, dtype, device)
    assert_close(plain, fused, dtype)
    if dtype == torch.float64:  # the next stream's data, as a control
        other = both(design, truth, *models, 151, dtype, device, NEXT)[1]
        with pytest.raises(AssertionError):
            assert_close(plain, other, dtype)


@pytest.mark.parametrize(("n_experts", "top_k"), [(1, 1), (3, 1), (3, 3), (5, 2)])
@pytest.mark.parametrize("n", [1, 131])
def test_odd_shapes(n_experts, top_k, n, device):
    truth = truth_of(1, n_experts, top_k)
    plain, fused = both(Design(), truth, *models_of(1), n, torch.float64, device)
    assert_close(plain, fused, torch.float64)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("order", ["information", "hessian"])
def test_second_derivatives(order, dtype, device):
    truth = truth_of(1)
    given = (Design(), truth, *models_of(1), 43, dtype, device)
    plain, fused = both(*given, order=order)
    assert_close(plain, fused, dtype)
    with pytest.raises(AssertionError):
        assert_close(plain, both(*given, NEXT, order=order)[1], dtype)


@pytest.mark.parametrize("seed", [2**63 - 1, 2**63, 2**64 - 1])
def test_seeds_of_64_bits(seed, device):
    plain, fused = both(
        Design(), truth_of(1), *models_of(1), 20, torch.float64, device, Stream(seed)
    )
    assert_close(plain, fused, torch.float64)


def test_what_has_no_kernel_is_refused(device, monkeypatch):
    params, form = models_of(1)
    truth = truth_of(1)
    source = Truth(truth.to_params().to(device), truth.gate.form, Design())
    options = {"n": 10, "backend": "triton"}
    wide = GaussianMoE(
        SoftmaxGate(torch.zeros(65), torch.zeros(65, 1)),
        LinearExperts(torch.zeros(65, 1), torch.zeros(65), torch.ones(65)),
    )
    crowd = Truth(wide.to_params().to(device, params.dtype), wide.gate.form, Design())
    with pytest.raises(ValueError, match="at most 64 experts"):
        simulate.evaluate(params.to(device), form, crowd, Stream(0), **options)
    monkeypatch.setattr(gpu, "missing", lambda: "it is not installed")
    with pytest.raises(ImportError, match="it is not installed"):
        simulate.evaluate(params.to(device), form, source, Stream(0), **options)

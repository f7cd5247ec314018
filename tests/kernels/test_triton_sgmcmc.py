"""The hand-written updates against the formulas, with noise given and with noise drawn inside."""

import warnings
from types import SimpleNamespace

import pytest
import torch

from kernels import gpu, sgmcmc
from kernels.philox import Stream

NUMBERS = {
    "sgld": {"step_size": 0.1, "temperature": 0.7},
    "sghmc": {
        "step_size": 0.1,
        "momentum_decay": 0.3,
        "mass": 1.7,
        "noise_variance": 2.0,
        "temperature": 0.7,
    },
    "baoab": {"step_size": 0.1, "friction": 0.8, "temperature": 0.7},
}

FUSED = {torch.float32: 1e-5, torch.float64: 1e-12}
"""Fused against plain form, on numbers of order 1; as for the compiled form."""

SHAPES = [(1, 1), (3, 7), (2, 1031), (0, 3), (3, 0)]


def arguments(name, shape=(3, 7), dtype=torch.float64, device="cpu", seed=0):
    generator = torch.Generator().manual_seed(seed)
    tensors = ["position", "gradient", "noise"]
    if name != "sgld":
        tensors.insert(1, "momentum")
    given = {
        key: torch.randn(shape, dtype=dtype, generator=generator).to(device) for key in tensors
    }
    return given | NUMBERS[name]


def both(name, given):
    """(naive, Triton), each a tuple of tensors."""
    results = (getattr(sgmcmc, name)(**given, backend=b) for b in ("naive", "triton"))
    return [r if isinstance(r, tuple) else (r,) for r in results]


def assert_same(name, given, dtype):
    for plain, fused in zip(*both(name, given), strict=True):
        assert plain.shape == fused.shape
        assert plain.dtype == fused.dtype == dtype
        assert torch.allclose(plain, fused, rtol=FUSED[dtype], atol=FUSED[dtype])


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    """Memory that a kernel forgets to write is NaN."""

    def empty_like(like, **kwargs):
        return torch.full_like(like, float("nan"), **kwargs)

    monkeypatch.setattr(torch, "empty_like", empty_like)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("dtype", FUSED)
@pytest.mark.parametrize("shape", SHAPES)
def test_given_noise(name, dtype, shape, device):
    assert_same(name, arguments(name, shape, dtype, device), dtype)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("dtype", FUSED)
@pytest.mark.parametrize("shape", SHAPES)
def test_noise_drawn_inside(name, dtype, shape, device):
    """The stream's own normals; another step's are others."""
    given = arguments(name, shape, dtype, device) | {"noise": Stream(2**40 + 3, 17)}
    assert_same(name, given, dtype)
    drawn = Stream(2**40 + 3, 17).normal(shape, given["position"])
    by_tensor, by_stream = both(name, given | {"noise": drawn})[1], both(name, given)[1]
    other = both(name, given | {"noise": Stream(2**40 + 3, 18)})[1]
    for a, b, c in zip(by_tensor, by_stream, other, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=FUSED[dtype])
        assert a.numel() == 0 or not torch.allclose(b, c, rtol=0, atol=1e-2)


def test_scale_adapted_sghmc(device):
    """A mass, a decay and a variance for every weight, as `AdaptiveSGHMC` has them."""
    given = arguments("sghmc", (3, 33), torch.float64, device)
    root = given["gradient"].abs() + 0.5
    given |= {"mass": root, "noise_variance": root.square()}
    given["momentum_decay"] = sgmcmc.sufficient_decay(0.01, 0.1, root, root.square(), 0.7)
    assert_same("sghmc", given, torch.float64)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (3, 1), (1, 7), (7,), (3, 7)])
def test_numbers_broadcast(shape, device):
    given = arguments("sghmc", device=device)
    for seed, key in enumerate(NUMBERS["sghmc"]):
        generator = torch.Generator().manual_seed(seed)
        value = torch.rand(shape, dtype=torch.float64, generator=generator).to(device)
        assert_same("sghmc", given | {key: value}, torch.float64)


def test_strided_tensors(device):
    given = arguments("sghmc", (6, 14), torch.float64, device)
    given["position"] = given["position"][::2, ::2]
    given["momentum"] = given["momentum"].mT[:7, :3].mT
    given["gradient"] = given["gradient"][3:, 7:]
    given["noise"] = given["noise"][:3, 3:4].expand(3, 7)
    assert not any(given[k].is_contiguous() for k in ("position", "momentum", "gradient"))
    assert_same("sghmc", given, torch.float64)


def test_noise_that_would_be_negative_is_none(device):
    given = arguments("sghmc", device=device) | {"noise_variance": 100.0}
    assert_same("sghmc", given, torch.float64)


def test_nan_is_not_swallowed(device):
    given = arguments("sghmc", device=device)
    given["noise_variance"] = torch.full((3, 7), 2.0, dtype=torch.float64, device=device)
    given["noise_variance"][1, 2] = float("nan")
    for plain, fused in zip(*both("sghmc", given), strict=True):
        assert torch.equal(torch.isnan(plain), torch.isnan(fused))
        assert int(torch.isnan(fused).sum()) == 1


def test_offsets_beyond_32_bits(device, tmp_path):
    """A second chain 2^31 numbers after the first, in a file with a hole."""
    if device.type == "cuda":
        pytest.skip("a GPU would have to hold all of it")
    far = 2**31
    memory = torch.from_file(str(tmp_path / "far"), shared=True, size=far + 7, dtype=torch.float64)
    given = arguments("sgld", (2, 7), torch.float64, device)
    position = given["position"]
    memory[:7], memory[far:] = position
    given["position"] = memory.as_strided((2, 7), (far, 1))
    assert torch.equal(given["position"], position)
    assert_same("sgld", given, torch.float64)


def test_tensors_that_differ_are_refused(device):
    given = arguments("sghmc", device=device)
    with pytest.raises(ValueError, match="'gradient' parameter must have the dtype and device"):
        sgmcmc.sghmc(**given | {"gradient": given["gradient"].float()}, backend="triton")
    with pytest.raises(ValueError, match="'momentum' parameter must have the dtype and device"):
        sgmcmc.sghmc(**given | {"momentum": given["momentum"].to("meta")}, backend="triton")
    half = {k: v.half() if isinstance(v, torch.Tensor) else v for k, v in given.items()}
    with pytest.raises(ValueError, match="must be float32 or float64"):
        sgmcmc.sghmc(**half, backend="triton")
    with pytest.raises(ValueError, match="'backend' parameter must be one of"):
        sgmcmc.sghmc(**given, backend="cuda")


def test_updates_without_a_kernel_say_so():
    given = arguments("sgld") | {"second_moment": torch.ones(3, 7).double(), "damping": 0.1}
    with pytest.raises(ValueError, match="'naive' or 'compiled' for psgld"):
        sgmcmc.psgld(**given, backend="triton")


def test_a_derivative_is_not_lost(device):
    given = arguments("sgld", device=device)
    given["position"].requires_grad_()
    with pytest.raises(ValueError, match="the kernel has no derivative"):
        sgmcmc.sgld(**given, backend="triton")
    with torch.no_grad():
        assert_same("sgld", given, torch.float64)


def test_a_cpu_without_the_interpreter_is_refused(monkeypatch):
    monkeypatch.setattr(gpu, "is_interpreting", lambda: False)
    monkeypatch.setattr(gpu, "missing", lambda: "")
    with pytest.raises(ValueError, match="needs tensors on a CUDA device, or on the CPU with"):
        sgmcmc.sgld(**arguments("sgld"), backend="triton")


def test_without_triton(monkeypatch):
    """An error where it was asked for by name; one warning where a GPU runs a slower path."""
    monkeypatch.setattr(gpu, "missing", lambda: "version 3.1.0 is installed")
    with pytest.raises(ImportError, match=r"needs Triton 3\.6 or newer; version 3\.1"):
        sgmcmc.sgld(**arguments("sgld"), backend="triton")
    gpu.warn_slower.cache_clear()
    on_a_gpu = {"position": SimpleNamespace(is_cuda=True, dtype=torch.float32)}
    with pytest.warns(RuntimeWarning, match="sgld update is not used: version 3.1.0"):
        assert not sgmcmc._in_triton("sgld", on_a_gpu)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not sgmcmc._in_triton("sgld", on_a_gpu)
        assert not sgmcmc._in_triton("sgld", arguments("sgld"))  # a CPU is no slower than before
    gpu.warn_slower.cache_clear()


def test_what_runs_on_a_gpu(monkeypatch):
    monkeypatch.setattr(gpu, "missing", lambda: "")
    gpu.warn_slower.cache_clear()
    position = SimpleNamespace(is_cuda=True, dtype=torch.float32, requires_grad=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in NUMBERS:
            assert sgmcmc._in_triton(name, {"position": position})
    half = SimpleNamespace(is_cuda=True, dtype=torch.float16)
    tracked = torch.zeros(1, requires_grad=True)
    for name, given, reason in [
        ("mclmc", {"position": position}, "it has none"),
        ("sgld", {"position": half}, "it takes float32 and float64, not torch.float16"),
        ("sgld", {"position": position, "gradient": tracked}, "it has no derivative"),
    ]:
        with pytest.warns(RuntimeWarning, match=reason):
            assert not sgmcmc._in_triton(name, given)
    gpu.warn_slower.cache_clear()

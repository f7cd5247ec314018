"""The hand-written GPU kernels against eager PyTorch and ``torch.compile``, in the same run.

Ceilings come first: copy bandwidth and float32 arithmetic. Every kernel is compared with float64 on
the inputs it is timed on. Without a CUDA device nothing is measured.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kernels import gating, gpu, sgmcmc, simulate
from kernels.philox import Stream
from moe_stats import GaussianMoE, SoftmaxGate

from .events import Ceilings, DeviceRow, measure_ceilings, median_and_spread, tests_of, times
from .settings import three_experts

SIZES = {"copy": 2**28, "state": 2**26, "data": 10**7, "simulated": 10**9, "peer": 10**7}
QUICK = {"copy": 2**26, "state": 2**24, "data": 10**6, "simulated": 10**8, "peer": 10**6}

TOLERANCE = 1e-4
"""float32 kernels against float64, of the largest number; a wrong result is not timed."""


def run(quick: bool) -> Iterator[DeviceRow]:
    device = torch.device("cuda")
    if not torch.cuda.is_available() or not gpu.is_available(device):
        print("triton: no CUDA device, or no Triton: nothing was measured", file=sys.stderr)
        return
    outcomes = {
        name: tests_of("triton_philox", f"triton_{name}", *more, slow=True)
        for name, more in (("gating", ("triton_second",)), ("sgmcmc", ()), ("simulate", ()))
    }
    yield from rows(device, QUICK if quick else SIZES, 11 if quick else 31, outcomes)


def rows(
    device: torch.device, sizes: dict[str, int], repeats: int, outcomes: dict[str, str]
) -> Iterator[DeviceRow]:
    """All measurements on a device."""
    ceilings = measure_ceilings(device, sizes["copy"], repeats)
    yield DeviceRow(
        "copy",
        "torch",
        f"n={sizes['copy']} float32",
        8 * sizes["copy"] / ceilings.bandwidth,
        1.0,
        f"{ceilings.bandwidth / 1e9:.0f} GB/s",
    )
    yield from _updates(device, sizes["state"], repeats, ceilings, outcomes["sgmcmc"])
    for n_experts, n_features in ((8, 8), (3, 1)):
        yield from _gating(
            device, sizes["data"], n_experts, n_features, repeats, ceilings, outcomes["gating"]
        )
    yield from _simulated(device, sizes, repeats, outcomes["simulate"])


def _compared(
    operation: str,
    shape: str,
    calls: dict[str, Callable[[], Any]],
    repeats: int,
    device: torch.device,
    floor: float,
    note: str,
    **fields: Any,
) -> Iterator[DeviceRow]:
    """Rows of the calls "eager", "torch.compile" and those compared with them."""
    found = {form: median_and_spread(times(call, repeats, device)) for form, call in calls.items()}
    for form, (median, spread) in found.items():
        yield DeviceRow(
            operation,
            form,
            shape,
            median,
            found["eager"][0] / median,
            note if form == "triton" else "",
            spread_s=spread,
            share=floor / median,
            ratio_to_compiled=found["torch.compile"][0] / median,
            **fields,
        )


def _updates(
    device: torch.device, size: int, repeats: int, ceilings: Ceilings, tests: str
) -> Iterator[DeviceRow]:
    """A step with fresh noise: the peers draw it with `torch.randn_like`, the compiled one inside
    its own kernel."""
    generator = torch.Generator(device).manual_seed(0)

    def normal() -> Tensor:
        return torch.randn(4, size // 4, device=device, generator=generator)

    q, p, g, v = normal(), normal(), normal(), normal().square() + 0.5
    settings = {
        "sgld": ((q, g), (1e-3, 1.0), 3),
        "sghmc": ((q, p, g), (1e-3, 0.1, 1.0, 0.0, 1.0), 5),
        "sghmc, scale-adapted": ((q, p, g), (1e-3, 0.1, v, v, 1.0), 6),
        "baoab": ((q, p, g), (1e-3, 1.0, 1.0), 5),
    }
    for name, (state, numbers, moved) in settings.items():
        update = getattr(sgmcmc, name.split(",")[0])
        formula = getattr(sgmcmc.naive, name.split(",")[0])

        def step(*state: Tensor, formula: Any = formula, numbers: tuple[Any, ...] = numbers) -> Any:
            return formula(*state, torch.randn_like(state[0]), *numbers)

        fused = partial(update, *state, Stream(0, 1), *numbers, backend="triton")
        double = [t.double() if isinstance(t, Tensor) else t for t in (*state, *numbers)]
        noise = Stream(0, 1).normal((4, size // 4), q).double()
        exact = update(*double[: len(state)], noise, *double[len(state) :], backend="naive")
        note = _agreement(fused(), exact)
        del double, noise, exact
        calls: dict[str, Callable[[], Any]] = {
            "eager": partial(step, *state),
            "torch.compile": partial(torch.compile(step), *state),
            "triton": fused,
        }
        yield from _compared(
            f"{name} update",
            f"C=4 P={size // 4} float32",
            calls,
            repeats,
            device,
            ceilings.seconds(4 * moved * size, 0),
            note,
            bytes_moved=4 * moved * size,
            tests=tests,
        )


def _gating(
    device: torch.device,
    n: int,
    n_experts: int,
    n_features: int,
    repeats: int,
    ceilings: Ceilings,
    tests: str,
) -> Iterator[DeviceRow]:
    """Log-likelihood and gradient; the peers are autograd through the formula."""
    generator = torch.Generator(device).manual_seed(0)
    form = SoftmaxGate.template().form()
    layout = gating.Layout.of(form, n_experts, n_features)
    params = 0.5 * torch.randn(1, layout.size, device=device, generator=generator)
    x = torch.randn(1, n_features, n, device=device, generator=generator)
    y = torch.randn(1, n, device=device, generator=generator)

    def value(params: Tensor) -> Tensor:
        return torch.logsumexp(gating.naive.log_joint(params, form, x, y, layout), -2).sum()

    compiled = torch.compile(value)

    def gradient(function: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        leaf = params.clone().requires_grad_()
        total = function(leaf)
        return total, torch.autograd.grad(total, leaf)[0]

    fused = gating.evaluate(params, form, x, y, backend="triton")
    exact = gating.evaluate(params.double(), form, x.double(), y.double(), backend="naive")
    # scores, means and both halves of the gradient; exponentials and the rest of a tile count 16
    operations = n * n_experts * (4 * n_features + 16)
    moved = 4 * n * (n_features + 1)
    yield from _compared(
        "gating likelihood and gradient",
        f"n={n} E={n_experts} D={n_features} float32",
        {
            "eager": lambda: gradient(value),
            "torch.compile": lambda: gradient(compiled),
            "triton": lambda: gating.evaluate(params, form, x, y, backend="triton"),
        },
        repeats,
        device,
        ceilings.seconds(moved, operations),
        _agreement((fused.value, fused.gradient), (exact.value, exact.gradient)),
        bytes_moved=moved,
        operations=operations,
        tests=tests,
    )


def _simulated(
    device: torch.device, sizes: dict[str, int], repeats: int, tests: str
) -> Iterator[DeviceRow]:
    """Simulate and accumulate; the peer draws chunks in plain PyTorch and is timed on fewer."""
    truth: GaussianMoE = three_experts()
    for dtype in (torch.float32, torch.float64):
        params = truth.to_params().to(device, dtype)
        source = simulate.Truth(params, truth.gate.form, simulate.Design("uniform", -1.0, 2.0))

        n, few = sizes["simulated"], sizes["peer"]
        fused, plain = (
            partial(simulate.evaluate, params[None], source.form, source, Stream(0), backend=form)
            for form in ("triton", "naive")
        )
        double = replace(source, params=params.double())
        exact = simulate.evaluate(
            double.params[None], source.form, double, Stream(0), few, backend="naive"
        )
        found = fused(few)
        note = _agreement((found.value, found.gradient), (exact.value, exact.gradient))
        peer = median_and_spread(times(partial(plain, few), 3, device))[0] / few
        passes = times(partial(fused, n), max(3, repeats // 5), device)
        median, spread = median_and_spread(passes)
        yield DeviceRow(
            "simulate and accumulate",
            "triton",
            f"n={n} E=3 D=1 {str(dtype)[6:]}",
            median,
            peer * n / median,
            f"{note}; peer timed at n={few}",
            spread_s=spread,
            tests=tests,
        )


def _agreement(found: Any, exact: Any) -> str:
    """Largest difference of results, of their largest number; too large a one is fatal."""
    pairs = zip(*(r if isinstance(r, tuple) else (r,) for r in (found, exact)), strict=True)
    worst = max(
        float((a.double() - b.double()).abs().max() / b.double().abs().max()) for a, b in pairs
    )
    if not worst <= TOLERANCE:
        raise RuntimeError(f"A kernel is wrong by {worst:.1e} of its largest number.")
    return f"relative difference {worst:.0e}"

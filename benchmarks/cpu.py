"""What the library runs on a CPU against the formulas in eager PyTorch and ``torch.compile``.

Three forms of each operation: "eager" calls ``naive.py`` itself, "torch.compile" compiles the
formula as one would without this library, and "library" is the public function, which chooses.
Times are CPU seconds of the process on one thread: rounds of all forms take turns, and a round
repeats a call until it has taken a twentieth of a second. Small shapes show what choosing costs,
large ones what it gains. ``share`` is that of the copy bandwidth, measured first, which a pass
would take that moved nothing but its inputs and results; `tests` are those of the operation that
are not slow.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kernels import gating, sgmcmc, simulate
from kernels.philox import Stream

from .events import DeviceRow, median_and_spread, tests_of
from .settings import draw, flat, three_experts

ROUND_S = 0.05

Call = Callable[[], Any]


def run(quick: bool) -> Iterator[DeviceRow]:
    outcomes = {name: tests_of(name, slow=False) for name in ("gating", "sgmcmc", "simulate")}
    yield from rows(5 if quick else 15, 2**24, outcomes)


def rows(
    rounds: int, copied: int, outcomes: dict[str, str], sizes: tuple[int, int] = (100, 100_000)
) -> Iterator[DeviceRow]:
    """All measurements: a copy of so many float64 numbers, then operations of few and of many
    observations."""
    source = torch.ones(copied, dtype=torch.float64)
    seconds, spread = _taken({"copy": partial(torch.empty_like(source).copy_, source)}, rounds)[
        "copy"
    ]
    bandwidth = 16 * copied / seconds
    shape = f"n={copied} float64"
    yield DeviceRow(
        "copy", "torch", shape, seconds, 1.0, f"{bandwidth / 1e9:.1f} GB/s", spread_s=spread
    )
    for size in sizes:
        for name, shape, bytes_moved, calls in (*_gating(size), _update(size), _simulated(size)):
            found = _taken(calls, rounds)
            eager, compiled = found["eager"][0], found.get("torch.compile", (math.nan, 0))[0]
            for form, (median, spread) in found.items():
                more = 1e6 * (median - eager)
                yield DeviceRow(
                    name,
                    form,
                    shape,
                    median,
                    eager / median,
                    f"{more:+.0f} us" if form == "library" else "",
                    spread_s=spread,
                    bytes_moved=bytes_moved,
                    share=bytes_moved / bandwidth / median,
                    ratio_to_compiled=0.0 if math.isnan(compiled) else compiled / median,
                    tests=outcomes[name.split(",")[0]],
                )


def _gating(n: int) -> Iterator[tuple[str, str, int, dict[str, Call]]]:
    """Value, gradient and Hessian; the compiled peer has the gradient by autograd, where data are
    large enough for a user to compile."""
    truth = three_experts()
    params, x, y = flat(truth, *draw(truth, n, 0, low=-1.0))
    form = truth.gate.form
    layout = gating.layout_of(form, params, x)
    rows_ = gating.default_rows(params, x)
    for order in ("value", "gradient", "hessian"):
        calls: dict[str, Call] = {
            "eager": partial(gating.naive.evaluate, params, form, x, y, rows_, layout, order),
            "library": partial(gating.evaluate, params, form, x, y, order=order),
        }
        if order == "gradient" and n > 10_000:

            @torch.compile
            def total(theta: Tensor) -> Tensor:
                return torch.logsumexp(gating.naive.log_joint(theta, form, x, y, layout), -2).sum()

            def gradient(total: Callable[[Tensor], Tensor] = total) -> Tensor:
                leaf = params.clone().requires_grad_()
                return torch.autograd.grad(total(leaf), leaf)[0]

            calls["torch.compile"] = gradient
        yield f"gating, {order}", f"n={n} E=3 D=1 float64", 16 * n, calls


def _update(n: int) -> tuple[str, str, int, dict[str, Call]]:
    """An SGHMC step of four chains with noise that is given."""
    size = 2 * n
    generator = torch.Generator().manual_seed(0)
    state = [torch.randn(4, size // 2, generator=generator) for _ in range(4)]
    arguments = (*state, 1e-3, 0.1, 1.0, 0.0, 1.0)
    calls: dict[str, Call] = {
        "eager": partial(sgmcmc.naive.sghmc, *arguments),
        "library": partial(sgmcmc.sghmc, *arguments),
    }
    if n > 10_000:
        calls["torch.compile"] = partial(torch.compile(sgmcmc.naive.sghmc), *arguments)
    return "sgmcmc, sghmc", f"C=4 P={size // 2} float32", 24 * 2 * size, calls


def _simulated(n: int) -> tuple[str, str, int, dict[str, Call]]:
    """Draw and accumulate; the eager form draws all observations and evaluates them naively."""
    truth = three_experts()
    params, form = truth.to_params(), truth.gate.form
    source = simulate.Truth(params, form, simulate.Design("uniform", -1.0, 2.0))

    def eager() -> None:
        x, y = simulate.draw(source, Stream(0), 0, n)
        gating.evaluate(params[None], form, x, y, backend="naive")

    library = partial(simulate.evaluate, params[None], form, source, Stream(0), n)
    return "simulate, gradient", f"n={n} E=3 D=1 float64", 0, {"eager": eager, "library": library}


def _taken(calls: dict[str, Call], rounds: int) -> dict[str, tuple[float, float]]:
    """Median and distance of the quartiles of CPU seconds a call, by form."""
    repeats = {}
    for form, call in calls.items():
        call()
        call()
        repeats[form] = max(1, math.ceil(ROUND_S / max(_seconds(call, 1), 1e-6)))
    found: dict[str, list[float]] = {form: [] for form in calls}
    for _ in range(rounds):
        for form, call in calls.items():
            found[form].append(_seconds(call, repeats[form]))
    return {form: median_and_spread(values) for form, values in found.items()}


def _seconds(call: Call, repeats: int) -> float:
    start = time.process_time()
    for _ in range(repeats):
        call()
    return (time.process_time() - start) / repeats

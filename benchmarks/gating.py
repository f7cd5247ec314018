"""The likelihood pass with its gradient: fused and naive forms against eager PyTorch.

The peer is what one writes in PyTorch: log-softmax, normal log densities, log-sum-exp, and
autograd for the gradient. The floor is the time of the 2 k n exponentials alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.distributions import Normal

from kernels.gating import evaluate

from .measure import Row, median_seconds
from .settings import draw, flat, three_experts


def eager(x: Tensor, y: Tensor, leaves: list[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Log-likelihood and gradient as one writes them in PyTorch."""
    b0, b1, a, b, log_scale = leaves
    gate = torch.log_softmax(x @ b1.mT + b0, dim=-1)
    density = Normal(x @ a.mT + b, log_scale.exp()).log_prob(y.unsqueeze(-1))
    value = torch.logsumexp(gate + density, dim=-1).sum()
    return value, torch.autograd.grad(value, leaves)


def run(quick: bool) -> Iterator[Row]:
    for n in (10_000, 100_000):
        yield from _at_size(n, repeats=5 if quick else 21)


def _at_size(n: int, repeats: int) -> Iterator[Row]:
    truth, shape = three_experts(), f"R=1 n={n} k=3 D=1"
    X, y = draw(truth, n, 0, low=-1.0)
    params, x, response = flat(truth, X, y)
    e = truth.experts
    leaves = [truth.gate.intercept, truth.gate.slope, e.slope, e.intercept, e.scale.log()]
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    value = float(eager(X, y, leaves)[0].detach())
    base = median_seconds(lambda: eager(X, y, leaves), repeats)
    yield Row("log-likelihood and gradient", "eager PyTorch", shape, base, 1.0)
    for form in ("naive", "compiled"):
        call = partial(evaluate, params, truth.gate.form, x, response, backend=form)
        note = f"relative difference {abs(float(call().value) / value - 1):.0e}"
        seconds = median_seconds(call, repeats)
        yield Row("log-likelihood and gradient", form, shape, seconds, base / seconds, note)
    for order in ("information", "hessian"):
        call = partial(
            evaluate, params, truth.gate.form, x, response, order=order, backend="compiled"
        )
        seconds = median_seconds(call, repeats)
        yield Row(f"pass with {order}", "compiled", shape, seconds, base / seconds)
    source = torch.randn(2 * 3 * n, dtype=torch.float64)
    floor = median_seconds(partial(torch.exp, source, out=torch.empty_like(source)), repeats)
    yield Row("2 k n exponentials", "torch.exp", shape, floor, base / floor, "a floor")

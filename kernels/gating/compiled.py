"""The gating likelihood as one fused loop over the data, through ``torch.compile``.

The loop over experts is unrolled into columns of shape (B, N) and inductor is told to realise
none of them, so the gradient pass reads x and y once and writes only sums: no temporaries at
all. Second-order passes fuse the pointwise half the same way, chunk by chunk, and leave the
sums of products to the matrix products of ``naive.py``.

Compiling costs seconds the first time (torch then caches the C++ on disk) and about two in
every later process, so the dispatcher comes here only for large batches.
"""

from __future__ import annotations

import functools
import math
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import naive
from .form import Column, Evaluation, GateForm, Layout, Order

_OPTIONS: dict[str, Any] = {
    "realize_opcount_threshold": 10**6,
    "realize_reads_threshold": 10**6,
    "max_fusion_size": 10**6,
    "realize_acc_reads_threshold": 10**6,
    "cpp.max_horizontal_fusion_size": 10**6,
    "cpp.enable_floating_point_contract_flag": "fast",
}
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def evaluate(
    params: Tensor,  # (B, P)
    form: GateForm,
    x: Tensor,  # (R, D, N)
    y: Tensor,  # (R, N)
    rows: Tensor,  # (B,)
    layout: Layout,
    order: Order = "gradient",
    *,
    responsibilities: bool = False,
) -> Evaluation:
    """As `naive.evaluate`, in one fused pass over the data."""
    if order in ("information", "hessian") or responsibilities:
        return naive.evaluate(
            params,
            form,
            x,
            y,
            rows,
            layout,
            order,
            responsibilities=responsibilities,
            pointwise=terms,
        )
    inverse_scale = torch.exp(-layout.split(params)[3])
    value, gradient = _program(_gradient, form, layout)(params, inverse_scale, x, y, rows)
    return Evaluation(value, gradient if order == "gradient" else None)


def terms(
    params: Tensor,  # (B, P)
    form: GateForm,
    x: Tensor,  # (B, D, N)
    y: Tensor,  # (B, N)
    layout: Layout,
) -> naive.Terms:
    """As `naive.terms`, in one fused pass."""
    inverse_scale = torch.exp(-layout.split(params)[3])
    return naive.Terms(*_program(_terms, form, layout)(params, inverse_scale, x, y))


@functools.lru_cache(maxsize=64)
def _program(
    body: Callable[..., tuple[Tensor, ...]], form: GateForm, layout: Layout
) -> Callable[..., tuple[Tensor, ...]]:
    def program(*tensors: Tensor) -> tuple[Tensor, ...]:
        return body(form, layout, *tensors)

    # Dynamo counts recompilations by code object: give every program one of its own.
    code = program.__code__.replace(co_name=f"gating{body.__name__}_{id(program):x}")
    own = types.FunctionType(code, globals(), code.co_name, None, program.__closure__)
    return torch.compile(own, dynamic=True, fullgraph=True, options=_OPTIONS)


def _gradient(
    form: GateForm,
    layout: Layout,
    params: Tensor,
    inverse_scale: Tensor,
    x: Tensor,
    y: Tensor,
    rows: Tensor,
) -> tuple[Tensor, Tensor]:
    c = _Columns.of(form, layout, params, inverse_scale, x[rows], y[rows])
    gradient = []
    for e in range(layout.n_experts):
        excess, r = c.r[e] - c.g[e], c.r[e]
        gradient += [_times(excess, d).sum(-1) for d in c.d_score[e][: layout.n_own]]
        gradient += [_times(r, d).sum(-1) for d in c.d_density[e]]
    for q in range(layout.n_own, layout.n_own + layout.n_shared):
        parts = [_times(c.r[e] - c.g[e], c.d_score[e][q]) for e in range(layout.n_experts)]
        gradient.append(functools.reduce(torch.add, parts).sum(-1))
    return c.log_density.sum(-1), torch.stack(gradient, -1)


def _terms(
    form: GateForm,
    layout: Layout,
    params: Tensor,
    inverse_scale: Tensor,
    x: Tensor,
    y: Tensor,
) -> tuple[Tensor, ...]:
    c = _Columns.of(form, layout, params, inverse_scale, x, y)
    n_own = layout.n_own
    joint = [
        [*score[:n_own], *density, *score[n_own:]]
        for score, density in zip(c.d_score, c.d_density, strict=True)
    ]

    def stacked(columns: Sequence[Sequence[Column]], weights: Sequence[Tensor] | None) -> Tensor:
        flat = [
            naive.as_column(column, y) if weights is None else _times(weights[e], column)
            for e, own in enumerate(columns)
            for column in own
        ]
        return torch.stack(flat, 1).unflatten(1, (layout.n_experts, -1))

    return (
        c.log_density,
        torch.stack(c.r, 1),
        torch.stack(c.g, 1),
        stacked(c.d_score, None),
        stacked(joint, None),
        stacked(c.d_score, c.g),
        stacked(joint, c.r),
    )


@dataclass(frozen=True)
class _Columns:
    """Parts of `naive.Terms` unrolled: lists over experts (and parameters) of (B, N) columns."""

    log_density: Tensor
    r: list[Tensor]
    g: list[Tensor]
    d_score: list[tuple[Column, ...]]
    d_density: list[list[Tensor]]

    @classmethod
    def of(
        cls,
        form: GateForm,
        layout: Layout,
        params: Tensor,
        inverse_scale: Tensor,
        x: Tensor,
        y: Tensor,
    ) -> _Columns:
        features = x.unbind(-2)
        experts = range(layout.n_experts)
        own, slope, intercept, log_scale, shared = layout.split(params.unsqueeze(-2))
        shared_columns = shared.unbind(-1)  # each column (B, 1)
        owns = [own[..., e, :].unbind(-1) for e in experts]

        scores = [form.score(owns[e], shared_columns, features) for e in experts]
        if form.top_k is not None and form.top_k < layout.n_experts:
            ranks = scores
            if form.rank is not None:
                ranks = [form.rank(owns[e], shared_columns, features) for e in experts]
            kept = _select(ranks, form.top_k)
            scores = [torch.where(k, s, -math.inf) for k, s in zip(kept, scores, strict=True)]

        z = []
        for e in experts:
            mean = intercept[..., e]
            for d, feature in enumerate(features):
                mean = mean + slope[..., e, d] * feature
            z.append((y - mean) * inverse_scale[:, e, None])
        top_s, exp_s, total_s = _exponentials(scores)
        joint = [(scores[e] - top_s) - 0.5 * z[e] * z[e] - log_scale[..., e] for e in experts]
        top_j, exp_j, total_j = _exponentials(joint)
        both = 1 / (total_s * total_j)  # one division for two reciprocals
        over_s, over_j = both * total_j, both * total_s
        t = [z[e] * inverse_scale[:, e, None] for e in experts]
        return cls(
            log_density=top_j + torch.log(total_j * over_s) - _HALF_LOG_2PI,
            r=[v * over_j for v in exp_j],
            g=[v * over_s for v in exp_s],
            d_score=[form.score_gradient(owns[e], shared_columns, features) for e in experts],
            d_density=[[*(t[e] * f for f in features), t[e], z[e] * z[e] - 1] for e in experts],
        )


def _select(ranks: Sequence[Tensor], top_k: int) -> list[Tensor]:
    """Kept if fewer than ``top_k`` others rank higher; ties go to the first."""
    kept = []
    for e, rank in enumerate(ranks):
        better = [(r >= rank if f < e else r > rank) for f, r in enumerate(ranks) if f != e]
        kept.append(sum(b.to(torch.int64) for b in better) < top_k)
    return kept  # type: ignore[return-value]


def _exponentials(logits: Sequence[Tensor]) -> tuple[Tensor, list[Tensor], Tensor]:
    top = functools.reduce(torch.maximum, logits)
    exponentials = [torch.exp(v - top) for v in logits]
    return top, exponentials, functools.reduce(torch.add, exponentials)


def _times(a: Tensor, b: Column) -> Tensor:
    return a if isinstance(b, float) and b == 1.0 else a * b

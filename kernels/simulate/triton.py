"""Draw and accumulate inside one GPU kernel: data that are never in memory.

The counters, and what their words make, are those of ``naive.py``; a block of observations then
goes through the pass of `kernels.gating`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import gating
from ..gating import Evaluation, GateForm, Order
from ..gating.triton import model_constants
from ..gating.triton_pairs import matrices
from ..gating.triton_pass import (
    add,
    empty_sums,
    means,
    parameters,
    scores,
    softmax,
    store_sums,
)
from ..gating.triton_second import add_pairs, row_of
from ..gating.triton_sums import Sums
from ..philox import Stream
from ..philox.triton import normal_pair, uniform, words
from .naive import Truth


def evaluate(
    params: Tensor,  # (B, P)
    form: GateForm,
    truth: Truth,
    stream: Stream,
    n: int,
    order: Order = "gradient",
) -> Evaluation:
    """As `kernels.simulate.evaluate`."""
    design, layout, truths = truth.design, *_layouts(params, form, truth)
    theta, true_theta = params.detach().contiguous(), truth.params.contiguous()
    seed = stream.seed - (2**64 if stream.seed >= 2**63 else 0)  # the same bits
    key = torch.tensor([seed, stream.number], device=params.device)
    ends = params.new_tensor([design.location, design.spread])
    constants = {
        **model_constants(form, layout),
        **{f"T_{k}": v for k, v in model_constants(truth.form, truths).items() if k != "D"},
        "T_EXPERTS": triton.next_power_of_2(truths.n_experts),
        "UNIFORM": design.law == "uniform",
    }

    def launch(sums: Sums, start: int, first: int, values: Tensor, parts: Tensor) -> None:
        _simulated[(values.numel(),)](
            theta,
            true_theta,
            key,
            ends,
            values,
            parts,
            start,
            n,
            values.shape[1],
            sums.run_length,
            **constants,
            FIRST=first,
            COUNT=parts.shape[2],
            **sums.constants,
        )

    def launch_second(sums: Sums, pairs: dict[str, object], start: int, parts: Tensor) -> None:
        _simulated_second[(parts[..., 0, 0].numel(),)](
            theta,
            true_theta,
            key,
            ends,
            parts,
            start,
            n,
            parts.shape[2],
            sums.run_length,
            **constants,
            **pairs,
            **sums.constants,
        )

    sums = Sums(theta, layout, n)
    value, gradient = sums.run(launch, with_gradient=order != "value")
    if order not in ("information", "hessian"):
        return Evaluation(value, gradient)
    return Evaluation(value, gradient, *matrices(launch_second, sums, form, order))


def _layouts(params: Tensor, form: GateForm, truth: Truth) -> list[gating.Layout]:
    """Of the models and of the truth."""
    like = params.new_empty(1, truth.design.n_features, 0)
    models = ((form, params), (truth.form, truth.params[None]))
    return [gating.layout_of(one, theta, like) for one, theta in models]


@triton.jit(do_not_specialize=["n_programs", "run_length"])
def _simulated(
    theta,
    true_theta,
    key,
    ends,
    values,
    parts,
    start,
    n,
    n_programs,
    run_length,
    FORM: tl.constexpr,
    TOP_K: tl.constexpr,
    E: tl.constexpr,
    D: tl.constexpr,
    OWN: tl.constexpr,
    SHARED: tl.constexpr,
    EXPERTS: tl.constexpr,
    T_FORM: tl.constexpr,
    T_TOP_K: tl.constexpr,
    T_E: tl.constexpr,
    T_OWN: tl.constexpr,
    T_SHARED: tl.constexpr,
    T_EXPERTS: tl.constexpr,
    UNIFORM: tl.constexpr,
    FIRST: tl.constexpr,
    COUNT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    dtype: tl.constexpr = theta.dtype.element_ty
    program = tl.program_id(0).to(tl.int64)
    at_model = theta + program // n_programs * (E * (OWN + D + 2) + SHARED)
    model = parameters(at_model, E, EXPERTS, D, OWN, SHARED)
    truth = parameters(true_theta, T_E, T_EXPERTS, D, T_OWN, T_SHARED)
    seed, number = tl.load(key), tl.load(key + 1)
    location, spread = tl.load(ends), tl.load(ends + 1)
    zero = tl.zeros([BLOCK, EXPERTS], dtype=dtype)
    true_zero = tl.zeros([BLOCK, T_EXPERTS], dtype=dtype)
    value = tl.zeros([BLOCK], dtype=tl.float64)
    total = empty_sums(BLOCK, EXPERTS, COUNT, dtype)
    first_block = program % n_programs * run_length
    for i in range(run_length):
        at = start + (first_block + i) * BLOCK + tl.arange(0, BLOCK)
        x, chooser, noise = _standard(seed, number, at, location, spread, D, UNIFORM, dtype)
        y = _response(truth, x, chooser, noise, true_zero, T_FORM, T_TOP_K, T_E, D)
        value, total, _ = add(
            value, total, model, x, y, at < n, zero, FORM, TOP_K, E, D, OWN, FIRST, COUNT
        )
    tl.store(values + program, tl.sum(value))
    store_sums(parts, program, total, E, COUNT)


@triton.jit(do_not_specialize=["n_programs", "run_length"])
def _simulated_second(
    theta,
    true_theta,
    key,
    ends,
    parts,
    start,
    n,
    n_programs,
    run_length,
    FORM: tl.constexpr,
    TOP_K: tl.constexpr,
    E: tl.constexpr,
    D: tl.constexpr,
    OWN: tl.constexpr,
    SHARED: tl.constexpr,
    EXPERTS: tl.constexpr,
    T_FORM: tl.constexpr,
    T_TOP_K: tl.constexpr,
    T_E: tl.constexpr,
    T_OWN: tl.constexpr,
    T_SHARED: tl.constexpr,
    T_EXPERTS: tl.constexpr,
    UNIFORM: tl.constexpr,
    CURVATURE: tl.constexpr,
    PAIRS: tl.constexpr,
    COUNT: tl.constexpr,
    SHARED_ROW: tl.constexpr,
    BLOCK: tl.constexpr,
):
    dtype: tl.constexpr = theta.dtype.element_ty
    n_rows: tl.constexpr = 1 if SHARED_ROW else E
    program = tl.program_id(0).to(tl.int64)
    at_model = theta + program // n_programs // n_rows * (E * (OWN + D + 2) + SHARED)
    model = parameters(at_model, E, EXPERTS, D, OWN, SHARED)
    row = row_of(at_model, program // n_programs % n_rows, D, OWN)
    truth = parameters(true_theta, T_E, T_EXPERTS, D, T_OWN, T_SHARED)
    seed, number = tl.load(key), tl.load(key + 1)
    location, spread = tl.load(ends), tl.load(ends + 1)
    zero = tl.zeros([BLOCK, EXPERTS], dtype=dtype)
    true_zero = tl.zeros([BLOCK, T_EXPERTS], dtype=dtype)
    total = empty_sums(BLOCK, EXPERTS, COUNT, dtype)
    first_block = program % n_programs * run_length
    for i in range(run_length):
        at = start + (first_block + i) * BLOCK + tl.arange(0, BLOCK)
        x, chooser, noise = _standard(seed, number, at, location, spread, D, UNIFORM, dtype)
        y = _response(truth, x, chooser, noise, true_zero, T_FORM, T_TOP_K, T_E, D)
        total = add_pairs(
            total,
            model,
            row,
            x,
            y,
            at < n,
            zero,
            FORM,
            TOP_K,
            E,
            D,
            OWN,
            CURVATURE,
            PAIRS,
            COUNT,
            SHARED_ROW,
        )
    store_sums(parts, program, total, E, COUNT)


@triton.jit
def _standard(
    seed,
    number,
    index,
    location,
    spread,
    D: tl.constexpr,
    UNIFORM: tl.constexpr,
    dtype: tl.constexpr,
):
    """Features, the uniform that chooses an expert and the noise, each (BLOCK, 1)."""
    used: tl.constexpr = D if UNIFORM else 2 * ((D + 1) // 2)
    pair: tl.constexpr = 2 * ((used + 2) // 2)
    drawn = ()
    for slot in tl.static_range(pair // 4 + 1):
        drawn = drawn + words(seed, number, index, slot)
    x = ()
    for d in tl.static_range(D):
        if UNIFORM:
            u = uniform(drawn[d], dtype)
        else:
            first, second = normal_pair(drawn[d // 2 * 2], drawn[d // 2 * 2 + 1], dtype)
            u = second if d % 2 else first
        x = x + ((location + spread * u)[:, None],)
    noise, _ = normal_pair(drawn[pair], drawn[pair + 1], dtype)
    return x, uniform(drawn[used], dtype)[:, None], noise[:, None]


@triton.jit
def _response(
    truth,
    x,
    chooser,
    noise,
    zero,
    FORM: tl.constexpr,
    TOP_K: tl.constexpr,
    E: tl.constexpr,
    D: tl.constexpr,
):
    """y: the mean of the expert that is chosen and its scale times the noise."""
    own, slope, intercept, log_scale, shared = truth
    _, small, total = softmax(scores(FORM(own, shared, x), E, TOP_K, zero))
    expert = tl.arange(0, zero.shape[1])[None, :]
    before = (chooser * total >= tl.cumsum(small, axis=1)) & (expert < E - 1)
    chosen = expert == tl.sum(before.to(tl.int32), axis=1)[:, None]
    outcome = means(slope, intercept, x, D) + tl.exp(log_scale) * noise
    return tl.sum(tl.where(chosen, outcome, 0.0), axis=1)[:, None]

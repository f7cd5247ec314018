"""The gating likelihood as one hand-written pass over the data, for GPUs.

The pass is put together from `triton_form` (the gate), `triton_pass` (a block of observations) and
`triton_sums` (how blocks are dealt out and their sums added).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from .form import Evaluation, GateForm, Layout, Order
from .triton_form import translate, untranslatable
from .triton_pairs import MAX_COLUMNS, matrices
from .triton_pass import add, empty_sums, load, parameters, store_sums
from .triton_second import add_pairs, row_of
from .triton_sums import Sums

MAX_EXPERTS = MAX_FEATURES = 64


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
    """As `naive.evaluate`; the value knows its gradient.

    Raises
    ------
    ValueError
        If `refusal` names a reason.
    """
    if reason := refusal(params, form, x, y, layout, order):
        raise ValueError(f"The 'triton' backend does not take this: {reason}.")
    n, batch = y.shape[-1], len(params)
    found = params.new_empty(batch, layout.n_experts, n) if responsibilities else None
    theta, rows = params.detach().contiguous(), rows.contiguous()

    def launch(sums: Sums, start: int, first: int, values: Tensor, parts: Tensor) -> None:
        _pass[(values.numel(),)](
            theta,
            x,
            y,
            rows,
            values,
            parts,
            found if first == 0 else None,
            start,
            n,
            values.shape[1],
            sums.run_length,
            x.stride(),
            y.stride(),
            **model_constants(form, layout),
            FIRST=first,
            COUNT=parts.shape[2],
            **sums.constants,
        )

    def launch_second(sums: Sums, constants: dict[str, object], start: int, parts: Tensor) -> None:
        _second[(parts[..., 0, 0].numel(),)](
            theta,
            x,
            y,
            rows,
            parts,
            start,
            n,
            parts.shape[2],
            sums.run_length,
            x.stride(),
            y.stride(),
            **model_constants(form, layout),
            **constants,
            **sums.constants,
        )

    differentiable = torch.is_grad_enabled() and params.requires_grad
    sums = Sums(theta, layout, n)
    value, gradient = sums.run(launch, with_gradient=order != "value" or differentiable)
    if differentiable:
        value = WithGradient.apply(params, value, gradient)
    if order == "value":
        gradient = None
    information = hessian = None
    if order in ("information", "hessian"):
        information, hessian = matrices(launch_second, sums, form, order)
    return Evaluation(value, gradient, information, hessian, found)


def model_constants(form: GateForm, layout: Layout) -> dict[str, object]:
    """What a kernel is compiled for."""
    return {
        "FORM": translate(form, layout.n_features),
        "TOP_K": min(form.top_k or layout.n_experts, layout.n_experts),
        "E": layout.n_experts,
        "D": layout.n_features,
        "OWN": layout.n_own,
        "SHARED": layout.n_shared,
    }


def refusal(
    params: Tensor,
    form: GateForm,
    x: Tensor,
    y: Tensor,
    layout: Layout,
    order: Order,
) -> str:
    """Why there is no kernel for a pass, or nothing."""
    if params.dtype not in (torch.float32, torch.float64):
        return f"numbers must be float32 or float64, not {params.dtype}"
    if not x.dtype == y.dtype == params.dtype:
        return f"'x' is {x.dtype}, 'y' {y.dtype} and 'params' {params.dtype}"
    if layout.n_experts > MAX_EXPERTS or layout.n_features > MAX_FEATURES:
        return (
            f"at most {MAX_EXPERTS} experts and {MAX_FEATURES} features are allowed, not "
            f"{layout.n_experts} and {layout.n_features}"
        )
    if torch.is_grad_enabled() and (x.requires_grad or y.requires_grad):
        return "it has no derivative in 'x' and 'y'"
    second = order in ("information", "hessian")
    columns = layout.width + layout.n_shared
    if second and columns > MAX_COLUMNS:
        return f"second derivatives of at most {MAX_COLUMNS} columns are allowed, not {columns}"
    return untranslatable(form, layout.n_features, curvature=second)


class WithGradient(torch.autograd.Function):
    """A value (B,) whose gradient (B, P) is known."""

    @staticmethod
    def forward(ctx, params, value, gradient):
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, by_value):
        (gradient,) = ctx.saved_tensors
        return by_value.unsqueeze(-1) * gradient, None, None


@triton.jit(do_not_specialize=["n_programs", "run_length"])
def _pass(
    theta,
    x,
    y,
    rows,
    values,
    parts,
    responsibilities,
    start,
    n,
    n_programs,
    run_length,
    x_strides,
    y_strides,
    FORM: tl.constexpr,
    TOP_K: tl.constexpr,
    E: tl.constexpr,
    D: tl.constexpr,
    OWN: tl.constexpr,
    SHARED: tl.constexpr,
    EXPERTS: tl.constexpr,
    FIRST: tl.constexpr,
    COUNT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    dtype: tl.constexpr = theta.dtype.element_ty
    program = tl.program_id(0).to(tl.int64)
    index = program // n_programs
    row = tl.load(rows + index)
    x += row * x_strides[0]
    y += row * y_strides[0]
    at_model = theta + index * (E * (OWN + D + 2) + SHARED)
    model = parameters(at_model, E, EXPERTS, D, OWN, SHARED)
    zero = tl.zeros([BLOCK, EXPERTS], dtype=dtype)
    value = tl.zeros([BLOCK], dtype=tl.float64)
    total = empty_sums(BLOCK, EXPERTS, COUNT, dtype)
    first_block = program % n_programs * run_length
    for i in range(run_length):
        at = start + (first_block + i) * BLOCK + tl.arange(0, BLOCK)
        inside = at < n
        features, response = load(x, y, at, inside, x_strides, y_strides, D)
        value, total, r = add(
            value,
            total,
            model,
            features,
            response,
            inside,
            zero,
            FORM,
            TOP_K,
            E,
            D,
            OWN,
            FIRST,
            COUNT,
        )
        if responsibilities is not None:
            expert = tl.arange(0, EXPERTS)[None, :]
            place = responsibilities + (index * E + expert) * n + at[:, None]
            tl.store(place, r, mask=inside[:, None] & (expert < E))
    tl.store(values + program, tl.sum(value))
    store_sums(parts, program, total, E, COUNT)


@triton.jit(do_not_specialize=["n_programs", "run_length"])
def _second(
    theta,
    x,
    y,
    rows,
    parts,
    start,
    n,
    n_programs,
    run_length,
    x_strides,
    y_strides,
    FORM: tl.constexpr,
    TOP_K: tl.constexpr,
    E: tl.constexpr,
    D: tl.constexpr,
    OWN: tl.constexpr,
    SHARED: tl.constexpr,
    EXPERTS: tl.constexpr,
    CURVATURE: tl.constexpr,
    PAIRS: tl.constexpr,
    COUNT: tl.constexpr,
    SHARED_ROW: tl.constexpr,
    BLOCK: tl.constexpr,
):
    dtype: tl.constexpr = theta.dtype.element_ty
    n_rows: tl.constexpr = 1 if SHARED_ROW else E
    program = tl.program_id(0).to(tl.int64)
    index = program // n_programs // n_rows
    data_set = tl.load(rows + index)
    x += data_set * x_strides[0]
    y += data_set * y_strides[0]
    at_model = theta + index * (E * (OWN + D + 2) + SHARED)
    model = parameters(at_model, E, EXPERTS, D, OWN, SHARED)
    row = row_of(at_model, program // n_programs % n_rows, D, OWN)
    zero = tl.zeros([BLOCK, EXPERTS], dtype=dtype)
    total = empty_sums(BLOCK, EXPERTS, COUNT, dtype)
    first_block = program % n_programs * run_length
    for i in range(run_length):
        at = start + (first_block + i) * BLOCK + tl.arange(0, BLOCK)
        inside = at < n
        features, response = load(x, y, at, inside, x_strides, y_strides, D)
        total = add_pairs(
            total,
            model,
            row,
            features,
            response,
            inside,
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

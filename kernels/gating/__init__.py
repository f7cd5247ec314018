"""Log-likelihood of gated Gaussian mixtures of experts with its derivatives.

`evaluate` takes a batch of B models over R data sets and returns log-likelihoods, gradients,
complete-data information and Hessians; `joint` returns the pointwise quantities behind them.
The form that runs is chosen from the size of the batch: `naive` for small ones, `compiled`
where a fused pass pays for its compilation; on a GPU `triton`, a hand-written kernel.
"""

from __future__ import annotations

import functools
import warnings
from typing import Literal

import torch
from torch import Tensor

from .. import compiler, gpu
from ..checks import check_choice
from . import naive
from .form import Evaluation, GateForm, Layout, Order

__all__ = ["Evaluation", "GateForm", "Layout", "Order", "evaluate", "gate_means"]

MIN_COMPILED_POINTS = 40_000
"""Models times observations from which the compiled form is used."""

MIN_COMPILED_DATA = 10_000
"""Observations in all data sets from which it is used: small fits end before it has compiled."""

MAX_COMPILED_PARAMETERS = 32
"""Parameters of a model up to which the unrolled loop compiles in seconds rather than minutes."""


def evaluate(
    params: Tensor,  # (B, P)
    form: GateForm,
    x: Tensor,  # (R, D, N), observations last
    y: Tensor,  # (R, N)
    rows: Tensor | None = None,  # (B,)
    *,
    order: Order = "gradient",
    responsibilities: bool = False,
    backend: Literal["auto", "naive", "compiled", "triton"] = "auto",
    n_climbs: int = 0,
) -> Evaluation:
    """Evaluate B models, each on one of R data sets.

    Parameters
    ----------
    params : Tensor
        (B, P) flat parameters, laid out as `Layout` says: own gate parameters, expert slope,
        intercept and log scale expert by expert, then shared gate parameters.
    form : GateForm
        The gate.
    x, y : Tensor
        (R, D, N) features, observations in the last dimension, and (R, N) responses.
    rows : Tensor or None
        (B,) the data set of each model; None pairs model b with data set b, or all models
        with the only one.
    order : {"value", "gradient", "information", "hessian"}
        How much to compute; each order includes the ones before it.
    responsibilities : bool
        Whether to return the (B, E, N) responsibilities too.
    backend : {"auto", "naive", "compiled", "triton"}
        Which form runs; "auto" chooses by device and size. "triton" needs a CUDA device or
        Triton's interpreter.
    n_climbs : int
        Where passes like this one are repeated by a line of optimisations, one model after
        another, their number: they pay for a compilation together.

    Returns
    -------
    Evaluation

    Raises
    ------
    ImportError, ValueError
        If tensors lie on several devices, or the Triton form is asked for by name where it cannot
        run.
    """
    check_choice("backend", backend, ("auto", "naive", "compiled", "triton"))
    layout = layout_of(form, params, x)
    rows = default_rows(params, x) if rows is None else rows
    _check_devices(params, x=x, y=y, rows=rows)
    if backend == "auto" and params.is_cuda and _in_triton(params, form, x, y, layout, order):
        backend = "triton"
    if backend == "auto":
        n = y.shape[-1]
        lasting = n_climbs > 0 or y.numel() >= MIN_COMPILED_DATA
        large = lasting and max(n_climbs, len(params)) * n >= MIN_COMPILED_POINTS
        small_model = layout.size <= MAX_COMPILED_PARAMETERS
        backend = "compiled" if large and small_model and _can_compile(params) else "naive"
    if backend == "triton":
        gpu.require(params.device)
        from . import triton

        run = triton.evaluate
    elif backend == "compiled":
        from . import compiled

        run = compiled.evaluate
    else:
        run = naive.evaluate
    return run(params, form, x, y, rows, layout, order, responsibilities=responsibilities)


def gate_means(
    params: Tensor,  # (B, P)
    form: GateForm,
    x: Tensor,  # (R, D, N)
    rows: Tensor,  # (B,)
    tilt: Tensor | None = None,  # (B, E)
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Mean gate probabilities, their Jacobian and the Hessian of their tilted sum.

    See `naive.gate_means`.
    """
    return naive.gate_means(params, form, x, rows, layout_of(form, params, x), tilt)


def layout_of(form: GateForm, params: Tensor, x: Tensor) -> Layout:
    """The layout of flat parameters for data with as many features as x has."""
    width = Layout.of(form, 1, x.shape[-2]).width
    return Layout.of(form, (params.shape[-1] - form.n_shared) // width, x.shape[-2])


def default_rows(params: Tensor, x: Tensor) -> Tensor:
    """Model b on data set b, or all models on the only data set."""
    if len(x) == 1:
        return torch.zeros(len(params), dtype=torch.long, device=params.device)
    return torch.arange(len(params), device=params.device)


def _check_devices(params: Tensor, **others: Tensor) -> None:
    for name, tensor in others.items():
        if tensor.device != params.device:
            raise ValueError(
                f"The {name!r} parameter must be on the device of 'params', "
                f"{str(params.device)!r}; got {str(tensor.device)!r}."
            )


def _in_triton(
    params: Tensor, form: GateForm, x: Tensor, y: Tensor, layout: Layout, order: Order
) -> bool:
    """Whether a pass on a GPU has a kernel; says once why not."""
    reason = gpu.missing()
    if not reason:
        from . import triton

        reason = triton.refusal(params, form, x, y, layout, order)
    if reason:
        gpu.warn_slower("the gating likelihood", reason)
    return not reason


def _can_compile(params: Tensor) -> bool:
    return _compiles() if params.device.type == "cpu" else not gpu.missing()


@functools.cache
def _compiles() -> bool:
    """Whether `torch.compile` works here; warns once if not."""
    reason = compiler.missing()
    if reason:
        warnings.warn(
            f"{reason}: Moebius runs its likelihood passes in plain PyTorch, which gives the same "
            f"results about ten times slower on large data.",
            RuntimeWarning,
            stacklevel=4,
        )
    return not reason

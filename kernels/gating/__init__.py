"""Log-likelihood of gated Gaussian mixtures of experts with its derivatives.

`evaluate` takes a batch of B models over R data sets and returns log-likelihoods, gradients,
complete-data information and Hessians; `joint` returns the pointwise quantities behind them.
The form that runs is chosen from the size of the batch: `naive` for small ones, `compiled`
where a fused pass pays for its compilation.
"""

from __future__ import annotations

import functools
import warnings
from typing import Literal

import torch
from torch import Tensor

from ..compiler import has_compiler
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
    backend: Literal["auto", "naive", "compiled"] = "auto",
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
    backend : {"auto", "naive", "compiled"}
        Which form runs; "auto" chooses by size.

    Returns
    -------
    Evaluation
    """
    layout = layout_of(form, params, x)
    rows = default_rows(params, x) if rows is None else rows
    if backend == "auto":
        n = y.shape[-1]
        large = y.numel() >= MIN_COMPILED_DATA and len(params) * n >= MIN_COMPILED_POINTS
        small_model = layout.size <= MAX_COMPILED_PARAMETERS
        backend = "compiled" if large and small_model and _can_compile(params) else "naive"
    if backend == "compiled":
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


def _can_compile(params: Tensor) -> bool:
    return params.device.type != "cpu" or _compiles()


@functools.cache
def _compiles() -> bool:
    """Whether inductor finds a C++ compiler; warns once if not."""
    found = has_compiler()
    if not found:
        warnings.warn(
            "No C++ compiler was found (g++ or clang++ on PATH, or CXX): Moebius runs its "
            "likelihood passes in plain PyTorch, which gives the same results about ten times "
            "slower on large data.",
            RuntimeWarning,
            stacklevel=4,
        )
    return found

"""Simulate and accumulate: log-likelihoods of data that are drawn where they are used.

`evaluate` draws n observations from a truth and returns what `kernels.gating.evaluate` would of
them; none is stored, so n is bounded by patience alone. The data are a function of the stream: the
same on a CPU and on a GPU up to the rounding of logarithm, sine and exponential, which changes the
expert of about one observation in 10^15. `draw` returns a stretch of them.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .. import gating, gpu
from ..checks import MAX_ROWS, check_choice, check_int
from ..gating import Evaluation, GateForm, Order
from ..philox import Stream
from . import naive
from .naive import Design, Truth, draw

__all__ = ["Design", "Truth", "draw", "evaluate"]


def evaluate(
    params: Tensor,  # (B, P)
    form: GateForm,
    truth: Truth,
    stream: Stream,
    n: int,
    *,
    order: Order = "gradient",
    backend: Literal["auto", "naive", "triton"] = "auto",
) -> Evaluation:
    """Log-likelihoods of B models, with derivatives, on n observations from a truth.

    Parameters
    ----------
    params : Tensor
        (B, P) flat parameters, laid out as `kernels.gating.Layout` says; what is returned carries
        no graph, the gradient is one of the results.
    form : GateForm
        Their gate.
    truth : Truth
        Where the data come from; its parameters have the dtype and device of ``params``.
    stream : Stream
        The random numbers; all models see the same data.
    n : int
        How many observations, >= 1.
    order : {"value", "gradient", "information", "hessian"}
        How much to compute.
    backend : {"auto", "naive", "triton"}
        Which form runs: in chunks, through `kernels.gating`, or inside one kernel; "auto" chooses
        by device.

    Returns
    -------
    Evaluation

    Raises
    ------
    ImportError, ValueError
        If a parameter is out of range, dtypes or devices differ, or the Triton form is asked for
        where it cannot run.

    Examples
    --------
    >>> from moe_stats import GaussianMoE, LinearExperts, SoftmaxGate
    >>> model = GaussianMoE(
    ...     SoftmaxGate([0.0, 1.0], [[2.0], [0.0]]), LinearExperts([[1.0], [0.0]], [0, 1], [0.5, 1])
    ... )
    >>> params, form = model.to_params(), model.gate.form
    >>> truth = Truth(params, form, Design("uniform", location=-1, spread=2))
    >>> found = evaluate(params[None], form, truth, Stream(0), 10_000)
    >>> round(float(found.value) / 10_000, 1)
    -1.3
    """
    check_int("n", n, 1, MAX_ROWS)
    check_choice("backend", backend, ("auto", "naive", "triton"))
    if (truth.params.dtype, truth.params.device) != (params.dtype, params.device):
        raise ValueError(
            "The truth's 'params' must have the dtype and device of 'params', "
            f"{params.dtype} on {str(params.device)!r}; got {truth.params.dtype} on "
            f"{str(truth.params.device)!r}."
        )
    if backend == "auto" and params.is_cuda:
        reason = _refusal(params, form, truth, order)
        backend = "naive" if reason else "triton"
        if reason:
            gpu.warn_slower("simulated likelihoods", reason)
    if backend == "triton":
        gpu.require(params.device)
        if reason := _refusal(params, form, truth, order):
            raise ValueError(f"The 'triton' backend does not take this: {reason}.")
        from . import triton

        return triton.evaluate(params, form, truth, stream, n, order)
    return naive.evaluate(params, form, truth, stream, n, order)


def _refusal(params: Tensor, form: GateForm, truth: Truth, order: Order) -> str:
    """Why there is no kernel, or nothing."""
    if reason := gpu.missing():
        return reason
    from ..gating.triton import refusal

    like = torch.empty(1, truth.design.n_features, 0, dtype=params.dtype, device=params.device)
    for one, theta in ((form, params), (truth.form, truth.params[None])):
        layout = gating.layout_of(one, theta, like)
        if reason := refusal(theta, one, like, like[:, 0], layout, order):
            return reason
    return ""

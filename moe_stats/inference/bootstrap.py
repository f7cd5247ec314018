"""Parametric bootstrap: simulate from a fit at the same features, refit, match experts.

Every refit starts from the model it was simulated from, which is the truth of the bootstrap world,
and so stays in its basin: what is imitated is the error of the maximum-likelihood estimate, not
that of the search for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kernels.gating import Layout

from .._validation import generator
from ..fit.mle import MLE, fit_mle
from ..gates import GateTemplate

MAX_NUMBERS = 2**24
"""Largest batch of simulated features, in numbers (128 MiB in float64)."""


@dataclass(frozen=True, eq=False)
class Replicates:
    """Refits of data simulated from one fit.

    Attributes
    ----------
    params : Tensor
        (S, P) flat parameters, experts in the order of the fit; refits that failed left out.
    n_failed, n_unconverged : int
        Refits without a finite likelihood; refits kept that did not meet the tolerance.
    """

    params: Tensor
    n_failed: int
    n_unconverged: int


def bootstrap(
    mle: MLE,
    n_replicates: int,
    *,
    row: int = 0,
    random_state: Any = None,
) -> Replicates:
    """Refit ``n_replicates`` data sets simulated from one fit, as a batch."""
    problem, model = mle._problem, mle.model[row]
    X = problem.x[row].mT.contiguous()
    seeds = generator(random_state).spawn(n_replicates)
    together = max(1, MAX_NUMBERS // X.numel())
    params, finite, converged = [], [], []
    for start in range(0, n_replicates, together):
        rngs = seeds[start : start + together]
        refit = fit_mle(
            X.expand(len(rngs), *X.shape),
            torch.stack([model.sample(X, rng) for rng in rngs]),
            n_experts=problem.n_experts,
            gate=GateTemplate(type(model.gate), model.gate.options),
            experts=model.experts.kind,
            init=model,
            min_scale=float(problem.min_scale[row]),
            min_weight=problem.min_weight,
            gate_bound=None if math.isinf(problem.gate_bound) else problem.gate_bound,
            tol=mle.tol,
            n_rounds=0,
            quasi_newton=False,
            random_states=rngs,
        )
        params.append(refit.model.to_params())
        finite.append(torch.isfinite(refit.log_likelihood))
        converged.append(refit.converged)
    kept = torch.cat(finite)
    return Replicates(
        params=match_experts(torch.cat(params)[kept], model.to_params(), problem.layout, X),
        n_failed=int((~kept).sum()),
        n_unconverged=int((kept & ~torch.cat(converged)).sum()),
    )


def match_experts(
    params: Tensor,  # (S, P)
    target: Tensor,  # (P,)
    layout: Layout,
    X: Tensor,  # (N, D)
) -> Tensor:
    """Experts of each model put in the order of the target's, lines and scales closest in sum.

    Slopes are compared over the features' root mean square, lines in units of the target's scale,
    scales by their logarithms.
    """
    from scipy.optimize import linear_sum_assignment

    width = layout.n_experts * layout.width
    sizes = X.square().mean(0).sqrt()
    theirs, ours = _experts(params, layout, sizes), _experts(target[None], layout, sizes)
    unit = torch.exp(layout.split(target)[3])[:, None, None]
    apart = (ours[0][:, None, None] - theirs.unsqueeze(0)).transpose(0, 1)  # (S, E, E, D + 2)
    apart[..., :-1] /= unit
    blocks = params[:, :width].unflatten(-1, (layout.n_experts, layout.width))
    order = torch.stack(
        [torch.as_tensor(linear_sum_assignment(c.numpy())[1]) for c in apart.square().sum(-1)]
    )
    matched = blocks.gather(1, order[..., None].expand_as(blocks))
    return torch.cat([matched.flatten(1), params[:, width:]], dim=-1)


def _experts(params: Tensor, layout: Layout, sizes: Tensor) -> Tensor:
    """Line and log scale of each expert; (S, E, D + 2)."""
    _, slope, intercept, log_scale, _ = layout.split(params)
    return torch.cat([slope * sizes, intercept.unsqueeze(-1), log_scale.unsqueeze(-1)], dim=-1)

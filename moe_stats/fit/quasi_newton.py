"""L-BFGS-B: cheap steps on many observations, and a climb that wanders.

An iteration takes one gradient, a tenth of what a Hessian costs, so on large data it comes
before Newton's method. From raw starts it is a second opinion: EM and Newton settle in the nearest
basin, whereas L-BFGS-B lingers on the plateaus where two experts coincide and leaves them in
directions of its own. SciPy's runs one start at a time and knows bounds but no ``min_weight``.

References
----------
Byrd, Lu, Nocedal and Zhu (1995), A limited memory algorithm for bound constrained optimization.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .problem import Problem

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

MAX_ITER = 5_000
MEMORY = 20
STANDSTILL = 200
"""A run ends if so many iterations gain less than 1e-3 nats: a gate on its way to infinity."""


def approach(
    problem: Problem,
    params: Tensor,  # (B, P)
    rows: Tensor,  # (B,)
    units: Tensor,  # (B, P)
) -> tuple[Tensor, Tensor]:
    """Parameters (B, P) and log-likelihoods (B,), close to a maximum.

    Coordinates are measured in ``units``, standard errors; a run ends where an iteration gains
    less than 1e-10 of the log-likelihood.
    """
    return _lbfgsb(problem, params, rows, units, {"ftol": 1e-10, "gtol": 0.0, "maxcor": MEMORY})


def wander(
    problem: Problem,
    params: Tensor,  # (B, P)
    rows: Tensor,  # (B,)
) -> tuple[Tensor, Tensor]:
    """Parameters (B, P) and log-likelihoods (B,) by SciPy's defaults, plateaus crossed.

    A gradient below 1e-6 nats a unit ends a run, or a long standstill.
    """
    return _lbfgsb(problem, params, rows, torch.ones_like(params), {"ftol": 0.0, "gtol": 1e-6})


def _lbfgsb(
    problem: Problem, params: Tensor, rows: Tensor, units: Tensor, options: dict[str, float]
) -> tuple[Tensor, Tensor]:
    from scipy.optimize import minimize

    low, high = problem.bounds(rows)
    reached, values = torch.empty_like(params), params.new_empty(len(params))
    for i, start in enumerate(torch.clamp(params, low, high)):
        row, unit = rows[i : i + 1], units[i]

        def negative(
            scaled: np.ndarray, row: Tensor = row, unit: Tensor = unit
        ) -> tuple[float, np.ndarray]:
            at = problem.evaluate(
                (torch.from_numpy(scaled) / unit)[None], row, "gradient", n_climbs=len(params)
            )
            assert at.gradient is not None
            return -float(at.value), -(at.gradient[0] / unit).numpy()

        end = minimize(
            negative,
            (start * unit).numpy(),
            jac=True,
            callback=_standstill(),
            method="L-BFGS-B",
            bounds=list(zip((low[i] * unit).numpy(), (high[i] * unit).numpy(), strict=True)),
            options={"maxiter": MAX_ITER, "maxfun": 2 * MAX_ITER, **options},
        )
        reached[i], values[i] = torch.from_numpy(end.x) / unit, -float(end.fun)
    return torch.clamp(reached, low, high), values


def _standstill() -> Callable[[OptimizeResult], None]:
    trace: list[float] = []

    def watch(intermediate_result: OptimizeResult) -> None:  # SciPy looks at the name
        trace.append(float(intermediate_result.fun))
        if len(trace) > STANDSTILL and trace[-STANDSTILL] - trace[-1] < 1e-3:
            raise StopIteration

    return watch

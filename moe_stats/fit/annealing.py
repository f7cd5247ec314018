"""Starts for a top-K likelihood from a gate that selects nobody away.

Where a start gives an observation the wrong experts, its responsibilities for the right ones are
exactly 0 and neither EM nor Newton can bring them back. With every expert kept at every x the
likelihood is smooth: EM finds the experts and a gate that falls where the right selection is 0,
and the order of its scores is a selection to start from.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from .em import em
from .problem import Problem, make_feasible

MAX_ROWS = 10_000
"""Rows on which the dense model is fitted; more would not make starts better."""

TOL = 1e-1
"""Nats an iteration at which EM stops."""

MAX_ITER = 100


def annealed(
    problem: Problem,
    params: Tensor,  # (B, P)
    rows: Tensor,  # (B,)
) -> Tensor:
    """Starts (B, P) after EM with all experts kept, feasible for ``problem``."""
    small = problem.subsample(min(problem.n_observations, MAX_ROWS))
    dense = replace(small, form=replace(problem.form, top_k=None))
    inside = make_feasible(dense, params, rows)
    found = em(dense, inside, rows, tol=TOL, max_iter=MAX_ITER).params
    return make_feasible(problem, found, rows)

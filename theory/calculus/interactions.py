r"""The PDE interactions between gate and expert, gate by gate, verified symbolically.

With linear experts of Gaussian response, everywhere the *heat relation*

.. math:: \partial_b^2 u = 2\, \partial_s u ;

with scores linear in x, and with a temperature, in addition

.. math:: \partial_{b_1} \partial_b u = \partial_a u, \qquad
          \partial_{b_1} \partial_b u = \tfrac1\tau \partial_a u, \quad
          \tau\, \partial_\tau u = -b_1'\partial_{b_1} u ;

with psi homogeneous of degree p, the *ray* p tau du/dtau = -b1' du/db1. Two more are easily missed:
where the score depends on b1'x and there are several features,

.. math:: \partial_{b_{1d}} \partial_{a_e} u = \partial_{b_{1e}} \partial_{a_d} u

for any psi, as both are x_d x_e times the same function, and d2u/db0 da = d2u/db1 db in the sigmoid
gate, where b0 stands beside b1'x. With the Laplace gate as published and one feature d2u/db1^2 = u
away from the centre, because the score changes by 1 per unit everywhere.
`theory.calculus.find_relations` looks for all.

References
----------
.. [1] Nguyen, Nguyen and Ho (2023), arXiv 2305.03288: softmax.
.. [2] Nguyen, Akbarian and Ho (2024), arXiv 2401.13875: temperature.
"""

from __future__ import annotations

import itertools
from typing import Any

from .atoms import DEGREES, Derivative, atom
from .relation import Relation, relation


def interactions(gate: str, **options: Any) -> tuple[Relation, ...]:
    """The interactions known of a gate, each proved or not.

    Parameters
    ----------
    gate : str
        A key of `moe_stats.gates.GATES`.
    **options
        Of `theory.calculus.atom`.

    Returns
    -------
    tuple of Relation

    Examples
    --------
    >>> for r in interactions("dense-to-sparse"):
    ...     print(r, "(proved)" if r.proved else "(not proved)")
    d2u/db^2 = 2 du/ds (proved)
    d2u/db1 db = (1/tau) du/da (proved)
    du/dtau = -(b1/tau) du/db1 (proved)
    >>> [str(r) for r in interactions("activation", activation="tanh")]
    ['d2u/db^2 = 2 du/ds']
    """
    of = atom(gate, **options)
    slopes = [p for p in of.parameters if p.startswith("b1")]
    statements: list[tuple[Derivative, dict[Derivative, Any]]] = [(("b", "b"), {("s",): 2})]
    if gate in ("softmax", "topk", "dense-to-sparse"):
        inverse = "1/tau" if gate == "dense-to-sparse" else 1
        statements += [(("b", p), {(p.replace("b1", "a"),): inverse}) for p in slopes]
    degree = 1 if gate == "dense-to-sparse" else 0
    if gate == "activation":
        degree = DEGREES.get(str(options.get("activation")), 0)
    if degree:
        statements.append((("tau",), {(p,): f"-{p}/({degree}*tau)" for p in slopes}))
    if gate != "laplace":
        pairs = itertools.combinations(range(len(slopes)), 2)
        statements += [
            ((f"a_{e + 1}", f"b1_{d + 1}"), {(f"a_{d + 1}", f"b1_{e + 1}"): 1}) for d, e in pairs
        ]
    if gate == "sigmoid" and "b0" in of.parameters:
        statements += [((p.replace("b1", "a"), "b0"), {("b", p): 1}) for p in slopes]
    if gate == "laplace" and len(of.branches) == 2:
        statements.append((("b1", "b1"), {(): 1}))
    return tuple(relation(of, left, right) for left, right in statements)

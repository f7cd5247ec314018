r"""rbar(2) <= 4 by elimination: a proof that shares nothing with the general one.

Weights may be taken to sum to one, w and 1 - w. Equation 1 then says that q1 = d (1 - w, -w), with
d not 0, for otherwise both q1 are 0. Replacing (q1, q2) by (q1 / d, q2 / d^2) changes no equation,
so d = 1. Equations 2 to 4 remain in w, q2_1 and q2_2; a Groebner basis of them with w (1 - w) not 0
contains a polynomial in w alone. If that has no real root, order 4 has no solution, whatever the
signs of the weights. At order 3 no such polynomial exists: a curve of solutions does.

For three atoms at order 6, six equations in the seven unknowns that scaling leaves have curves of
complex solutions, if any: elimination cannot exclude real points there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kernels.checks import check_int

from .systems import gmm_system

MAX_ORDER = 40
"""Orders above 4 have no solution either; the proof of this one takes seconds."""


@dataclass(frozen=True)
class Elimination:
    """What elimination says of S-gmm with two atoms.

    Attributes
    ----------
    order : int
        r.
    eliminant : str
        The polynomial in w alone that every solution with w (1 - w) not 0 satisfies; empty if there
        is none.
    n_real_roots : int or None
        How many real roots it has; None without one.
    """

    order: int
    eliminant: str
    n_real_roots: int | None

    @property
    def excluded(self) -> bool:
        """Whether elimination proves that the order has no solution."""
        return self.n_real_roots == 0

    @property
    def status(self) -> str:
        if not self.eliminant:
            return f"Order {self.order} leaves the weight free: elimination excludes nothing."
        verdict = (
            "no real root: no solution" if self.excluded else f"{self.n_real_roots} real roots"
        )
        return f"Order {self.order} forces {self.eliminant} = 0, which has {verdict}."

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain JSON."""
        return {
            "order": self.order,
            "eliminant": self.eliminant,
            "n_real_roots": self.n_real_roots,
            "excluded": self.excluded,
            "status": self.status,
        }


def eliminate_two_atoms(order: int = 4) -> Elimination:
    """Eliminate all but a weight from S-gmm with two atoms.

    Parameters
    ----------
    order : int
        r, in [2, 40].

    Returns
    -------
    Elimination

    Examples
    --------
    >>> eliminate_two_atoms().status
    'Order 4 forces w**2 - w + 1 = 0, which has no real root: no solution.'
    >>> eliminate_two_atoms(3).status
    'Order 3 leaves the weight free: elimination excludes nothing.'
    """
    import sympy as sp

    check_int("order", order, 2, MAX_ORDER)
    w, first, second, inverse = sp.symbols("w q2_1 q2_2 z")
    system = gmm_system(2, order)
    left = system.residuals([w, 1 - w], [(1 - w, first), (-w, second)])
    equations = [sp.expand(e) for label, e in left.items() if label != (1,)]
    basis = sp.groebner(
        [*equations, 1 - inverse * w * (1 - w)], inverse, first, second, w, order="lex"
    )
    alone = [e for e in basis.exprs if e.free_symbols <= {w}]
    if not alone:
        return Elimination(order, "", None)
    eliminant = sp.Poly(alone[0], w)
    return Elimination(order, str(eliminant.as_expr()), int(eliminant.count_roots()))

"""Both published systems of polynomial equations define the same rbar."""

from __future__ import annotations

import dataclasses

from ..algebra import compare, equivalence, gmm_system, softmax_system
from .base import Check, Claim, Outcome, whether

_CASES = [(2, 4, 1), (2, 4, 3), (3, 6, 1), (3, 6, 2), (5, 10, 1)]


def _equal() -> Outcome:
    found = [equivalence(*case) for case in _CASES]
    softmax, gmm = softmax_system(2, 4), gmm_system(2, 4)
    fewer = {label: phi for label, phi in gmm.equations.items() if label != (3,)}
    other = compare(softmax, dataclasses.replace(gmm, equations=fewer))
    cases = ", ".join(f"({m}, {r}, {D})" for m, r, D in _CASES)
    return Outcome(
        whether(all(e.holds for e in found)),
        f"Compared as polynomials for (m, r, D) in {cases}: the equations of S-softmax without "
        "features are those of S-gmm, and all others vanish at db1 = da = 0.",
        {"cases": [e.as_dict() for e in found]},
        {"equivalence to a system without its third equation": not other.holds},
    )


CLAIM = Claim(
    name="systems-equal",
    statement="The system of the softmax gate, S-softmax, and that of Gaussian mixtures, S-gmm, "
    "are solvable at the same orders, for every number of atoms and of features.",
    source="arXiv 2305.03288 uses the values of S-gmm; proof derived here (docs/rbar.md)",
    assumptions="All weights positive, some deviation of an intercept not 0.",
    standing="derived",
    checks=(Check("algebra", "are they solvable together?", _equal),),
)

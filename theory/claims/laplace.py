"""Laplace gate, over-specified."""

from __future__ import annotations

from ..calculus import Relation, RelationSearch, find_relations
from ._calculus import searched
from ._exponents import inverse
from .base import Check, Claim, Outcome, whether


def _relations() -> Outcome:
    line, numbers = searched("Laplace", "laplace")
    plane, more = searched("Laplace, D = 2", "laplace", n_features=2)
    softmax = find_relations("softmax")
    return Outcome(
        whether(not (_of_slopes(line) or _of_slopes(plane))),
        "No relation has du/da beside a derivative by the centre. One feature: "
        f"{'; '.join(map(str, line.relations))}; the second holds because the score changes by 1 "
        f"per unit away from the centre. Two features: {'; '.join(map(str, plane.relations))}.",
        {"searches": [numbers, more]},
        {"that a softmax gate has no such relation": bool(_of_slopes(softmax))},
    )


def _of_slopes(found: RelationSearch) -> list[Relation]:
    """Relations in which a first derivative by a slope occurs."""
    return [
        r
        for r in found.relations
        if any(len(d) == 1 and d[0].startswith("a") for d in (r.left, *(d for d, _ in r.right)))
    ]


CLAIM = Claim(
    name="laplace",
    statement="Behind a Laplace gate, in a cell of m > 1 atoms centres and slopes converge at "
    "n^-1/4, intercepts at n^-1/(2r), variances at n^-1/r, r = rbar(m): the powers (2, 2, 4, 2) "
    "for m = 2.",
    source="arXiv 2402.03226 (FuseMoE)",
    assumptions="Compact parameter set, masses bounded below.",
    standing="published",
    checks=(
        Check("calculus", "do centre and slope keep apart?", _relations, seconds=3),
        inverse(
            "does the bound hold?",
            "Laplace, two atoms",
            role="published",
            asked="bound",
            seconds=50,
        ),
        inverse("is it sharp?", "Laplace, two atoms", role="published", asked="sharp", seconds=50),
        inverse(
            "is 3/2 sharp for the centres?",
            "Laplace, two atoms",
            role="derived",
            asked="sharp",
            seconds=50,
            groups=("gate_slope",),
        ),
    ),
)

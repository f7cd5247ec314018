"""Softmax gate, over-specified: gate slopes and slopes take no part in the polynomial system."""

from __future__ import annotations

from ..exponents import IN_CELLS
from ._exponents import inverse
from ._simulation import rates
from .base import Claim

CLAIM = Claim(
    name="softmax-over-derived",
    statement="If some cell has one atom, then in a cell of m > 1 atoms gate slopes and slopes "
    "converge at n^-1/4, intercepts at n^-1/(2r), variances at n^-1/r, r = rbar(m), and this is "
    "sharp: the powers (2, 2, 4, 2) for m = 2 and (2, 2, 6, 3) for m = 3.",
    source="derived here (docs/inverse_bounds.md): the coefficient of x^2 u is half the sum "
    "of w |db1|^2",
    assumptions="Compact parameter set, masses bounded below; some cell with one atom.",
    standing="derived",
    checks=(
        inverse(
            "is it sharp, two atoms?",
            "softmax, two atoms",
            role="derived",
            asked="sharp",
            seconds=15,
        ),
        inverse(
            "is it sharp, three atoms?",
            "softmax, three atoms",
            role="derived",
            asked="sharp",
            seconds=30,
        ),
        rates(
            "is it sharp for 3 experts?",
            "softmax-over",
            "constrained",
            role="derived",
            asked="sharp",
            groups=IN_CELLS,
            cells="multi",
        ),
    ),
)

"""Softmax gate, over-specified: the published powers of the loss."""

from __future__ import annotations

from ..exponents import IN_CELLS
from ._exponents import inverse
from ._simulation import rates
from .base import BOTH, Claim

CLAIM = Claim(
    name="softmax-over-published",
    statement="In a cell of m > 1 atoms (b1, a, b, s) converge at n^-1/(2r), n^-1/r, n^-1/(2r), "
    "n^-1/r, r = rbar(m): the loss has the powers (4, 2, 4, 2) for m = 2, (6, 3, 6, 3) for m = 3.",
    source="arXiv 2305.03288, Theorem 2; with a top-K gate arXiv 2309.13850, Theorem 2",
    assumptions="Compact parameter set, masses bounded below; some cell with one atom. The theorem "
    "states a bound; whether it is sharp is asked beside it.",
    standing="published",
    checks=(
        *(
            inverse(
                f"{words}, {cell} atoms?",
                f"softmax, {cell} atoms",
                role="published",
                asked=asked,
                seconds=seconds,
            )
            for cell, seconds in (("two", 15), ("three", 30))
            for words, asked in BOTH
        ),
        *(
            rates(
                f"{words} for {n} experts?",
                study,
                "constrained",
                role="published",
                asked=asked,
                groups=IN_CELLS,
                cells="multi",
            )
            for study, n in (("softmax-over", "3"), ("topk-over", "4 top-K"))
            for words, asked in BOTH
        ),
    ),
)

"""Top-K gate, exact fit: the parametric rate."""

from __future__ import annotations

from ..exponents import IN_CELLS
from ._simulation import rates
from .base import REMEMBERED, Claim

CLAIM = Claim(
    name="topk-exact",
    statement="With k = k* and K' = K all parameters of a top-K gated mixture, and its density, "
    "converge at n^-1/2 up to a logarithm.",
    source="arXiv 2309.13850, Theorem 1",
    assumptions="Compact parameter set; ranked by slope, X on both sides of 0; " + REMEMBERED,
    standing="published",
    checks=(
        rates(
            "does n^-1/2 bound density and loss?",
            "topk-exact",
            "mle",
            role="published",
            asked="bound",
            groups=["density", "loss"],
        ),
        rates(
            "is n^-1/2 sharp for the experts?",
            "topk-exact",
            "mle",
            role="published",
            asked="sharp",
            groups=IN_CELLS,
            cells="single",
        ),
    ),
)

"""Softmax gate, exact fit: the parametric rate."""

from __future__ import annotations

from ..exponents import IN_CELLS
from ._exponents import inverse
from ._simulation import rates
from .base import Claim

CLAIM = Claim(
    name="softmax-exact",
    statement="With k = k* experts all parameters of a softmax gated mixture, the gate's up to one "
    "translation, and its density converge at n^-1/2 up to a logarithm.",
    source="arXiv 2305.03288, Theorem 1",
    assumptions="Compact parameter set; X bounded.",
    standing="published",
    checks=(
        inverse(
            "is h linear in every parameter?",
            "softmax, one atom",
            role="published",
            asked="sharp",
            seconds=5,
        ),
        rates(
            "does n^-1/2 bound density and loss?",
            "softmax-exact",
            "mle",
            role="published",
            asked="bound",
            groups=["density", "loss"],
        ),
        rates(
            "is n^-1/2 sharp for the parameters?",
            "softmax-exact",
            "mle",
            role="published",
            asked="sharp",
            groups=IN_CELLS,
            cells="single",
        ),
    ),
)

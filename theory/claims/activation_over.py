"""Activation gate, over-specified: hypotheses on its rates."""

from __future__ import annotations

from ..exponents import IN_CELLS
from ._exponents import inverse
from ._simulation import rates
from .base import REMEMBERED, Claim

_SIGMOID = "sigmoid dense-to-sparse, two atoms"
"""tanh and GELU are settings of `theory.inverse.SETTINGS` too."""

CLAIM = Claim(
    name="activation-over",
    statement="Behind an activation, in a cell of m > 1 atoms gate slopes and slopes converge at "
    "n^-1/4, intercepts at n^-1/(2r), variances at n^-1/r, r = rbar(m), the temperature at n^-1/4: "
    "the powers (2, 2, 4, 2) for m = 2, and 2 for tau.",
    source="arXiv 2401.13875, activation dense-to-sparse gate, over-specified",
    assumptions="The activation identifies its gate at second order; " + REMEMBERED,
    standing="hypothesis",
    checks=(
        inverse(
            "does the bound hold, sigmoid?",
            _SIGMOID,
            role="published",
            asked="bound",
            seconds=60,
        ),
        inverse(
            "is it sharp, sigmoid?",
            _SIGMOID,
            role="published",
            asked="sharp",
            seconds=60,
        ),
        inverse(
            "are the powers sharp with 1 for tau, sigmoid?",
            _SIGMOID,
            role="derived",
            asked="sharp",
            seconds=60,
        ),
        *(
            rates(
                f"does the bound hold for 3 experts, {psi}?",
                f"activation-over-{psi}",
                "constrained",
                role="published",
                asked="bound",
                groups=IN_CELLS,
                cells="multi",
                interacting=False,
            )
            for psi in ("sigmoid", "tanh", "gelu")
        ),
    ),
)

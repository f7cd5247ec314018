"""Activation gate, exact fit: the temperature too has the parametric rate."""

from __future__ import annotations

from ..exponents import IN_CELLS
from ._simulation import rates
from .base import REMEMBERED, Claim

CLAIM = Claim(
    name="activation-exact",
    statement="Behind a sigmoid, tanh or GELU activation, with k = k* experts, all parameters, the "
    "temperature among them, converge at n^-1/2 up to a logarithm.",
    source="arXiv 2401.13875, activation dense-to-sparse gate, exact-specified",
    assumptions="The activation identifies its gate at first order; " + REMEMBERED,
    standing="published",
    checks=tuple(
        check
        for psi in ("sigmoid", "tanh", "gelu")
        for check in (
            rates(
                f"is n^-1/2 sharp for tau, {psi}?",
                f"activation-exact-{psi}",
                "mle",
                role="published",
                asked="sharp",
                groups=["temperature"],
                interacting=False,
            ),
            rates(
                f"is n^-1/2 sharp for the others, {psi}?",
                f"activation-exact-{psi}",
                "mle",
                role="published",
                asked="sharp",
                groups=IN_CELLS,
                cells="single",
                interacting=False,
            ),
        )
    ),
)

"""Dense-to-sparse gate: what the density does identify has the softmax gate's rates."""

from __future__ import annotations

from moe_stats import GaussianMoE, SoftmaxGate

from ..distances import hellinger
from ..exponents import IN_CELLS
from ._simulation import rates
from ._truths import dense_to_sparse
from .base import Check, Claim, Outcome, whether

_ROUNDING = 1e-10
"""E_X h up to which two densities, computed in different ways, are the same."""


def _is_softmax() -> Outcome:
    truth, law = dense_to_sparse()
    gate = truth.gate

    def distance(temperature: float) -> float:
        quotients = SoftmaxGate(gate.intercept / temperature, gate.slope / temperature)
        return float(hellinger(GaussianMoE(quotients, truth.experts), truth, law).value)

    same, other = distance(0.1), distance(0.11)
    return Outcome(
        whether(same < _ROUNDING),
        f"E_X h to the softmax gate of b0/tau and b1/tau is {same:.1e}: both gates give one family "
        "of densities, and what is settled of the softmax cells holds for the quotients "
        f"(softmax-over-derived). With tau a tenth larger it is {other:.2g}.",
        {"same": same, "other": other},
        {"the softmax gate of another temperature": other > 1e3 * _ROUNDING},
    )


CLAIM = Claim(
    name="dense-to-sparse-identified",
    statement="b0/tau, b1/tau and the experts of a dense-to-sparse gate converge as those of a "
    "softmax gate: at n^-1/2 in an exact fit, with the powers (2, 2, 4, 2) in a cell of two atoms.",
    source="derived here (docs/inverse_bounds.md)",
    assumptions="Compact set of b0/tau and b1/tau; some cell with one atom.",
    standing="derived",
    checks=(
        Check("quadrature", "is it the softmax gate of the quotients?", _is_softmax),
        rates(
            "is n^-1/2 sharp in an exact fit?",
            "dense-to-sparse-exact",
            "mle",
            role="derived",
            asked="sharp",
            groups=IN_CELLS,
            cells="single",
        ),
        rates(
            "is it sharp for 3 experts?",
            "dense-to-sparse-over",
            "constrained",
            role="derived",
            asked="sharp",
            groups=IN_CELLS,
            cells="multi",
        ),
    ),
)

"""Every cell over-fitted: gate slopes are not identified."""

from __future__ import annotations

from ..inverse import FlatFamily, every_cell_over_fitted
from ._simulation import rates
from ._truths import probe
from .base import Check, Claim, Outcome, whether

_SHIFTS = (1.0, 0.5, 0.25)


def _is_flat() -> Outcome:
    truth, law = probe()
    flat = {d: every_cell_over_fitted(truth, law, shift=d) for d in _SHIFTS}
    one_left = {d: every_cell_over_fitted(truth, law, shift=d, cells=(2, 1)) for d in _SHIFTS}
    listed = ", ".join(f"{f.discrepancy.value:.1e} at {d:g}" for d, f in one_left.items())
    return Outcome(
        whether(all(f.flat for f in flat.values())),
        f"{flat[1.0]} With one cell of a single atom left the family is gone: h = {listed}.",
        {"families": [_row(d, f) for part in (flat, one_left) for d, f in part.items()]},
        {"a flat family with a cell of one atom": not any(f.flat for f in one_left.values())},
    )


def _row(shift: float, found: FlatFamily) -> dict[str, object]:
    return {
        "shift": shift,
        "flat": found.flat,
        "h": found.discrepancy.value,
        "rounding": found.discrepancy.rounding,
        "loss": found.loss,
    }


CLAIM = Claim(
    name="every-cell-over-fitted",
    statement="If every true expert behind a softmax gate has two fitted ones or more, as may be "
    "from k = 2 k* on, gate slopes are not identified: the inverse bound, as remembered, fails.",
    source="derived here (docs/inverse_bounds.md); against arXiv 2305.03288, Theorem 2: "
    "check against the theorem's text",
    assumptions="None on the sizes of deviations: the family is exact.",
    standing="derived",
    checks=(
        Check("quadrature", "is h 0 with the gate slopes off?", _is_flat, seconds=3),
        rates(
            "does the density still converge at n^-1/2?",
            "softmax-over-4",
            "constrained",
            role="published",
            asked="bound",
            groups=["density"],
        ),
    ),
)

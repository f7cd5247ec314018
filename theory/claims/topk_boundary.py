"""A selection boundary is found faster than its published bound, like a change point."""

from __future__ import annotations

import numpy as np

from ..distances import hellinger
from ..exponents import BOUNDARY
from ._simulation import rates
from ._truths import topk_one
from .base import Check, Claim, Outcome, whether

_SHIFTS = np.geomspace(1e-2, 1e-5, 7)


def _moves_like() -> Outcome:
    truth, law = topk_one()
    h = np.array([float(hellinger(topk_one(float(d))[0], truth, law).value) for d in _SHIFTS])
    local = np.diff(np.log(h)) / np.diff(np.log(_SHIFTS))
    exponent, drift = float(local[-1]), float(abs(local[-1] - local[-2]))
    curve = {
        "name": "top-K, one selected, E_X h: boundary",
        "deltas": _SHIFTS.tolist(),
        "values": h.tolist(),
        "exponent": exponent,
        "error": drift,
        "predicted": {"derived": 1.0},
    }
    return Outcome(
        whether(abs(exponent - 1) < 0.03),
        f"A boundary moved by d, from {_SHIFTS[0]:g} to {_SHIFTS[-1]:g}, moves E_X h with exponent "
        f"{exponent:.4f} (last change {drift:.1e}), hence (E_X h^2)^(1/2) with half of that: n "
        "observations tell it from the truth once n d is large.",
        {"exponents": [curve]},
        {"an exponent of 1/2 of E_X h, as of a density without jumps": abs(exponent - 0.5) > 0.03},
    )


CLAIM = Claim(
    name="topk-boundary",
    statement="What moves a boundary between selections of a top-K gate is estimated at n^-1; the "
    "published bound of n^-1/2 holds for it and is not sharp.",
    source="bound: arXiv 2309.13850; rate derived here",
    assumptions="The density jumps at the boundary and X has mass there.",
    standing="derived",
    checks=(
        Check("quadrature", "does h move like the boundary?", _moves_like, seconds=2),
        *(
            check
            for study, where in (("topk-one", "K = 1"), ("topk-d2", "two features"))
            for check in (
                rates(
                    f"does the bound hold, {where}?",
                    study,
                    "mle",
                    role="published",
                    asked="bound",
                    groups=BOUNDARY,
                ),
                rates(
                    f"is n^-1 sharp, {where}?",
                    study,
                    "mle",
                    role="derived",
                    asked="sharp",
                    groups=BOUNDARY,
                ),
            )
        ),
    ),
)

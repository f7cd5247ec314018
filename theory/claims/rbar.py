"""rbar(m) = 2m: the order from which m atoms cannot hide in one cell; proof in docs/rbar.md."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..algebra import check, eliminate_two_atoms, gmm_system
from ..algebra import rbar as rbar_of
from .base import Check, Claim, Outcome, whether

_SIZES = range(2, 11)


def _certificates() -> Outcome:
    checked = {m: check(rbar_of(m).certificate) for m in _SIZES}
    tampered = {**rbar_of(4).certificate, "q2": "-1/3"}
    early = {**rbar_of(4).certificate, "order": 6}
    valid = all(c.valid for c in checked.values())
    return Outcome(
        whether(valid),
        f"Certificates of rbar(m) >= 2m were checked in exact arithmetic for m = {_SIZES[0]} to "
        f"{_SIZES[-1]}: {'all are valid' if valid else 'some are not'}.",
        {"residuals": [row for m in range(2, 7) for row in _residuals(m)]},
        {
            "a certificate with another variance": not check(tampered).valid,
            "a certificate of a smaller order": not check(early).valid,
        },
    )


def _residuals(m: int) -> list[dict[str, Any]]:
    """Left sides of S-gmm at the Gauss-Hermite rule, in float64."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(m)
    atoms = [(float(x), -0.5) for x in nodes]
    left = gmm_system(m, 2 * m).residuals((weights / weights.sum()).tolist(), atoms)
    return [{"m": m, "order": s, "residual": abs(float(v))} for (s,), v in left.items()]


def _elimination() -> Outcome:
    at_four, at_three = eliminate_two_atoms(4), eliminate_two_atoms(3)
    return Outcome(
        whether(at_four.excluded),
        f"{at_four.status} So rbar(2) is at most 4, without the general argument.",
        {"eliminant": at_four.eliminant},
        {"that order 3 has no solution": not at_three.excluded},
    )


CLAIM = Claim(
    name="rbar",
    statement="The system of m atoms in one cell is solvable up to order 2m - 1 and no further: "
    "rbar(m) = 2m for every m >= 2. Published: rbar(2) = 4 and rbar(3) = 6.",
    source="derived here (docs/rbar.md); m = 2, 3: arXiv 2305.03288, after Ho and Nguyen (2016)",
    assumptions="All weights positive, some deviation of an intercept not 0.",
    standing="derived",
    checks=(
        Check("algebra", "is order 2m - 1 solvable?", _certificates),
        Check("algebra", "is order 4 excluded for m = 2?", _elimination, seconds=1),
    ),
)

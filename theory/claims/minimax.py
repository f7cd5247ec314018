"""No estimator beats the rates of the softmax cells: pairs of measures that data cannot tell."""

from __future__ import annotations

from typing import Any

from ..inverse import TwoPoint, moving_pairs, pointwise_pairs
from ._exponents import settled
from .base import Check, Claim, Outcome, whether

_SETTING = "softmax, two atoms"
_GROUPS = ("gate_slope", "intercept")
_WITHIN = 0.03
"""Relative difference up to which an exponent is the one predicted."""


def _pointwise() -> Outcome:
    found = settled(_SETTING)
    near = found.setting.build()
    predicted = {group: 1 / (2 * found.setting.derived[group]) for group in _GROUPS}
    pairs = {g: pointwise_pairs(near, found.exponents[g]) for g in predicted}
    holds = {g: _is_near(p.exponent, predicted[g]) for g, p in pairs.items()}
    published = 1 / (2 * found.setting.published["gate_slope"])
    return Outcome(
        whether(all(holds.values())),
        " ".join(str(p) for p in pairs.values()),
        {
            "pairs": [
                _row(f"pointwise, {g.replace('_', ' ')}", p, predicted[g]) for g, p in pairs.items()
            ]
        },
        {
            "n^-1/8 for the gate slope, which was published as a bound": not _is_near(
                pairs["gate_slope"].exponent, published
            )
        },
    )


def _moving() -> Outcome:
    pairs = moving_pairs(settled(_SETTING).setting.build())
    return Outcome(
        whether(_is_near(pairs.exponent, 1 / 12)),
        f"Pairs that both tend to the truth and share five moments: {pairs}",
        {"pairs": [_row("moving, intercept", pairs, 1 / 12)]},
        {"an exponent of 1/8": not _is_near(pairs.exponent, 1 / 8)},
    )


def _is_near(exponent: float, predicted: float) -> bool:
    return abs(exponent - predicted) <= _WITHIN * predicted


def _row(name: str, pairs: TwoPoint, predicted: float) -> dict[str, Any]:
    return {
        "name": name,
        "n": pairs.n.tolist(),
        "distance": pairs.distance.tolist(),
        "affinity": pairs.affinity.tolist(),
        "lower_bound": pairs.lower_bound.tolist(),
        "exponent": pairs.exponent,
        "error": pairs.error,
        "predicted": predicted,
    }


CLAIM = Claim(
    name="minimax",
    statement="In a cell of two atoms no estimator is faster, in the worst case over the truth and "
    "one measure near it, than n^-1/4 for gate slopes and n^-1/8 for intercepts; over measures "
    "that tend to the truth, than n^-1/12 for intercepts.",
    source="derived here (docs/inverse_bounds.md), by Le Cam's two points; five moments: "
    "Hardt and Price (2015)",
    assumptions="Softmax gate; masses bounded below; some cell with one atom.",
    standing="derived",
    checks=(
        Check("two-point", "are the rates minimax at a fixed truth?", _pointwise, seconds=20),
        Check("two-point", "is n^-1/12 minimax for moving truths?", _moving, seconds=3),
    ),
)

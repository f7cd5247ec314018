"""No estimator beats the rates of the softmax cells: pairs of measures that data cannot tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..inverse import TwoPoint, moving_pairs, pointwise_pairs
from ..rates import fit_rate
from ..verdict import Question, verdict
from ._exponents import settled
from .base import BOTH, Check, Claim, Data, Outcome, whether

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


def _merging(asked: Question) -> Callable[[Data], Outcome]:
    """Whether the .9 quantile of an intercept's error falls as that of merging atoms."""

    def ask(data: Data) -> Outcome:
        table = data.table[data.table["status"] == "ok"]
        rate = fit_rate(table["n"], table["intercept_moving_deviation"], random_state=data.seed)
        found = verdict(rate, 1 / 12, question=asked, statistic="quantile90")
        fixed = verdict(rate, 1 / 2, question="sharp", statistic="quantile90")
        rejected = fixed.status == "inconsistent"
        row = {
            "quantity": "intercept, merging atoms, .9 quantile",
            "role": "derived",
            "question": asked,
            "predicted": -1 / 12,
            "slope": found.slope,
            "low": found.interval[0],
            "high": found.interval[1],
            "verdict": found.status,
            "control": -1 / 2,
            "control_rejected": rejected,
        }
        return Outcome(
            found.status,
            "Exact fits to truths of which two atoms merge at n^-1/12, the .9 quantile of the "
            f"intercepts' error: {found.sentence}",
            {"arm": "constrained", "rates": [row]},
            {"n^-1/2, the rate at each fixed truth": rejected},
        )

    return ask


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
        *(
            Check("simulation", f"{words} for merging atoms?", _merging(asked), "softmax-moving")
            for words, asked in BOTH
        ),
    ),
)

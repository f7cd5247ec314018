"""How many experts an over-specified top-K fit must select: necessary and sufficient differ."""

from __future__ import annotations

from typing import Any

from moe_stats import TopKGate

from ..attainable import ATTAINED, attainable_distance
from ._simulation import rates
from ._truths import Setting, topk, topk_two_sides
from .base import Check, Claim, Outcome, whether


def _near(setting: Setting, n_experts: int, top_k: int) -> Any:
    gate = TopKGate.template(top_k=top_k, rank="slope")
    truth, law = setting
    return attainable_distance(truth, law, n_experts=n_experts, gate=gate, everywhere=False)


def _necessary() -> Outcome:
    few, enough = _near(topk(), 4, 2), _near(topk(), 4, 3)
    return Outcome(
        whether(few.near > ATTAINED),
        f"k* = 3, K = 2. K' = 2 is below the bound 3: {few.sentence} K' = 3: {enough.sentence}",
        {"distances": {"4 experts, 2 selected": few.near, "4 experts, 3 selected": enough.near}},
        {"that 4 experts of which 3 are selected do not attain it": enough.near < ATTAINED},
    )


def _sufficient() -> Outcome:
    found, exact = _near(topk_two_sides(), 3, 2), _near(topk_two_sides(), 2, 1)
    return Outcome(
        whether(found.near > ATTAINED),
        f"k* = 2, K = 1. K' = 2 meets the bound 2: {found.sentence} Where the selected true expert "
        "has one fitted atom, an atom of the other expert is selected too.",
        {"distances": {"3 experts, 2 selected": found.near, "2 experts, 1 selected": exact.near}},
        {"that 2 experts of which 1 is selected do not attain it": exact.near < ATTAINED},
    )


CLAIM = Claim(
    name="topk-sufficiency",
    statement="Fitting k > k* experts of which K' are selected attains the truth near its atoms "
    "only if K' is at least the number of fitted atoms that the cells of K true experts can hold; "
    "this is necessary and not sufficient: the selected true experts must have exactly K' fitted "
    "atoms at almost every x.",
    source="necessary: arXiv 2309.13850; not sufficient: derived here (docs/inverse_bounds.md)",
    assumptions="Masses bounded below, atoms near true ones.",
    standing="derived",
    checks=(
        Check("quadrature", "is the bound necessary?", _necessary, seconds=12),
        Check("quadrature", "is it not sufficient?", _sufficient, seconds=8),
        rates(
            "does h level off with K' < K?",
            "topk-too-few",
            "k1",
            role="derived",
            asked="sharp",
            groups=["density"],
        ),
    ),
)

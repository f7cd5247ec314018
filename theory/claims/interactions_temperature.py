"""Which derivatives interact behind a dense-to-sparse gate."""

from __future__ import annotations

from ..calculus import atom, find_relations, relation
from ._calculus import rediscovered
from .base import Check, Claim, Outcome


def _all_relations() -> Outcome:
    cooled = find_relations("activation", activation="sigmoid").involving("tau")
    wrong = relation(atom("dense-to-sparse"), ("tau",), {("b1",): "b1/tau"})
    return rediscovered(
        "dense-to-sparse",
        {},
        {
            "a relation of tau behind a sigmoid": not cooled,
            "du/dtau = + (b1/tau) du/db1": not wrong.proved,
        },
    )


CLAIM = Claim(
    name="interactions-temperature",
    statement="Behind a dense-to-sparse gate tau du/dtau = -b1' du/db1 and d2u/db1 db = "
    "(1/tau) du/da hold beside the heat relation: the temperature interacts with the gate slopes "
    "at first order, which no other parameter does.",
    source="arXiv 2401.13875 (the first relation); the others derived here",
    assumptions="Linear experts with Gaussian response; coefficients rational in the parameters.",
    standing="published",
    checks=(Check("calculus", "are these all relations?", _all_relations, seconds=3),),
)

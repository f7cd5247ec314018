"""Which derivatives interact behind a softmax gate, and behind a top-K gate."""

from __future__ import annotations

from ..calculus import atom, relation
from ._calculus import rediscovered
from .base import Check, Claim, Outcome


def _all_relations() -> Outcome:
    of = atom("softmax")
    topk = relation(atom("topk"), ("b1", "b"), {("a",): 1})
    half = relation(of, ("b", "b"), {("s",): 1})
    logistic = relation(atom("softmax", expert="logistic"), ("b", "b"), {("s",): 2})
    return rediscovered(
        "softmax",
        {"d2u/db1 db = du/da behind a top-K gate": topk.proved},
        {
            "d2u/db^2 = du/ds": not half.proved,
            "the heat relation of a logistic expert": not logistic.proved,
        },
    )


CLAIM = Claim(
    name="interactions-softmax",
    statement="Behind a softmax gate, and where its selection does not change a top-K gate, "
    "d2u/db1 db = du/da and d2u/db^2 = 2 du/ds; up to second order all linear relations with "
    "coefficients constant in (x, y) follow from these.",
    source="arXiv 2305.03288 (both relations); that there are no others: derived here",
    assumptions="Linear experts with Gaussian response; coefficients rational in the parameters.",
    standing="published",
    checks=(Check("calculus", "are these all relations?", _all_relations),),
)

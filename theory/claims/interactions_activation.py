"""What interacts behind an activation gate: for one feature, the heat relation alone."""

from __future__ import annotations

from ..calculus import find_relations
from ._calculus import searched
from .base import Check, Claim, Outcome, whether

_ACTIVATIONS = ("sigmoid", "tanh", "gelu", "silu")


def _one_feature() -> Outcome:
    found = {p: searched(p, "activation", activation=p) for p in _ACTIVATIONS}
    heat = ["d2u/db^2 = 2 du/ds"]
    holds = all(s.proved and [str(r) for r in s.relations] == heat for s, _ in found.values())
    identity = find_relations("activation", activation="identity")
    nearest = min(s.nearest for s, _ in found.values())
    return Outcome(
        whether(holds),
        f"For {', '.join(_ACTIVATIONS)} "
        f"{'only the heat relation remains' if holds else 'more than the heat relation remains'} "
        f"(others at least {nearest:.0e} apart).",
        {"searches": [numbers for _, numbers in found.values()]},
        {"that the identity, too, has no relation of tau": bool(identity.involving("tau"))},
    )


def _two_features() -> Outcome:
    search, numbers = searched("tanh, D = 2", "activation", activation="tanh", n_features=2)
    slopes = search.involving("b1_1", "b1_2")
    shown = "; ".join(map(str, slopes)) or "none"
    return Outcome(
        whether(not slopes),
        "With two features a relation between gate slopes and slopes remains, for any psi: "
        f"{shown}. Both sides are x_1 x_2 times one function. It relates derivatives of second "
        "order to each other, not to one of first order.",
        {"searches": [numbers]},
        {"a relation of tau": not search.involving("tau")},
    )


CLAIM = Claim(
    name="interactions-activation",
    statement="Behind a sigmoid, tanh, GELU or SiLU gate the heat relation d2u/db^2 = 2 du/ds "
    "remains, and no relation involves b1 or tau.",
    source="arXiv 2401.13875, the reason for its activation gate, as remembered; "
    "check against the theorem's text",
    assumptions="Linear experts with Gaussian response; coefficients rational in the parameters.",
    standing="published",
    checks=(
        Check("calculus", "does it hold with one feature?", _one_feature, seconds=6),
        Check("calculus", "does it hold with two features?", _two_features, seconds=4),
    ),
)

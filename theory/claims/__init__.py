"""The registry of claims: what is stated about mixtures of experts, and what would refute it.

One file a claim, which defines ``CLAIM``; its name is the file's with hyphens. `get_claim` imports
the file. Files whose name starts with an underscore hold what several claims share.

Examples
--------
>>> claim = get_claim("systems-equal")
>>> [check.route for check in claim.checks]
['algebra']
>>> claim.checks[0].run().verdict
'consistent'
"""

import difflib
import pkgutil
from importlib import import_module

from .base import (
    ROUTES,
    Answer,
    Check,
    Claim,
    Data,
    Finding,
    Outcome,
    Route,
    Standing,
)

__all__ = [
    "ROUTES",
    "Answer",
    "Check",
    "Claim",
    "ClaimError",
    "Data",
    "Finding",
    "Outcome",
    "Route",
    "Standing",
    "claim_names",
    "get_claim",
]


class ClaimError(ValueError):
    """An unknown claim."""


def claim_names() -> list[str]:
    """The names of all claims, sorted."""
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(m.replace("_", "-") for m in modules if m[0] != "_" and m != "base")


def get_claim(name: str) -> Claim:
    """Return the claim of that name.

    Raises
    ------
    ClaimError
        If there is none; the message names the nearest and lists all.
    """
    known = claim_names()
    if not isinstance(name, str) or name not in known:
        near = difflib.get_close_matches(str(name), known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ClaimError(
            f"unknown claim {name!r}; {hint}the 'name' parameter must be one of {', '.join(known)}"
        )
    claim: Claim = import_module(f".{name.replace('-', '_')}", __name__).CLAIM
    return claim

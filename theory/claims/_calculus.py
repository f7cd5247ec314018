"""Checks on relations between derivatives: those known are proved, all others searched for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..calculus import RelationSearch, find_relations, interactions
from .base import Outcome, whether


def searched(name: str, gate: str, **options: Any) -> tuple[RelationSearch, dict[str, Any]]:
    """A search up to second order and its numbers, as figures take them."""
    found = find_relations(gate, **options)
    return found, {
        "family": name,
        "relations": [str(r) for r in found.relations],
        "nearest": found.nearest,
        "largest_null": found.largest_null,
    }


def rediscovered(
    gate: str, expected: Mapping[str, bool], controls: Mapping[str, bool], **options: Any
) -> Outcome:
    """That a search proves what it finds, that it finds what is known of a gate, and how that
    spans it.

    Parameters
    ----------
    expected : mapping of str to bool
        Further statements and whether they came out.
    """
    found, numbers = searched(gate, gate, **options)
    known = interactions(gate, **options)
    listed = {str(r) for r in found.relations}
    missing = [str(r) for r in known if str(r) not in listed]
    proved = found.proved and all(r.proved for r in known)
    failed = [words for words, holds in expected.items() if not holds]
    sentence = f"{found.status} The known ones are {'proved' if proved else 'not proved'}"
    sentence += " and among them." if not missing else f"; not found: {'; '.join(missing)}."
    if failed:
        sentence += f" Not so: {'; '.join(failed)}."
    return Outcome(
        whether(proved and not missing and not failed),
        sentence,
        {"searches": [numbers]},
        controls,
    )

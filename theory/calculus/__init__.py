"""Relations between the derivatives of an atom's density, proved and searched for.

`interactions` proves the known ones of each gate, `find_relations` looks for all up to second
order, `relation` decides a single statement about an `atom`.
"""

from .atoms import EXPERTS, GATES, Atom, atom
from .interactions import interactions
from .relation import Relation, relation
from .search import RelationSearch, find_relations

__all__ = [
    "EXPERTS",
    "GATES",
    "Atom",
    "Relation",
    "RelationSearch",
    "atom",
    "find_relations",
    "interactions",
    "relation",
]

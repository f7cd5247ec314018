"""How many experts: information criteria, dendrograms of mixing measures, and the choice.

`select.select_n_experts` is the way in.
"""

from .criteria import InformationCriteria, information_criteria
from .dendrograms import Dendrogram, dendrogram
from .select import (
    METHODS,
    BatchSelection,
    SelectionResult,
    select_n_experts,
    select_n_experts_batch,
)

__all__ = [
    "METHODS",
    "BatchSelection",
    "Dendrogram",
    "InformationCriteria",
    "SelectionResult",
    "dendrogram",
    "information_criteria",
    "select_n_experts",
    "select_n_experts_batch",
]

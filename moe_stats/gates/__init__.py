"""Gates: how much each expert has to say at x. One gate a file, all by `base.Gate`."""

from .base import Gate, GateTemplate
from .softmax import SoftmaxGate
from .topk import TopKGate

__all__ = ["GATES", "Gate", "GateTemplate", "SoftmaxGate", "TopKGate"]

GATES: dict[str, type[Gate]] = {"softmax": SoftmaxGate, "topk": TopKGate}
"""Gates by the name that studies and estimators use."""

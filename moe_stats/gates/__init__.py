"""Gates: how much each expert has to say at x. One gate a file, all by `base.Gate`."""

from .activation import ActivationDenseToSparseGate
from .activations import ACTIVATIONS, Activation
from .base import Gate, GateTemplate
from .dense_to_sparse import DenseToSparseGate
from .laplace import LaplaceGate
from .sigmoid import SigmoidGate
from .softmax import SoftmaxGate
from .topk import TopKGate

__all__ = [
    "ACTIVATIONS",
    "GATES",
    "Activation",
    "ActivationDenseToSparseGate",
    "DenseToSparseGate",
    "Gate",
    "GateTemplate",
    "LaplaceGate",
    "SigmoidGate",
    "SoftmaxGate",
    "TopKGate",
]

GATES: dict[str, type[Gate]] = {
    "softmax": SoftmaxGate,
    "topk": TopKGate,
    "dense-to-sparse": DenseToSparseGate,
    "activation": ActivationDenseToSparseGate,
    "sigmoid": SigmoidGate,
    "laplace": LaplaceGate,
}
"""Gates by the name that studies and estimators use."""

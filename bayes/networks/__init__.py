"""Networks as functions of a flat weight vector, evaluated for many draws of it at once.

`MLP` and `ConvNet` are ready-made; `BayesianNetwork` takes a `torch.nn.Module` as it is.
"""

from .activations import ACTIVATIONS, Activation
from .layers import Block
from .models import MLP, ConvNet
from .network import BayesianNetwork, as_network

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "Activation",
    "BayesianNetwork",
    "Block",
    "ConvNet",
    "as_network",
]

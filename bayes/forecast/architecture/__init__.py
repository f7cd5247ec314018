"""The parts of the network, a file each."""

from .network import N_FOLDS, Architecture, Inputs, Network

__all__ = ["N_FOLDS", "Architecture", "Inputs", "Network"]

r"""Activations, elementwise and without parameters.

erf, cos, sin and :math:`\mathrm{rbf}(x) = e^{-x^2}` have no module in `torch.nn`;
`Activation("rbf")` is one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from kernels.checks import check_choice


def linear(x: Tensor) -> Tensor:
    return x


def rbf(x: Tensor) -> Tensor:
    return torch.exp(-x.square())


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "erf": torch.erf,
    "cos": torch.cos,
    "sin": torch.sin,
    "rbf": rbf,
    "softplus": functional.softplus,
    "swish": functional.silu,
    "linear": linear,
}
"""Elementwise functions by name."""


class Activation(torch.nn.Module):
    """An activation as a layer.

    Parameters
    ----------
    name : str
        A key of `ACTIVATIONS`.

    Examples
    --------
    >>> Activation("rbf")(torch.tensor(0.0))
    tensor(1.)
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = check_choice("name", name, tuple(ACTIVATIONS))

    def forward(self, x: Tensor) -> Tensor:
        return ACTIVATIONS[self.name](x)

    def extra_repr(self) -> str:
        return repr(self.name)

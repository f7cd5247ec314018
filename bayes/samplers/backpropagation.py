r"""Outputs of a dense network, and the gradient of a function of them, written out.

.. math::
    a_l = \alpha_l W_l h_{l-1} + b_l, \quad h_l = \phi_l(a_l), \qquad
    \delta_l = \frac{\partial\ell}{\partial a_l}
             = \phi_l'(a_l) \odot \alpha_{l+1} W_{l+1}^\top \delta_{l+1}, \quad
    \frac{\partial\ell}{\partial W_l} = \alpha_l \delta_l h_{l-1}^\top, \quad
    \frac{\partial\ell}{\partial b_l} = \delta_l 1 .

Automatic differentiation gives the same numbers; in networks of the size that is sampled its graph,
built anew every step, costs several times what the products cost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..networks import BayesianNetwork
from ..networks.layers import Dense, Elementwise

Pull = Callable[[Tensor, Tensor, Tensor], Tensor]
"""delta phi'(a) from delta, a and h = phi(a)."""

PULLS: dict[str, Pull] = {
    "tanh": lambda delta, a, h: torch.ops.aten.tanh_backward(delta, h),
    "relu": lambda delta, a, h: delta * (a > 0),
    "erf": lambda delta, a, h: delta * (1.1283791670955126 * torch.exp(-a.square())),
    "cos": lambda delta, a, h: -delta * torch.sin(a),
    "sin": lambda delta, a, h: delta * torch.cos(a),
    "rbf": lambda delta, a, h: -2 * delta * a * h,
    "softplus": lambda delta, a, h: delta * torch.sigmoid(a),
    "swish": lambda delta, a, h: delta * (h + torch.sigmoid(a) * (1 - h)),
    "linear": lambda delta, a, h: delta,
}
"""By the name of the activation."""


@dataclass(frozen=True)
class Tape:
    """What the way back needs: weights by block, the input of each layer, and a, h behind it."""

    parameters: Sequence[Tensor]
    inputs: list[Tensor]
    before: list[Tensor]
    after: list[Tensor]


class DenseStack:
    """A dense network that can be walked back.

    Parameters
    ----------
    net : BayesianNetwork
        With dense layers and activations of `PULLS` alone; see `stack_of`.
    """

    def __init__(
        self, net: BayesianNetwork, layers: list[tuple[Dense, Elementwise | None]]
    ) -> None:
        self._layers = layers
        self._sizes = [block.size for block in net.blocks]

    def forward(
        self,
        weights: Tensor,  # (S, P)
        X: Tensor,  # (N, D), or (S, N, D)
    ) -> tuple[Tensor, Tape]:
        """Outputs (S, N, K), as the network gives them, and the way back."""
        parameters = weights.split(self._sizes, dim=1)
        tape = Tape(parameters, [], [], [])
        h = (X if X.ndim == 3 else X[None]).mT
        for dense, activation in self._layers:
            tape.inputs.append(h)
            a = dense(parameters, h)
            h = a if activation is None else activation.function(a)
            tape.before.append(a)
            tape.after.append(h)
        return h.mT, tape

    def backward(
        self,
        tape: Tape,
        slope: Tensor,  # (S, N, K)
    ) -> Tensor:  # (S, P)
        """Gradient, in the weights, of a function with these slopes in the outputs."""
        parts: list[Tensor] = [slope] * len(self._sizes)
        delta = slope.mT
        for i in range(len(self._layers) - 1, -1, -1):
            dense, activation = self._layers[i]
            if activation is not None:
                delta = PULLS[activation.name](delta, tape.before[i], tape.after[i])
            if dense.bias is not None:
                parts[dense.bias] = delta.sum(-1)
            h = tape.inputs[i]
            if len(h) == 1:  # all draws share the rows
                product = (delta.flatten(0, 1) @ h[0].mT).view(len(delta), -1)
            else:
                product = torch.bmm(delta, h.mT).flatten(1)
            parts[dense.weight] = dense.multiplier * product
            if i:
                weight = dense.multiplier * tape.parameters[dense.weight]
                shape = dense.n_outputs, dense.n_inputs
                delta = torch.bmm(weight.unflatten(1, shape).mT, delta)
        return torch.cat(parts, 1)


def stack_of(net: BayesianNetwork) -> DenseStack | None:
    """The network as a `DenseStack`, or None if it is not one.

    Examples
    --------
    >>> from bayes.networks import MLP, ConvNet
    >>> net = MLP(2, [3], 1)
    >>> stack, weights, X = stack_of(net), torch.ones(4, net.n_weights), torch.ones(5, 2)
    >>> outputs, tape = stack.forward(weights, X)
    >>> torch.equal(outputs, net(weights, X)), stack.backward(tape, outputs).shape
    (True, torch.Size([4, 13]))
    >>> stack_of(ConvNet((1, 8, 8), [2], 1)) is None
    True
    """
    try:
        layers = net.dense_stack()
    except ValueError:
        return None
    known = all(activation is None or activation.name in PULLS for _, activation in layers)
    shared = len({dense.weight for dense, _ in layers}) < len(layers)
    return DenseStack(net, layers) if known and not shared else None

r"""A `torch.nn.Module` as a function of its weights, for many draws of them at once.

.. math:: f(x; w), \qquad
    h_{l+1} = \phi\bigl(\mathrm{fan\_in}_l^{-1/2}\, W_l h_l + b_l\bigr),

with w the flat vector of all W and b. With fan-in scaling a prior on w needs no knowledge of the
network's widths; without it h = W h + b as in torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kernels.checks import check_bool

from .._validation import check_instance, check_weights
from .layers import Block, Convolution, Dense, Elementwise, Rowwise, ToImage, ToVector
from .tracing import trace


class BayesianNetwork:
    """A module whose weights are an argument.

    Parameters
    ----------
    module : torch.nn.Module
        Made of Linear, Conv2d (zero padding), pooling, normalisation without affine part, Flatten,
        Unflatten, activations and skip connections, ending with a Linear layer. Its own weights
        are not used.
    fan_in_scaling : bool
        Divide each product by the square root of the layer's fan-in, so that the weights are
        those of "unit" scale.

    Attributes
    ----------
    blocks : tuple of Block
        What each piece of the flat weight vector is.
    n_weights : int
        P.
    n_inputs : int or None
        D, or None if the module takes images.
    n_outputs : int

    Raises
    ------
    ValueError
        If a layer is not supported; the message names the cure.

    Examples
    --------
    >>> net = BayesianNetwork(nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)))
    >>> net.n_weights, [b.name for b in net.blocks]
    (21, ['0.weight', '0.bias', '2.weight', '2.bias'])
    >>> net(torch.zeros(7, 21), torch.ones(3, 2)).shape
    torch.Size([7, 3, 1])
    """

    def __init__(self, module: nn.Module, *, fan_in_scaling: bool = True) -> None:
        if not isinstance(module, nn.Module):
            raise ValueError(f"The 'module' parameter must be a torch.nn.Module; got {module!r}.")
        alone = type(module).__module__.startswith("torch.nn.modules.linear")
        self.module = nn.Sequential(module) if alone else module
        self.fan_in_scaling = check_bool("fan_in_scaling", fan_in_scaling)
        self._program = trace(self.module, fan_in_scaling)
        self.blocks: tuple[Block, ...] = self._program.blocks
        self.n_weights = self.blocks[-1].stop
        self._sizes = [block.size for block in self.blocks]
        operations = [step.operation for step in self._program.steps]
        first = next(o for o in operations if not isinstance(o, Elementwise))
        on_images = isinstance(first, Convolution | Rowwise | ToVector)
        self.input_ndim = 3 if on_images else 1
        self.n_inputs = first.n_inputs if isinstance(first, Dense | ToImage) else None
        self.n_outputs = next(o for o in reversed(operations) if isinstance(o, Dense)).n_outputs

    def __call__(self, weights: Tensor, X: Tensor) -> Tensor:
        """Evaluate the network.

        Parameters
        ----------
        weights : Tensor
            (S, P) draws, or (P,) for one.
        X : Tensor
            (N, D) rows for all draws, or (S, B, D) for each its own; (N, C, H, W) and
            (S, B, C, H, W) if the module takes images. Converted to the weights' dtype and device.

        Returns
        -------
        Tensor
            (S, N, n_outputs), or (N, n_outputs) for weights (P,).

        Raises
        ------
        ValueError
            If shapes disagree.
        """
        check_instance("weights", weights, Tensor, f"a tensor (S, {self.n_weights})")
        check_instance("X", X, Tensor, "a tensor (N, D)")
        single = weights.ndim == 1
        draws = weights.unsqueeze(0) if single else weights
        self._check(draws, X)
        X = X.to(draws)
        if X.ndim == self.input_ndim + 1:
            X = X.unsqueeze(0)
        h = X.mT if self.input_ndim == 1 else X.transpose(0, 1)
        parameters = draws.split(self._sizes, dim=1)
        values = [h]
        for step in self._program.steps:
            values.append(step.operation(parameters, *(values[i] for i in step.reads)))
        out = values[self._program.output].mT
        return out[0] if single else out

    def dense_stack(self) -> list[tuple[Dense, Elementwise | None]]:
        """Its dense layers, each with the activation that follows it.

        Raises
        ------
        ValueError
            If the network is anything but dense layers with activations in between.
        """
        stack: list[tuple[Dense, Elementwise | None]] = []
        for i, step in enumerate(self._program.steps):
            operation = step.operation
            if isinstance(operation, Dense) and step.reads == (i,):
                stack.append((operation, None))
            elif isinstance(operation, Elementwise) and stack and stack[-1][1] is None:
                stack[-1] = (stack[-1][0], operation)
            else:
                raise ValueError(
                    "A covariance in closed form needs dense layers with one activation between "
                    f"two of them; got the step {step.where!r}. Use a method on samples, such as "
                    "'energy'."
                )
        return stack

    def unflatten(self, weights: Tensor) -> dict[str, Tensor]:
        """Parameters by name, ``(..., *shape)``, of flat weights (..., P)."""
        parts = check_weights("weights", weights, self.n_weights).split(self._sizes, dim=-1)
        return {b.name: p.unflatten(-1, b.shape) for b, p in zip(self.blocks, parts, strict=True)}

    def flatten(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Flat weights (..., P) of parameters by name, the inverse of `unflatten`."""
        check_instance("parameters", parameters, Mapping, "a dict of tensors by name")
        names = [b.name for b in self.blocks]
        if not set(names) <= set(parameters):
            raise ValueError(
                f"The 'parameters' parameter must have {names}; got {sorted(parameters)}."
            )
        parts = [parameters[name] for name in names]
        return torch.cat(
            [p.flatten(p.ndim - len(b.shape)) for b, p in zip(self.blocks, parts, strict=True)], -1
        )

    def signature(self) -> dict[str, Any]:
        """What a saved prior must agree with: blocks, shapes and scaling."""
        return {
            "fan_in_scaling": self.fan_in_scaling,
            "blocks": [[b.name, list(b.shape)] for b in self.blocks],
        }

    def __repr__(self) -> str:
        layers = 1 + self.blocks[-1].layer
        scaled = "fan-in scaled" if self.fan_in_scaling else "unscaled"
        return f"{type(self).__name__}({layers} layers, {self.n_weights} weights, {scaled})"

    def _check(self, draws: Tensor, X: Tensor) -> None:
        if draws.ndim != 2 or draws.shape[1] != self.n_weights:
            raise ValueError(
                f"The 'weights' parameter must have shape (S, {self.n_weights}) or "
                f"({self.n_weights},); got shape {tuple(draws.shape)}."
            )
        row = "D" if self.input_ndim == 1 else "C, H, W"
        own = X.ndim == self.input_ndim + 2
        fits = self.n_inputs is None or (X.ndim > 0 and X.shape[-1] == self.n_inputs)
        if not (own or X.ndim == self.input_ndim + 1) or not fits:
            row = row if self.n_inputs is None else f"{self.n_inputs}"
            raise ValueError(
                f"The 'X' parameter must have shape (N, {row}) or (S, B, {row}); "
                f"got shape {tuple(X.shape)}."
            )
        if own and X.shape[0] not in (1, len(draws)):
            raise ValueError(
                "The 'X' parameter must have one set of rows a draw or one for all; "
                f"got {X.shape[0]} sets for {len(draws)} draws."
            )


def as_network(network: BayesianNetwork | nn.Module) -> BayesianNetwork:
    """A network as it is, or a module as a `BayesianNetwork` with fan-in scaling."""
    return network if isinstance(network, BayesianNetwork) else BayesianNetwork(network)

r"""Layers that evaluate S weight draws at once.

A value is one of two tensors, whose first letter is 1 until a layer with weights has been met:

* vectors, features before rows, (S, F, B): a dense layer is one batched product
  :math:`\alpha W h + b`, and over inputs that all draws share one plain product;
* images, (B, S, C, H, W): a convolution has one group a draw.

With fan-in scaling :math:`\alpha = 1/\sqrt{\text{fan-in}}`, without it 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Block:
    """A named piece of the flat weight vector.

    Attributes
    ----------
    name : str
        That of the module's parameter.
    start, stop : int
        Where it lies in the flat vector.
    shape : tuple of int
        That of the module's parameter, (out, in) for a dense layer.
    fan_in : int
        Inputs of one unit of the layer.
    kind : {"weight", "bias"}
    layer : int
        Layers with weights are counted from 0 in the order of evaluation.
    """

    name: str
    start: int
    stop: int
    shape: tuple[int, ...]
    fan_in: int
    kind: Literal["weight", "bias"]
    layer: int

    @property
    def slice(self) -> slice:
        return slice(self.start, self.stop)

    @property
    def size(self) -> int:
        return self.stop - self.start


Layer = Callable[[Sequence[Tensor], Tensor], Tensor]
"""``layer(parameters, h)``: ``parameters[i]`` is block i of every draw, (S, size)."""


@dataclass(frozen=True)
class Dense:
    """torch.nn.Linear; ``weight`` and ``bias`` count blocks."""

    weight: int
    bias: int | None
    n_inputs: int
    n_outputs: int
    multiplier: float

    def __call__(self, parameters: Sequence[Tensor], h: Tensor) -> Tensor:
        weight = self.multiplier * parameters[self.weight]
        weight = weight.unflatten(1, (self.n_outputs, self.n_inputs))
        bias = None if self.bias is None else parameters[self.bias].unsqueeze(-1)
        if len(h) > 1:
            return torch.bmm(weight, h) if bias is None else torch.baddbmm(bias, weight, h)
        rows = weight.flatten(0, 1)
        out = rows @ h[0] if bias is None else torch.addmm(bias.flatten(0, 1), rows, h[0])
        return out.unflatten(0, (len(weight), self.n_outputs))


@dataclass(frozen=True)
class Convolution:
    """torch.nn.Conv2d with zero padding."""

    weight: int
    bias: int | None
    shape: tuple[int, ...]
    multiplier: float
    stride: tuple[int, ...]
    padding: str | tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def __call__(self, parameters: Sequence[Tensor], h: Tensor) -> Tensor:
        weight = self.multiplier * parameters[self.weight].unflatten(1, self.shape)
        bias = None if self.bias is None else parameters[self.bias].flatten()
        draws, groups = len(weight), self.groups
        if h.shape[1] > 1 or groups > 1:
            h = h.expand(-1, draws, -1, -1, -1)
            groups *= draws
        out = functional.conv2d(
            h.flatten(1, 2), weight.flatten(0, 1), bias, self.stride, self.padding, self.dilation,
            groups,
        )  # fmt: skip
        return out.unflatten(1, (draws, self.shape[0]))


@dataclass(frozen=True)
class Elementwise:
    """An activation; ``name`` as in `ACTIVATIONS`, or that of the function."""

    function: Callable[[Tensor], Tensor]
    name: str

    def __call__(self, parameters: Sequence[Tensor], h: Tensor) -> Tensor:
        return self.function(h)


@dataclass(frozen=True)
class Rowwise:
    """A function of each row alone, such as pooling or a normalisation."""

    function: Callable[[Tensor], Tensor]

    def __call__(self, parameters: Sequence[Tensor], h: Tensor) -> Tensor:
        rows = h.mT if h.ndim == 3 else h
        out = self.function(rows.flatten(0, 1)).unflatten(0, rows.shape[:2])
        return out.mT if out.ndim == 3 else out


@dataclass(frozen=True)
class ToVector:
    """torch.nn.Flatten."""

    def __call__(self, parameters: Sequence[Tensor], h: Tensor) -> Tensor:
        return h if h.ndim == 3 else h.permute(1, 2, 3, 4, 0).flatten(1, 3)


@dataclass(frozen=True)
class ToImage:
    """torch.nn.Unflatten of the features into (C, H, W)."""

    shape: tuple[int, ...]

    @property
    def n_inputs(self) -> int:
        return prod(self.shape)

    def __call__(self, parameters: Sequence[Tensor], h: Tensor) -> Tensor:
        return h.unflatten(1, self.shape).permute(4, 0, 1, 2, 3)


@dataclass(frozen=True)
class Add:
    """A skip connection."""

    def __call__(self, parameters: Sequence[Tensor], h: Tensor, other: Tensor) -> Tensor:
        return h + other

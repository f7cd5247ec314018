"""From a `torch.nn.Module` to layers that evaluate many weight draws at once.

The module's forward pass is traced once with `torch.fx`; every step of it becomes a layer of
`layers.py`, or the reason why it cannot.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from .activations import ACTIVATIONS, Activation
from .layers import Add, Block, Convolution, Dense, Elementwise, Rowwise, ToImage, ToVector

Operation = Dense | Convolution | Elementwise | Rowwise | ToVector | ToImage | Add


@dataclass(frozen=True)
class Step:
    """One operation, the values it reads (0 is the input) and where it stands in the module."""

    operation: Operation
    reads: tuple[int, ...]
    where: str


@dataclass(frozen=True)
class Program:
    """Steps in the order of evaluation (step i writes value i + 1) and the weights they use."""

    steps: tuple[Step, ...]
    blocks: tuple[Block, ...]
    output: int


def trace(module: nn.Module, fan_in_scaling: bool) -> Program:
    """Translate a module.

    Raises
    ------
    ValueError
        If a step of the forward pass is not supported; the message names it and the cure.
    """
    try:
        graph = _Tracer().trace(module)
    except Exception as error:  # torch.fx raises what the module's own forward pass raises
        raise ValueError(
            "The forward pass of 'module' cannot be traced, for it depends on values or shapes "
            f"({error}). Write it as a plain sequence of layers, with nn.Flatten() for reshapes."
        ) from error
    return _Translator(module, fan_in_scaling).translate(graph)


_MODULES: dict[type[nn.Module], str] = {
    nn.Tanh: "tanh",
    nn.ReLU: "relu",
    nn.SiLU: "swish",
    nn.Identity: "linear",
    nn.Softplus: "softplus",
    nn.GELU: "gelu",
    nn.ELU: "elu",
    nn.LeakyReLU: "leaky_relu",
    nn.Sigmoid: "sigmoid",
}
_FUNCTIONS: dict[Any, str] = {
    torch.tanh: "tanh",
    functional.tanh: "tanh",
    torch.relu: "relu",
    functional.relu: "relu",
    functional.silu: "swish",
    functional.softplus: "softplus",
    torch.erf: "erf",
    torch.cos: "cos",
    torch.sin: "sin",
    functional.gelu: "gelu",
    functional.elu: "elu",
    functional.leaky_relu: "leaky_relu",
    torch.sigmoid: "sigmoid",
    functional.sigmoid: "sigmoid",
}
_METHODS = {"tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid}
_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_POOL_FUNCTIONS = (
    functional.max_pool2d, functional.avg_pool2d, functional.adaptive_avg_pool2d,
)  # fmt: skip
_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.InstanceNorm2d)
_SUPPORTED = (
    "Linear, Conv2d, pooling, normalisation without affine, Flatten, Unflatten, activations and +"
)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Activation) or super().is_leaf_module(m, module_qualified_name)


class _Translator:
    def __init__(self, module: nn.Module, fan_in_scaling: bool) -> None:
        self.module, self.fan_in_scaling = module, fan_in_scaling
        self.steps: list[Step] = []
        self.blocks: list[Block] = []
        self.layers: dict[str, Dense | Convolution] = {}  # a module used twice shares its weights

    def translate(self, graph: fx.Graph) -> Program:
        values: dict[fx.Node, int] = {}
        for node in graph.nodes:
            if node.op == "placeholder":
                if values:
                    raise ValueError(
                        "The 'module' parameter must be a module of one input; "
                        f"got a second one, {node.target!r}. Concatenate them into one X."
                    )
                values[node] = 0
            elif node.op == "output":
                (result,) = node.args
                if not isinstance(result, fx.Node):
                    raise ValueError("The 'module' parameter must return one tensor.")
                return self._checked(values[result])
            else:
                operation = self._operation(node)
                reads = tuple(values[a] for a in node.args if isinstance(a, fx.Node))
                self.steps.append(Step(operation, reads, f"{node.op} {node.target}"))
                values[node] = len(self.steps)
        raise AssertionError("a traced graph ends with its output")

    def _operation(self, node: fx.Node) -> Operation:
        if node.op == "call_module":
            name = str(node.target)
            return self._of_module(name, self.module.get_submodule(name))
        rest = (*node.args[1:], *node.kwargs.values())
        if node.op == "call_function" and node.target in (operator.add, torch.add):
            if len(rest) == 1 and isinstance(rest[0], fx.Node):
                return Add()
        elif not any(isinstance(a, fx.Node) for a in rest):
            kwargs = {k: v for k, v in node.kwargs.items() if k != "inplace"}
            function: Any = node.target
            if node.op == "call_method":
                function = _METHODS.get(str(node.target), node.target)
            if function in _FUNCTIONS:
                name = _FUNCTIONS[function]
                if len(node.args) == 1 and not kwargs:
                    return Elementwise(ACTIVATIONS.get(name, function), name)
                bound = partial(_with_rest, function, node.args[1:], kwargs)
                return Elementwise(bound, f"{name} with options")
            if function in _POOL_FUNCTIONS:
                return Rowwise(partial(_with_rest, function, node.args[1:], kwargs))
            if function in (torch.flatten, "flatten"):
                _check_flatten(*_flattened(node.args[1:], kwargs))
                return ToVector()
        raise ValueError(
            f"The step {node.target!r} of 'module' is not supported; use {_SUPPORTED}."
        )

    def _of_module(self, name: str, module: nn.Module) -> Operation:
        if isinstance(module, nn.Linear | nn.Conv2d):
            if name not in self.layers:
                self.layers[name] = self._weighted(name, module)
            return self.layers[name]
        if isinstance(module, Activation):
            return Elementwise(ACTIVATIONS[module.name], module.name)
        if type(module) in _MODULES:
            kind = _MODULES[type(module)]
            if repr(module) == repr(type(module)()) and kind in ACTIVATIONS:
                return Elementwise(ACTIVATIONS[kind], kind)
            return Elementwise(_out_of_place(module), repr(module))
        if isinstance(module, _POOLS):
            return Rowwise(module)
        if isinstance(module, _NORMS):
            if any(True for _ in module.parameters()) or getattr(
                module, "track_running_stats", False
            ):
                raise ValueError(
                    f"The layer {name!r} ({module}) has an affine part or running statistics; "
                    "give it affine=False (elementwise_affine=False for LayerNorm)."
                )
            return Rowwise(module)
        if isinstance(module, nn.Flatten):
            _check_flatten(module.start_dim, module.end_dim)
            return ToVector()
        if isinstance(module, nn.Unflatten):
            if module.dim != 1 or len(tuple(module.unflattened_size)) != 3:
                raise ValueError(
                    f"The layer {name!r} must unflatten dimension 1 into (C, H, W); got {module}."
                )
            return ToImage(tuple(int(n) for n in module.unflattened_size))
        raise ValueError(
            f"The layer {name!r} ({type(module).__name__}) of 'module' is not supported: "
            f"{_cure(module)}."
        )

    def _weighted(self, name: str, module: nn.Linear | nn.Conv2d) -> Dense | Convolution:
        if isinstance(module, nn.Conv2d) and module.padding_mode != "zeros":
            raise ValueError(
                f"The layer {name!r} must have padding_mode='zeros'; got {module.padding_mode!r}."
            )
        if not all(p.requires_grad for p in module.parameters()):
            raise ValueError(
                f"The layer {name!r} has frozen parameters; apply frozen layers to X first, and "
                "make a Bayesian network of the rest."
            )
        fan_in, layer = prod(module.weight.shape[1:]), len(self.layers)
        self._add_block(name, "weight", module.weight, fan_in, layer)
        if module.bias is not None:
            self._add_block(name, "bias", module.bias, fan_in, layer)
        last = len(self.blocks) - 1
        weight, bias = (last, None) if module.bias is None else (last - 1, last)
        multiplier = fan_in**-0.5 if self.fan_in_scaling else 1.0
        if isinstance(module, nn.Linear):
            return Dense(weight, bias, module.in_features, module.out_features, multiplier)
        padding: Any = module.padding
        return Convolution(
            weight, bias, tuple(module.weight.shape), multiplier, module.stride, padding,
            module.dilation, module.groups,
        )  # fmt: skip

    def _add_block(
        self, name: str, kind: Literal["weight", "bias"], value: Tensor, fan_in: int, layer: int
    ) -> None:
        start = self.blocks[-1].stop if self.blocks else 0
        full = f"{name}.{kind}" if name else kind
        stop = start + value.numel()
        self.blocks.append(Block(full, start, stop, tuple(value.shape), fan_in, kind, layer))

    def _checked(self, output: int) -> Program:
        weighted = [s for s in self.steps if isinstance(s.operation, Dense | Convolution)]
        if not weighted or not isinstance(weighted[-1].operation, Dense):
            raise ValueError("The 'module' parameter must end with a Linear layer.")
        used = {b.name for b in self.blocks}
        idle = [n for n, _ in self.module.named_parameters() if n not in used]
        if idle:
            raise ValueError(
                f"The parameters {idle} of 'module' belong to no supported layer; use {_SUPPORTED}."
            )
        return Program(tuple(self.steps), tuple(self.blocks), output)


def _with_rest(
    function: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any], h: Tensor
) -> Tensor:
    return function(h, *args, **kwargs)


def _flattened(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    given = dict(zip(("start_dim", "end_dim"), args, strict=False)) | kwargs
    return given.get("start_dim", 0), given.get("end_dim", -1)


def _check_flatten(start: Any, end: Any) -> None:
    if (start, end) != (1, -1):
        raise ValueError(
            f"Flatten must keep the rows and join all else (start_dim=1); got {start} to {end}."
        )


def _out_of_place(module: nn.Module) -> nn.Module:
    if hasattr(module, "inplace"):
        module = copy.copy(module)
        vars(module)["inplace"] = False
    return module


def _cure(module: nn.Module) -> str:
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return "remove it, for the weights carry the uncertainty"
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return (
            "a row's output would depend on other rows; use LayerNorm(..., "
            "elementwise_affine=False) or GroupNorm(..., affine=False)"
        )
    return f"use {_SUPPORTED}"

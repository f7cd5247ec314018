r"""Activations: elementwise functions psi with the two derivatives that gates need.

`ACTIVATIONS` holds the named ones. Any other elementwise torch function may be used: its
derivatives come from ``torch.func``, and it is examined once on [-10, 10].

A function is *homogeneous* of degree p if :math:`\psi(cz) = c^p \psi(z)` for c > 0, which by Euler
is :math:`z\,\psi'(z) = p\,\psi(z)`: the identity and ReLU, of degree 1. A gate of a homogeneous
activation cannot tell the size of its slopes from its temperature.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Elementwise = Callable[[Tensor], Tensor]

REACH, N_POINTS = 10.0, 20_001
"""A function is examined at so many points of [-REACH, REACH], 0 among them."""

STEPS = 1e-3
"""Error of the integrated derivative, relative to the function's range, up to which it counts as
differentiable. The named ones leave at most 5e-5 and kinks 5e-4; a jump leaves its size."""

EULER = 1e-9
"""Relative departure from Euler's identity up to which a function counts as homogeneous."""


@dataclass(frozen=True)
class Activation:
    """An elementwise function and its derivatives.

    Parameters
    ----------
    value, first, second : callable
        psi, psi' and psi'' of a tensor, elementwise. Module-level functions can be pickled.
    degree : float or None
        p if psi is homogeneous of degree p.
    """

    value: Elementwise
    first: Elementwise
    second: Elementwise
    degree: float | None = None


@dataclass(frozen=True)
class Derivative:
    """The derivative of an elementwise function, by automatic differentiation."""

    function: Elementwise

    def __call__(self, z: Tensor) -> Tensor:
        return torch.func.grad(lambda t: self.function(t).sum())(z)


def activation_of(activation: str | Elementwise | Activation) -> Activation:
    """The activation of a name, an elementwise function or one with its own derivatives.

    Raises
    ------
    ValueError
        If a name is unknown, or a function is not elementwise, not finite or not differentiable
        on [-10, 10].
    """
    if isinstance(activation, str) and activation in ACTIVATIONS:
        return ACTIVATIONS[activation]
    if not callable(activation) and not isinstance(activation, Activation):
        names = ", ".join(repr(name) for name in ACTIVATIONS)
        raise ValueError(
            f"The 'activation' parameter must be one of {{{names}}} or a function; got "
            f"{activation!r}."
        )
    if not isinstance(activation, Hashable):
        raise _refusal("be hashable", activation, "a function that is not")
    return _examined(activation)


@functools.lru_cache(maxsize=64)
def _examined(function: Elementwise | Activation) -> Activation:
    """An activation that keeps the rules, its degree found."""
    if isinstance(function, Activation):
        psi = function
    else:
        psi = Activation(function, Derivative(function), Derivative(Derivative(function)))
    z = torch.linspace(-REACH, REACH, N_POINTS, dtype=torch.float64)
    z[N_POINTS // 2] = 0.0
    value = _called(function, "take and return a tensor", psi.value, z)
    part = _called(function, "take tensors of any size", psi.value, z[::7])
    if not torch.allclose(part, value[::7], rtol=1e-9, atol=1e-12):
        raise _refusal("be elementwise", function, "values that depend on others or on chance")
    differentiable = "be twice differentiable by torch"
    first = _called(function, differentiable, psi.first, z)
    _called(function, differentiable, psi.second, z)
    extent = float(value.max() - value.min())
    if extent == 0:
        raise _refusal("vary", function, f"the constant {float(value[0])!r}")
    risen = torch.cumulative_trapezoid(first, z)
    gap = float((value[1:] - value[0] - risen).abs().max())
    if gap > STEPS * extent:
        raise _refusal(
            "be differentiable",
            function,
            f"values that differ from the integral of its derivative by {gap:.2g}",
        )
    return replace(psi, degree=_degree(z, value, first))


def _called(function: Any, rule: str, part: Elementwise, z: Tensor) -> Tensor:
    """The values of a part of an activation, a finite tensor of z's shape and dtype."""
    try:
        found = part(z)
    except Exception as error:  # whatever a user's function raises
        raise _refusal(rule, function, f"{type(error).__name__}: {error}") from error
    if not isinstance(found, Tensor) or found.shape != z.shape or found.dtype != z.dtype:
        is_tensor = isinstance(found, Tensor)
        got = f"{found.dtype} of shape {tuple(found.shape)}" if is_tensor else repr(found)
        rule = f"return {z.dtype} of shape {tuple(z.shape)} for such an input"
        raise _refusal(rule, function, got)
    bad = torch.nonzero(~torch.isfinite(found)).ravel()
    if len(bad):
        at = float(z[bad[0]])
        rule = f"be finite on [{-REACH:g}, {REACH:g}], and its two derivatives"
        raise _refusal(rule, function, f"{float(found[bad[0]])} at {at:g}")
    return found


def _refusal(rule: str, function: Any, got: str) -> ValueError:
    return ValueError(f"The 'activation' parameter must {rule}; got {got} from {function!r}.")


def _degree(z: Tensor, value: Tensor, first: Tensor) -> float | None:
    """Euler's p, or None."""
    radial = z * first
    p = float(radial @ value / (value @ value))
    return p if float((radial - p * value).norm()) <= EULER * float(radial.norm()) else None


def _sigmoid_first(z: Tensor) -> Tensor:
    return torch.sigmoid(z) * torch.sigmoid(-z)


def _sigmoid_second(z: Tensor) -> Tensor:
    return -_sigmoid_first(z) * torch.tanh(0.5 * z)


def _tanh_first(z: Tensor) -> Tensor:
    return 1 - torch.tanh(z).square()


def _tanh_second(z: Tensor) -> Tensor:
    return -2 * torch.tanh(z) * _tanh_first(z)


def _normal_density(z: Tensor) -> Tensor:
    return torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)


def _gelu_first(z: Tensor) -> Tensor:
    return torch.special.ndtr(z) + z * _normal_density(z)


def _gelu_second(z: Tensor) -> Tensor:
    return (2 - z.square()) * _normal_density(z)


def _silu_first(z: Tensor) -> Tensor:
    return torch.sigmoid(z) * (1 + z * torch.sigmoid(-z))


def _silu_second(z: Tensor) -> Tensor:
    return _sigmoid_first(z) * (2 - z * torch.tanh(0.5 * z))


def _softplus(z: Tensor) -> Tensor:
    return -functional.logsigmoid(-z)  # functional.softplus has a jump of 2e-9 at 20


def _minus_sin(z: Tensor) -> Tensor:
    return -torch.sin(z)


def _relu_first(z: Tensor) -> Tensor:
    return (z > 0).to(z.dtype)


def _identity(z: Tensor) -> Tensor:
    return z


ACTIVATIONS: dict[str, Activation] = {
    "sigmoid": Activation(torch.sigmoid, _sigmoid_first, _sigmoid_second),
    "tanh": Activation(torch.tanh, _tanh_first, _tanh_second),
    "gelu": Activation(functional.gelu, _gelu_first, _gelu_second),
    "silu": Activation(functional.silu, _silu_first, _silu_second),
    "softplus": Activation(_softplus, torch.sigmoid, _sigmoid_first),
    "sin": Activation(torch.sin, torch.cos, _minus_sin),
    "relu": Activation(torch.relu, _relu_first, torch.zeros_like, degree=1.0),
    "identity": Activation(_identity, torch.ones_like, torch.zeros_like, degree=1.0),
}
"""Activations by name; GELU is the exact one, z times the normal distribution function."""

"""Activations with their derivatives, in the precision that mpmath is set to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mpmath import mp

Function = Callable[[Any], Any]


def _sigmoid(z: Any) -> Any:
    return 1 / (1 + mp.exp(-z))


ACTIVATIONS: dict[str, tuple[Function, Function, Function]] = {
    "sigmoid": (
        _sigmoid,
        lambda z: _sigmoid(z) * _sigmoid(-z),
        lambda z: -_sigmoid(z) * _sigmoid(-z) * mp.tanh(z / 2),
    ),
    "tanh": (mp.tanh, lambda z: mp.sech(z) ** 2, lambda z: -2 * mp.tanh(z) * mp.sech(z) ** 2),
    "gelu": (
        lambda z: z * mp.ncdf(z),
        lambda z: mp.ncdf(z) + z * mp.npdf(z),
        lambda z: (2 - z**2) * mp.npdf(z),
    ),
    "silu": (
        lambda z: z * _sigmoid(z),
        lambda z: _sigmoid(z) * (1 + z * _sigmoid(-z)),
        lambda z: _sigmoid(z) * _sigmoid(-z) * (2 - z * mp.tanh(z / 2)),
    ),
    "softplus": (
        lambda z: mp.log1p(mp.exp(z)),
        _sigmoid,
        lambda z: _sigmoid(z) * _sigmoid(-z),
    ),
    "sin": (mp.sin, mp.cos, lambda z: -mp.sin(z)),
    "relu": (lambda z: max(z, mp.zero), lambda z: mp.mpf(z > 0), lambda z: mp.zero),
    "leaky_relu": (
        lambda z: z if z > 0 else z / 100,
        lambda z: mp.one if z > 0 else mp.one / 100,
        lambda z: mp.zero,
    ),
    "abs": (abs, mp.sign, lambda z: mp.zero),
    "identity": (lambda z: z, lambda z: mp.one, lambda z: mp.zero),
    "square": (lambda z: z**2, lambda z: 2 * z, lambda z: mp.mpf(2)),
    "cube": (lambda z: z**3, lambda z: 3 * z**2, lambda z: 6 * z),
}
"""psi, psi' and psi'' by name, as mpmath functions; leaky ReLU has slope 1/100 below 0."""

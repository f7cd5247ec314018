r"""Nodes in (x, y) for integrals of smooth functions against the true density.

Over x: Gauss-Legendre on pieces, split where the true selection or leader changes and halved until
the gate's Legendre coefficients have died out on each; a product rule for more features. Over y, at
each x: Gauss-Legendre between cuts at mean +- {1, 3.2, 8} scales of every true component.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from moe_stats import Design, GaussianMoE

from ..distances import places, rows

Array = NDArray[np.float64]

_TAIL = 1e-8
"""Last Legendre coefficients of a gate probability up to which a piece counts as resolved."""

_MAX_PIECES = 256


@dataclass(frozen=True, eq=False)
class Grid:
    """Nodes with the true mixture at each of them.

    Attributes
    ----------
    x : ndarray
        (M, D).
    weight : ndarray
        (M,), of x.
    root : ndarray
        (M, L), the root of weight times true density / 2.
    gate : ndarray
        (J, M), true gate probabilities.
    log_responsibilities : ndarray
        (J, M, L), -inf where an expert is not selected.
    residual : ndarray
        (J, M, L), y minus each true mean.
    """

    x: Array
    weight: Array
    root: Array
    gate: Array
    log_responsibilities: Array
    residual: Array


def grid(
    truth: GaussianMoE,
    design: Design,
    *,
    x_nodes: int,
    y_nodes: int,
    breaks: Sequence[float] = (),
) -> Grid:
    """Nodes for a truth and a design.

    Parameters
    ----------
    truth : GaussianMoE
    design : Design
        With D > 1 features of independent coordinates.
    x_nodes, y_nodes : int
        Nodes on each piece.
    breaks : sequence of float
        Further places to split at, for one feature.

    Raises
    ------
    ValueError
        If the gate is not resolved by 256 pieces.
    """
    if truth.n_features == 1:
        X, weight = _line(truth, design, x_nodes, breaks)
    else:
        X, weight = _product(design, x_nodes)
    mixtures = rows(truth, X)
    cuts = mixtures.cuts().sort(-1).values.numpy()
    unit, unit_weight = np.polynomial.legendre.leggauss(y_nodes)
    half = np.diff(cuts)[..., None] / 2
    y = (cuts[:, :-1, None] + half * (1 + unit)).reshape(len(cuts), -1)
    y_weight = (half * unit_weight).reshape(len(cuts), -1)
    scale = mixtures.scale.numpy().T[..., None]  # (J, M, 1)
    residual = y - mixtures.mean.numpy().T[..., None]
    log_gate = mixtures.log_weight.numpy().T[..., None]
    log_joint = log_gate - 0.5 * (residual / scale) ** 2 - np.log(scale * np.sqrt(2 * np.pi))
    log_density = np.logaddexp.reduce(log_joint, axis=0)
    w = weight.numpy()
    return Grid(
        x=X.numpy(),
        weight=w,
        root=np.sqrt(0.5 * w[:, None] * y_weight) * np.exp(0.5 * log_density),
        gate=np.exp(log_gate[..., 0]),
        log_responsibilities=log_joint - log_density,
        residual=residual,
    )


def _line(
    truth: GaussianMoE, design: Design, n_nodes: int, breaks: Sequence[float]
) -> tuple[Any, Any]:
    """Nodes (M, 1) and weights (M,) on pieces that resolve the gate."""
    unit, weight = np.polynomial.legendre.leggauss(n_nodes)
    tail = np.polynomial.legendre.legvander(unit, n_nodes - 1)[:, -2:]
    tail = weight[:, None] * tail * (2 * np.arange(n_nodes - 2, n_nodes) + 1) / 2
    split = sorted({*places([truth], design)[0], *breaks})
    while True:
        X, w = design.quadrature(n_nodes, split)
        if len(w) > _MAX_PIECES * n_nodes:
            raise ValueError(
                f"The truth's gate varies too fast for quadrature over x in {_MAX_PIECES} pieces; "
                "take a narrower design."
            )
        gate = truth.gate.probs(X).numpy().reshape(-1, n_nodes, truth.n_experts)
        rough = np.abs(np.einsum("pnj,nt->pjt", gate, tail)).max((1, 2)) > _TAIL
        if not rough.any():
            return X, w
        nodes = X.numpy().reshape(-1, n_nodes)
        centre = (nodes[:, 0] + nodes[:, -1]) / 2
        split = sorted({*split, *centre[rough].tolist()})


def _product(design: Design, n_nodes: int) -> tuple[Any, Any]:
    n_axis = math.ceil(2 * n_nodes / 3)  # a piece of a line has more to resolve
    axis, weight = dataclasses.replace(design, n_features=1).quadrature(n_axis)  # type: ignore[type-var]
    D = design.n_features
    X = torch.cartesian_prod(*[axis[:, 0]] * D)
    return X, torch.cartesian_prod(*[weight] * D).prod(-1)

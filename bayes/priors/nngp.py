r"""Covariance of a network's functions under independent centred weights.

With :math:`q_l` the covariance of a unit's input in layer l over pairs of rows x, x',

.. math::
    q_1 = \alpha_1^2 \sum_d \sigma_{w,d}^2 x_d x_d' + \sigma_{b}^2, \qquad
    q_{l+1} = \alpha_{l+1}^2 H_l \sigma_{w}^2\, \mathbb E_{(u, v) \sim N(0, q_l)} \phi(u) \phi(v)
    + \sigma_b^2,

H the number of units and :math:`\alpha = 1/\sqrt{\text{fan-in}}` or 1. With one hidden layer this
is the covariance of the network *exactly*, at any width; with more it is its limit as all widths
grow (NNGP). The expectation is closed for erf, relu, cos, sin, rbf and linear. For other
activations it is Mehler's series

.. math:: \mathbb E \phi(u) \phi(v) = \sum_k c_k(s) c_k(s') \rho^k, \qquad
    c_k(s) = \mathbb E\, \phi(s z)\, \mathrm{He}_k(z) / \sqrt{k!},

with s, s' the standard deviations, rho the correlation and the coefficients by Gauss-Hermite
quadrature.

References
----------
Williams (1997), Computing with infinite networks, NIPS. Cho and Saul (2009), Kernel methods for
deep learning, NIPS. Lee et al. (2018), Deep neural networks as Gaussian processes, ICLR.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from ..networks import BayesianNetwork
from ..networks.layers import Dense, Elementwise

N_TERMS = 64
"""Terms of Mehler's series: for tanh at a correlation of .99 it errs by 2e-6 if s = 2, by 3e-4 if
s = 4 and by 2e-3 if s = 8."""

TINY = 1e-30
"""Least variance of a unit: at x = 0 without a bias it is zero, and has no correlation."""

N_NODES = 256
"""Gauss-Hermite nodes for its coefficients."""


def network_covariance(net: BayesianNetwork, scales: Tensor, X: Tensor) -> Tensor:
    """Covariance of one output at the rows of X, differentiable in the scales.

    Parameters
    ----------
    net : BayesianNetwork
        Dense layers with one activation between two of them.
    scales : Tensor
        (S, P) standard deviations of independent centred weights, equal for all units of a layer;
        those of the first layer may differ between inputs.
    X : Tensor
        (N, D).

    Returns
    -------
    Tensor
        (S, N, N): exact for one hidden layer, the infinite-width limit for more.

    Raises
    ------
    ValueError
        If the network is not such a stack, or scales differ between units.

    Examples
    --------
    >>> from bayes.networks import MLP
    >>> net = MLP(1, [50], 1, activation="relu")
    >>> one = torch.ones(1, net.n_weights).double()
    >>> network_covariance(net, one, torch.zeros(1, 1).double())  # the bias of 1/2, and 1
    tensor([[[1.5000]]], dtype=torch.float64)
    """
    X = X.to(scales)
    q: Tensor | None = None
    for dense, activation in net.dense_stack():
        weight = scales[:, net.blocks[dense.weight].slice].unflatten(
            1, (dense.n_outputs, dense.n_inputs)
        )
        if q is None:
            variance = _common(weight, net, dense).square()  # (S, D)
            scaled = X * variance.sqrt().unsqueeze(1)
            q = dense.multiplier**2 * scaled @ scaled.mT
        else:
            variance = _common(weight.flatten(1), net, dense).square()[:, None, None]
            q = dense.multiplier**2 * dense.n_inputs * variance * q
        if dense.bias is not None:
            bias = scales[:, net.blocks[dense.bias].slice]
            q = q + _common(bias, net, dense).square()[:, None, None]
        if activation is not None:
            q = activation_covariance(activation, q)
    assert q is not None
    return q


def activation_covariance(activation: Elementwise, q: Tensor) -> Tensor:
    """E phi(u) phi(v) (..., N, N) for (u, v) jointly normal, centred, with covariance q."""
    closed = CLOSED.get(activation.name)
    return mehler(activation.function, q) if closed is None else closed(q)


def mehler(function: Callable[[Tensor], Tensor], q: Tensor, n_terms: int = N_TERMS) -> Tensor:
    """E phi(u) phi(v) by Mehler's series; its diagonal by quadrature alone."""
    nodes, weights, hermite = (t.to(q) for t in _hermite(n_terms))
    s = q.diagonal(dim1=-2, dim2=-1).clamp_min(TINY).sqrt()
    values = function(s.unsqueeze(-1) * nodes)  # (..., N, Q)
    coefficients = values @ (weights * hermite).mT  # (..., N, K)
    rho = q / (s.unsqueeze(-1) * s.unsqueeze(-2))
    total = torch.zeros_like(q)
    for k in reversed(range(n_terms)):  # Horner
        c = coefficients[..., k]
        total = total * rho + c.unsqueeze(-1) * c.unsqueeze(-2)
    exact = values.square() @ weights
    return total + torch.diag_embed(exact - total.diagonal(dim1=-2, dim2=-1))


def _erf(q: Tensor) -> Tensor:
    d = 1 + 2 * q.diagonal(dim1=-2, dim2=-1)
    return 2 / math.pi * torch.asin(2 * q / (d.unsqueeze(-1) * d.unsqueeze(-2)).sqrt())


def _relu(q: Tensor) -> Tensor:
    s = q.diagonal(dim1=-2, dim2=-1).clamp_min(TINY).sqrt()
    product = s.unsqueeze(-1) * s.unsqueeze(-2)
    edge = 1 - 4 * torch.finfo(q.dtype).eps  # acos has no derivative at 1
    cosine = (q / product).clamp(-edge, edge)
    angle = torch.acos(cosine)
    sine = (1 - cosine.square()).sqrt()
    return product * (sine + (math.pi - angle) * cosine) / (2 * math.pi)


def _cos(q: Tensor) -> Tensor:
    plus, minus = _squares(q)
    return 0.5 * (torch.exp(-0.5 * minus) + torch.exp(-0.5 * plus))


def _sin(q: Tensor) -> Tensor:
    plus, minus = _squares(q)
    return 0.5 * (torch.exp(-0.5 * minus) - torch.exp(-0.5 * plus))


def _squares(q: Tensor) -> tuple[Tensor, Tensor]:
    """Variances of u + v and u - v."""
    d = q.diagonal(dim1=-2, dim2=-1)
    both = d.unsqueeze(-1) + d.unsqueeze(-2)
    return both + 2 * q, both - 2 * q


def _rbf(q: Tensor) -> Tensor:
    d = 1 + 2 * q.diagonal(dim1=-2, dim2=-1)
    return (d.unsqueeze(-1) * d.unsqueeze(-2) - 4 * q.square()).rsqrt()


def _linear(q: Tensor) -> Tensor:
    return q


CLOSED: dict[str, Callable[[Tensor], Tensor]] = {
    "erf": _erf,
    "relu": _relu,
    "cos": _cos,
    "sin": _sin,
    "rbf": _rbf,
    "linear": _linear,
}
"""E phi(u) phi(v) in closed form, by the activation's name."""


@cache
def _hermite(n_terms: int) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes (Q,), weights (Q,) and orthonormal Hermite polynomials at the nodes (K, Q)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(N_NODES)
    polynomials = [np.ones_like(nodes), nodes]
    for k in range(2, n_terms):
        polynomials.append(
            (nodes * polynomials[-1] - math.sqrt(k - 1) * polynomials[-2]) / math.sqrt(k)
        )
    table = np.stack(polynomials[:n_terms])
    return (
        torch.from_numpy(nodes),
        torch.from_numpy(weights / weights.sum()),
        torch.from_numpy(table),
    )


def _common(scales: Tensor, net: BayesianNetwork, dense: Dense) -> Tensor:
    """The scale that all units, dimension 1, share; its gradient is shared as well."""
    fixed = scales.detach()
    if not bool((fixed == fixed[:, :1]).all()):
        raise ValueError(
            f"The weights {net.blocks[dense.weight].name!r} must have the same scale in all units "
            "for a covariance in closed form; use a method on samples, such as 'energy'."
        )
    return scales.mean(1)

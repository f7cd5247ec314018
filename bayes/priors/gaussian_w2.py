r"""Wasserstein-2 distance between Gaussian laws (Bures-Wasserstein).

.. math:: W_2^2\bigl(N(m_1, A), N(m_2, B)\bigr)
    = |m_1 - m_2|^2 + \mathrm{tr} A + \mathrm{tr} B - 2\, \mathrm{tr} (A^{1/2} B A^{1/2})^{1/2}.

References
----------
Gelbrich (1990), On a formula for the L2 Wasserstein metric, Mathematische Nachrichten 147.
"""

from __future__ import annotations

import torch
from torch import Tensor

FLOOR = 1e-12
"""Relative floor of eigenvalues whose root is taken: below it the gradient is set to zero."""


def gaussian_w2(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> Tensor:
    """Distance (...), in the unit of the variables; arguments as for `gaussian_w2_squared`.

    Examples
    --------
    >>> zero, one = torch.zeros(1).double(), torch.ones(1, 1).double()
    >>> float(gaussian_w2(zero, one, zero + 3, one))
    3.0
    """
    return gaussian_w2_squared(mean1, cov1, mean2, cov2).clamp_min(0).sqrt()


def gaussian_w2_squared(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> Tensor:
    """Squared distance (...), differentiable in the first law.

    Parameters
    ----------
    mean1, mean2 : Tensor
        (..., M).
    cov1, cov2 : Tensor
        (..., M, M) symmetric, positive semi-definite.
    """
    traces = (cov1 + cov2).diagonal(dim1=-2, dim2=-1).sum(-1)
    return (mean1 - mean2).square().sum(-1) + traces - 2 * fidelity(cov1, square_root(cov2))


def square_root(covariance: Tensor) -> Tensor:
    """Symmetric square root (..., M, M); the constant side of `fidelity`."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp_min(0).sqrt().unsqueeze(-2)) @ vectors.mT


def fidelity(cov1: Tensor, root2: Tensor) -> Tensor:
    r""":math:`\mathrm{tr} (B^{1/2} A B^{1/2})^{1/2}` for a covariance A and the root of B.

    Its gradient needs eigenvalues alone, hence no differences of them in a denominator.
    """
    values = torch.linalg.eigvalsh(root2 @ cov1 @ root2)
    floor = FLOOR * values[..., -1:].detach()
    return torch.where(values > floor, values, floor).sqrt().sum(-1)

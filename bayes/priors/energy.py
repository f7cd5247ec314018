r"""Energy distance between laws of function values.

.. math:: E(F, G) = 2\, \mathbb E |F - G| - \mathbb E |F - F'| - \mathbb E |G - G'| \ge 0,

zero only for equal laws, estimated without bias by a U-statistic (no pair of a draw with itself),
which may be negative. |.| is the Euclidean norm of the values at the M measured points.

References
----------
Szekely and Rizzo (2013), Energy statistics: a class of statistics based on distances, Journal of
Statistical Planning and Inference 143.
"""

from __future__ import annotations

import torch
from torch import Tensor


def energy_distance(f: Tensor, g: Tensor) -> Tensor:
    """Unbiased estimate of the energy distance, differentiable.

    Parameters
    ----------
    f, g : Tensor
        (n, M) and (m, M) draws of function values; n, m >= 2.

    Returns
    -------
    Tensor
        A scalar, in the unit of the values.

    Examples
    --------
    >>> f = torch.tensor([[0.0], [1.0]])
    >>> float(energy_distance(f, f + 10))  # 2 E|F - G| = 20, E|F - F'| = E|G - G'| = 1
    18.0
    """
    return 2 * distances(f, g).mean() - mean_within(f) - mean_within(g)


def mean_within(f: Tensor) -> Tensor:
    """Mean distance of two different draws."""
    n = len(f)
    return distances(f, f).sum() / (n * (n - 1))


def distances(f: Tensor, g: Tensor) -> Tensor:
    """Euclidean distances (n, m); those that are zero to rounding have no gradient."""
    centre = g.detach().mean(0)
    f, g = f - centre, g - centre
    sizes = f.square().sum(1)[:, None] + g.square().sum(1)
    square = torch.addmm(sizes, f, g.mT, alpha=-2)
    floor = 8 * torch.finfo(f.dtype).eps * sizes.detach()
    near = square <= floor
    return torch.where(near, 1.0, square).sqrt() * ~near

r"""Sliced Wasserstein-1 distance.

.. math:: SW_1(F, G) = \mathbb E_u\, W_1(u'F, u'G), \qquad u \text{ uniform on the unit sphere},

where :math:`W_1` of two samples of one size is the mean difference of their sorted values.

References
----------
Bonneel, Rabin, Peyre and Pfister (2015), Sliced and Radon Wasserstein barycenters of measures,
Journal of Mathematical Imaging and Vision 51.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .gaussian import standard_normal


def sliced_w1(f: Tensor, g: Tensor, n_projections: int = 200, random_state: Any = None) -> Tensor:
    """Estimate from random directions, differentiable.

    Parameters
    ----------
    f, g : Tensor
        (n, M) each: draws of function values.
    n_projections : int
    random_state : int, torch.Generator, numpy Generator or None
        Of the directions.

    Returns
    -------
    Tensor
        A scalar, in the unit of the values.

    Examples
    --------
    >>> import torch
    >>> f = torch.tensor([[0.0], [1.0]])
    >>> float(sliced_w1(f, f + 10, random_state=0))
    10.0
    """
    if f.shape != g.shape:
        raise ValueError(
            f"The 'f' and 'g' parameters must have the same shape; got {tuple(f.shape)} and "
            f"{tuple(g.shape)}."
        )
    u = standard_normal((f.shape[1], n_projections), f, random_state)
    u = u / u.norm(dim=0)
    return ((f @ u).sort(0).values - (g @ u).sort(0).values).abs().mean()

r"""Fourier features of coordinates, an octave apart.

.. math::
    \bigl(\cos(2\pi 2^d z),\ \sin(2\pi 2^d z)\bigr) / (d + 1), \qquad d = 0, \dots, D - 1

References
----------
Saad et al. (2024), Scalable spatiotemporal prediction with Bayesian neural fields.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def octave_fourier(z: Tensor, degree: int) -> Tensor:
    """Features (..., 2 * degree * C) of coordinates (..., C): cosines, then sines.

    Examples
    --------
    >>> octave_fourier(torch.tensor([[0.25]]), degree=2).round(decimals=6) + 0
    tensor([[ 0.0000, -0.5000,  1.0000,  0.0000]])
    """
    octave = torch.arange(degree, dtype=z.dtype, device=z.device)
    angle = (2 * math.pi * z[..., None] * 2**octave).flatten(-2)
    order = (octave + 1).repeat(z.shape[-1])
    return torch.cat([torch.cos(angle) / order, torch.sin(angle) / order], dim=-1)

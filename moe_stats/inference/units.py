r"""Complete-data units: coordinates in which information is a share of what could be known.

With C the complete-data information (that of data whose experts had been seen) the coordinates
z of theta = T z have T'CT = 1. An eigenvalue of T'AT, A the information of the data, is then the
share of the complete-data information that a direction retains: a number between 0 and 1 that
depends neither on units nor on the origin of features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

WEAK = 1e-12
"""Eigenvalue of the complete-data information, as a correlation matrix, that is rounding."""


@dataclass(frozen=True)
class Units:
    """Complete-data units of a batch of models.

    Attributes
    ----------
    to_params, from_params : Tensor
        (..., P, P), T and its inverse.
    weak : Tensor
        (..., P) coordinates without complete-data information, in units of their own.
    """

    to_params: Tensor
    from_params: Tensor
    weak: Tensor

    @classmethod
    def of(cls, information: Tensor) -> Units:
        """The units of a complete-data information (..., P, P)."""
        diagonal = information.diagonal(dim1=-2, dim2=-1)
        silent = diagonal <= 1e-24 * diagonal.amax(-1, keepdim=True)
        scale = torch.where(silent, 1.0, diagonal).sqrt()
        matrix = information / (scale.unsqueeze(-1) * scale.unsqueeze(-2))
        matrix = matrix.masked_fill(silent.unsqueeze(-1) | silent.unsqueeze(-2), 0.0)
        size, vectors = torch.linalg.eigh(matrix)
        weak = size <= WEAK
        root = torch.where(weak, 1.0, size).sqrt()
        return cls(
            vectors / scale.unsqueeze(-1) / root.unsqueeze(-2),
            root.unsqueeze(-1) * vectors.mT * scale.unsqueeze(-2),
            weak,
        )

    def share(self, information: Tensor) -> Tensor:
        """An information matrix (..., P, P) in these units; 0 where there is none to share."""
        share = self.to_params.mT @ information @ self.to_params
        return share.masked_fill(self.weak.unsqueeze(-1) | self.weak.unsqueeze(-2), 0.0)

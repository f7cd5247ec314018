r"""The encoder: groups of features of time, place and covariates, each with a learned scale.

.. math::
    \phi = \bigl(\operatorname{softplus}(s_k)\, \phi_k\bigr)_k, \qquad z = x\, e^{a}

with learned scales s of the groups and a of the inputs x. Groups: coordinates z, their octave
Fourier features, seasonal harmonics of time, products of pairs of coordinates, covariates.

References
----------
Saad et al. (2024), Scalable spatiotemporal prediction with Bayesian neural fields.
"""

from __future__ import annotations

import math
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .fourier import octave_fourier

ONE = math.log(math.e - 1)  # softplus of it is 1


class Encoder(nn.Module):
    """Features (M, B, F) of coordinates (M, B, C), harmonics (M, B, S) and covariates (M, B, P).

    Parameters
    ----------
    n_members, n_coords, n_season, n_covariates : int
    degree : int
        D of the Fourier features, 0 for none.
    interactions : bool
        Whether to add products of pairs of coordinates.
    """

    def __init__(
        self,
        n_members: int,
        n_coords: int,
        n_season: int,
        n_covariates: int,
        degree: int,
        interactions: bool,
    ) -> None:
        super().__init__()
        self.degree = degree
        self.pairs = list(combinations(range(n_coords), 2)) if interactions else []
        sizes = [n_coords, 2 * degree * n_coords, n_season, len(self.pairs), n_covariates]
        self.sizes = [size for size in sizes if size]
        self.n_features = sum(self.sizes)
        self.input_scale = nn.Parameter(torch.zeros(n_members, 1, n_coords))
        self.group_scale = nn.Parameter(torch.full((n_members, 1, len(self.sizes)), ONE))

    def forward(self, coords: Tensor, season: Tensor, covariates: Tensor) -> Tensor:
        z = coords * torch.exp(self.input_scale)
        products = [z[..., i] * z[..., j] for i, j in self.pairs]
        groups = [
            z,
            octave_fourier(z, self.degree) if self.degree else z[..., :0],
            season,
            torch.stack(products, -1) if products else z[..., :0],
            covariates,
        ]
        scale = functional.softplus(self.group_scale)
        kept = [group for group in groups if group.shape[-1]]
        return torch.cat([scale[..., k, None] * group for k, group in enumerate(kept)], -1)

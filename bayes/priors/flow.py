r"""A normalising flow over each layer's weights.

.. math:: w = \sigma \circ T_K(\cdots T_1(z)), \qquad z \sim N(0, I),

where a coupling T leaves half of its argument, :math:`z_a`, as it is and maps the other half to
:math:`z_b \circ e^{s(z_a)} + t(z_a)`. It is inverted by :math:`(z_b - t) \circ e^{-s}` whatever s
and t are, hence the density is exact:

.. math:: \log p(w) = \log N(z; 0, I) - \sum_k \sum s_k - \sum \log \sigma,

with gradients through every term.

References
----------
Dinh, Sohl-Dickstein and Bengio (2017), Density estimation using Real NVP, ICLR.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn

from .._validation import check_instance, check_size, torch_generator
from ..networks import BayesianNetwork
from .base import Prior
from .gaussian import GaussianPrior, standard_normal


class FlowPrior(Prior):
    """GPi-NF of the paper, with an invertible family.

    Parameters
    ----------
    net : BayesianNetwork or torch.nn.Module
    n_couplings : int
        K, of each layer; they leave even and odd entries as they are in turn.
    width : int
        Hidden units of s and t.
    base : GaussianPrior, optional
        The scales :math:`\\sigma` to start with, all 1 by default. As long as it is not trained a
        flow is this prior.
    random_state : int, torch.Generator, numpy Generator or None
        Of the starting weights of s and t.

    Examples
    --------
    >>> from bayes.networks import MLP
    >>> prior = FlowPrior(MLP(2, [5], 1))
    >>> weights = prior.sample(3, random_state=0)
    >>> base = GaussianPrior.per_layer(prior.net)
    >>> bool(torch.allclose(prior.log_prob(weights), base.log_prob(weights)))
    True
    """

    family = "flow"

    def __init__(
        self,
        net: BayesianNetwork | nn.Module,
        n_couplings: int = 4,
        width: int = 16,
        base: GaussianPrior | None = None,
        random_state: Any = 0,
    ) -> None:
        super().__init__(net)
        n_bytes = 8 * self.net.n_weights  # of a unit of s and t
        self.n_couplings = check_size("n_couplings", n_couplings, 1, n_bytes)
        self.width = check_size("width", width, 1, n_bytes * self.n_couplings)
        start = torch.zeros(self.net.n_weights).double()
        if base is not None:
            start = check_instance("base", base, GaussianPrior, "a GaussianPrior").scale.log()
            if len(start) != self.net.n_weights:
                raise ValueError(
                    f"The 'base' parameter must be over {self.net.n_weights} weights; "
                    f"got one over {len(start)}."
                )
        self.log_scale = nn.Parameter(start.detach().clone())
        generator = torch_generator(random_state)
        blocks = self.net.blocks
        self._sizes = [
            sum(b.size for b in blocks if b.layer == layer) for layer in range(blocks[-1].layer + 1)
        ]
        self.layers = nn.ModuleList(
            LayerFlow(size, n_couplings, width, generator) for size in self._sizes
        )

    @property
    def settings(self) -> dict[str, Any]:
        return {"n_couplings": self.n_couplings, "width": self.width}

    def rsample(
        self, n: int, random_state: Any = None, dtype: torch.dtype = torch.float64
    ) -> Tensor:
        z = standard_normal((n, self.net.n_weights), self.log_scale.to(dtype), random_state)
        parts = zip(self.layers, z.split(self._sizes, -1), strict=True)
        scaled = torch.cat([layer(part) for layer, part in parts], -1)
        return self.log_scale.to(dtype).exp() * scaled

    def gaussian_scale(self) -> Tensor:
        return self.log_scale.exp()

    def log_prob(self, weights: Tensor) -> Tensor:
        scaled = (self._weights(weights) / self.log_scale.exp()).split(self._sizes, -1)
        total = -self.log_scale.sum() - 0.5 * weights.shape[-1] * math.log(2 * math.pi)
        for layer, part in zip(cast("list[LayerFlow]", list(self.layers)), scaled, strict=True):
            z, log_stretch = layer.inverse(part)
            total = total - log_stretch - 0.5 * z.square().sum(-1)
        return total


class LayerFlow(nn.Sequential):
    """Couplings one after another."""

    def __init__(self, size: int, n_couplings: int, width: int, generator: torch.Generator) -> None:
        super().__init__(*(Coupling(size, k % 2, width, generator) for k in range(n_couplings)))

    def inverse(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """z, and the logarithm (...) of the determinant of the flow's derivative there."""
        total = w.new_zeros(w.shape[:-1])
        for coupling in reversed(cast("list[Coupling]", list(self))):
            w, log_stretch = coupling.inverse(w)
            total = total + log_stretch
        return w, total


class Coupling(nn.Module):
    """An affine coupling; the identity until it is trained.

    Parameters
    ----------
    size : int
        Length of its argument; one of length 1 has no other half, and is left as it is.
    parity : int
        Entries parity, parity + 2, ... are left as they are.
    width : int
    generator : torch.Generator
    """

    def __init__(self, size: int, parity: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.parity = parity
        kept = len(range(parity, size, 2))
        moved = size - kept
        entry = torch.randn(width, kept, generator=generator, dtype=torch.float64)
        self.entry = nn.Parameter(entry / max(kept, 1) ** 0.5)
        self.exit = nn.Parameter(torch.zeros(2 * moved, width, dtype=torch.float64))
        self.offset = nn.Parameter(torch.zeros(2 * moved, dtype=torch.float64))

    def forward(self, z: Tensor) -> Tensor:
        """T(z), (..., size)."""
        kept, moved = z[..., self.parity :: 2], z[..., 1 - self.parity :: 2]
        log_stretch, shift = self._conditioned(kept)
        return self._woven(kept, moved * log_stretch.exp() + shift)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """T^-1(z), and the logarithm (...) of the determinant of T's derivative there."""
        kept, moved = z[..., self.parity :: 2], z[..., 1 - self.parity :: 2]
        log_stretch, shift = self._conditioned(kept)
        return self._woven(kept, (moved - shift) * (-log_stretch).exp()), log_stretch.sum(-1)

    def _conditioned(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        """s, between -1 and 1, and t."""
        entry, exit_, offset = (p.to(kept) for p in (self.entry, self.exit, self.offset))
        raw = torch.tanh(kept @ entry.mT) @ exit_.mT + offset
        log_stretch, shift = raw.chunk(2, -1)
        return log_stretch.tanh(), shift

    def _woven(self, kept: Tensor, moved: Tensor) -> Tensor:
        even, odd = (kept, moved) if self.parity == 0 else (moved, kept)
        pairs = torch.stack([even[..., : odd.shape[-1]], odd], -1).flatten(-2)
        return torch.cat([pairs, even[..., odd.shape[-1] :]], -1)

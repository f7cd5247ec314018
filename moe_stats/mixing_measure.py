r"""The mixing measure of a mixture of experts: weighted atoms, one an expert.

.. math:: G = \sum_e \exp(\beta_{0e})\, \delta_{(\beta_{1e}, a_e, b_e, s_e)},

unnormalised, s the variance. Two models with the same density can have mixing measures that
differ by a translation of what `translates` names; losses take the infimum over it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class MixingMeasure:
    """Weighted atoms, one model or a batch.

    Attributes
    ----------
    log_weight : Tensor
        (..., E), the logarithm of each atom's mass.
    atoms : mapping of str to Tensor
        Each part of an atom by name, (..., E, dim).
    translates : tuple of str
        The names ("log_weight" or an atom's part) that may be shifted for all atoms at once
        without changing the density.

    Examples
    --------
    >>> from moe_stats import GaussianMoE, LinearExperts, SoftmaxGate
    >>> experts = LinearExperts([[1.0], [2.0]], [0.0, 0.0], [1.0, 0.5])
    >>> measure = GaussianMoE(SoftmaxGate([0.0, 0.0], [[1.0], [0.0]]), experts).mixing_measure()
    >>> list(measure.atoms), measure.atoms["variance"].squeeze().tolist()
    (['gate_slope', 'slope', 'intercept', 'variance'], [1.0, 0.25])
    """

    log_weight: Tensor
    atoms: Mapping[str, Tensor]
    translates: tuple[str, ...] = ()

    @property
    def n_atoms(self) -> int:
        return self.log_weight.shape[-1]

    @property
    def weight(self) -> Tensor:
        """(..., E), the mass of each atom."""
        return torch.exp(self.log_weight)

    def __getitem__(self, index: int | slice) -> MixingMeasure:
        """Part of a batch."""
        return MixingMeasure(
            self.log_weight[index], {k: v[index] for k, v in self.atoms.items()}, self.translates
        )

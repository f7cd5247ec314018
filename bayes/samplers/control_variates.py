r"""Gradients with a control variate.

.. math::
    g(q) = \nabla U(\hat q) + \nabla U_b(q) - \nabla U_b(\hat q)

for a batch b and an anchor :math:`\hat q`: unbiased as :math:`\nabla U_b` is, with a variance that
falls as the chain stays near the anchor (a mode, say).

References
----------
Baker, Fearnhead, Fox, Nemeth (2019), Control variates for stochastic gradient MCMC.
"""

from __future__ import annotations

from torch import Tensor

from .._validation import check_callable, check_instance
from .base import Potential


class ControlVariate:
    """A potential whose batch gradients are corrected by those at an anchor.

    Parameters
    ----------
    potential : Potential
        With a batch of None it must give the gradient on all data.
    anchor : Tensor
        (P,), near the mode.

    Examples
    --------
    >>> import torch
    >>> from bayes.samplers import ControlVariate
    >>> data = torch.tensor([[1.0], [3.0]])
    >>> def potential(q, batch):
    ...     centre = data.mean(0).expand_as(q) if batch is None else data[batch].mean(1)
    ...     return (q - centre).square().sum(1), 2 * (q - centre)
    >>> q, batch = torch.zeros(2, 1), torch.tensor([[0], [1]])
    >>> potential(q, batch)[1].flatten()
    tensor([-2., -6.])
    >>> ControlVariate(potential, torch.tensor([2.0]))(q, batch)[1].flatten()
    tensor([-4., -4.])
    """

    def __init__(self, potential: Potential, anchor: Tensor) -> None:
        check_callable("potential", potential, "potential(position, batch)")
        check_instance("anchor", anchor, Tensor, "a tensor (P,)")
        if anchor.ndim != 1:
            raise ValueError(
                f"The 'anchor' parameter must have shape (P,); got shape {tuple(anchor.shape)}."
            )
        self.potential = potential
        self.anchor = anchor
        self.value, self.gradient = potential(anchor[None], None)

    def __call__(self, position: Tensor, batch: Tensor | None) -> tuple[Tensor, Tensor]:
        value, gradient = self.potential(position, batch)
        if batch is None:
            return value, gradient
        there, slope = self.potential(self.anchor.expand_as(position), batch)
        return value - there + self.value, gradient - slope + self.gradient

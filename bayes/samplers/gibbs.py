r"""Gibbs steps for scales that are conjugate given the position.

Some parameters beside the position q are precisions with Gamma laws given q: that of a learned
noise, those of a hierarchical prior. They are held fixed while a sampler moves q, and drawn anew
every so many steps from

.. math:: \tau_g \mid q \sim \mathrm{Gamma}(a_g(q), b_g(q)),
    \qquad\text{at temperature } T:\quad \mathrm{Gamma}(a_g/T,\; b_g/T),

which is the conditional of :math:`e^{-U/T}` with U the potential in q and
:math:`s_g = -\tfrac12 \log\tau_g`, the logarithms of scales, under which draws of them are kept.
Both steps leave the joint law as it is, but for half a kick: the momentum of `BAOAB` and its like
is that of half a step before q, and belongs to the scales before. Where scales change much and
every step or two, as with a handful of data, that shows; blocks of steps keep Gibbs steps apart.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from .base import Number
from .interweaving import ScaledPotential
from .streams import ChainStreams


class ConjugatePotential(ScaledPotential, Protocol):
    """U and its gradient at C positions given G log scales, and the law of those given the rest."""

    def __call__(
        self,
        position: Tensor,  # (C, P)
        batch: Tensor | None,  # (C, B)
        log_scale: Tensor,  # (C, G)
    ) -> tuple[Tensor, Tensor]:  # (C,), (C, P)
        ...

    def conditional(
        self,
        position: Tensor,  # (C, P)
    ) -> tuple[Tensor, Tensor]:  # (C, G) each
        """Shape and rate of the precisions' Gamma laws, by all data."""
        ...


def draw_log_scale(
    potential: ConjugatePotential,
    position: Tensor,  # (C, P)
    temperature: Number,
    streams: ChainStreams,
) -> Tensor:  # (C, G)
    """Log scales drawn from their conditional; its mode in them at temperature 0.

    Examples
    --------
    A precision with a Gamma(3, 12) law, whose mode in log tau is at 3/12:

    >>> class Given:
    ...     def conditional(self, position):
    ...         return torch.full((2, 1), 3.0), torch.full((2, 1), 12.0)
    >>> streams = ChainStreams(0, 2, torch.device("cpu"))
    >>> draw_log_scale(Given(), torch.zeros(2, 5), 0.0, streams).exp()
    tensor([[2.],
            [2.]])
    """
    shape, rate = potential.conditional(position)
    if isinstance(temperature, float | int) and temperature == 0:
        return 0.5 * torch.log(rate / shape)
    drawn = streams.gamma(shape / temperature) * temperature / rate
    return -0.5 * torch.log(drawn)

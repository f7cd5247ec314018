r"""Does a Voronoi loss bound the density's distance from below, and is it sharp?

For a loss with power p_g in the deviations of group g, inside one cell,

.. math:: D \asymp \sum_g |d_g|^{p_g}, \qquad
          \inf_{D = \epsilon} h \ge C \epsilon \ (\epsilon \to 0)
          \iff r_g \le p_g \text{ for every } g,

r_g the exponents of `theory.inverse.local_exponent`: on the shell D = epsilon some group has
|d_g|^(p_g) of order epsilon, hence h of order at least epsilon^(r_g / p_g), and the minimiser with
that deviation fixed attains it. *The bound holds* if r_g <= p_g throughout; it is *sharp* if
equality holds throughout, so that no smaller power will do. A bound that holds and is not sharp
understates how fast the deviation falls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kernels.checks import check_real

from ..voronoi import voronoi_loss
from .local_exponent import TOLERANCE, LocalExponent
from .neighbourhood import Array, Neighbourhood

Answer = Literal["yes", "no", "undecided"]


@dataclass(frozen=True, eq=False)
class InverseBound:
    """Two answers about a loss, group by group.

    Attributes
    ----------
    powers : dict of str to float
        p_g of the loss.
    exponents : dict of str to LocalExponent
    passes, sharp : dict of str to {"yes", "no", "undecided"}
        Whether r_g <= p_g, and whether r_g = p_g, both within 3% of p_g and the exponent's error.
    """

    powers: Mapping[str, float]
    exponents: Mapping[str, LocalExponent]
    passes: Mapping[str, Answer]
    sharp: Mapping[str, Answer]

    @property
    def holds(self) -> Answer:
        """Whether h >= C D near the truth."""
        return _all(self.passes)

    @property
    def is_sharp(self) -> Answer:
        """Whether every power is the least that will do."""
        return _all(self.sharp)

    @property
    def worst(self) -> str:
        """The group in whose direction h is smallest beside D, where r_g / p_g is largest."""
        return max(self.powers, key=lambda g: self.exponents[g].exponent / self.powers[g])

    def __str__(self) -> str:
        stated = ", ".join(f"{g} {p:g}" for g, p in self.powers.items())
        found = ", ".join(
            f"{g} not identified" if e.status == "flat" else f"{g} {e.exponent:.3f}+-{e.error:.3f}"
            for g, e in self.exponents.items()
        )
        along = ", ".join(
            f"{k} ~ delta^{v:.2f}" for k, v in self.exponents[self.worst].powers.items()
        )
        said = {
            "yes": "The bound holds",
            "no": "The bound fails",
            "undecided": "Whether the bound holds is undecided",
        }[self.holds]
        sharp = {"yes": "is sharp", "no": "is not sharp", "undecided": "may be sharp"}[
            self.is_sharp
        ]
        return (
            f"{said} and {sharp}: powers {stated}; exponents {found}. Least beside D along "
            f"{self.worst}{': ' + along if along else ''}."
        )


def inverse_bound(
    exponents: Mapping[str, LocalExponent],
    powers: Mapping[str, float],
) -> InverseBound:
    """Judge the powers of a loss by measured exponents.

    Parameters
    ----------
    exponents : mapping of str to LocalExponent
        By group.
    powers : mapping of str to float
        Powers of the loss, > 0, for some of those groups.

    Returns
    -------
    InverseBound

    Raises
    ------
    ValueError
        If a power is not positive or its group was not measured.
    """
    for g, p in powers.items():
        if g not in exponents:
            raise ValueError(
                f"The 'powers' parameter must name measured groups, {sorted(exponents)}; got {g!r}."
            )
        check_real("powers", p, low=0.0, strict=True)
    passes = {g: _passes(exponents[g], p) for g, p in powers.items()}
    sharp = {g: _is_sharp(exponents[g], p) for g, p in powers.items()}
    return InverseBound(dict(powers), {g: exponents[g] for g in powers}, passes, sharp)


def ratios(
    near: Neighbourhood,
    found: LocalExponent,
    order: str,
) -> Array:
    """h / D along minimisers, D a whole Voronoi loss: bounded below where the bound holds.

    Parameters
    ----------
    near : Neighbourhood
        Where `found` was searched.
    found : LocalExponent
    order : str
        Of `theory.voronoi_loss`.

    Returns
    -------
    ndarray
        (T,), for the sizes of `found`, descending.
    """
    loss = [
        float(voronoi_loss(near.model(d), near.truth, order=order).value) for d in found.minimisers
    ]
    return found.values / np.array(loss)


def _passes(found: LocalExponent, power: float) -> Answer:
    if found.status == "flat":
        return "no"
    slack = TOLERANCE * power
    if found.exponent + found.error <= power + slack:
        return "yes"
    return "no" if found.exponent - found.error > power + slack else "undecided"


def _is_sharp(found: LocalExponent, power: float) -> Answer:
    if found.status == "flat":
        return "no"
    slack, gap = TOLERANCE * power, abs(found.exponent - power)
    if gap + found.error <= slack:
        return "yes"
    return "no" if gap - found.error > slack else "undecided"


def _all(answers: Mapping[str, Answer]) -> Answer:
    values = set(answers.values())
    return "no" if "no" in values else "undecided" if "undecided" in values else "yes"

r"""rbar(m): the order from which m atoms can no longer hide in one cell.

It is the smallest r for which S-gmm, and equally S-softmax (`theory.algebra.systems`), has no
solution with all weights positive and some q1_i not zero.

.. math:: \bar r(m) = 2m \quad (m \ge 2), \qquad \bar r(1) = 1 .

*At least 2m*: the Gauss-Hermite rule solves order 2m - 1 (`gauss_hermite`, checked exactly by
`certificate`). *At most 2m*: a solution at order 2m would make a mixture of m Gaussian densities
share the moments 0, ..., 2m with one Gaussian density, so that their difference, if not zero,
changes sign at least 2m + 1 times; a combination of m + 1 Gaussian densities does so at most 2m
times [1]_. If it is zero, all q1_i are 0. docs/rbar.md has the proof. For one atom
the first equation, w q1 = 0, has no solution already; [2]_ define rbar for m >= 2, find 4 and 6 for
m = 2 and 3, and leave others open.

References
----------
.. [1] Kalai, Moitra and Valiant (2010), Efficiently learning mixtures of two Gaussians,
   Proposition 7.
.. [2] Nguyen, Nguyen and Ho (2023), Demystifying softmax gating function in Gaussian mixture of
   experts, arXiv 2305.03288; Ho and Nguyen (2016), Annals of Statistics 44.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kernels.checks import check_int

from .gauss_hermite import gauss_hermite_certificate

MAX_EXACT = 100
"""Largest m with a certificate, whose check then takes a third of a second."""


@dataclass(frozen=True)
class Rbar:
    """rbar of a number of atoms.

    Attributes
    ----------
    n_atoms : int
        m.
    value : int
        rbar(m).
    """

    n_atoms: int
    value: int

    @property
    def certificate(self) -> dict[str, Any]:
        """The solution one order below, as plain JSON, made anew at each call.

        Raises
        ------
        ValueError
            For m = 1, which needs none, and for m > `MAX_EXACT`.
        """
        m = self.n_atoms
        if m == 1:
            raise ValueError(
                "The 'm' parameter must be at least 2 for a certificate; got 1. rbar(1) = 1 needs "
                "none: order 0 has no equations."
            )
        if m > MAX_EXACT:
            raise ValueError(
                f"The 'm' parameter must be at most {MAX_EXACT} for a certificate in exact "
                f"arithmetic; got {m}. Its value {self.value} is proved for every m "
                "(docs/rbar.md) and needs no certificate."
            )
        return gauss_hermite_certificate(m)

    @property
    def status(self) -> str:
        m = self.n_atoms
        if m == 1:
            return "rbar(1) = 1 by definition: w q1 = 0 has no solution with w > 0 and q1 not 0."
        return (
            f"rbar({m}) = {self.value}: the Gauss-Hermite rule with {m} nodes solves order "
            f"{self.value - 1}, and {m + 1} Gaussian densities cannot change sign "
            f"{self.value + 1} times."
        )

    def as_dict(self) -> dict[str, Any]:
        """Value and status as plain JSON."""
        return {"n_atoms": self.n_atoms, "value": self.value, "status": self.status}


def rbar(m: int) -> Rbar:
    """The order from which m atoms can no longer hide in one cell; see the module's docstring.

    Parameters
    ----------
    m : int
        Number of fitted atoms in the cell, at least 1.

    Returns
    -------
    Rbar
        At once: a certificate is made when it is asked for.

    Raises
    ------
    ValueError
        If ``m`` is not an int of at least 1.

    Examples
    --------
    >>> [rbar(m).value for m in range(1, 6)]
    [1, 4, 6, 8, 10]
    >>> rbar(2).certificate["nodes"], rbar(2).certificate["weights"]  # x^2 - 1 and 1/2
    (['-1', '0', '1'], ['1/2', '0'])
    """
    check_int("m", m, 1)
    return Rbar(int(m), 2 * int(m) if m > 1 else 1)

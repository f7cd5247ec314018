r"""The two published systems have the same rbar, for every number of atoms and features.

*S-softmax solvable => S-gmm solvable.* The equations with l1 = 0 allow alpha1 = alpha2 = 0 only:
they are S-gmm in q1 = db, q2 = ds / 2, with the same weights and the same condition, some db_i not
zero. *Conversely* put db1 = da = 0: equations with l1 not 0 have no term without them and vanish.
`equivalence` checks both statements on the polynomials as they are built.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from .systems import PolynomialSystem, gmm_system, softmax_system


@dataclass(frozen=True)
class Equivalence:
    """Whether S-softmax and S-gmm of one order are solvable together.

    Attributes
    ----------
    n_atoms, order, n_features : int
        m, r and D of the systems compared.
    restricts, extends : bool
        Whether the equations with l1 = 0 are S-gmm's, and whether all others vanish at
        db1 = da = 0.
    """

    n_atoms: int
    order: int
    n_features: int
    restricts: bool
    extends: bool

    @property
    def holds(self) -> bool:
        return self.restricts and self.extends

    @property
    def status(self) -> str:
        systems = (
            f"S-softmax and S-gmm of order {self.order} with {self.n_atoms} atoms and "
            f"{self.n_features} feature{'s' if self.n_features > 1 else ''}"
        )
        if self.holds:
            return f"{systems} are solvable together: equal values of rbar."
        failed = [] if self.restricts else ["the equations with l1 = 0 are not S-gmm's"]
        failed += [] if self.extends else ["an equation does not vanish at db1 = da = 0"]
        return f"{systems} are not proved equivalent: {' and '.join(failed)}."

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain JSON."""
        return {**dataclasses.asdict(self), "holds": self.holds, "status": self.status}


def equivalence(n_atoms: int, order: int, n_features: int = 1) -> Equivalence:
    """Build both systems and compare them as polynomials.

    Parameters
    ----------
    n_atoms, order, n_features : int
        m, r and D, at least 1.

    Returns
    -------
    Equivalence

    Examples
    --------
    >>> equivalence(2, 4).status
    'S-softmax and S-gmm of order 4 with 2 atoms and 1 feature are solvable together: \
equal values of rbar.'
    """
    return compare(softmax_system(n_atoms, order, n_features), gmm_system(n_atoms, order))


def compare(softmax: PolynomialSystem, gmm: PolynomialSystem) -> Equivalence:
    """The comparison of `equivalence`, of two systems at hand."""
    every = softmax.equations.items()
    straight = {label: phi for label, phi in every if not any(label[:-1])}
    crossed = [phi for label, phi in every if any(label[:-1])]
    in_q = {
        (label[-1],): {(e[-2], e[-1]): c * 2 ** e[-1] for e, c in phi.items()}
        for label, phi in straight.items()
    }
    unmixed = not any(any(e[:-2]) for phi in straight.values() for e in phi)
    return Equivalence(
        n_atoms=softmax.n_atoms,
        order=softmax.order,
        n_features=(len(softmax.variables) - 2) // 2,
        restricts=unmixed and in_q == dict(gmm.equations),
        extends=all(any(e[:-2]) for phi in crossed for e in phi),
    )

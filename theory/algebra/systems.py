r"""The polynomial systems behind over-fitted cells, as exact polynomials.

Let m atoms of weights w_i > 0 sit at deviations (db1, da, db, ds) from one true atom
u = exp(b1'x) N(y | a'x + b, s). Since a derivative in a is x times one in the mean, and one in the
variance s half a second one in the mean, a Taylor expansion replaces derivatives of u by powers of
t, the derivative in the mean:

.. math:: \sum_i w_i \exp\bigl(x'db_{1i} + t\,(x'da_i + db_i) + \tfrac{t^2}{2} ds_i\bigr).

*S-softmax* of order r ([1]_) asks that its coefficients vanish up to degree r: for all
multi-indices l1 and numbers l2 with 1 <= \|l1\| + l2 <= r,

.. math:: \sum_i w_i \sum_{\alpha_1 + \alpha_2 = l_1,\ |\alpha_2| + \alpha_3 + 2\alpha_4 = l_2}
          \frac{db_{1i}^{\alpha_1} da_i^{\alpha_2} db_i^{\alpha_3} ds_i^{\alpha_4}}
               {2^{\alpha_4}\, \alpha_1!\, \alpha_2!\, \alpha_3!\, \alpha_4!} = 0 .

*S-gmm* of order r ([2]_), of Gaussian mixtures with unknown means and variances, asks the same of
sum_i w_i exp(q1_i t + q2_i t^2) up to t^r. A solution counts if all w_i > 0 and some db_i, or
q1_i, is not zero; papers write the weights as squares. `theory.algebra.rbar` is the smallest r
without one.

References
----------
.. [1] Nguyen, Nguyen and Ho (2023), Demystifying softmax gating function in Gaussian mixture of
   experts, arXiv 2305.03288.
.. [2] Ho and Nguyen (2016), Convergence rates of parameter estimation for some weakly identifiable
   finite mixtures, Annals of Statistics 44.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from kernels.checks import check_count, check_int

Polynomial = Mapping[tuple[int, ...], Fraction]
"""Exponents of an atom's variables to a coefficient."""

MAX_ORDER = 200
"""Highest order of a system: that of `MAX_EXACT` atoms."""

MAX_LABELS = 4096
"""Multi-indices (order + 1)^(D + 1) of S-softmax that are gone through: less than a second."""


@dataclass(frozen=True)
class PolynomialSystem:
    """Equations sum_i w_i phi(atom_i) = 0, one polynomial phi an equation.

    Attributes
    ----------
    name : str
        "S-gmm" or "S-softmax".
    n_atoms : int
        m.
    order : int
        r.
    variables : tuple of str
        An atom's variables, in the order of exponents.
    equations : mapping
        Label, (s,) or ``(*l1, l2)``, to phi.
    """

    name: str
    n_atoms: int
    order: int
    variables: tuple[str, ...]
    equations: Mapping[tuple[int, ...], Polynomial]

    def residuals(
        self,
        weights: Sequence[Any],  # (m,)
        atoms: Sequence[Sequence[Any]],  # (m, variables)
    ) -> dict[tuple[int, ...], Any]:
        """Left sides of all equations, exact for integers, fractions and sympy numbers.

        Examples
        --------
        >>> half = Fraction(1, 2)
        >>> gmm_system(2, 4).residuals([half, half], [(1, -half), (-1, -half)])
        {(1,): Fraction(0, 1), (2,): Fraction(0, 1), (3,): Fraction(0, 1), (4,): Fraction(-1, 12)}
        """
        if (
            len(weights) != self.n_atoms
            or [len(a) for a in atoms] != [len(self.variables)] * self.n_atoms
        ):
            raise ValueError(
                f"The 'weights' and 'atoms' parameters must have {self.n_atoms} entries, each atom "
                f"the variables {self.variables}; got {len(weights)} weights and atoms of "
                f"{[len(a) for a in atoms]} values."
            )
        return {
            label: sum(w * _value(phi, atom) for w, atom in zip(weights, atoms, strict=True))
            for label, phi in self.equations.items()
        }

    def symbols(self) -> tuple[list[Any], list[list[Any]]]:
        """sympy symbols of the weights (m,), positive, and of the atoms (m, variables), real."""
        import sympy as sp

        weights = [sp.Symbol(f"w_{i + 1}", positive=True) for i in range(self.n_atoms)]
        names = ([f"{v}_{i + 1}" for v in self.variables] for i in range(self.n_atoms))
        return weights, [[sp.Symbol(name, real=True) for name in atom] for atom in names]

    def expressions(self) -> dict[tuple[int, ...], Any]:
        """Left sides of all equations as sympy expressions in `symbols`."""
        return self.residuals(*self.symbols())


def gmm_system(n_atoms: int, order: int) -> PolynomialSystem:
    """S-gmm with variables q1, q2 and equations s = 1, ..., order; see the module's docstring.

    Parameters
    ----------
    n_atoms, order : int
        m and r, at least 1; an order of at most `MAX_ORDER`.

    Returns
    -------
    PolynomialSystem
    """
    check_count("n_atoms", n_atoms)
    check_int("order", order, 1, MAX_ORDER)
    equations: dict[tuple[int, ...], Polynomial] = {
        (s,): {(s - 2 * k, k): _inverse_factorials(s - 2 * k, k) for k in range(s // 2 + 1)}
        for s in range(1, order + 1)
    }
    return PolynomialSystem("S-gmm", n_atoms, order, ("q1", "q2"), equations)


def softmax_system(n_atoms: int, order: int, n_features: int = 1) -> PolynomialSystem:
    """S-softmax with variables db1, da (D each), db, ds; see the module's docstring.

    Parameters
    ----------
    n_atoms, order : int
        m and r, at least 1.
    n_features : int
        D, at least 1; (r + 1)^(D + 1) is at most `MAX_LABELS`.

    Returns
    -------
    PolynomialSystem
        With equations labelled ``(*l1, l2)``.

    Examples
    --------
    >>> system = softmax_system(2, 2)
    >>> system.variables, list(system.equations)
    (('db1', 'da', 'db', 'ds'), [(0, 1), (0, 2), (1, 0), (1, 1), (2, 0)])
    >>> {e: str(c) for e, c in system.equations[1, 1].items()}  # exponents of db1, da, db, ds
    {(1, 0, 1, 0): '1', (0, 1, 0, 0): '1'}
    """
    check_count("n_atoms", n_atoms)
    check_int("n_features", n_features, 1, MAX_LABELS.bit_length() - 2)
    most = int(MAX_LABELS ** (1 / (n_features + 1)) + 1e-9) - 1
    check_int("order", order, 1, most, why=f" with n_features={n_features}")
    labels = (
        label
        for label in itertools.product(range(order + 1), repeat=n_features + 1)
        if 1 <= sum(label) <= order
    )
    features = [""] if n_features == 1 else [str(d + 1) for d in range(n_features)]
    variables = (*(f"db1{d}" for d in features), *(f"da{d}" for d in features), "db", "ds")
    equations: dict[tuple[int, ...], Polynomial] = {
        label: dict(_softmax_terms(label[:-1], label[-1])) for label in labels
    }
    return PolynomialSystem("S-softmax", n_atoms, order, variables, equations)


def _softmax_terms(l1: tuple[int, ...], l2: int) -> Iterator[tuple[tuple[int, ...], Fraction]]:
    for alpha2 in itertools.product(*(range(n + 1) for n in l1)):
        alpha1 = tuple(n - k for n, k in zip(l1, alpha2, strict=True))
        rest = l2 - sum(alpha2)
        for alpha4 in range(rest // 2 + 1):  # none if rest < 0
            exponents = (*alpha1, *alpha2, rest - 2 * alpha4, alpha4)
            yield exponents, _inverse_factorials(*exponents) / 2**alpha4


def _inverse_factorials(*exponents: int) -> Fraction:
    return Fraction(1, math.prod(map(math.factorial, exponents)))


def _value(phi: Polynomial, atom: Sequence[Any]) -> Any:
    return sum(
        c * math.prod(v**e for v, e in zip(atom, powers, strict=True) if e)
        for powers, c in phi.items()
    )

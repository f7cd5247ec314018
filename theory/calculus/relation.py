r"""A linear relation sum_k c_k(theta) D_k u = 0 between derivatives of u, and its proof.

Coefficients depend on the parameters, not on (x, y).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .atoms import Atom, Derivative

if TYPE_CHECKING:
    import sympy as sp


@dataclass(frozen=True)
class Relation:
    """A derivative of u as a combination of others.

    Attributes
    ----------
    left : tuple of str
        The derivative, ("b", "b") for d2u/db^2.
    right : tuple of (tuple of str, str)
        Other derivatives with their coefficients, as sympy reads them.
    proved : bool
        Whether sympy reduced the difference of both sides to 0.
    """

    left: Derivative
    right: tuple[tuple[Derivative, str], ...]
    proved: bool

    @property
    def parameters(self) -> frozenset[str]:
        """All that is differentiated by."""
        return frozenset(self.left).union(*(d for d, _ in self.right))

    def __str__(self) -> str:
        terms = " + ".join(_term(c.replace("**", "^"), written(d)) for d, c in self.right) or "0"
        return f"{written(self.left)} = {terms}".replace("+ -", "- ")

    def as_dict(self) -> dict[str, Any]:
        """The relation as plain JSON."""
        return {
            "relation": str(self),
            "left": list(self.left),
            "right": [[list(d), c] for d, c in self.right],
            "proved": self.proved,
        }


def relation(of: Atom, left: Derivative, right: Mapping[Derivative, Any]) -> Relation:
    """The statement that a derivative of u is a combination of others, proved if it is true.

    Parameters
    ----------
    of : Atom
        Whose u.
    left : tuple of str
        A derivative, its parameters in any order.
    right : mapping
        Derivatives to coefficients: numbers, sympy expressions or strings in the names of the
        atom's parameters and constants.

    Returns
    -------
    Relation
        With ``proved`` False if sympy does not find the difference to be 0 on every branch.

    Raises
    ------
    ValueError
        If a derivative is not of the atom's parameters or of an order above 2, or a coefficient
        depends on something else.

    Examples
    --------
    >>> from theory.calculus import atom
    >>> str(relation(atom("softmax"), ("b", "b1"), {("a",): 1}))
    'd2u/db1 db = du/da'
    >>> relation(atom("softmax"), ("b", "b"), {("s",): 1}).proved  # it is twice as much
    False
    """
    import sympy as sp

    names = {**of.parameters, **of.constants}
    for derivative in (left, *right):
        if len(derivative) > 2 or not set(derivative) <= set(of.parameters):
            raise ValueError(
                "The 'left' and 'right' parameters must name derivatives by at most two of "
                f"{tuple(of.parameters)}; got {derivative!r}."
            )
    place = list(of.parameters).index
    ordered = {tuple(sorted(d, key=place)): sp.sympify(str(c), names) for d, c in right.items()}
    strange = {str(v) for c in ordered.values() for v in c.free_symbols} - set(names)
    if strange:
        raise ValueError(
            f"The 'right' parameter must have coefficients in {tuple(names)}; "
            f"got {sorted(strange)}."
        )
    left = tuple(sorted(left, key=place))
    proved = all(
        _vanishes(of.ratio(b, left) - sum(c * of.ratio(b, d) for d, c in ordered.items()))
        for b in of.branches
    )
    return Relation(left, tuple((d, str(c)) for d, c in ordered.items()), proved)


def written(derivative: Derivative) -> str:
    """u, du/db1, d2u/db1 db, d2u/db^2."""
    if not derivative:
        return "u"
    if len(derivative) == 1:
        return f"du/d{derivative[0]}"
    first, second = derivative
    return f"d2u/d{first}^2" if first == second else f"d2u/d{second} d{first}"


def _term(coefficient: str, of: str) -> str:
    if coefficient in ("1", "-1"):
        return coefficient.replace("1", of)
    if " " in coefficient:  # a sum
        return f"({coefficient}) {of}"
    sign = "-" if coefficient.startswith("-") else ""
    size = coefficient.removeprefix("-")
    return f"{sign}({size}) {of}" if "/" in size else f"{sign}{size} {of}"


def _vanishes(expression: sp.Expr) -> bool:
    import sympy as sp

    if sp.cancel(sp.together(sp.expand(expression))) == 0:
        return True
    return bool(sp.simplify(expression) == 0)

r"""Recognise functions of parameters as Laurent polynomials with rational coefficients.

.. math:: c(\theta) = \sum_e r_e\, \theta_1^{e_1} \cdots \theta_p^{e_p}, \qquad
          e_k \in \{-4, \dots, 2\},\ r_e \in \mathbb{Q} .

Which parameters matter is found by moving one at a time; which of their powers occur, by
interpolation along each; the coefficients, from random points with two to spare. A function that
does not fit, or whose coefficients are no fractions of small denominator, is not recognised.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from mpmath import mp

Point = Mapping[str, Fraction]
Values = Mapping[Any, Mapping[Any, Any]]

_POWERS = range(-4, 3)
_SPARE = 2
_MAX_DENOMINATOR = 1000

_ZERO = 1e-30
"""Size of a coefficient, and misfit, up to which it is 0: interpolation in 120 digits with seven
powers leaves less than 1e-60, and no coefficient is smaller than 1 / `_MAX_DENOMINATOR`."""


def recognise(
    values: Callable[[Point], Values],
    random_point: Callable[[], Point],
) -> dict[Any, dict[Any, Any] | None]:
    """Formulas for a table of functions of parameters.

    Parameters
    ----------
    values : callable
        Parameters to a table of two keys, the same at every point, of mpmath numbers.
    random_point : callable
        Draws parameters, none of them 0.

    Returns
    -------
    dict
        The table as sympy expressions in symbols of the parameters' names, without zeros; None for
        a row with an entry that was not recognised.
    """
    base = random_point()
    table = values(base)
    entries = [(row, column) for row, line in table.items() for column in line]
    if not entries:
        return {row: {} for row in table}

    def flat(point: Point) -> list[Any]:
        found = values(point)
        if {r: list(line) for r, line in found.items()} != {
            r: list(line) for r, line in table.items()
        }:
            raise ArithmeticError(f"Other derivatives are dependent at {dict(point)}.")
        return [found[row][column] for row, column in entries]

    start = flat(base)
    powers: list[dict[str, tuple[int, ...]] | None] = [{} for _ in entries]
    for name in base:
        moved = [{**base, name: base[name] * Fraction(7 + 2 * k, 11)} for k in range(8)]
        changed = [_differ(a, b) for a, b in zip(start, flat(moved[0]), strict=True)]
        if not any(changed):
            continue
        along = [flat(point) for point in moved]
        for k, known in enumerate(powers):
            if known is not None and changed[k]:
                occurring = _powers([p[name] for p in moved], [line[k] for line in along])
                powers[k] = None if occurring is None else {**known, name: occurring}
    count = max(_n_monomials(p) for p in powers) + _SPARE
    points = [random_point() for _ in range(count)]
    sampled = [flat(point) for point in points]
    formulas = [
        None if p is None else _fitted(p, points, [line[k] for line in sampled])
        for k, p in enumerate(powers)
    ]
    found: dict[Any, dict[Any, Any] | None] = {row: {} for row in table}
    for (row, column), formula in zip(entries, formulas, strict=True):
        line = found[row]
        if formula is None:
            found[row] = None
        elif line is not None and formula != 0:
            line[column] = formula
    return found


def _powers(at: Sequence[Fraction], values: Sequence[Any]) -> tuple[int, ...] | None:
    """Powers of one parameter that occur; None if the values are no Laurent polynomial."""
    coefficients = _solved([[_power(v, e) for e in _POWERS] for v in at], values)
    if coefficients is None:
        return None
    return tuple(e for e, c in zip(_POWERS, coefficients, strict=True) if abs(c) > _ZERO)


def _fitted(
    powers: Mapping[str, tuple[int, ...]], points: Sequence[Point], values: Sequence[Any]
) -> Any:
    """The formula, or None."""
    import sympy as sp

    monomials = list(itertools.product(*powers.values()))
    design = [
        [mp.fprod(_power(p[n], e) for n, e in zip(powers, m, strict=True)) for m in monomials]
        for p in points
    ]
    coefficients = _solved(design, values)
    if coefficients is None:
        return None
    formula = sp.Integer(0)
    for monomial, c in zip(monomials, coefficients, strict=True):
        fraction = Fraction(mp.nstr(c, 40)).limit_denominator(_MAX_DENOMINATOR)
        if _differ(mp.mpf(fraction.numerator) / fraction.denominator, c):
            return None
        factors = (sp.Symbol(n) ** e for n, e in zip(powers, monomial, strict=True))
        formula += sp.Rational(fraction.numerator, fraction.denominator) * sp.prod(factors)
    return formula


def _solved(rows: Sequence[Sequence[Any]], values: Sequence[Any]) -> list[Any] | None:
    """Solution of as many equations as unknowns, if it fits the others too."""
    n = len(rows[0])
    solution = list(mp.lu_solve(mp.matrix(rows[:n]), mp.matrix(values[:n])))
    spare = zip(rows[n:], values[n:], strict=True)
    return None if any(_differ(mp.fdot(row, solution), v) for row, v in spare) else solution


def _n_monomials(powers: Mapping[str, tuple[int, ...]] | None) -> int:
    count = 1
    for p in (powers or {}).values():
        count *= len(p)
    return count


def _power(value: Fraction, exponent: int) -> Any:
    return (mp.mpf(value.numerator) / value.denominator) ** exponent


def _differ(a: Any, b: Any) -> bool:
    return bool(abs(a - b) > _ZERO * (1 + abs(b)))

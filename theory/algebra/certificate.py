r"""Check a solution of S-gmm given by polynomials, exactly, and with nothing taken on trust.

A certificate states atoms q1_i, the roots of a polynomial P of degree m, weights w_i = W(q1_i) for
a rational polynomial W, and one rational q2. With p_k the power sums of the roots (Newton's
identities) and M_k = sum_i w_i q1_i^k = sum_j W_j p_{j+k}, equation s of S-gmm reads

.. math:: \sum_j \frac{q_2^j}{j!} \frac{M_{s - 2j}}{(s - 2j)!} = 0 .

That all roots are real and distinct and all weights positive is read off a Sturm sequence: the
signed remainders of P and P'g have V(-inf) - V(inf) = #{g > 0} - #{g < 0} over the real roots of P
(Sturm for g = 1, Tarski for g = W). Certificates up to m = 10 take milliseconds.

This file shares nothing with those that produce certificates and knows no Hermite polynomial.

References
----------
.. [1] Basu, Pollack and Roy (2006), Algorithms in real algebraic geometry, Theorem 2.61.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

Coefficients = list[Fraction]  # of a polynomial, constant first


@dataclass(frozen=True)
class Checked:
    """Whether a certificate proves what it states, and why or why not."""

    valid: bool
    reason: str


def check(certificate: Mapping[str, Any]) -> Checked:
    """Decide whether a certificate proves that rbar(m) is at least 2m.

    Parameters
    ----------
    certificate : mapping
        As `theory.algebra.gauss_hermite_certificate` makes it, or as read from JSON.

    Returns
    -------
    Checked
        Valid if the m distinct atoms with positive weights solve equations 1, ..., 2m - 1, and
        leave in equation 2m the remainder stated, not 0.

    Examples
    --------
    >>> from theory import rbar
    >>> check(rbar(3).certificate).reason
    'rbar(3) >= 6: equations 1 to 5 hold with 3 positive weights, and 6 does not.'
    >>> check({**rbar(3).certificate, "q2": "-1/3"}).reason
    'Equation 2 leaves 1/6, not 0.'
    """
    try:
        m, order = certificate["n_atoms"], certificate["order"]
        nodes = [Fraction(c) for c in certificate["nodes"]]
        weights = [Fraction(c) for c in certificate["weights"]]
        q2, remainder = Fraction(certificate["q2"]), Fraction(certificate["remainder"])
    except KeyError as missing:
        return Checked(False, f"The entry {missing} is missing.")
    except (TypeError, ValueError, ArithmeticError) as error:
        return Checked(False, f"An entry is not made of rational numbers: {error}.")
    reason = _fault(m, order, nodes, weights, q2, remainder)
    if reason:
        return Checked(False, reason)
    return Checked(
        True,
        f"rbar({m}) >= {2 * m}: equations 1 to {order} hold with {m} positive weights, "
        f"and {2 * m} does not.",
    )


def _fault(
    m: Any,
    order: Any,
    nodes: Coefficients,
    weights: Coefficients,
    q2: Fraction,
    remainder: Fraction,
) -> str:
    if type(m) is not int or m < 2:
        return f"'n_atoms' must be an int of at least 2; got {m!r}."
    if type(order) is not int or order != 2 * m - 1:
        return f"'order' must be 2 n_atoms - 1 = {2 * m - 1}; got {order!r}."
    if len(nodes) != m + 1 or nodes[-1] != 1:
        return f"'nodes' must be a monic polynomial of degree {m}; got {len(nodes)} coefficients."
    if len(weights) != m:
        return f"'weights' must have {m} coefficients; got {len(weights)}."
    if (real := _signs(nodes, [Fraction(1)])) != m:
        return f"{real} of {m} atoms are real and distinct."
    if (excess := _signs(nodes, weights)) != m:
        return f"Positive weights exceed negative ones by {excess}, not by {m}."
    sums = _power_sums(nodes, 3 * m)
    moments = [
        sum(c * p for c, p in zip(weights, sums[k:], strict=False)) for k in range(2 * m + 1)
    ]
    for s in range(1, 2 * m + 1):
        left = sum(
            q2**j / math.factorial(j) * moments[s - 2 * j] / math.factorial(s - 2 * j)
            for j in range(s // 2 + 1)
        )
        if s <= order and left:
            return f"Equation {s} leaves {left}, not 0."
    if left != remainder or not left:
        return f"Equation {2 * m} leaves {left}; stated is {remainder}, which must not be 0."
    return ""


def _power_sums(monic: Coefficients, count: int) -> list[Fraction]:
    """Sums of the powers 0, ..., count - 1 of the roots, by Newton's identities."""
    m = len(monic) - 1
    sums = [Fraction(m)]
    for k in range(1, count):
        before = [monic[m - j] * sums[k - j] for j in range(1, min(k - 1, m) + 1)]
        sums.append(-sum(before, k * monic[m - k] if k <= m else Fraction(0)))
    return sums


def _signs(p: Coefficients, g: Coefficients) -> int:
    """#{g > 0} - #{g < 0} over the real roots of p."""
    slope = [k * c for k, c in enumerate(p)][1:]
    product = [Fraction(0)] * (len(slope) + len(g) - 1)
    for i, a in enumerate(slope):
        for j, b in enumerate(g):
            product[i + j] += a * b
    sequence = [p, _remainder(product, p)]
    while sequence[-1]:
        sequence.append([-c for c in _remainder(sequence[-2], sequence[-1])])
    right = [s[-1] > 0 for s in sequence[:-1]]
    left = [(s[-1] > 0) == (len(s) % 2 == 1) for s in sequence[:-1]]
    return _variations(left) - _variations(right)


def _remainder(a: Coefficients, b: Coefficients) -> Coefficients:
    """a modulo b up to a positive factor, without leading zeros; empty for 0."""
    a = list(a)
    while len(a) >= len(b):
        factor = a.pop() / b[-1]
        start = len(a) + 1 - len(b)
        for j, c in enumerate(b[:-1]):
            a[start + j] -= factor * c
    while a and not a[-1]:
        a.pop()
    return [c / abs(a[-1]) for c in a]


def _variations(positive: list[bool]) -> int:
    return sum(x != y for x, y in itertools.pairwise(positive))

r"""A solution of S-gmm at order 2m - 1: the Gauss-Hermite rule, in exact algebraic numbers.

Let x_i be the roots of the probabilists' Hermite polynomial He_m and w_i the weights of the
quadrature rule that integrates polynomials up to degree 2m - 1 against N(0, 1). With q1_i = x_i and
q2_i = -1/2, since exp(xt - t^2/2) generates the Hermite polynomials,

.. math:: \sum_i w_i \exp\bigl(x_i t - \tfrac{t^2}{2}\bigr)
          = \sum_k \frac{t^k}{k!} \sum_i w_i He_k(x_i) = 1 - \frac{m!}{(2m)!}\, t^{2m} + \dots,

because the rule integrates He_1, ..., He_{2m - 1} to 0, and He_{2m} - He_m^2, of smaller degree,
to -m!.

The weights are polynomials at the nodes: A_0 = 0, A_1 = 1, A_{k+1} = x A_k - k A_{k-1}, the
recurrence of He, has A_m He_{m-1} - A_{m-1} He_m = (m - 1)!, so that

.. math:: w_i = \frac{(m-1)!}{m\, He_{m-1}(x_i)^2} = \frac{A_m(x_i)^2}{m!} .
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any


def gauss_hermite_certificate(m: int) -> dict[str, Any]:
    """The solution as plain JSON: what `theory.algebra.check` takes.

    Parameters
    ----------
    m : int
        Number of atoms, at least 2.

    Returns
    -------
    dict
        "n_atoms" m; "order" 2m - 1; "nodes", coefficients of the monic polynomial whose roots are
        the q1_i, constant first; "weights", those of a polynomial with w_i = W(q1_i); "q2", common
        to all atoms; "remainder", the left side of equation 2m. Rational numbers are strings.

    Examples
    --------
    >>> gauss_hermite_certificate(2)  # doctest: +NORMALIZE_WHITESPACE
    {'n_atoms': 2, 'order': 3, 'nodes': ['-1', '0', '1'], 'weights': ['1/2', '0'], 'q2': '-1/2',
     'remainder': '-1/12'}
    """
    before, nodes = [1], [0, 1]  # He_0, He_1
    earlier, root = [0], [1]  # A_0, A_1
    for k in range(1, m):
        before, nodes = nodes, _next(k, before, nodes)
        earlier, root = root, _next(k, earlier, root)
    square = [0] * (2 * m - 1)
    for i, a in enumerate(root):
        for j, b in enumerate(root):
            square[i + j] += a * b
    for degree in range(len(square) - 1, m - 1, -1):  # modulo He_m, which is monic
        lead = square.pop()
        for j, c in enumerate(nodes[:-1]):
            square[degree - m + j] -= lead * c
    return {
        "n_atoms": m,
        "order": 2 * m - 1,
        "nodes": [str(c) for c in nodes],
        "weights": [str(Fraction(c, math.factorial(m))) for c in square],
        "q2": "-1/2",
        "remainder": str(Fraction(-math.factorial(m), math.factorial(2 * m))),
    }


def _next(k: int, before: list[int], current: list[int]) -> list[int]:
    """x P_k - k P_{k-1}, coefficients from the constant."""
    raised = [0, *current]
    for j, c in enumerate(before):
        raised[j] -= k * c
    return raised

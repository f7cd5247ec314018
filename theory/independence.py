r"""Which activations repair a temperature: linear independence of the gate's derivatives in x.

Take scores :math:`s_e(x) = (\psi(z_e) + b_{0e}) / \tau`, :math:`z_e = b_{1e}'x`, gate
probabilities :math:`\pi_e` and Gaussian experts :math:`f_e` with distinct (mean, scale).

*Exact fit.* A direction (b0, b1, tau) += (dc, g, t), with any change of the experts, moves the
density by

.. math::
    \sum_e \pi_e (A_e - \bar A) f_e + \text{(derivatives of } f_e), \qquad
    \tau A_e = c_e + g_e'x\, \psi'(z_e) - \tfrac t\tau\, \psi(z_e), \qquad
    \bar A = \sum_e \pi_e A_e,

where c_e = dc_e - t b0_e / tau. Gaussian densities with distinct (mean, scale) and their
derivatives are linearly independent in y, so nothing moves if and only if no expert changes and
:math:`A_1 = \dots = A_E` for almost every x: neither tau nor b0 matters. First order thus asks that

.. math:: 1_e, \qquad x_u \psi'(z_e)_e, \qquad (\psi(z_1), \dots, \psi(z_E)),

functions of x with one component an expert (those with a subscript live in that component alone),
be independent modulo functions with equal components, but for the common constant. To ask that all
1, x_u psi'(z_e) and psi(z_e) be independent as scalar functions is sufficient, not necessary: a
mirrored pair of slopes breaks that for any number of experts, and the gate for two only.

*Cells with several atoms.* With weights w_i and deviations d_i in cell e, first moments become free
parameters and second moments enter, as the second derivative of exp(psi / tau) in b1:

.. math:: \tfrac12\, x'\Bigl(\sum_i w_i d_i d_i'\Bigr) x\;
          \bigl(\psi''(z_e) + \psi'(z_e)^2 / \tau\bigr)_e.

Second order adds these x_u x_v (psi'' + psi'^2 / tau) to the family above; without a temperature
psi'' and psi'^2 apart, which covers all temperatures at once. Products of the temperature's
deviation with another are of smaller order than the two alone. Deviations of the experts multiply
the derivatives of f_e in its mean, which no common function cancels. Of the order of the Voronoi
loss or larger are, expert by expert,

.. math:: 1,\ x_u,\ x_u \psi'(z_e),\ x_u x_v \psi'(z_e) \text{ at the first derivative}, \qquad
          1,\ x_u,\ x_u x_v,\ x_u \psi'(z_e) \text{ at the second},

and no new ones at later ones: where these are dependent, gate and experts interact, as in
d2u / db1 db = (1/tau) du / da of the linear gate. Second order is sufficient for the inverse bound
with b1 and a to the second power and tau to the first; it is not necessary, for moments are not
free of sign.

References
----------
.. [1] Nguyen, Akbarian and Ho (2024), Is temperature sample efficient for softmax Gaussian mixture
   of experts?, arXiv 2401.13875: conditions of first and second order. Those here are derived
   above, not copied.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from mpmath import mp

from ._validation import as_array
from .activations import ACTIVATIONS, Function
from .gate_derivatives import DIGITS, NULL, Array, blocks, evaluate, nodes, solve
from .relations import explain

NEAR = 1e-6
"""Singular value below which a report warns: independent, but no data will tell."""


@dataclass(frozen=True, eq=False)
class IndependenceReport:
    """Whether an activation's derivatives are independent at given slopes.

    Attributes
    ----------
    activation : str
        Its name.
    order : int
        1 or 2.
    independent : bool
        Whether every singular value exceeds `NULL`.
    singular_values : ndarray
        (F,) descending: of the functions, each of length 1 in the mean square over the support;
        0 for a function that vanishes.
    relation : str
        What holds among them, in words; empty if they are independent.
    gap : float
        Smallest singular value above `NULL` over the largest one below or, if that is larger, over
        the rounding error 10^(-DIGITS / 2).
    functions : tuple of str
        The family, with z_e = b1_e'x and 1_e the constant of expert e: first the gate's, then
        those of each expert's first and second derivative.
    """

    activation: str
    order: int
    independent: bool
    singular_values: Array
    relation: str
    gap: float
    functions: tuple[str, ...] = field(repr=False)

    def __str__(self) -> str:
        order = "first" if self.order == 1 else "second"
        head = f"{self.activation}, {order} order, {len(self.functions)} functions: "
        kept = self.singular_values[self.singular_values > NULL]
        least = f"least singular value {kept[-1]:.1e}, {self.gap:.0e} times the next or rounding"
        if not self.independent:
            return f"{head}{len(self.functions) - len(kept)} related, {self.relation} ({least})."
        warning = ", too small for data to tell" if kept[-1] < NEAR else ""
        return f"{head}independent ({least}{warning})."


def independence_report(
    activation: str | Function,
    slopes: Any,  # (E, D)
    X_support: Any,  # (D, 2)
    order: int = 1,
    *,
    temperature: float | None = None,
) -> IndependenceReport:
    r"""Decide whether an activation gate's derivatives are linearly independent in x.

    The rank of the Gram matrix of the family in the module's docstring, computed with 120 digits on
    Gauss-Legendre nodes (one feature) or Halton points (more), at least 128 and 8 a function.

    Parameters
    ----------
    activation : str or callable
        A key of `ACTIVATIONS`, or psi itself, made of mpmath functions; its derivatives are then
        taken by `mpmath.diff`.
    slopes : array-like of shape (E, D)
        b1 of the true experts, E >= 2, per unit of each feature.
    X_support : array-like of shape (D, 2), or (2,) if D = 1
        Ends of the box that X fills, each low < high.
    order : {1, 2}
        1 for exact fits, 2 for cells with several atoms.
    temperature : float or None
        tau > 0 of the second-order family; None covers all temperatures at once.

    Returns
    -------
    IndependenceReport

    Raises
    ------
    ValueError
        If the activation is unknown, does not compute with mpmath or is not finite; if slopes or
        support have the wrong shape or are not finite; if the support is empty; if ``order`` or
        ``temperature`` is out of range.

    Notes
    -----
    Independent functions on the nodes are independent on the support. The converse can fail for
    piecewise activations: a kink between two neighbouring nodes goes unseen. Derivatives are those
    at the nodes, so that of a step is 0.

    Examples
    --------
    >>> independence_report("gelu", [[5.0], [0.5]], (-3, 3)).independent
    True
    >>> independence_report("relu", [[5.0], [-0.5]], (-3, 3)).relation
    "z psi'(z) = psi(z): all slopes can be scaled together"
    """
    name, derivatives = _activation(activation)
    slope, support = _box(slopes, X_support)
    _check_options(order, temperature)
    families = list(blocks(slope, order, temperature))
    x, weights = nodes(support, max(len(block.terms) for block in families))
    with mp.workdps(DIGITS):
        values = evaluate(derivatives, slope, x, order, temperature)
        solved = [solve(block, slope, values, weights) for block in families]
    singular = np.sort(np.concatenate([s.singular_values for s in solved]))[::-1]
    below = singular[singular <= NULL].max(initial=10.0 ** (-DIGITS / 2))
    return IndependenceReport(
        activation=name,
        order=order,
        independent=bool(singular[-1] > NULL),
        singular_values=singular,
        relation="; ".join(dict.fromkeys(words for s in solved for words in explain(s))),
        gap=float(singular[singular > NULL][-1] / below),
        functions=tuple(str(term) for block in families for term in block.terms),
    )


def _activation(activation: str | Function) -> tuple[str, list[Function]]:
    if callable(activation):
        psi = activation
        name = getattr(psi, "__name__", type(psi).__name__)
        return name, [psi, lambda z: mp.diff(psi, z), lambda z: mp.diff(psi, z, 2)]
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        options = ", ".join(repr(a) for a in ACTIVATIONS)
        raise ValueError(
            f"The 'activation' parameter must be callable or one of {{{options}}}; "
            f"got {activation!r}."
        )
    return activation, list(ACTIVATIONS[activation])


def _box(slopes: Any, X_support: Any) -> tuple[Array, Array]:
    slope, support = as_array("slopes", slopes), as_array("X_support", X_support)
    if slope.ndim != 2 or slope.shape[0] < 2 or slope.shape[1] < 1:
        raise ValueError(
            "The 'slopes' parameter must have shape (E, D) with E >= 2, one row an expert; "
            f"got shape {slope.shape}."
        )
    support = support.reshape(1, 2) if support.shape == (2,) else support
    if support.shape != (slope.shape[1], 2):
        raise ValueError(
            f"The 'X_support' parameter must have shape ({slope.shape[1]}, 2), low and high of "
            f"each feature; got shape {support.shape}."
        )
    if not (support[:, 0] < support[:, 1]).all():
        raise ValueError(
            "The 'X_support' parameter must not be empty, low < high for each feature; "
            f"got {support.tolist()}."
        )
    return slope, support


def _check_options(order: int, temperature: float | None) -> None:
    if order not in (1, 2) or isinstance(order, bool):
        raise ValueError(f"The 'order' parameter must be 1 or 2; got {order!r}.")
    if temperature is None:
        return
    if not isinstance(temperature, int | float) or not 0 < temperature < np.inf:
        raise ValueError(
            f"The 'temperature' parameter must be None or positive; got {temperature!r}."
        )

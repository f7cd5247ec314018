r"""Predicted convergence exponents: what each theorem says of each kind of parameter.

A deviation of order n^(-a), up to logarithms, has exponent a. Cells with one fitted atom converge
at the parametric rate. In a cell with m > 1 atoms the published upper bounds on the error
([1]_, [2]_, Theorem 2 of each) are, with r = rbar(m),

.. math:: 1/(2r) \text{ for the gate slope and the intercept}, \qquad
          1/r \text{ for the slope and the variance},

while expanding p_G - p_{G_*} inside a cell, the translation fixed on a cell with one atom, forces
both the gate slope and the slope to 1/4: the coefficient of x^2 u is half the sum of w |db1|^2 and
cannot cancel. Only intercept and variance take part in the polynomial system. A bound that is
slower than the sharp rate is not wrong; it is not sharp.

A selection boundary of a top-K gate is where the density jumps: the published 1/2 bounds its error,
while like every change point it is found at exponent 1 (the probability of selecting other experts,
the directions of gate-slope differences). Their lengths move no boundary and keep 1/2.

All this is of gates whose slopes interact with the experts through d2u/db1 db = du/da. A score that
is not linear in them, behind an activation or of a Laplace gate, does not: then gate slope and
slope are bounded by 1/4 in a cell of several atoms and the temperature too, intercept and variance
as above. For the Laplace gate that is published ([4]_); for activations it is our reading of [3]_,
a hypothesis. Derived: where the temperature's derivative is no combination of those of second
order in the other gate parameters, it keeps 1/2.

A temperature that the density does not determine has no rate at all: exponent 0. [3]_ has it slower
than any polynomial.

A density has exponent 0, it levels off, where the fitted family keeps away from the truth.

References
----------
.. [1] Nguyen, Nguyen and Ho (2023), Demystifying softmax gating function in Gaussian mixture of
   experts, arXiv 2305.03288.
.. [2] Nguyen, Akbarian, Yan and Ho (2024), Statistical perspective of top-K sparse softmax gating
   mixture of experts, arXiv 2309.13850.
.. [3] Nguyen, Akbarian and Ho (2024), Is temperature sample efficient for softmax Gaussian mixture
   of experts?, arXiv 2401.13875.
.. [4] Han, Nguyen, Harris, Ho and Saria (2024), FuseMoE, arXiv 2402.03226.
"""

from __future__ import annotations

from typing import Literal

from kernels.checks import check_int

from .algebra import rbar

Source = Literal["published", "derived"]

IN_CELLS = ("gate_slope", "slope", "intercept", "variance")
"""Groups whose exponent depends on the number of atoms in a cell."""

HYPOTHETICAL = frozenset({"activation"})
"""Gates whose "published" exponents in cells of several atoms are our reading of the paper."""

ANYWHERE = ("mass", "loss", "density", "length")
BOUNDARY = ("selection", "direction")
OPEN = "not identified"


def exponent(
    group: str,
    cell_size: int,
    *,
    source: Source = "published",
    free_cell: bool = True,
    interacting: bool = True,
    attained: bool = True,
) -> float:
    """The exponent a predicted for one group of parameters in cells of a size.

    Parameters
    ----------
    group : str
        "mass", "gate_slope", "slope", "intercept", "variance", "temperature", "loss", "density", or
        of a selection boundary "selection" (the probability of another choice), "direction" or
        "length"; "not identified" for what the density does not determine.
    cell_size : int
        Number m of fitted atoms in the cell, at least 1; of a temperature, in the fullest cell.
    source : {"published", "derived"}
        The theorem's upper bound, or the rate derived to be sharp.
    free_cell : bool
        Whether some true atom has a single fitted atom: without one the gate slope is not
        identified, and the derivation does not apply.
    interacting : bool
        Whether gate slopes interact with the experts, as those of a score linear in them do.
    attained : bool
        Whether some member of the fitted family has the true density.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the group is unknown, or nothing is predicted of it.

    Examples
    --------
    >>> exponent("intercept", 2), exponent("slope", 2), exponent("slope", 1)
    (0.125, 0.25, 0.5)
    >>> exponent("gate_slope", 2), exponent("gate_slope", 2, source="derived")
    (0.125, 0.25)
    >>> exponent("selection", 1), exponent("selection", 1, source="derived")
    (0.5, 1.0)
    >>> exponent("gate_slope", 2, interacting=False)
    0.25
    """
    known = (*IN_CELLS, "temperature", *ANYWHERE, *BOUNDARY, OPEN)
    if group not in known:
        groups = ", ".join(map(repr, known))
        raise ValueError(f"The 'group' parameter must be one of {{{groups}}}; got {group!r}.")
    check_int("cell_size", cell_size, 1)
    if not attained:
        if group != "density":
            raise ValueError(f"No rate is predicted for {group!r} where the truth is not attained.")
        return 0.0
    if group == OPEN:
        return 0.0
    if group in BOUNDARY:
        return 0.5 if source == "published" else 1.0
    if group in ANYWHERE:
        return 0.5
    if cell_size == 1:
        return 0.5
    if group == "temperature":
        return 0.25 if source == "published" else 0.5
    if not interacting and group in ("gate_slope", "slope"):
        return 0.25
    r = rbar(cell_size).value
    if source == "published":
        return 1 / r if group in ("slope", "variance") else 1 / (2 * r)
    if group in ("gate_slope", "slope"):
        if not free_cell:
            raise ValueError(f"No rate is derived for {group!r} when every cell is over-fitted.")
        return 0.25
    return 1 / r if group == "variance" else 1 / (2 * r)

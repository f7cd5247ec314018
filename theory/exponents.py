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

A density has exponent 0, it levels off, where the fitted family keeps away from the truth.

References
----------
.. [1] Nguyen, Nguyen and Ho (2023), Demystifying softmax gating function in Gaussian mixture of
   experts, arXiv 2305.03288.
.. [2] Nguyen, Akbarian, Yan and Ho (2024), Statistical perspective of top-K sparse softmax gating
   mixture of experts, arXiv 2309.13850.
"""

from __future__ import annotations

from typing import Literal

from .voronoi import rbar

Source = Literal["published", "derived"]

IN_CELLS = ("gate_slope", "slope", "intercept", "variance")
"""Groups whose exponent depends on the number of atoms in a cell."""

ANYWHERE = ("mass", "loss", "density", "length")
BOUNDARY = ("selection", "direction")


def exponent(
    group: str,
    cell_size: int,
    *,
    source: Source = "published",
    free_cell: bool = True,
    attained: bool = True,
) -> float:
    """The exponent a predicted for one group of parameters in cells of a size.

    Parameters
    ----------
    group : str
        "mass", "gate_slope", "slope", "intercept", "variance", "loss", "density", or of a selection
        boundary "selection" (the probability of another choice), "direction" or "length".
    cell_size : int
        Number m of fitted atoms in the cell, at least 1.
    source : {"published", "derived"}
        The theorem's upper bound, or the rate derived to be sharp.
    free_cell : bool
        Whether some true atom has a single fitted atom: without one the gate slope is not
        identified, and the derivation does not apply.
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
    """
    if group not in (*IN_CELLS, *ANYWHERE, *BOUNDARY):
        groups = ", ".join(map(repr, (*IN_CELLS, *ANYWHERE, *BOUNDARY)))
        raise ValueError(f"The 'group' parameter must be one of {{{groups}}}; got {group!r}.")
    if not attained:
        if group != "density":
            raise ValueError(f"No rate is predicted for {group!r} where the truth is not attained.")
        return 0.0
    if group in BOUNDARY:
        return 0.5 if source == "published" else 1.0
    if group in ANYWHERE:
        return 0.5
    if cell_size == 1:
        return 0.5
    r = rbar(cell_size)
    if source == "published":
        return 1 / r if group in ("slope", "variance") else 1 / (2 * r)
    if group in ("gate_slope", "slope"):
        if not free_cell:
            raise ValueError(f"No rate is derived for {group!r} when every cell is over-fitted.")
        return 0.25
    return 1 / r if group == "variance" else 1 / (2 * r)

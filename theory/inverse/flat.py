r"""Exact families of equal densities: where no inverse bound can hold.

*Every cell over-fitted.* Behind a softmax gate give each true atom two fitted ones with half its
mass each and gate slopes :math:`\beta^*_{1j} \pm d`. Every cell's gate is multiplied by the same

.. math:: \tfrac12 (e^{d'x} + e^{-d'x}) = \cosh(d'x),

in numerator and denominator, so that p_G = p_G* whatever d. A loss that counts the d is positive
where h = 0. With one cell of a single atom the factors must all be e^(t'x), and d = 0.

*The ray of a temperature.* :math:`(\beta_0, \beta_1, \tau) \to c\,(\beta_0, \beta_1, \tau)`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kernels.checks import check_real
from moe_stats import Design, GaussianMoE

from ..voronoi import voronoi_loss
from .neighbourhood import Array, Neighbourhood
from .quotient import Discrepancy, discrepancy

ROUNDING = 4.0
"""Multiples of the stated rounding up to which a distance is 0."""

LEAST_SHIFT = 1e-6
"""Where a family is not flat its distance is of the order of the shift's square: at smaller shifts
rounding hides it."""

VISIBLE = 1e-9
"""Largest rounding at which a distance of 0 says something."""


@dataclass(frozen=True, eq=False)
class FlatFamily:
    """A measure other than the true one, and how far its density is from the true one.

    Attributes
    ----------
    model : GaussianMoE
    discrepancy : Discrepancy
    loss : float
        Voronoi loss D2 of the model (for a ray, the raw deviations).
    flat : bool
        Whether the distance is at rounding level.
    sentence : str
    """

    model: GaussianMoE
    discrepancy: Discrepancy
    loss: float
    flat: bool
    sentence: str

    def __str__(self) -> str:
        return self.sentence


def every_cell_over_fitted(
    truth: GaussianMoE,
    design: Design,
    *,
    shift: float = 1.0,
    cells: tuple[int, ...] | None = None,
) -> FlatFamily:
    """The measure that splits atoms into two of gate slopes +-shift, and its distance.

    Parameters
    ----------
    truth : GaussianMoE
        Behind a gate whose slopes may be translated.
    design : Design
    shift : float
        d, in every coordinate, per unit of the features; at least `LEAST_SHIFT` in absolute value,
        and small enough for the rounding of exp(d'x) to stay below `VISIBLE`.
    cells : tuple of int or None
        1 or 2 atoms for each true one; None takes 2 throughout. Atoms that are not split stay.

    Returns
    -------
    FlatFamily

    Raises
    ------
    ValueError
        If gate slopes are identified, or a parameter is not as described.

    Examples
    --------
    >>> from moe_stats import LinearExperts, SoftmaxGate, Uniform
    >>> truth = GaussianMoE(
    ...     SoftmaxGate([0.3, 0.0], [[1.0], [0.0]]),
    ...     LinearExperts([[-1.0], [1.0]], [0.5, -0.5], [0.5, 0.6]),
    ... )
    >>> every_cell_over_fitted(truth, Uniform(0, 1)).flat
    True
    >>> every_cell_over_fitted(truth, Uniform(0, 1), cells=(2, 1)).flat
    False
    """
    if "gate_slope" not in truth.gate.translates:
        raise ValueError(
            "The 'truth' parameter must have a gate whose slopes may be translated; got "
            f"{type(truth.gate).__name__}."
        )
    cells = (2,) * truth.n_experts if cells is None else cells
    if not isinstance(cells, tuple | list) or any(type(m) is not int or m > 2 for m in cells):
        raise ValueError(f"The 'cells' parameter must hold 1 or 2 for each atom; got {cells!r}.")
    if abs(check_real("shift", shift)) < LEAST_SHIFT:
        raise ValueError(
            f"The 'shift' parameter must be at least {LEAST_SHIFT:g} in absolute value; "
            f"got {shift!r}."
        )
    near = Neighbourhood(truth, design, cells, radius=2 * abs(shift))
    d = near.copies()
    for j, m in enumerate(cells):
        if m == 2:
            first, second = np.split(near.where("gate_slope", j), 2)
            d[first], d[second] = shift, -shift
    with np.errstate(over="ignore", invalid="ignore"):
        found, model = discrepancy(near, d), near.model(d)
    if not found.rounding < VISIBLE:
        raise ValueError(
            f"The 'shift' parameter must leave the distance's rounding below {VISIBLE:g}; got "
            f"{found.rounding:.1e} with shift={shift!r}."
        )
    loss = float(voronoi_loss(model, near.truth, order="D2").value)
    flat = found.value <= ROUNDING * found.rounding
    if flat:
        sentence = (
            f"With {sum(cells)} atoms for {len(cells)} and at least two in every cell, "
            f"h = {found.value:.1e} (rounding {found.rounding:.1e}) at |db1| = {abs(shift):g}, "
            f"where D2 = {loss:.3g}: the inverse bound as remembered fails here, and b1 is not "
            "identified. The theorem may exclude this case: check against the theorem's text."
        )
    else:
        sentence = (
            f"With cells {cells} the family is gone: h = {found.value:.2e} at "
            f"|db1| = {abs(shift):g}, D2 = {loss:.3g}."
        )
    return FlatFamily(model, found, loss, flat, sentence)


def temperature_ray(
    truth: GaussianMoE,
    design: Design,
    *,
    factor: float = 2.0,
) -> FlatFamily:
    """The truth with (b0, b1, tau) scaled together, and its distance.

    Parameters
    ----------
    truth : GaussianMoE
        Behind a gate with one shared parameter, the logarithm of a temperature.
    design : Design
    factor : float
        c, other than 1, in [1e-6, 1e6], the range of temperatures in estimation, and at least
        `LEAST_SHIFT` away from 1.

    Returns
    -------
    FlatFamily
        With the largest raw deviation, of b0, b1 or tau, as its loss. An activation breaks the
        ray: ``flat`` is then False.

    Raises
    ------
    ValueError
        If the gate has no temperature, or a parameter is not as described.
    """
    if truth.gate.form.n_shared != 1:
        raise ValueError(
            "The 'truth' parameter must have a gate with a temperature; got "
            f"{type(truth.gate).__name__}."
        )
    check_real("factor", factor, low=1e-6, high=1e6)
    if abs(factor - 1) < LEAST_SHIFT:
        raise ValueError(
            f"The 'factor' parameter must differ from 1 by {LEAST_SHIFT:g} or more; got {factor!r}."
        )
    near = Neighbourhood(truth, design, (1,) * truth.n_experts)
    own, shared = (p.numpy() for p in near.truth.gate.pack())
    tau = float(np.exp(shared[0]))
    d: Array = near.copies()
    d[near.where("gate_slope")] = (factor - 1) * own[:, 1:].ravel()
    d[near.group == "temperature"] = np.log(factor)
    d[near.group == "mass"] = own[:, 0] * (1 / tau - 1 / (factor * tau))
    found = discrepancy(near, d)
    raw = abs(factor - 1) * max(float(np.abs(own).max()), tau)
    flat = found.value <= ROUNDING * found.rounding
    told = "not identified: no rate at all" if flat else "identified"
    sentence = (
        f"With (b0, b1, tau) times {factor:g}, raw deviations up to {raw:.3g}, h = "
        f"{found.value:.1e} (rounding {found.rounding:.1e}): the raw parameters are {told}."
    )
    return FlatFamily(near.model(d), found, raw, flat, sentence)

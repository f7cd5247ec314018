r"""Two-point lower bounds: measures that n observations cannot tell apart.

Let G, G' be at distance delta in a parameter and h their Hellinger distance (of the joint laws,
h^2 = E_X h^2(p_G, p_G')). The affinity of n observations is A = (1 - h^2)^n, and by Le Cam [1]_

.. math::
    \inf_{\hat\theta} \max_{G, G'} E\, d(\hat\theta, \theta) \ge
    \frac{\delta}{4} \Bigl(1 - \sqrt{1 - A^2}\Bigr).

Along the bad direction h is of order delta^r: sizes delta_n of order n^(-1/(2 r)) keep n h^2, hence
A, fixed, and no estimator is faster than n^(-1/(2 r)).

Two kinds of pairs. *Pointwise*: the truth, its atoms doubled, against the minimiser of
`theory.inverse.local_exponent`; this is the theorems' setting, G* fixed. *Moving*: two measures
that both tend to the truth. In a cell of two atoms they may share five moments [2]_, where one of
them and the truth can share three only: the intercepts' rate is then n^(-1/12), not n^(-1/8). The
pointwise rate is not uniform over a neighbourhood.

References
----------
.. [1] Tsybakov (2009), Introduction to Nonparametric Estimation, Theorem 2.2.
.. [2] Hardt and Price (2015), Tight bounds for learning a mixture of two Gaussians, STOC.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from .._validation import as_array
from .local_exponent import LocalExponent, extrapolated, largest_deviation, local_exponent
from .neighbourhood import Array, Neighbourhood
from .quotient import FINER, Quotient

BUDGET = 0.25
"""n h^2 of every pair; the affinity is then about exp(-.25)."""

_N_SIZES = 8
_LARGEST = 1e12


@dataclass(frozen=True, eq=False)
class TwoPoint:
    """Pairs of measures, one for each sample size, and what they imply.

    Attributes
    ----------
    group : str
        The parameter in which the pairs differ.
    n : ndarray
        (T,) sample sizes, ascending: those at which n h^2 is `BUDGET`.
    distance : ndarray
        (T,), delta, the largest deviation in the group between the two.
    affinity : ndarray
        (T,), (1 - h^2)^n.
    lower_bound : ndarray
        (T,), on the maximal risk of every estimator.
    exponent, error : float
        Of 1/n in the lower bound at large n, with the drift of local exponents as its error.
    constant : float
        lower_bound times n^exponent at the largest n.
    pairs : ndarray
        (T, 2, P), the deviations of both measures.
    """

    group: str
    n: Array
    distance: Array
    affinity: Array
    lower_bound: Array
    exponent: float
    error: float
    constant: float
    pairs: Array

    def __str__(self) -> str:
        return (
            f"No estimator of the {self.group} is faster than {self.constant:.3g} "
            f"n^-{self.exponent:.4f} (+-{self.error:.4f}): pairs at distance "
            f"{self.distance[0]:.2g} to {self.distance[-1]:.2g} keep an affinity of at least "
            f"{self.affinity.min():.2f} for n from {self.n[0]:.1g} to {self.n[-1]:.1g}."
        )


def pointwise_pairs(
    near: Neighbourhood,
    found: LocalExponent,
    *,
    n: Sequence[float] | None = None,
) -> TwoPoint:
    """The truth against minimisers along the bad direction of a parameter.

    Parameters
    ----------
    near : Neighbourhood
    found : LocalExponent
        Of the parameter, in this neighbourhood.
    n : sequence of float or None
        At least 4 ascending sample sizes, met to within what interpolation leaves; None takes 8 up
        to 10^12, from about the first whose pair lies within half the radius and the bounds.

    Returns
    -------
    TwoPoint

    Raises
    ------
    ValueError
        If the parameter is not identified, or n is not as described.
    """
    if found.status == "flat":
        raise ValueError(
            f"The 'found' parameter must have a positive exponent; the {found.group} deviation is "
            "not identified, and no pair is needed: equal densities lie at any distance."
        )
    log_h, log_delta = np.log(found.values), np.log(found.deltas)
    reach = math.log(min(0.5 * near.radius, largest_deviation(near, found.group)))
    furthest = log_h[0] + (reach - log_delta[0]) * found.exponent
    wanted = _sample_sizes(n, BUDGET * math.exp(-2 * furthest))
    level = 0.5 * np.log(BUDGET / wanted)
    log_size = np.interp(level, log_h[::-1], log_delta[::-1])
    for end, outside in ((0, level > log_h[0]), (-1, level < log_h[-1])):
        log_size[outside] = log_delta[end] + (level[outside] - log_h[end]) / found.exponent
    deltas = np.exp(np.minimum(log_size, reach))
    again = local_exponent(near, found.group, deltas=deltas.tolist(), n_starts=2)
    pairs = np.stack([np.tile(near.copies(), (len(deltas), 1)), again.minimisers], axis=1)
    return _two_point(found.group, deltas, again.values, pairs)


def moving_pairs(near: Neighbourhood, *, n: Sequence[float] | None = None) -> TwoPoint:
    """Two measures near the truth whose intercepts differ while five moments agree.

    Parameters
    ----------
    near : Neighbourhood
        With two atoms in the examined cell and a least share of at most .25.
    n : sequence of float or None
        At least 4 ascending sample sizes; None takes 8 from 10^8 to 10^12, where deviations are
        small enough for moments to tell.

    Returns
    -------
    TwoPoint
        The distance is the largest difference of intercepts, least over both ways to match atoms.

    Raises
    ------
    ValueError
        If the examined cell has not two atoms, or n is not as described.
    """
    cell = near.cell or 0
    if near.cells[cell] != 2 or near.min_share > 0.25:
        raise ValueError(
            "The 'near' parameter must have two atoms in the examined cell and a min_share of at "
            f"most 0.25; got {near.cells[cell]} and {near.min_share!r}."
        )
    sizes = _sample_sizes(n, 1e8)
    shapes = matched_shapes()
    quotient = Quotient(near, FINER)

    def pair(delta: float) -> Array:
        return np.stack([_placed(near, cell, shape, delta) for shape in shapes])

    def distance(delta: float) -> float:
        e, f = (quotient.residuals(d)[0] for d in pair(delta))
        return float(np.linalg.norm(e - f))

    deltas = np.array([_size(distance, math.sqrt(BUDGET / size)) for size in sizes])
    values = np.array([distance(delta) for delta in deltas])
    apart = _apart(shapes)
    return _two_point("intercept", apart * deltas, values, np.stack([*map(pair, deltas)]))


def matched_shapes() -> Array:
    """Two mixtures of two normals with equal moments 1 to 5, of intercepts of size up to one.

    Returns
    -------
    ndarray
        (2, 5): share of the first component, two intercepts, two excess variances, which scale as
        delta and delta^2.
    """

    def gap(v: Array) -> Array:
        a, b = _moments(v[:5]), _moments(v[5:])
        # equal moments, mean 0, intercepts 2 apart, shares as at the start
        return np.append((a - b) / _FACTORIALS, [a[0], v[2] - v[1] - 2, v[0] - 0.6, v[5] - 0.4])

    found = least_squares(gap, _START, xtol=1e-15, ftol=1e-15, gtol=1e-15)
    if np.abs(found.fun).max() > 1e-12:
        raise ArithmeticError(f"Five moments were matched only to {np.abs(found.fun).max():.1e}.")
    shapes = found.x.reshape(2, 5)
    size = np.abs(shapes[:, 1:3]).max()
    return np.asarray(shapes / np.array([1, size, size, size**2, size**2]))


_FACTORIALS = np.array([1.0, 2.0, 6.0, 24.0, 120.0])
_START = (0.6, -0.8, 1.2, -0.3, 0.6, 0.4, -1.0, 0.6, -0.6, 1.0)


def _moments(shape: Array) -> Array:
    """Moments 1 to 5 of a mixture of two normals; a variance may be negative, an excess."""
    q, b, s = np.array([shape[0], 1 - shape[0]]), shape[1:3], shape[3:]
    each = [np.ones(2), b]
    for k in range(2, 6):
        each.append(b * each[-1] + (k - 1) * s * each[-2])
    return np.array([q @ m for m in each[1:]])


def _apart(shapes: Array) -> float:
    """Largest difference of intercepts, least over both ways to match atoms."""
    a, b = shapes[0, 1:3], shapes[1, 1:3]
    return float(min(np.abs(a - b).max(), np.abs(a - b[::-1]).max()))


def _placed(near: Neighbourhood, cell: int, shape: Array, delta: float) -> Array:
    """Deviations of a mixture of that shape and size delta in a cell of two."""
    d = near.copies()
    share = np.flatnonzero(near.group == "share")[sum(m - 1 for m in near.cells[:cell])]
    d[share] = (shape[0] - near.min_share) / (1 - 2 * near.min_share)
    d[near.where("intercept", cell)] = delta * shape[1:3]
    d[near.where("variance", cell)] = delta**2 * shape[3:]
    return d


def _size(distance: Callable[[float], float], target: float) -> float:
    """delta of that distance: secant steps on the logarithms, from order six."""
    delta, power = 0.3, 6.0
    h = distance(delta)
    for _ in range(12):
        new = delta * (target / h) ** (1 / power)
        moved = distance(new)
        if abs(math.log(moved / target)) < 1e-6:
            return new
        power = math.log(moved / h) / math.log(new / delta)
        delta, h = new, moved
    raise ArithmeticError(f"No pair of distance {target:.1e} was found; the last is {h:.1e}.")


def _sample_sizes(n: Sequence[float] | None, first: float) -> Array:
    if n is None:
        return np.geomspace(max(first, 100.0), _LARGEST, _N_SIZES)
    sizes = as_array("n", n)
    if sizes.ndim != 1 or len(sizes) < 4 or (np.diff(sizes) <= 0).any() or sizes[0] < first:
        raise ValueError(
            f"The 'n' parameter must hold at least 4 ascending numbers from {first:.3g} up, where "
            f"pairs lie in the neighbourhood; got {n!r}."
        )
    return sizes


def _two_point(group: str, distance: Array, values: Array, pairs: Array) -> TwoPoint:
    sizes = BUDGET / values**2
    affinity = np.exp(sizes * np.log1p(-(values**2)))
    bound = distance / 4 * (1 - np.sqrt(1 - affinity**2))
    exponent, error = extrapolated(-np.diff(np.log(bound)) / np.diff(np.log(sizes)))
    return TwoPoint(
        group=group,
        n=sizes,
        distance=distance,
        affinity=affinity,
        lower_bound=bound,
        exponent=exponent,
        error=error,
        constant=float(bound[-1] * sizes[-1] ** exponent),
        pairs=pairs,
    )

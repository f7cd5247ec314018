r"""The order at which the density notices a deviation: by quadrature, without data.

For a group of deviations (gate slopes, slopes, intercepts, variances) of the atoms in one cell,

.. math::
    H(\delta) = \min \bigl\{ (E_X h^2(p_G, p_{G_*}))^{1/2} :\ \max_{i, u} |d_{iu}| = \delta \bigr\}
    \asymp \delta^{r}

over all else in a `Neighbourhood`. The *local exponents* log H(delta) / H(delta') over
log delta / delta' drift towards r as delta falls. A loss in which this deviation has power p
satisfies the inverse bound h >= C D in this direction if and only if r <= p; the deviation then
has rate n^(-1/(2 r)).

One entry is set to +-delta, the others of the group stay within; every coordinate and both signs
are tried. At the largest and at the smallest delta descents start at random, with the sizes that
several hypotheses about orders suggest; in between from what was found at the deltas before, until
two ends agree. What was found is then followed back to larger deltas, so that both searches speak
for every delta.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from kernels.checks import check_choice, check_count
from moe_stats._validation import generator

from .._validation import as_array
from ..voronoi import ORDERS
from .descent import Descent, descend
from .neighbourhood import ATOM, Array, Neighbourhood
from .quotient import FINER, Quotient

Status = Literal["settled", "drifting", "flat"]

FLAT = 4.0
"""Multiples of the rounding up to which a distance cannot be told from 0."""

_ZERO = 1e-12
"""And the largest distance along a family of equal densities, which a descent ends near."""

_RESOLVED = 0.01
"""Share of rounding in a distance up to which its logarithm is good enough."""

_LEAST = 1e-150
"""Least distance whose square is a number."""

_AGREEMENT = 0.02
"""Relative difference of two node counts beyond which nothing is reported."""

TOLERANCE = 0.03
"""Relative error of an exponent up to which it counts as settled."""

_SHORT, _N_LONG = 25, 2
"""Iterations from every start, and how many of the best ends are continued."""

_SAME = 1e-6
"""Relative difference of two ends up to which they agree."""

_HYPOTHESES = ("D1", "D2", "sharp", "second", "alone")


@dataclass(frozen=True, eq=False)
class LocalExponent:
    """How the smallest distance falls with a deviation.

    Attributes
    ----------
    group : str
        Which deviation.
    cell_size : int
        Fitted atoms in its cell.
    deltas, values, means : ndarray
        (T,), descending sizes; H, smallest (E_X h^2)^(1/2); E_X h where H was found.
    local : ndarray
        (T - 1,), exponents between successive sizes.
    exponent, error : float
        Extrapolated to 0 and its error: how far extrapolation moved the last local exponent and
        how much it changed with one size fewer, the larger, and what quadrature and rounding allow.
        0 where the distance is flat.
    mean_exponent : float
        The same of E_X h.
    powers : dict of str to float
        With which power of delta each group of deviations falls along the minimisers, by name as
        in `Neighbourhood.largest`; groups that do not move by more than rounding are left out.
    minimisers : ndarray
        (T, P), deviations where H was found.
    quadrature_error : float
        Largest relative difference of `values` from those with more nodes.
    rounding : float
        Largest share of rounding in a value.
    n_converged : int
        How many of the T searches ended because the distance no longer fell.
    status : {"settled", "drifting", "flat"}
        Whether error / exponent is within 3%, is not, or the smallest distance is at rounding level
        whatever delta: the deviation is not identified.
    """

    group: str
    cell_size: int
    deltas: Array
    values: Array
    means: Array
    local: Array
    exponent: float
    error: float
    mean_exponent: float
    powers: Mapping[str, float]
    minimisers: Array
    quadrature_error: float
    rounding: float
    n_converged: int
    status: Status

    def __str__(self) -> str:
        cell = "a cell with one atom" if self.cell_size == 1 else f"a cell of {self.cell_size}"
        if self.status == "flat":
            return (
                f"The {self.group} deviation in {cell} is not identified: at sizes "
                f"{self.deltas[0]:.3g} to {self.deltas[-1]:.3g} the distance is at most "
                f"{self.values.max():.1e}, rounding."
            )
        moves = ", ".join(f"{k} ~ delta^{v:.2f}" for k, v in self.powers.items())
        return (
            f"The distance is of order {self.exponent:.3f} +- {self.error:.3f} in the {self.group} "
            f"deviation in {cell} ({self.status}); along {moves}."
        )


def local_exponent(
    near: Neighbourhood,
    group: str,
    *,
    deltas: Sequence[float] | None = None,
    n_starts: int = 6,
    random_state: Any = 0,
) -> LocalExponent:
    """Order of the distance in one group of deviations of the examined cell.

    Parameters
    ----------
    near : Neighbourhood
    group : {"gate_slope", "slope", "intercept", "variance", "mass", "temperature"}
        Whose largest absolute deviation is fixed; "mass" is the log mass of the cell.
    deltas : sequence of float or None
        At least four sizes, descending, at most the radius; None takes a tenth to a thousandth of
        the radius for cells of one or two atoms, coarser ones for more.
    n_starts : int
        Random starts for each hypothesis, sign and coordinate, at the first size; 1 at the others.
    random_state : None, int, SeedSequence or Generator
        Of the starts.

    Returns
    -------
    LocalExponent

    Raises
    ------
    ValueError
        If a parameter is not as described, or a size is so small that the smallest distance drowns
        in rounding: the message says which sizes are possible.
    """
    chosen = _entries(near, group)
    m = near.cells[near.cell or 0]
    reach = largest_deviation(near, group)
    sizes = _sizes(deltas, reach, m)
    check_count("n_starts", n_starts)
    rng = generator(random_state)
    search = _Search(near, group, m)
    variants = [(k, sign) for k in chosen for sign in (1.0, -1.0)]
    found: list[dict[tuple[int, float], Descent]] = []
    for t, delta in enumerate(sizes):
        here = {}
        for variant in variants:
            starts = search.continued([f[variant].point for f in found[-2:]], sizes[: t + 1])
            starts += search.fresh(delta, n_starts if t == 0 else 1, rng)
            starts += search.exact(delta, variant)
            every = t in (0, len(sizes) - 1)
            here[variant] = search.best(starts, delta, variant, chosen, every=every)
        found.append(here)
    for t in range(len(sizes) - 2, -1, -1):
        for variant in variants:
            smaller = [f[variant].point for f in found[t + 2 : t : -1]]
            starts = search.continued(smaller, sizes[t : t + 3][::-1])
            back = search.best(starts, sizes[t], variant, chosen, every=False)
            found[t][variant] = min(found[t][variant], back, key=lambda d: d.norm)
    best = [min(f.values(), key=lambda d: d.norm) for f in found]
    return _result(search, sizes, best, reach)


@dataclass(eq=False)
class _Search:
    """Descents with one deviation fixed, and where they start."""

    near: Neighbourhood
    group: str
    cell_size: int
    quotient: Quotient = field(init=False)

    def __post_init__(self) -> None:
        self.quotient = Quotient(self.near)

    def best(
        self,
        starts: list[Array],
        delta: float,
        variant: tuple[int, float],
        chosen: list[int],
        *,
        every: bool,
    ) -> Descent:
        """The lowest end: a short descent from each start, or from one after the other until the
        two lowest ends agree, and a long one from the best that have not converged."""
        low, high, scale = self._box(delta, variant, chosen)

        def residuals(d: Array, jacobian: bool) -> tuple[Array, Array | None]:
            return self.quotient.residuals(d, jacobian=jacobian)

        ends: list[Descent] = []
        for start in starts:
            ends.append(descend(residuals, start, low, high, scale, max_iter=_SHORT))
            ends.sort(key=lambda d: d.norm)
            if not every and len(ends) > 1 and ends[1].norm <= (1 + _SAME) * ends[0].norm:
                break
        long = [
            d if d.converged else descend(residuals, d.point, low, high, scale)
            for d in ends[:_N_LONG]
        ]
        return min(long, key=lambda d: d.norm)

    def _box(
        self, delta: float, variant: tuple[int, float], chosen: list[int]
    ) -> tuple[Array, Array, Array]:
        near = self.near
        low, high = (b.copy() for b in near.bounds)
        held = ~near.free
        low[held] = high[held] = near.copies()[held]
        group = near.where(self.group, near.cell) if self.group in ATOM else chosen
        low[group], high[group] = np.maximum(low[group], -delta), np.minimum(high[group], delta)
        entry, sign = variant
        low[entry] = high[entry] = sign * delta
        return low, high, self.sizes("sharp", delta)

    def sizes(self, hypothesis: str, delta: float) -> Array:
        """(P,), how large each deviation is when the fixed one is delta, if orders are right."""
        near = self.near
        powers = self._orders(hypothesis)
        level = delta ** powers.get(self.group, 1.0) if self.cell_size > 1 else delta
        inside = np.isin(near.members, np.flatnonzero(np.array(near.cells) > 1))
        multi = np.zeros(near.size, dtype=bool)
        multi[: inside.size * near.width] = np.repeat(inside, near.width)
        size = np.full(near.size, level)
        for g in ATOM:
            here = (near.group == g) & multi
            size[here] = level ** (1 / powers[g])
        size[near.group == "temperature"] = level ** (1 / powers["temperature"])
        size[near.group == "share"] = 0.3
        return size

    def fresh(self, delta: float, n: int, rng: np.random.Generator) -> list[Array]:
        near, starts = self.near, []
        share = near.group == "share"
        for hypothesis in _HYPOTHESES:
            size = self.sizes(hypothesis, delta)
            if hypothesis == "alone":  # only this group moves, which finds exact families
                size = np.where(near.group == self.group, delta, 0.0)
            for _ in range(n):
                start = near.copies() + size * rng.normal(size=near.size)
                start[share] = rng.uniform(size=share.sum())
                starts.append(start)
        return starts

    def exact(self, delta: float, variant: tuple[int, float]) -> list[Array]:
        """The measure of equal density where every cell is over-fitted: one atom of each, of the
        same share, moves its gate slope by the same amount (`theory.inverse.flat`)."""
        near = self.near
        slopes_free = "gate_slope" in near.truth.gate.translates
        if self.group != "gate_slope" or min(near.cells) == 1 or not slopes_free:
            return []
        entry, sign = variant
        start, share = near.copies(), 1 / max(near.cells)
        first = np.cumsum([0, *near.cells[:-1]])
        start[first * near.width + entry % near.width] = sign * delta
        t = np.flatnonzero(near.group == "share")[first - np.arange(len(near.cells))]
        start[t] = [(share - near.min_share) / (1 - m * near.min_share) for m in near.cells]
        return [start]

    def continued(self, points: list[Array], sizes: Array) -> list[Array]:
        """From the last minimisers: by the expected powers, and by those observed."""
        if not points:
            return []
        near = self.near
        keep = near.group == "share"
        expected = self.sizes("sharp", sizes[-1]) / self.sizes("sharp", sizes[-2])
        starts = [np.where(keep, points[-1], points[-1] * expected)]
        if len(points) == 2:
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = points[1] / points[0]
                power = np.log(ratio) / np.log(sizes[-2] / sizes[-3])
                moved = points[1] * (sizes[-1] / sizes[-2]) ** np.clip(power, 0, 8)
            starts.append(np.where(keep | ~np.isfinite(moved), starts[0], moved))
        return starts

    def _orders(self, hypothesis: str) -> dict[str, float]:
        if hypothesis in ("second", "alone"):
            return dict.fromkeys((*ATOM, "temperature"), 2.0)
        return {g: power(max(2, self.cell_size)) for g, power in ORDERS[hypothesis].items()}


def _entries(near: Neighbourhood, group: str) -> list[int]:
    """Indices of which one is fixed: the first atom of the cell, each coordinate."""
    check_choice("group", group, (*ATOM, "mass", "temperature"))
    cell = near.cell or 0
    if group == "mass":
        chosen = np.flatnonzero(near.group == "mass")[[cell]]
    elif group == "temperature":
        chosen = np.flatnonzero(near.group == "temperature")
    else:
        n = near.n_features if group in ("gate_slope", "slope") else 1
        chosen = near.where(group, cell)[:n]
    if not len(chosen) or not near.free[chosen].all():
        raise ValueError(
            f"The 'group' parameter is {group!r}, which in this neighbourhood is held at the "
            "truth, pinned by the gate's translation, or no parameter of the gate."
        )
    return [int(k) for k in chosen]


def largest_deviation(near: Neighbourhood, group: str) -> float:
    """How far, to either side, a group's deviations may go in the examined cell."""
    chosen = _entries(near, group)
    low, high = near.bounds
    return float(np.minimum(-low[chosen], high[chosen]).min())


def _sizes(deltas: Sequence[float] | None, reach: float, m: int) -> Array:
    if deltas is None:
        ends = (0.1, 0.001) if m <= 2 else (0.3, 0.03)
        return reach * np.geomspace(*ends, 8)
    sizes = as_array("deltas", deltas)
    good = sizes.ndim == 1 and len(sizes) >= 4 and bool((np.diff(sizes) < 0).all())
    if not good or sizes[-1] <= 0 or sizes[0] > reach:
        raise ValueError(
            "The 'deltas' parameter must hold at least 4 descending numbers in "
            f"(0, {reach:.4g}], as far as the neighbourhood reaches; got {deltas!r}."
        )
    return sizes


def _result(search: _Search, sizes: Array, best: list[Descent], reach: float) -> LocalExponent:
    near, group, m = search.near, search.group, search.cell_size
    q, finer = search.quotient, Quotient(near, FINER)
    points = [d.point for d in best]
    values = np.array([finer.value(p) for p in points])
    means = np.array([finer.mean(p) for p in points])
    rounding = np.array([q.rounding(p) for p in points])
    rounding = np.where(values < _LEAST, np.inf, rounding / np.maximum(values, _LEAST))
    coarse = np.array([d.norm for d in best])
    at_rounding = rounding > 1 / FLAT
    flat = at_rounding.mean() >= 0.5 and values.max() < _ZERO and sizes[0] >= 0.05 * reach
    if not flat and rounding[-1] > _RESOLVED:
        least = sizes[rounding <= _RESOLVED].min(initial=math.inf)
        possible = f"from {least:.2g} up" if least < math.inf else f"above {sizes[0]:.2g}"
        raise ValueError(
            f"The 'deltas' parameter goes down to {sizes[-1]:.2g}, where the smallest distance "
            f"{values[-1]:.1e} is within 100 times the rounding {q.rounding(points[-1]):.1e}: "
            f"sizes {possible} can be resolved."
        )
    quadrature = 0.0 if flat else float(np.abs(values / coarse - 1).max())
    if quadrature > _AGREEMENT:
        raise ValueError(
            f"The two node counts disagree by {quadrature:.1%} of the distance: the truth's gate "
            "needs more 'breaks' in x."
        )
    if flat:
        return LocalExponent(
            group=group,
            cell_size=m,
            deltas=sizes,
            values=values,
            means=means,
            local=np.zeros(len(sizes) - 1),
            exponent=0.0,
            error=0.0,
            mean_exponent=0.0,
            powers={},
            minimisers=np.stack(points),
            quadrature_error=0.0,
            rounding=float(rounding.max()),
            n_converged=sum(d.converged for d in best),
            status="flat",
        )
    local = _slopes(sizes, values)
    exponent, drift = extrapolated(local)
    step = math.log(sizes[-2] / sizes[-1])
    noise = rounding[-2:].sum() + abs(math.log(values[-1] * coarse[-2] / coarse[-1] / values[-2]))
    error = max(drift, noise / step)
    return LocalExponent(
        group=group,
        cell_size=m,
        deltas=sizes,
        values=values,
        means=means,
        local=local,
        exponent=exponent,
        error=error,
        mean_exponent=extrapolated(_slopes(sizes, means))[0],
        powers=_powers(near, sizes, points),
        minimisers=np.stack(points),
        quadrature_error=quadrature,
        rounding=float(rounding.max()),
        n_converged=sum(d.converged for d in best),
        status="settled" if error <= TOLERANCE * exponent else "drifting",
    )


def _slopes(sizes: Array, values: Array) -> Array:
    return np.diff(np.log(values)) / np.diff(np.log(sizes))


def extrapolated(local: Array) -> tuple[float, float]:
    """Limit of local exponents, at least three of sizes in geometric progression, and its error.

    Where the last differences shrink geometrically, Aitken's limit; its error is how far it lies
    from the last local exponent, or from the limit with one size fewer. Otherwise the last local
    exponent; its error is the range of the last four.
    """
    limit = _aitken(local)
    if limit is None:
        return float(local[-1]), float(np.ptp(local[-4:]))
    before = _aitken(local[:-1])
    shift = abs(limit - float(local[-1]))
    return limit, max(shift, abs(limit - before) if before is not None else shift)


def _aitken(local: Array) -> float | None:
    if len(local) < 3:
        return None
    a, b, c = local[-3:]
    first, second = b - a, c - b
    if first == 0 or not 0 < second / first < 0.9:
        return None
    return float(c + second**2 / (first - second))


def _powers(near: Neighbourhood, sizes: Array, points: list[Array]) -> dict[str, float]:
    """Observed powers of delta between the last sizes that are a factor 2 or more apart."""
    last = len(sizes) - 1
    first = max((t for t in range(last) if sizes[t] >= 2 * sizes[last]), default=0)
    before, after = near.largest(points[first]), near.largest(points[last])
    found = {}
    for name, value in after.items():
        if value > 1e-13 and before[name] > 1e-13:
            found[name] = math.log(before[name] / value) / math.log(sizes[first] / sizes[last])
    return found

r"""The smallest distance between a truth and a family of fitted models, before any data.

.. math:: \inf_{p \in \mathcal F(k, K')} E_X\, h(p(\cdot | X), p_*(\cdot | X)).

No estimator can do better in the limit: where this infimum stays away from 0 so does every fit.
Two infima differ and both matter. *Near*: every fitted atom lies near a true one and every true
atom has one, as the theorems' local arguments suppose. *Everywhere*: the same bounds, any place.

For top-K gates K' >= (the largest number of fitted atoms that the cells of K true experts can hold)
is necessary for 0 near the truth and not sufficient: where the selected true experts have fewer
than K' fitted atoms, an atom of an unselected expert speaks too. Conversely a K' below the bound
may reach 0 far away, by duplicating an expert.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from moe_stats import Design, GateTemplate, GaussianMoE

from .closest import Array, Family, Region, Target
from .distances import double, hellinger
from .voronoi import voronoi_loss

ATTAINED = 1e-4
"""E_X h below which the truth counts as attained: optimisation from a start with h > 0 ends there
or below when the infimum is 0. By construction h is 1e-8 or less."""


@dataclass(frozen=True, eq=False)
class Split:
    """One way to share the fitted atoms among the true ones.

    Attributes
    ----------
    cells : tuple of int
        The true atom, from 0, of each fitted one.
    copies : float
        E_X h when the atoms of a cell are copies that share its mass.
    value : float
        The smallest E_X h found with this sharing; infinite if no member was feasible. Where the
        copies of one sharing attain the truth, nothing else is searched and this is ``copies``.
    model : GaussianMoE
        Where.
    """

    cells: tuple[int, ...]
    copies: float
    value: float
    model: GaussianMoE


@dataclass(frozen=True, eq=False)
class AttainableDistance:
    """Smallest distances found, with where they are.

    Attributes
    ----------
    near, everywhere : float
        E_X h in [0, 1]; `near` is NaN where no atom-by-atom neighbourhood exists (fewer fitted than
        true experts).
    error : float
        Stated error of both by quadrature (`theory.distances`), the larger. That a search may stop
        above the infimum is not in it.
    near_model, everywhere_model : GaussianMoE or None
        The minimisers.
    near_cells, everywhere_cells : tuple of int or None
        The true atom, from 0, each fitted atom belongs to.
    splits : tuple of Split
        Near, for every way to share fitted atoms among true ones, best first.
    radius : float
        What near means, at some gate translation: gate slopes, slopes and intercepts of each atom
        within it, scales and the mass of each cell within a factor exp(radius).
    sentence : str
        The result in words.
    """

    near: float
    everywhere: float
    error: float
    near_model: GaussianMoE | None
    everywhere_model: GaussianMoE | None
    near_cells: tuple[int, ...] | None
    everywhere_cells: tuple[int, ...] | None
    splits: tuple[Split, ...]
    radius: float
    sentence: str

    def __str__(self) -> str:
        return self.sentence


def attainable_distance(
    truth: GaussianMoE,
    design: Design,
    *,
    n_experts: int,
    gate: GateTemplate,
    near: bool = True,
    everywhere: bool = True,
    radius: float = 0.1,
    min_weight: float = 0.05,
    gate_bound: float = math.inf,
    min_scale: float | None = None,
    n_starts: int = 4,
    random_state: Any = 0,
) -> AttainableDistance:
    r"""Smallest E_X h between a truth and mixtures of k experts behind a gate.

    .. math:: \inf_{p \in \mathcal F(k, K')} E_X\, h(p, p_*).

    Parameters
    ----------
    truth : GaussianMoE
        k* experts.
    design : Design
        The law of X.
    n_experts : int
        k.
    gate : GateTemplate
        The fitted gate, with its K'. Its parameters must be those of the truth's gate.
    near, everywhere : bool
        Which infima to look for; NaN for one that is not.
    radius : float
        See `AttainableDistance`.
    min_weight : float
        Least mean gate probability of an expert that is ever selected, in [0, 1 / k). Without it
        an atom may vanish and infima over split atoms are 0 in the limit.
    gate_bound : float
        Bound on the absolute value of every gate parameter.
    min_scale : float or None
        Least scale, in units of y; None takes a tenth of the smallest true one.
    n_starts : int
        Local searches from random starts, everywhere.
    random_state : None, int, SeedSequence or Generator
        Of the starts.

    Returns
    -------
    AttainableDistance

    Raises
    ------
    ValueError
        If the truth is a batch, or the gate has other parameters than the truth's.

    Notes
    -----
    A value above 0 is the best of several local searches, an upper bound on the infimum.

    References
    ----------
    Nguyen, Akbarian, Yan and Ho (2024), arXiv 2309.13850: the bound on K' for over-specified fits.

    Examples
    --------
    >>> from moe_stats import LinearExperts, SoftmaxGate, Uniform
    >>> truth = GaussianMoE(
    ...     SoftmaxGate([0.3, 0.0], [[1.0], [0.0]]),
    ...     LinearExperts([[-1.0], [1.0]], [0.5, -0.5], [0.3, 0.4]),
    ... )
    >>> found = attainable_distance(truth, Uniform(0, 1), n_experts=3, gate=SoftmaxGate.template())
    >>> found.near < 1e-8, found.near_cells
    (True, (0, 0, 1))
    """
    truth = double(truth)
    _check(truth, n_experts, gate, min_weight)
    smallest = float(truth.experts.scale.min())
    family = Family(
        gate,
        n_experts,
        truth.n_features,
        min_weight,
        gate_bound,
        smallest / 10 if min_scale is None else min_scale,
    )
    rng = np.random.default_rng(random_state)
    target = Target(truth, design, family, int(rng.integers(2**31)))
    splits: list[Split] = []
    if near and n_experts >= truth.n_experts:
        splits = [_copy(target, cells, radius) for cells in _sharings(truth, n_experts)]
        if min(s.copies for s in splits) > ATTAINED:
            splits = [_split(target, s, radius, rng) for s in splits]
        splits.sort(key=lambda s: s.value)
    best = splits[0] if splits and math.isfinite(splits[0].value) else None
    value, model = (best.value, best.model) if best else (math.inf, None)
    if everywhere and value > ATTAINED:
        value, model = _search(target, n_starts, rng, value, model)
    found = [m for m in ((best.model if best else None), model if everywhere else None) if m]
    distances = [hellinger(m, truth, design, random_state=target.random_state) for m in found]
    error = max((float(d.error) for d in distances), default=math.nan)
    nearest = best.value if best else math.nan
    furthest = value if everywhere else math.nan
    cells = best.cells if best else None
    return AttainableDistance(
        near=nearest,
        everywhere=furthest,
        error=error,
        near_model=best.model if best else None,
        everywhere_model=model if everywhere else None,
        near_cells=cells,
        everywhere_cells=_cells(model, truth) if everywhere else None,
        splits=tuple(splits),
        radius=radius,
        sentence=_sentence(family, nearest, furthest, cells, splits),
    )


def _check(truth: GaussianMoE, n_experts: int, gate: GateTemplate, min_weight: float) -> None:
    if truth.batch_shape:
        raise ValueError(
            f"The 'truth' parameter must be a single model; got batch shape {truth.batch_shape}."
        )
    mine, theirs = gate.form(), truth.gate.form
    if (mine.extra_parameters, mine.n_shared) != (theirs.extra_parameters, theirs.n_shared):
        raise ValueError(
            f"The 'gate' parameter must have the truth's gate parameters; got {gate!r} for a "
            f"{type(truth.gate).__name__}."
        )
    if mine.top_k is not None and mine.top_k > n_experts:
        raise ValueError(
            f"The 'top_k' of the gate must be in [1, {n_experts}] with n_experts={n_experts}; "
            f"got {mine.top_k}."
        )
    if not 0 <= min_weight < 1 / n_experts:
        raise ValueError(
            f"The 'min_weight' parameter must be in [0, 1 / {n_experts}); got {min_weight!r}."
        )


def _sharings(truth: GaussianMoE, n_experts: int) -> list[tuple[int, ...]]:
    """Every way to give each true atom one fitted atom and share out the others."""
    every = range(truth.n_experts)
    extras = itertools.combinations_with_replacement(every, n_experts - truth.n_experts)
    return [tuple(sorted((*every, *extra))) for extra in extras]


def _copies(truth: GaussianMoE, family: Family, cells: tuple[int, ...]) -> Array:
    """Flat parameters of a model whose atoms are copies of true ones, sharing their masses."""
    pick, layout = list(cells), family.layout
    own, shared = truth.gate.pack()
    own = own[pick].clone()
    if family.gate.form().extra_parameters:  # the first own parameter is the intercept
        counts = torch.tensor([pick.count(j) for j in pick], dtype=torch.float64)
        own[:, 0] -= torch.log(counts)
    e = truth.experts
    parts = [own, e.slope[pick], e.intercept[pick, None], torch.log(e.scale)[pick, None]]
    flat = torch.cat([torch.cat(parts, -1).flatten(), shared])
    assert flat.numel() == layout.size
    return flat.numpy().copy()


def _region(target: Target, exact: Array, cells: tuple[int, ...], radius: float) -> Region:
    """Every atom near its true one, every cell's mass near the true one."""
    family, layout = target.family, target.family.layout
    everything = family.region()
    low, high = everything.low, everything.high
    n_free = family.gate.form().extra_parameters  # masses are bounded cell by cell
    for e in range(family.n_experts):
        atom = slice(e * layout.width + n_free, (e + 1) * layout.width)
        low[atom] = np.maximum(low[atom], exact[atom] - radius)
        high[atom] = np.minimum(high[atom], exact[atom] + radius)
    members = torch.nn.functional.one_hot(torch.tensor(cells), target.truth.n_experts)
    log_mass = target.truth.gate.atoms()[0]
    return Region(low, high, members.mT.to(log_mass), log_mass, radius)


def _copy(target: Target, cells: tuple[int, ...], radius: float) -> Split:
    exact = _copies(target.truth, target.family, cells)
    region = _region(target, exact, cells, radius)
    exact = region.clip(exact)
    value = target.distance(exact, region)
    return Split(cells, value, value, target.family.model(exact))


def _split(target: Target, split: Split, radius: float, rng: np.random.Generator) -> Split:
    """The best near these copies."""
    family, cells = target.family, split.cells
    exact = _copies(target.truth, family, cells)
    region = _region(target, exact, cells, radius)
    best, value = region.clip(exact), split.copies
    for start in _apart(family, exact, cells, radius, rng):
        params, reached = target.descend(start, region)
        if reached < value:
            best, value = params, reached
        if value < ATTAINED:
            break
    best, value = target.finish(exact, best, value, region)
    return Split(cells, split.copies, value, family.model(best))


def _apart(
    family: Family,
    exact: Array,
    cells: tuple[int, ...],
    radius: float,
    rng: np.random.Generator,
) -> list[Array]:
    """Copies moved apart in both orders of the gate's ranking, the first keeping most of the mass:
    a search does not cross a change of order by itself. Then a random start."""
    layout, n_free = family.layout, family.gate.form().extra_parameters
    starts = []
    for sign in (1.0, -1.0):
        start = exact + 0.02 * radius * rng.normal(size=exact.shape)
        for e, j in enumerate(cells):
            place = cells[:e].count(j) - (cells.count(j) - 1) / 2  # -1/2, 1/2 for two copies
            first = e * layout.width
            start[first : first + n_free] -= 0.6 * place
            start[first + n_free : first + layout.n_own] += sign * 0.4 * radius * place
        starts.append(start)
    return [*starts, exact + 0.5 * radius * rng.uniform(-1, 1, exact.shape)]


def _search(
    target: Target,
    n_starts: int,
    rng: np.random.Generator,
    value: float,
    model: GaussianMoE | None,
) -> tuple[float, GaussianMoE | None]:
    """Local searches from the best of many random candidates, and from where near ended."""
    family, region = target.family, target.family.region()
    candidates = np.stack([_candidate(target, rng) for _ in range(_N_CANDIDATES)])
    order = np.argsort(target.screen(region.clip(candidates)))
    starts = [] if model is None else [model.to_params().numpy()]
    starts += list(candidates[order[:n_starts]])
    best = None
    for start in starts:
        params, reached = target.descend(start, region)
        if reached < value:
            best, value = (start, params), reached
        if value < ATTAINED:
            break
    if best is not None:
        params, value = target.finish(*best, value, region)
        model = family.model(params)
    return value, model


_N_CANDIDATES = 192


def _candidate(target: Target, rng: np.random.Generator) -> Array:
    """Experts drawn from the true ones, each at least once if they fit in, with a random gate."""
    truth, family = target.truth, target.family
    k, true = family.n_experts, truth.n_experts
    cells = [*rng.permutation(true)[:k], *rng.integers(true, size=max(0, k - true))]
    flat = _copies(truth, family, tuple(int(j) for j in rng.permutation(cells)))
    layout = family.layout
    own, _ = truth.gate.pack()
    spread = own.std(0, correction=0).numpy() + 0.1
    for e in range(k):
        gate = slice(e * layout.width, e * layout.width + layout.n_own)
        flat[gate] += rng.choice([0.3, 1.0, 2.0]) * spread * rng.normal(size=layout.n_own)
    return flat


def _cells(model: GaussianMoE | None, truth: GaussianMoE) -> tuple[int, ...] | None:
    if model is None:
        return None
    return tuple(voronoi_loss(model, truth, order="D1").cells.tolist())


def _sentence(
    family: Family,
    near: float,
    everywhere: float,
    cells: tuple[int, ...] | None,
    splits: list[Split],
) -> str:
    top_k = family.gate.form().top_k
    selected = "" if top_k is None else f", {top_k} of them selected"
    parts = [
        f"With {family.n_experts} experts{selected}, and mean gate probabilities of at least "
        f"{family.min_weight:g}:"
    ]
    if cells is not None:
        shared = ",".join(str(j + 1) for j in cells)
        how = "is attained" if near < ATTAINED else "is not attained"
        parts.append(
            f"near its atoms the truth {how}, E_X h = {near:.2g} (fitted atoms at true {shared})"
        )
        others = [s for s in splits[1:] if s.value > ATTAINED]
        if near < ATTAINED and others:
            listed = "; ".join(
                f"{s.value:.2g} at {','.join(str(j + 1) for j in s.cells)}" for s in others[:3]
            )
            parts.append(f"(other sharings: {listed})")
    if math.isfinite(everywhere):
        how = "attained" if everywhere < ATTAINED else "not attained in this search"
        parts.append(f"anywhere it is {how}, E_X h = {everywhere:.2g}")
    return (parts[0] + " " + ", ".join(parts[1:])).replace(", (", " (") + "."

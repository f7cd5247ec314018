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

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from kernels.checks import check_bool, check_count, check_int, check_real
from moe_stats import Design, GateTemplate, GaussianMoE
from moe_stats._validation import generator
from moe_stats.fit.mle import weight_floor

from .closest import Family, Target
from .copies import candidate, centred, copies, moved_apart, neighbourhood, sharings
from .distances import double, hellinger
from .voronoi import voronoi_loss

ATTAINED = 1e-4
"""E_X h below which the truth counts as attained: optimisation from a start with h > 0 ends there
or below when the infimum is 0. By construction h is 1e-8 or less."""

MAX_EXPERTS = 32
"""Most fitted experts: a search takes seconds an expert, and there are as many searches as ways to
share experts among true atoms."""

_N_CANDIDATES = 192


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
        true experts, or bounds that exclude the true atoms).
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
        The fitted gate, with its K'. Its parameters must be those of the truth's gate, or of a gate
        that the truth's identified functions give.
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
        If the truth is a batch, or the gate cannot be the truth's.

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
    _check(truth, n_experts, gate)
    weight_floor(min_weight, n_experts)
    check_bool("near", near)
    check_bool("everywhere", everywhere)
    check_real("radius", radius, low=0.0, strict=True)
    check_count("n_starts", n_starts)
    if not (isinstance(gate_bound, float) and gate_bound == math.inf):
        check_real("gate_bound", gate_bound, low=0.0, strict=True)
    if min_scale is not None:
        check_real("min_scale", min_scale, low=0.0, strict=True)
    truth = centred(_expressed(double(truth), gate), gate_bound)
    smallest = float(truth.experts.scale.min())
    family = Family(
        gate,
        n_experts,
        truth.n_features,
        min_weight,
        gate_bound,
        smallest / 10 if min_scale is None else min_scale,
        type(truth.experts),
    )
    rng = generator(random_state)
    target = Target(truth, design, family, int(rng.integers(2**31)))
    splits: list[Split] = []
    if near and n_experts >= truth.n_experts:
        splits = [_copy(target, cells, radius) for cells in sharings(truth, n_experts)]
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
        sentence=_sentence(family, radius, nearest, furthest, cells, splits),
    )


def _check(truth: GaussianMoE, n_experts: int, gate: GateTemplate) -> None:
    if truth.batch_shape:
        raise ValueError(
            f"The 'truth' parameter must be a single model; got batch shape {truth.batch_shape}."
        )
    check_int("n_experts", n_experts, 1, MAX_EXPERTS)
    if not isinstance(gate, GateTemplate):
        raise ValueError(
            "The 'gate' parameter must be a template, such as SoftmaxGate.template(); "
            f"got {gate!r}."
        )
    mine = gate.form()
    if mine.top_k is not None and mine.top_k > n_experts:
        raise ValueError(
            f"The 'top_k' of the gate must be in [1, {n_experts}] with n_experts={n_experts}; "
            f"got {mine.top_k}."
        )


def _expressed(truth: GaussianMoE, gate: GateTemplate) -> GaussianMoE:
    """The truth behind a family's gate: as it is, or by its identified functions where these are
    that gate's parameters, as of a temperature gate for a softmax gate."""
    mine, theirs = gate.form(), truth.gate.form
    if (mine.extra_parameters, mine.n_shared) == (theirs.extra_parameters, theirs.n_shared):
        return truth
    log_weight, parts = truth.gate.atoms()
    own = torch.cat([log_weight.unsqueeze(-1), parts["gate_slope"]], dim=-1)
    same = gate.build(own, own.new_zeros(mine.n_shared))
    x = torch.linspace(-1, 1, 2 * _N_CANDIDATES, dtype=torch.float64).view(-1, 1)
    probes = x * torch.randn(
        len(x), truth.n_features, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    if not torch.allclose(same.log_probs(probes), truth.gate.log_probs(probes), atol=1e-9):
        raise ValueError(
            f"The 'gate' parameter must be able to be the truth's gate; got {gate!r} for a "
            f"{type(truth.gate).__name__}."
        )
    return GaussianMoE(same, truth.experts)


def _copy(target: Target, cells: tuple[int, ...], radius: float) -> Split:
    exact = copies(target.truth, target.family, cells)
    region = neighbourhood(target, exact, cells, radius)
    exact = region.clip(exact)
    value = math.inf if region.empty else target.distance(exact, region)
    return Split(cells, value, value, target.family.model(exact))


def _split(target: Target, split: Split, radius: float, rng: np.random.Generator) -> Split:
    """The best near these copies."""
    family, cells = target.family, split.cells
    exact = copies(target.truth, family, cells)
    region = neighbourhood(target, exact, cells, radius)
    if region.empty:
        return split
    best, value = region.clip(exact), split.copies
    for start in moved_apart(family, exact, cells, radius, rng):
        params, reached = target.descend(start, region)
        if reached < value:
            best, value = params, reached
        if value < ATTAINED:
            break
    best, value = target.finish(exact, best, value, region)
    return Split(cells, split.copies, value, family.model(best))


def _search(
    target: Target,
    n_starts: int,
    rng: np.random.Generator,
    value: float,
    model: GaussianMoE | None,
) -> tuple[float, GaussianMoE | None]:
    """Local searches from the best of many random candidates, and from where near ended."""
    family, region = target.family, target.family.region()
    candidates = np.stack([candidate(target, rng) for _ in range(_N_CANDIDATES)])
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


def _cells(model: GaussianMoE | None, truth: GaussianMoE) -> tuple[int, ...] | None:
    if model is None:
        return None
    return tuple(voronoi_loss(model, truth, order="D1").cells.tolist())


def _sentence(
    family: Family,
    radius: float,
    near: float,
    everywhere: float,
    cells: tuple[int, ...] | None,
    splits: list[Split],
) -> str:
    top_k = family.gate.form().top_k
    selected = "" if top_k is None else f", {top_k} of them selected"
    bounded = ""
    if family.min_weight > 0:
        bounded = f", and mean gate probabilities of at least {family.min_weight:g}"
    parts = [f"With {family.n_experts} experts{selected}{bounded}:"]
    if cells is not None:
        shared = ",".join(str(j + 1) for j in cells)
        how = "is attained" if near < ATTAINED else "is not attained"
        parts.append(
            f"within {radius:g} of its atoms the truth {how}, E_X h = {near:.2g} "
            f"(fitted atoms at true {shared})"
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

r"""How far the selection boundaries of a fitted top-K gate are from the true ones.

Which experts are selected changes where two of them tie for the last place. Three measures of how
well a fit has found these boundaries:

* *distance*: :math:`P_X(T_K(X) \ne T^*_K(X))`, the probability that fit and truth select different
  experts, fitted experts being named after the true ones they belong to. It moves with a boundary
  like the distance between densities, without anything smooth in it;
* *direction*: ranking by slope, the largest angle between :math:`b_{1i} - b_{1j}` and its true
  value over pairs of experts that tie for the last place somewhere;
* *length*: the largest relative error of :math:`|b_{1i} - b_{1j}|` over the same pairs.

A boundary {x : (b1_i - b1_j)'x = 0} is turned by directions and left in place by lengths: a density
that jumps there tells directions, like a change point, at n^-1, and lengths, like any smooth
parameter, at n^-1/2.

Ranks are affine in x, so along a line selections change only where two ranks cross: probabilities
on a line are exact. With two features they are piecewise linear in the line's place, between places
where two crossings meet or one leaves the design: exact again. With more features lines are drawn
at random, along the feature to which the true boundaries are least parallel: lines then cross them,
and the standard error is small beside the distance, however small that is.

References
----------
Nguyen, Akbarian, Yan and Ho (2024), arXiv 2309.13850, proves n^-1/2 for all of a gate: a bound.
Chernoff and Rubin (1956), The estimation of the location of a discontinuity in density, has n^-1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kernels.checks import check_count
from moe_stats import Design, GaussianMoE, TopKGate
from moe_stats.designs import Grid, Uniform
from moe_stats.gates import Gate

from .voronoi import voronoi_loss

Both = tuple[Tensor, Tensor]
"""Coefficients of fitted and of true ranks, (R, E, 1 + D) each."""

_N_LINES = 4096
_N_PROBES = 4096
_MAX_ELEMENTS = 2**21
"""Largest temporary, in numbers (16 MiB)."""


@dataclass(frozen=True, eq=False)
class SelectionDistance:
    """A probability of selecting differently, with its stated error.

    Attributes
    ----------
    value : Tensor
        (...,), in [0, 1]; NaN where fitted and true experts are not one-to-one.
    error : Tensor
        (...,): 0 for one or two features, where nothing but rounding is left; else the standard
        error of the average over random lines.
    """

    value: Tensor
    error: Tensor


@dataclass(frozen=True, eq=False)
class BoundaryDeviation:
    """How boundaries through the origin are turned, and what they say nothing of.

    Attributes
    ----------
    direction : Tensor
        (...,) largest angle, in radians; NaN where experts are not one-to-one.
    length : Tensor
        (...,) largest relative error of a length; NaN alike.
    pairs : tuple of (int, int)
        The true experts, from 0, that tie for the last place somewhere.
    """

    direction: Tensor
    length: Tensor
    pairs: tuple[tuple[int, int], ...]


def has_boundaries(model: GaussianMoE) -> bool:
    """Whether a gate parameter moves a boundary of a model's selection.

    Not if all experts are selected, and not if ranking by slope with one feature: then only x = 0
    is a boundary.

    Examples
    --------
    >>> from moe_stats import LinearExperts
    >>> experts = LinearExperts([[3.0], [-2.0]], [4.0, 0.0], [0.4, 0.5])
    >>> gates = [TopKGate([0.0, 1.0], [[2.0], [0.0]], rank=rank) for rank in ("slope", "logit")]
    >>> [has_boundaries(GaussianMoE(gate, experts)) for gate in gates]
    [False, True]
    """
    gate = model.gate
    if not isinstance(gate, TopKGate) or gate.top_k >= gate.n_experts:
        return False
    return gate.rank == "logit" or gate.n_features > 1


def selection_distance(
    model: GaussianMoE,
    truth: GaussianMoE,
    design: Design,
    *,
    cells: Tensor | None = None,
    n_lines: int = _N_LINES,
    random_state: Any = 0,
) -> SelectionDistance:
    r"""Probability under a design that a fit and the truth select different experts.

    .. math:: P_X\bigl(\pi(T_K(X)) \ne T^*_K(X)\bigr), \qquad
              \pi \text{ the assignment of fitted to true experts.}

    Parameters
    ----------
    model : GaussianMoE
        E experts behind a top-K gate, one model or a batch.
    truth : GaussianMoE
        J experts behind a top-K gate, a single model.
    design : Uniform or Grid
        The law of X; a grid counts as the uniform law it tends to.
    cells : Tensor or None
        (..., E) integers, the true expert that each fitted one belongs to; None takes those of
        `voronoi_loss`.
    n_lines : int
        Random lines, for more than two features; at least 2.
    random_state : None, int, SeedSequence or Generator
        Of these lines.

    Returns
    -------
    SelectionDistance
        With the model's batch shape.

    Raises
    ------
    ValueError
        If the design is not uniform, a gate is not top-K, or the truth is a batch.

    Notes
    -----
    Rounding leaves about 1e-15 for two features, far below the n^-1 of any sample.

    Examples
    --------
    >>> from moe_stats import LinearExperts
    >>> experts = LinearExperts([[3.0], [-2.0]], [4.0, 0.0], [0.4, 0.5])
    >>> truth, fit = (
    ...     GaussianMoE(TopKGate([0.0, b], [[2.0], [0.0]], rank="logit"), experts)
    ...     for b in (1.0, 1.1)
    ... )
    >>> round(float(selection_distance(fit, truth, Uniform(-1, 1)).value), 12)  # .05 of 2
    0.025
    """
    if not isinstance(design, Uniform | Grid):
        raise ValueError(f"The 'design' parameter must be a Uniform or a Grid; got {design!r}.")
    check_count("n_lines", n_lines, 2)
    fitted, true, one_to_one, batch = _aligned(model, truth, cells)
    value = torch.full((len(fitted),), torch.nan, dtype=torch.float64)
    error = value.clone()
    gates = model.gate, truth.gate
    good = one_to_one.nonzero().squeeze(-1)
    for rows in good.split(_models_at_once(true, n_lines)) if len(good) else ():
        both = fitted[rows], true.expand(len(rows), -1, -1)
        if model.n_features > 2:
            on_line = _on_random_lines(both, gates, design, n_lines, random_state)
            value[rows], error[rows] = on_line.mean(-1), on_line.std(-1) / n_lines**0.5
        elif model.n_features == 2:
            places, widths = _pieces(_kinks(both, design), design)
            on_line = _on_lines(both, gates, design, places.unsqueeze(-1))
            value[rows] = (on_line * widths).sum(-1)
        else:
            value[rows] = _on_lines(both, gates, design, both[0].new_zeros(len(rows), 1, 0))[:, 0]
    if model.n_features <= 2:
        error[good] = 0.0
    return SelectionDistance(value.reshape(batch), error.reshape(batch))


def boundary_deviation(
    model: GaussianMoE,
    truth: GaussianMoE,
    *,
    cells: Tensor | None = None,
) -> BoundaryDeviation:
    r"""Errors of direction and length of :math:`b_{1i} - b_{1j}` where a boundary depends on it.

    Parameters
    ----------
    model : GaussianMoE
        E experts behind a top-K gate that ranks by slope, one model or a batch.
    truth : GaussianMoE
        J experts behind such a gate, with at least two features; a single model.
    cells : Tensor or None
        As in `selection_distance`.

    Returns
    -------
    BoundaryDeviation
        With the model's batch shape.

    Raises
    ------
    ValueError
        If the truth ranks by logit or has one feature, a gate is not top-K, or the truth is a
        batch.

    Notes
    -----
    Pairs are found from 4,096 fixed random points of each hyperplane; with two features that is
    both its directions.

    Examples
    --------
    >>> from moe_stats import LinearExperts
    >>> experts = LinearExperts([[3.0, 1.0], [-2.0, 2.0]], [4.0, 0.0], [0.4, 0.5])
    >>> truth, fit = (
    ...     GaussianMoE(TopKGate([0.0, 1.0], [slope, [0.0, 0.0]], rank="slope"), experts)
    ...     for slope in ([2.0, 0.0], [2.2, 0.022])
    ... )
    >>> found = boundary_deviation(fit, truth)
    >>> round(float(found.direction), 4), round(float(found.length), 4), found.pairs
    (0.01, 0.1001, ((0, 1),))
    """
    fitted, true, one_to_one, batch = _aligned(model, truth, cells)
    gate = truth.gate
    assert isinstance(gate, TopKGate)
    if gate.rank != "slope" or gate.n_features < 2:
        raise ValueError(
            "The 'truth' parameter must rank by slope and have at least 2 features; got "
            f"rank={gate.rank!r} with {gate.n_features} feature(s)."
        )
    pairs = _last_places(true[:, 1:], gate.top_k)
    i, j = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T
    ours = fitted[:, i, 1:] - fitted[:, j, 1:]  # (R, P, D)
    theirs = true[i, 1:] - true[j, 1:]
    length = theirs.norm(dim=-1)
    along = (ours * theirs).sum(-1) / length
    across = (ours - (along / length).unsqueeze(-1) * theirs).norm(dim=-1)
    angle = torch.atan2(across, along)
    stretch = (ours.norm(dim=-1) / length - 1).abs()
    worst = (
        (x.amax(-1) if pairs else x.new_full((len(x),), torch.nan)).where(one_to_one, torch.nan)
        for x in (angle, stretch)
    )
    direction, relative = (x.reshape(batch) for x in worst)
    return BoundaryDeviation(direction, relative, pairs)


def _aligned(
    model: GaussianMoE, truth: GaussianMoE, cells: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, torch.Size]:
    """Rank coefficients (R, J, 1 + D) of the fitted experts in the order of the true ones, and
    (J, 1 + D) of those; which models are one-to-one (R,); the batch shape."""
    for name, m in (("model", model), ("truth", truth)):
        if not isinstance(m.gate, TopKGate):
            raise ValueError(
                f"The '{name}' parameter must have a TopKGate; got {type(m.gate).__name__}."
            )
    if truth.batch_shape:
        raise ValueError(
            f"The 'truth' parameter must be a single model; got batch shape {truth.batch_shape}."
        )
    batch, n_true = model.batch_shape, truth.n_experts
    ours, theirs = _ranks(model), _ranks(truth)
    ours = ours.reshape(-1, *ours.shape[-2:])
    if model.n_experts != n_true:
        return ours, theirs, torch.zeros(len(ours), dtype=torch.bool), batch
    if cells is None:
        cells = voronoi_loss(model, truth, order="D1").cells
    if not isinstance(cells, Tensor) or cells.shape != (*batch, n_true) or cells.is_complex():
        got = f"shape {tuple(cells.shape)}" if isinstance(cells, Tensor) else repr(cells)
        raise ValueError(
            f"The 'cells' parameter must be a tensor of shape {(*batch, n_true)}; got {got}."
        )
    cells = cells.reshape(len(ours), n_true)
    one_to_one = (cells.sort(-1).values == torch.arange(n_true)).all(-1)
    order = cells.argsort(-1)
    return ours.gather(1, order.unsqueeze(-1).expand_as(ours)), theirs, one_to_one, batch


def _ranks(model: GaussianMoE) -> Tensor:
    """What the selection compares, as coefficients of (1, x); (..., E, 1 + D)."""
    gate = model.gate
    assert isinstance(gate, TopKGate)
    constant = gate.intercept if gate.rank == "logit" else torch.zeros_like(gate.intercept)
    return torch.cat([constant.unsqueeze(-1), gate.slope], dim=-1).detach().to(torch.float64)


def _models_at_once(
    true: Tensor,  # (J, 1 + D)
    n_lines: int,
) -> int:
    n_experts, n_cuts = len(true), len(true) * (len(true) - 1)
    n_features = true.shape[-1] - 1
    lines = n_lines if n_features > 2 else 1
    if n_features == 2:
        lines = n_cuts * (n_cuts - 1) // 2 + 2 * n_cuts + 1
    return max(1, _MAX_ELEMENTS // (lines * (n_cuts + 1) * n_experts))


def _pieces(
    cuts: Tensor,  # (..., M)
    design: Uniform | Grid,
) -> tuple[Tensor, Tensor]:
    """Middles of the pieces between cuts of a feature's range, and their probabilities;
    (..., M + 1)."""
    low, high = design.low, design.high
    inside = cuts.nan_to_num(low, high, low).clamp(low, high)
    first = torch.full_like(inside[..., :1], low)
    edges = torch.cat([first, inside, torch.full_like(first, high)], dim=-1).sort(-1).values
    return (edges[..., 1:] + edges[..., :-1]) / 2, edges.diff(dim=-1) / (high - low)


def _differences(ranks: Tensor) -> Tensor:
    """(..., P, C) of all pairs of (..., E, C)."""
    i, j = torch.triu_indices(ranks.shape[-2], ranks.shape[-2], 1)
    return ranks[..., i, :] - ranks[..., j, :]


def _on_lines(
    both: Both,
    gates: Sequence[Gate],
    design: Uniform | Grid,
    places: Tensor,  # (R, L, D - 1)
) -> Tensor:
    """Probability of another selection along the last feature, the others being held; (R, L)."""
    held = torch.cat([places.new_ones(*places.shape[:-1], 1), places], dim=-1)
    lines = [held @ ranks[..., :-1].mT for ranks in both]  # (R, L, E), where the last feature is 0
    cuts = []
    for ranks, line in zip(both, lines, strict=True):
        steep = _differences(ranks[..., -1:]).squeeze(-1).unsqueeze(1)
        cuts.append(-_differences(line.unsqueeze(-1)).squeeze(-1) / steep)
    middle, probability = _pieces(torch.cat(cuts, dim=-1), design)  # (R, L, M)
    chosen = []
    for ranks, line, gate in zip(both, lines, gates, strict=True):
        at = line.unsqueeze(-2) + middle.unsqueeze(-1) * ranks[:, None, None, :, -1]
        top = at.topk(gate.options["top_k"], dim=-1).indices
        chosen.append(torch.zeros_like(at, dtype=torch.bool).scatter(-1, top, True))
    differ = (chosen[0] != chosen[1]).any(-1)
    return (differ * probability).sum(-1)


def _kinks(both: Both, design: Uniform | Grid) -> Tensor:
    """Values (R, M) of the first of two features at which two crossings of ranks meet, or one
    leaves the square."""
    c, a, b = torch.cat([_differences(ranks) for ranks in both], dim=-2).unbind(-1)  # (R, 2 P)
    edges = [-(c + b * end) / a for end in (design.low, design.high)]
    i, j = torch.triu_indices(c.shape[-1], c.shape[-1], 1)
    meet = (b[:, i] * c[:, j] - b[:, j] * c[:, i]) / (a[:, i] * b[:, j] - a[:, j] * b[:, i])
    return torch.cat([meet, *edges], dim=-1)


def _on_random_lines(
    both: Both, gates: Sequence[Gate], design: Uniform | Grid, n_lines: int, random_state: Any
) -> Tensor:
    """`_on_lines` along the feature to which the true boundaries are least parallel; (R, L)."""
    slope = _differences(both[1][0, :, 1:])  # (P, D)
    steep = slope.abs() / slope.norm(dim=-1, keepdim=True)
    along = int(steep.amin(0).argmax()) + 1
    order = [c for c in range(slope.shape[-1] + 1) if c != along] + [along]
    places = Uniform(design.low, design.high, len(order) - 2).sample(n_lines, random_state)
    turned = both[0][..., order], both[1][..., order]
    return _on_lines(turned, gates, design, places.expand(len(both[0]), -1, -1))


def _last_places(
    slope: Tensor,  # (E, D)
    top_k: int,
) -> tuple[tuple[int, int], ...]:
    """Pairs of experts of equal rank somewhere with K - 1 others above them."""
    n_experts, n_features = slope.shape
    probes = torch.Generator().manual_seed(0)
    x = torch.randn(_N_PROBES, n_features, generator=probes, dtype=torch.float64)
    pairs = []
    for i in range(n_experts):
        for j in range(i + 1, n_experts):
            normal = (slope[i] - slope[j]) / (slope[i] - slope[j]).norm()
            tied = x - (x @ normal).unsqueeze(-1) * normal  # on the hyperplane
            ranks = tied @ slope.mT  # (N, E)
            above = ranks > ranks[:, [i]]
            above[:, [i, j]] = False
            if bool((above.sum(-1) == top_k - 1).any()):
                pairs.append((i, j))
    return tuple(pairs)

"""Top-1 selection on one feature: the best partition of the axis, experts refitted.

The upper envelope of lines is a row of intervals, one an expert, and any such row is the
selection of some gate, so the likelihood is maximised by a search over cuts.

References
----------
Bai and Perron (2003), Computation and analysis of multiple structural change models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.gating import naive

from .cells import rank_features
from .problem import Problem

MAX_POSITIONS = 2_000
"""Positions of a boundary that enter the search over partitions into three or more intervals."""


def splits_the_line(problem: Problem) -> bool:
    """Whether the gates' selections are all partitions of an axis into one interval an expert."""
    form, x = problem.form, problem.x[:1, :, :100]
    if form.top_k != 1 or x.shape[1] != 1 or form.extra_parameters != 1:
        return False
    return torch.equal(rank_features(form, x), torch.cat([torch.ones_like(x), x], dim=1))


def best_partition(
    problem: Problem,
    rows: Tensor,  # (B,)
) -> Tensor:
    r"""Parameters (B, P) of the best cut of the line into E intervals, an expert on each.

    .. math:: \max_{0 = c_0 < c_1 < \dots < c_E = N}
              \sum_e \max_{a, b, \sigma \ge \underline\sigma}
              \sum_{n = c_{e-1} + 1}^{c_e} \log N(y_n; a x_n + b, \sigma^2)

    with x sorted, and a = 0 for constant experts: cumulative sums give each term at once, dynamic
    programming the cuts. From three intervals on, cuts are first sought among `MAX_POSITIONS`
    positions and then moved one by one over all.
    """
    each, position = torch.unique(rows, return_inverse=True)
    x, order = problem.x[each, 0].sort(dim=-1)  # (R, N)
    segments = _Segments.of(problem, x, problem.y[each].gather(1, order), problem.min_scale[each])
    (n_sets, n), experts = x.shape, problem.n_experts
    grid = torch.arange(n + 1)
    if not is_exhaustive(problem):
        grid = torch.linspace(0, n, MAX_POSITIONS + 1, dtype=torch.float64).long()
    cuts = _best_cuts(segments, grid.expand(n_sets, -1), experts)
    while not is_exhaustive(problem):
        moved = _move_cuts(segments, cuts)
        if torch.equal(moved, cuts):
            break
        cuts = moved
    return _as_parameters(problem, segments, x, cuts, each)[position]


def is_exhaustive(problem: Problem) -> bool:
    return problem.n_experts < 3 or problem.n_observations <= MAX_POSITIONS


@dataclass(frozen=True)
class _Segments:
    """Log-likelihoods of runs of observations, from cumulative sums (R, N + 1, 6)."""

    sums: Tensor
    centre: Tensor  # (R, 2), means of x and y, taken off for precision
    floor: Tensor  # (R,)
    may_cut: Tensor  # (R, N + 1), False between equal x
    least: int  # observations in a segment
    has_slopes: bool

    @classmethod
    def of(cls, problem: Problem, x: Tensor, y: Tensor, floor: Tensor) -> _Segments:
        centre = torch.stack([x.mean(-1), y.mean(-1)], dim=-1)
        u, v = x - centre[:, :1], y - centre[:, 1:]
        moments = torch.stack([torch.ones_like(u), u, v, u * u, u * v, v * v], dim=-1)
        sums = torch.cat([torch.zeros_like(moments[:, :1]), moments.cumsum(1)], dim=1)
        may_cut = torch.ones(len(x), x.shape[1] + 1, dtype=torch.bool)
        may_cut[:, 1:-1] = torch.diff(x) > 0
        least = 1 + int(problem.min_weight * x.shape[1])
        return cls(sums, centre, floor, may_cut, least, problem.has_slopes)

    def fit(self, start: Tensor, stop: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Slope, intercept (both centred), variance and size of runs (R, ...) of observations."""
        n, u, v, uu, uv, vv = (self._at(stop) - self._at(start)).unbind(-1)
        size = n.clamp(min=1.0)
        spread = (uu - u * u / size).clamp(min=0.0)
        tilt = (uv - u * v / size) * self.has_slopes
        slope = torch.where(spread > 1e-12 * uu, tilt / spread.clamp(min=1e-300), 0.0)
        variance = ((vv - v * v / size - slope * tilt) / size).clamp(min=0.0)
        return slope, (v - slope * u) / size, variance, n

    def log_likelihood(self, start: Tensor, stop: Tensor) -> Tensor:
        """-inf for runs that are too short."""
        _, _, variance, n = self.fit(start, stop)
        least = self.floor.square().view(-1, *[1] * (n.ndim - 1))
        scale2 = torch.maximum(variance, least)
        value = -0.5 * n * (math.log(2 * math.pi) + torch.log(scale2) + variance / scale2)
        return value.masked_fill(n < self.least, -torch.inf)

    def _at(self, position: Tensor) -> Tensor:
        sets = torch.arange(len(self.sums)).view(-1, *[1] * (position.ndim - 1))
        return self.sums[sets, position]


def _best_cuts(segments: _Segments, grid: Tensor, experts: int) -> Tensor:
    """Cuts (R, E + 1), the first 0 and the last N, by dynamic programming over the grid (R, L)."""
    n_sets, size = grid.shape
    barred = ~segments.may_cut.gather(1, grid)
    best = segments.log_likelihood(torch.zeros_like(grid), grid).masked_fill(barred, -torch.inf)
    origins = []
    block = max(1, naive.MAX_ELEMENTS // (6 * n_sets * size))
    for level in range(2, experts + 1):
        new = torch.full_like(best, -torch.inf)
        origin = torch.zeros_like(grid)
        stops = range(0, size, block) if level < experts else (size - 1,)
        for first in stops:
            last = min(first + block, size)
            start, stop = grid[:, None, :last], grid[:, first:last, None]
            gain = best[:, None, :last] + segments.log_likelihood(start, stop)
            new[:, first:last], origin[:, first:last] = gain.max(-1)
        best = new.masked_fill(barred, -torch.inf)
        origins.append(origin)
    sets = torch.arange(n_sets)
    place = torch.full((n_sets,), size - 1)
    places = [place]
    for origin in reversed(origins):
        place = origin[sets, place]
        places.append(place)
    places.append(torch.zeros_like(place))
    return grid.gather(1, torch.stack(places[::-1], dim=1))


def _move_cuts(segments: _Segments, cuts: Tensor) -> Tensor:
    """Each cut in turn where it is best between its neighbours, over all positions."""
    cuts = cuts.clone()
    every = torch.arange(segments.sums.shape[1]).expand(len(cuts), -1)
    for e in range(1, cuts.shape[1] - 1):
        left, right = cuts[:, e - 1, None], cuts[:, e + 1, None]
        gain = segments.log_likelihood(torch.minimum(left, every), every)
        gain = gain + segments.log_likelihood(every, torch.maximum(right, every))
        gain = gain.masked_fill(~segments.may_cut | (every <= left) | (every >= right), -torch.inf)
        cuts[:, e] = gain.argmax(-1)
    return cuts


def _as_parameters(
    problem: Problem, segments: _Segments, x: Tensor, cuts: Tensor, each: Tensor
) -> Tensor:
    """Parameters (R, P) of the model whose expert e speaks from cut e to cut e + 1."""
    slope, intercept, variance, _ = segments.fit(cuts[:, :-1], cuts[:, 1:])
    intercept = intercept + segments.centre[:, 1:] - slope * segments.centre[:, :1]
    scale = torch.maximum(variance.sqrt(), segments.floor[:, None])
    inner = cuts[:, 1:-1].clamp(1, x.shape[1] - 1)
    where = (x.gather(1, inner - 1) + x.gather(1, inner)) / 2 - segments.centre[:, :1]
    spread = x.std(-1, keepdim=True)
    order = torch.arange(problem.n_experts, dtype=x.dtype) - (problem.n_experts - 1) / 2
    gate_slope = (order / spread).expand(len(x), -1)
    drop = torch.cat([torch.zeros_like(spread), (where / spread).cumsum(-1)], dim=-1)
    gate_intercept = -drop - gate_slope * segments.centre[:, :1]
    gate_intercept = gate_intercept - gate_intercept.mean(-1, keepdim=True)
    own = torch.stack([gate_intercept, gate_slope], dim=-1)
    largest = own.abs().amax((1, 2), keepdim=True)
    own = own * (0.5 * problem.gate_bound / largest).clamp(max=1.0)
    rest = torch.stack([slope, intercept, torch.log(scale)], dim=-1)
    return torch.cat([own, rest], dim=-1).flatten(1)

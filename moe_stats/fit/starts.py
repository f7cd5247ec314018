"""Starting points for maximum likelihood: many, different, and cheap.

Every start is a hard assignment of observations to experts turned into parameters: weighted
least squares for the experts, linear discriminant coefficients for the gate. EM does the rest.
Each data set draws from a generator of its own, so a start never depends on the batch it is in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from kernels.gating import naive

from ..gates import Gate
from ..model import GaussianMoE
from .em import ridge_solve
from .problem import Problem, weights_hold

MAX_ROWS = 2_000
"""Rows on which starts are worked out; more would not make them better."""

TOURNAMENT = 64
"""Proposals among which each split-and-merge move is chosen."""


@dataclass(frozen=True)
class _Luck:
    """The random numbers behind a start, drawn before anything is computed.

    ``seeds`` (B, E) observations, ``picks`` (B, E, M) uniform numbers, ``noise`` (B, E, D) normal,
    ``shared`` (B, Qs) uniform numbers.
    """

    seeds: Tensor
    picks: Tensor
    noise: Tensor
    shared: Tensor

    def __getitem__(self, index: Tensor) -> _Luck:
        return _Luck(self.seeds[index], self.picks[index], self.noise[index], self.shared[index])


def kmeans(x: Tensor, y: Tensor, design: Tensor, luck: _Luck) -> Tensor:
    """Clusters of (x, y) by a few rounds of k-means; hard assignment (B, E, N)."""
    points = _standardized(torch.cat([x, y.unsqueeze(1)], dim=1)).mT  # (B, N, D + 1)
    centres = points.gather(1, luck.seeds.unsqueeze(-1).expand(-1, -1, points.shape[-1]))
    for _ in range(5):
        assigned = _nearest(torch.cdist(centres, points))
        total = assigned.sum(-1, keepdim=True)
        centres = torch.where(total > 0, assigned @ points / total.clamp(min=1), centres)
    return assigned


def lines(x: Tensor, y: Tensor, design: Tensor, luck: _Luck) -> Tensor:
    """Clusterwise regression: planes through neighbouring points, each point to the nearest."""
    n, size = y.shape[-1], luck.picks.shape[-1]
    standard = _standardized(x)
    seed = standard.gather(2, luck.seeds.unsqueeze(1).expand(-1, x.shape[1], -1))  # (B, D, E)
    distance = (standard.unsqueeze(2) - seed.unsqueeze(3)).square().sum(1)  # (B, E, N)
    near = distance.topk(min(n, 10 * size), largest=False).indices
    picked = near.gather(2, (luck.picks * near.shape[-1]).long())
    member = torch.zeros_like(distance).scatter_(2, picked, 1.0)
    coefficients, _ = _regressions(design, y, member)
    for _ in range(5):
        residual = (y.unsqueeze(1) - coefficients @ design).abs()
        assigned = _nearest(residual)
        fitted, _ = _regressions(design, y, assigned)
        enough = assigned.sum(-1, keepdim=True) > design.shape[1]
        coefficients = torch.where(enough, fitted, coefficients)
    return assigned


def partition(x: Tensor, y: Tensor, design: Tensor, luck: _Luck) -> Tensor:
    """Nearest of E random points in x alone; hard assignment (B, E, N)."""
    points = _standardized(x).mT
    centres = points.gather(1, luck.seeds.unsqueeze(-1).expand(-1, -1, points.shape[-1]))
    return _nearest(torch.cdist(centres, points))


KINDS: dict[str, Callable[[Tensor, Tensor, Tensor, _Luck], Tensor]] = {
    "kmeans": kmeans,
    "lines": lines,
    "random": partition,
}


def draw_starts(
    problem: Problem,
    gate: type[Gate],
    n_init: int,
    kinds: Sequence[str],
    rngs: Sequence[np.random.Generator],  # one for each data set
) -> Tensor:
    """Starting parameters (R, n_init, P), the kinds taking turns."""
    small = problem.subsample(min(problem.n_observations, MAX_ROWS))
    luck = _draw_luck(small, n_init, rngs)
    rows = torch.arange(len(rngs)).repeat_interleave(n_init)
    turn = torch.arange(n_init).repeat(len(rngs)) % len(kinds)
    starts = small.x.new_empty(len(rows), problem.layout.size)
    for i, kind in enumerate(kinds):
        mine = torch.nonzero(turn == i).ravel()
        if len(mine):
            x, y = small.x[rows[mine]], small.y[rows[mine]]
            design = _with_one(x) if problem.has_slopes else torch.ones_like(x[:, :1])
            assigned = KINDS[kind](x, y, design, luck[mine])
            experts = _regressions(design, y, assigned)
            floor = problem.min_scale[rows[mine]]
            starts[mine] = _parameters(problem, gate, x, assigned, experts, floor, luck[mine])
    return starts.view(len(rngs), n_init, -1)


def _draw_luck(problem: Problem, n_init: int, rngs: Sequence[np.random.Generator]) -> _Luck:
    (_, d, n), experts = problem.x.shape, problem.n_experts
    seeds, picks, noise, shared = [], [], [], []
    for rng in rngs:
        for _ in range(n_init):
            seeds.append(rng.choice(n, size=experts, replace=experts > n))
            picks.append(rng.random((experts, 2 * (d + 1))))
            noise.append(rng.standard_normal((experts, d)))
        shared += list(rng.random((n_init, problem.layout.n_shared)))
    return _Luck(*(torch.from_numpy(np.stack(part)) for part in (seeds, picks, noise, shared)))


def rearrangements(
    problem: Problem,
    params: Tensor,  # (R, P), the best so far
    n_moves: int,
    rngs: Sequence[np.random.Generator],
) -> Tensor:
    """Split-and-merge moves (R, n_moves, P): one expert is given up and put to work elsewhere.

    The expert given up is drawn with probability inverse to its mass. It splits the expert that
    dominates at a random observation: one proposal in three copies that one's line, moved by
    about a scale; the others lay a plane through neighbouring observations. Each move returned
    is the likeliest of `TOURNAMENT` proposals on ``problem``: a randomised form of the vertex
    direction method for mixtures (Lindsay 1983, The geometry of mixture likelihoods).
    """
    layout = problem.layout
    sets = torch.arange(len(params))
    information = problem.evaluate(params, sets, "information").information
    assert information is not None
    scales = [layout.scale_index(e) for e in range(problem.n_experts)]
    mass = information.diagonal(dim1=-2, dim2=-1)[:, scales] / 2
    count = n_moves * TOURNAMENT
    proposals = torch.stack(
        [_proposals(problem, params[r], mass[r], r, count, rng) for r, rng in enumerate(rngs)]
    )
    rows = sets.repeat_interleave(count)
    flat = proposals.flatten(0, 1)
    value = problem.evaluate(flat, rows, "value").value
    value = value.masked_fill(~weights_hold(problem, flat, rows), -torch.inf)
    winner = torch.nan_to_num(value, nan=-torch.inf).view(-1, n_moves, TOURNAMENT).argmax(-1)
    proposals = proposals.unflatten(1, (n_moves, TOURNAMENT))
    return proposals[sets[:, None], torch.arange(n_moves), winner]


def near(
    truth: GaussianMoE,
    problem: Problem,
    rngs: Sequence[np.random.Generator],
    n_init: int,
) -> Tensor:
    """Oracle starts (R, n_init, P): every fitted expert beside some true one.

    Perturbations of all parameters are normal with scale .005 n^-.083, the published protocol;
    extra experts double true ones drawn at random, which share their mass.
    """
    size = 0.005 * problem.n_observations**-0.083
    layout, n_true = problem.layout, truth.n_experts
    params = truth.to_params().to(torch.float64)
    true = params[: n_true * layout.width].view(n_true, layout.width)
    shared = params[n_true * layout.width :]
    starts = []
    for rng in rngs:
        for _ in range(n_init):
            extra = rng.integers(0, n_true, size=problem.n_experts - n_true)
            home = np.concatenate([np.arange(n_true), extra])
            block = true[torch.from_numpy(home)].clone()
            log_share = -torch.from_numpy(np.log(np.bincount(home)[home]))
            own = block[:, : layout.n_own]
            block[:, : layout.n_own] = truth.gate.reweigh(own, shared, log_share)
            start = torch.cat([block.flatten(), shared])
            starts.append(start + size * torch.from_numpy(rng.standard_normal(len(start))))
    return torch.stack(starts).view(len(rngs), n_init, -1)


def _parameters(
    problem: Problem,
    gate: type[Gate],
    x: Tensor,
    assigned: Tensor,
    experts: tuple[Tensor, Tensor],
    floor: Tensor,
    luck: _Luck,
) -> Tensor:
    """Parameters (B, P) from hard assignments (B, E, N) and regressions on them."""
    coefficients, scale = experts
    absent = x.shape[1] + 1 - coefficients.shape[-1]  # slopes of constant experts
    coefficients = functional.pad(coefficients, (absent, 0))
    scale = torch.maximum(scale, 2 * floor.unsqueeze(-1))
    count = assigned.sum(-1)
    share = (count + 1) / (x.shape[-1] + assigned.shape[1])
    variance = x.var(-1).clamp(min=1e-12).unsqueeze(1)  # (B, 1, D)
    centre = x.mean(-1).unsqueeze(1)
    centroid = (assigned @ x.mT + centre) / (count.unsqueeze(-1) + 1)
    # experts with one centroid would tie, and a selection rule needs an order: hence the noise
    slope = (centroid - centre) / variance + luck.noise / variance.sqrt()
    intercept = torch.log(share) - (slope * centre).sum(-1)
    own, shared = gate.starting_parameters(intercept, slope, luck.shared)
    own = own.clamp(-problem.gate_bound, problem.gate_bound)
    block = torch.cat([own, coefficients, torch.log(scale).unsqueeze(-1)], dim=-1)
    return torch.cat([block.flatten(1), shared], dim=-1)


def _regressions(
    design: Tensor,  # (B, Q, N)
    y: Tensor,  # (B, N)
    weight: Tensor,  # (B, E, N)
) -> tuple[Tensor, Tensor]:
    """Weighted least squares: coefficients (B, E, Q), scale (B, E)."""
    i, j = torch.triu_indices(*2 * (design.shape[1],))
    mass = weight.sum(-1)
    gram = design.new_zeros(*mass.shape, design.shape[1], design.shape[1])
    gram[..., i, j] = gram[..., j, i] = weight @ (design[:, i] * design[:, j]).mT
    right = weight @ (design * y.unsqueeze(1)).mT
    level = gram.diagonal(dim1=-2, dim2=-1).mean(-1).clamp(min=1e-12)
    gram = gram + 1e-6 * level[..., None, None] * torch.eye(design.shape[1], dtype=design.dtype)
    coefficients = ridge_solve(gram, right)
    residual = y.unsqueeze(1) - coefficients @ design
    scale = torch.sqrt((weight * residual.square()).sum(-1) / mass.clamp(min=1e-12))
    return coefficients, torch.where(mass > design.shape[1], scale, y.std(-1, keepdim=True))


def _proposals(
    problem: Problem,
    params: Tensor,  # (P,)
    mass: Tensor,  # (E,)
    row: int,
    count: int,
    rng: np.random.Generator,
) -> Tensor:
    """Rearrangements (count, P) of one model; see `rearrangements`."""
    layout, x, y = problem.layout, problem.x[row], problem.y[row]
    (d, n), experts = x.shape, problem.n_experts
    spread = x.std(-1).clamp(min=1e-12)
    inverse = 1 / (mass.numpy() + 0.01 * float(mass.sum()))
    gone = torch.from_numpy(rng.choice(experts, size=count, p=inverse / inverse.sum()))
    centre = torch.from_numpy(rng.integers(n, size=count))
    gate = naive.log_gate(params[None], problem.form, x[None], layout)[0].mT[centre]  # (M, E)
    moves = torch.arange(count)
    gate[moves, gone] = -torch.inf
    kept = torch.where(torch.isfinite(gate.amax(-1)), gate.argmax(-1), (gone + 1) % experts)

    out = params.repeat(count, 1)
    block = out[:, : experts * layout.width].view(count, experts, layout.width)
    new = block[moves, kept]
    steepness = torch.from_numpy(np.exp(rng.uniform(0.0, np.log(15.0), size=(count, 1))))
    push = steepness * torch.from_numpy(rng.standard_normal((count, d))) / spread
    new[:, layout.n_own - d : layout.n_own] += push
    level = torch.from_numpy(rng.uniform(-3.0, 1.0, size=count))
    new[:, 0] += level - (push * x.mT[centre]).sum(-1)
    new[:, -2] += torch.from_numpy(rng.uniform(-1.5, 1.5, size=count)) * torch.exp(new[:, -1])

    # two in three lay a plane through the observation and d of its neighbours, or a level on it
    crowd = torch.from_numpy(rng.integers(n, size=(count, 50)))
    apart = ((x[:, crowd] - x[:, centre, None]) / spread[:, None, None]).square().sum(0)
    neighbours = crowd.gather(1, apart.topk(d, largest=False).indices)
    points = torch.cat([centre[:, None], neighbours], dim=1)  # (M, D + 1)
    design = torch.cat([x[:, points].permute(1, 2, 0), torch.ones(count, d + 1, 1)], dim=-1)
    plane, failed = torch.linalg.solve_ex(design, y[points])
    if not problem.has_slopes:
        plane, failed = functional.pad(y[centre, None], (d, 0)), torch.zeros_like(failed)
    narrow = torch.from_numpy(rng.uniform(0.0, 1.0, size=count))
    floor = torch.log(problem.min_scale[row])
    laid = (moves % 3 != 0) & (failed == 0) & torch.isfinite(plane).all(-1)
    new[:, layout.n_own : -1] = torch.where(laid[:, None], plane, new[:, layout.n_own : -1])
    new[:, -1] = torch.where(laid, torch.lerp(floor, new[:, -1], narrow), new[:, -1])
    block[moves, gone] = new
    return out


def _nearest(distance: Tensor) -> Tensor:
    """Indicator (B, E, N) of the expert at the smallest distance (B, E, N)."""
    return naive.select(-distance, 1).to(distance)


def _standardized(x: Tensor) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True).clamp(min=1e-12)


def _with_one(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones_like(x[..., :1, :])], dim=-2)

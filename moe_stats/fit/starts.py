"""Starting points for maximum likelihood: many, different, and cheap.

Every start is a hard assignment of observations to experts turned into parameters: weighted
least squares for the experts, linear discriminant coefficients for the gate. EM does the rest.
Each data set draws from a generator of its own, so a start never depends on the batch it is in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from kernels.gating import naive

from ..gates import Gate
from .em import ridge_solve
from .problem import Problem, weights_hold

MAX_ROWS = 2_000
"""Rows on which starts are worked out; more would not make them better."""

TOURNAMENT = 64
"""Proposals among which each split-and-merge move is chosen."""


def kmeans(problem: Problem, rng: np.random.Generator, row: int) -> Tensor:
    """Clusters of (x, y) by a few rounds of k-means; hard assignment (E, N)."""
    points = torch.cat([problem.x[row], problem.y[row][None]]).mT  # (N, D + 1)
    points = (points - points.mean(0)) / points.std(0).clamp(min=1e-12)
    centres = points[_choice(rng, len(points), problem.n_experts)]
    for _ in range(5):
        nearest = torch.cdist(points, centres).argmin(-1)
        assigned = _one_hot(nearest, problem.n_experts)
        total = assigned.sum(-1, keepdim=True)
        centres = torch.where(total > 0, assigned @ points / total.clamp(min=1), centres)
    return assigned


def lines(problem: Problem, rng: np.random.Generator, row: int) -> Tensor:
    """Clusterwise regression: planes through neighbouring points, each point to the nearest."""
    x, y = problem.x[row], problem.y[row]
    d, n = x.shape
    standard = (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True).clamp(min=1e-12)
    size = min(n, 2 * (d + 1))
    experts = []
    for seed in _choice(rng, n, problem.n_experts):
        near = (standard - standard[:, seed, None]).square().sum(0).topk(min(n, 10 * size))
        picked = near.indices[_choice(rng, len(near.indices), size)]
        member = torch.zeros(1, n, dtype=y.dtype)
        member[0, picked] = 1.0
        experts.append(_regressions(x, y, member)[0][0])
    coefficients = torch.stack(experts)  # (E, D + 1)
    for _ in range(5):
        residual = (y - coefficients @ _with_one(x)).abs()
        assigned = _one_hot(residual.argmin(0), problem.n_experts)
        fitted, _ = _regressions(x, y, assigned)
        enough = assigned.sum(-1) > d + 1
        coefficients = torch.where(enough[:, None], fitted, coefficients)
    return assigned


def partition(problem: Problem, rng: np.random.Generator, row: int) -> Tensor:
    """Nearest of E random points in x alone; hard assignment (E, N)."""
    x = problem.x[row]
    standard = ((x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True).clamp(min=1e-12)).mT
    centres = standard[_choice(rng, len(standard), problem.n_experts)]
    return _one_hot(torch.cdist(standard, centres).argmin(-1), problem.n_experts)


KINDS: dict[str, Callable[[Problem, np.random.Generator, int], Tensor]] = {
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
    starts = [
        torch.stack(
            [
                _parameters(small, gate, KINDS[kinds[i % len(kinds)]](small, rng, row), rng, row)
                for i in range(n_init)
            ]
        )
        for row, rng in enumerate(rngs)
    ]
    return torch.stack(starts)


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
    params: Tensor,  # (P*,) of a model with E* experts
    problem: Problem,
    n_true: int,
    rngs: Sequence[np.random.Generator],
    n_init: int,
) -> Tensor:
    """Oracle starts (R, n_init, P): every fitted expert beside some true one.

    Perturbations are normal with scale .005 n^-.083, the published protocol; extra experts
    double true ones drawn at random, which share their gate weight.
    """
    size = 0.005 * problem.n_observations**-0.083
    layout = problem.layout
    true = params[: n_true * layout.width].view(n_true, layout.width)
    starts = []
    for rng in rngs:
        for _ in range(n_init):
            extra = rng.integers(0, n_true, size=problem.n_experts - n_true)
            home = np.concatenate([np.arange(n_true), extra])
            block = true[torch.from_numpy(home)].clone()
            block[:, 0] -= torch.from_numpy(np.log(np.bincount(home)[home]))
            block += torch.from_numpy(size * rng.standard_normal(block.shape))
            starts.append(torch.cat([block.flatten(), params[n_true * layout.width :]]))
    return torch.stack(starts).view(len(rngs), n_init, -1)


def _parameters(
    problem: Problem, gate: type[Gate], assigned: Tensor, rng: np.random.Generator, row: int
) -> Tensor:
    """Parameters (P,) from a hard assignment (E, N)."""
    x, y = problem.x[row], problem.y[row]
    coefficients, scale = _regressions(x, y, assigned)
    scale = torch.maximum(scale, 2 * problem.min_scale[row])
    share = (assigned.sum(-1) + 1) / (x.shape[-1] + len(assigned))
    variance = x.var(-1).clamp(min=1e-12)
    centre = x.mean(-1)
    centroid = (assigned @ x.mT + centre) / (assigned.sum(-1, keepdim=True) + 1)
    slope = (centroid - centre) / variance
    # experts with one centroid would tie: a selection rule needs an order
    slope = slope + torch.from_numpy(rng.standard_normal(slope.shape)) / variance.sqrt()
    intercept = torch.log(share) - (slope * centre).sum(-1)
    own, shared = gate.starting_parameters(intercept, slope)
    bound = problem.gate_bound
    block = torch.cat(
        [own.clamp(-bound, bound), coefficients, torch.log(scale).unsqueeze(-1)], dim=-1
    )
    return torch.cat([block.flatten(), shared])


def _regressions(x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted least squares for weights (E, N): slopes and intercept (E, D + 1), scale (E,)."""
    u = _with_one(x)
    gram = torch.einsum("en,pn,qn->epq", weight, u, u)
    gram = gram + 1e-6 * torch.eye(len(u), dtype=x.dtype) * gram.diagonal(dim1=-2, dim2=-1).mean(
        -1
    )[:, None, None].clamp(min=1e-12)
    coefficients = ridge_solve(gram, torch.einsum("en,pn,n->ep", weight, u, y))
    square = (weight * (y - coefficients @ u).square()).sum(-1)
    scale = torch.sqrt(square / weight.sum(-1).clamp(min=1e-12))
    return coefficients, torch.where(weight.sum(-1) > len(u), scale, y.std())


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

    # two in three lay a plane through the observation and d of its neighbours
    crowd = torch.from_numpy(rng.integers(n, size=(count, 50)))
    apart = ((x[:, crowd] - x[:, centre, None]) / spread[:, None, None]).square().sum(0)
    neighbours = crowd.gather(1, apart.topk(d, largest=False).indices)
    points = torch.cat([centre[:, None], neighbours], dim=1)  # (M, D + 1)
    design = torch.cat([x[:, points].permute(1, 2, 0), torch.ones(count, d + 1, 1)], dim=-1)
    plane, failed = torch.linalg.solve_ex(design, y[points])
    narrow = torch.from_numpy(rng.uniform(0.0, 1.0, size=count))
    floor = torch.log(problem.min_scale[row])
    laid = (moves % 3 != 0) & (failed == 0) & torch.isfinite(plane).all(-1)
    new[:, layout.n_own : -1] = torch.where(laid[:, None], plane, new[:, layout.n_own : -1])
    new[:, -1] = torch.where(laid, torch.lerp(floor, new[:, -1], narrow), new[:, -1])
    block[moves, gone] = new
    return out


def _choice(rng: np.random.Generator, n: int, size: int) -> Tensor:
    return torch.from_numpy(rng.choice(n, size=min(size, n), replace=size > n))


def _one_hot(labels: Tensor, n_experts: int) -> Tensor:
    return torch.nn.functional.one_hot(labels, n_experts).mT.to(torch.float64)


def _with_one(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones_like(x[:1])])

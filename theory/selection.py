r"""Where a gate changes its mind: the places at which an integral over one feature is to be split.

At a selection boundary the density jumps; where the leading expert changes, a sharp gate turns
within a short distance. Both are found from the gate's probabilities alone: where the label of a
point (which experts are selected, which one leads) changes between neighbouring points of a grid,
ever finer grids locate the change, as often as it takes to explain the labels at both ends.
"""

from __future__ import annotations

import torch
from torch import Tensor

from moe_stats.gates import Gate

_N_GRID = 256
_N_FINER = 256
_N_ROUNDS = 6, 3
"""Boundaries to the last digit (256^7 > 2^53), changes of leader to 2e-10 of the range."""

_N_CHANGES = 4
"""Changes looked for between two grid points."""


def changes(
    gate: Gate,
    low: float,
    high: float,
) -> list[tuple[list[float], list[float]]]:
    """Places in [low, high] where the selection changes, and where only the leader does.

    Parameters
    ----------
    gate : Gate
        Of one feature; one gate or a batch of R.
    low, high : float
        Ends of the range searched, in the feature's unit.

    Returns
    -------
    list of (list of float, list of float)
        One pair a gate: selection boundaries and changes of leader, ascending.

    Examples
    --------
    >>> from moe_stats import TopKGate
    >>> gate = TopKGate([0.0, 1.0], [[2.0], [0.0]], top_k=1, rank="logit")
    >>> [round(x, 12) for x in changes(gate, -1.0, 1.0)[0][0]]
    [0.5]
    """
    n_gates = gate.slope.shape[:-2].numel()
    grid = torch.linspace(low, high, _N_GRID, dtype=gate.slope.dtype)
    found: list[tuple[list[float], list[float]]] = []
    selected, leader = _labels(gate, grid.expand(n_gates, -1))
    sets = _crossings(gate, grid, selected, 0)
    leads = _crossings(gate, grid, leader, 1)
    for own_sets, own_leads in zip(sets, leads, strict=True):
        free = [x for x in own_leads if all(abs(x - s) > 1e-9 * (high - low) for s in own_sets)]
        found.append((own_sets, free))
    return found


def _crossings(gate: Gate, grid: Tensor, label: Tensor, which: int) -> list[list[float]]:
    n_gates = len(label)
    rows, cells = (label[:, 1:] != label[:, :-1]).nonzero(as_tuple=True)
    places: list[list[float]] = [[] for _ in range(n_gates)]
    left, right = grid[cells], grid[cells + 1]
    steps = torch.linspace(0, 1, _N_FINER + 1, dtype=grid.dtype)
    start, end = label[rows, cells], label[rows, cells + 1]
    for _ in range(_N_CHANGES):
        if len(rows) == 0:
            break
        a, b = left, right
        for _ in range(_N_ROUNDS[which]):
            finer = a[:, None] + (b - a)[:, None] * steps
            other = _label_at(gate, rows, finer, n_gates)[which] != start[:, None]
            other[:, 0], other[:, -1] = False, True
            first = other.to(torch.int8).argmax(1, keepdim=True)
            a, b = finer.gather(1, first - 1)[:, 0], finer.gather(1, first)[:, 0]
        for row, x in zip(rows.tolist(), ((a + b) / 2).tolist(), strict=True):
            places[row].append(x)
        start = _label_at(gate, rows, b[:, None], n_gates)[which][:, 0]
        more = start != end
        rows, left, right, start, end = rows[more], b[more], right[more], start[more], end[more]
    apart = 1e-12 * float(grid[-1] - grid[0])  # at a tie of all ranks there are two, one ulp apart
    return [_distinct(sorted(p), apart) for p in places]


def _distinct(places: list[float], apart: float) -> list[float]:
    return [x for n, x in enumerate(places) if n == 0 or x - places[n - 1] > apart]


def _label_at(
    gate: Gate,
    rows: Tensor,  # (B,)
    x: Tensor,  # (B, S)
    n_gates: int,
) -> tuple[Tensor, Tensor]:
    """Labels of gate ``rows[i]`` at ``x[i]``; (B, S) each."""
    counts = torch.bincount(rows, minlength=n_gates)
    slot = torch.arange(len(rows)) - (torch.cumsum(counts, 0) - counts)[rows]
    table = x.new_zeros(n_gates, int(counts.max()), x.shape[-1])
    table[rows, slot] = x
    selected, leader = (label.reshape(table.shape) for label in _labels(gate, table.flatten(1)))
    return selected[rows, slot], leader[rows, slot]


def _labels(
    gate: Gate,
    x: Tensor,  # (R, N)
) -> tuple[Tensor, Tensor]:
    """Which experts are selected, as bits, and which one leads; (R, N) each."""
    batch = gate.slope.shape[:-2]
    log_probs = gate.log_probs(x.reshape(*batch, -1, 1)).reshape(*x.shape, -1)
    bits = 2 ** torch.arange(log_probs.shape[-1])
    return ((log_probs > -torch.inf) * bits).sum(-1), log_probs.argmax(-1)

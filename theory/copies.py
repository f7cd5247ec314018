r"""Models whose atoms are copies of a truth's: where the search for the closest model starts.

Sharing the mass of a true atom among copies of it leaves a dense gate's density as it is:

.. math:: \exp(b_{0j}) = \sum_{i \in A_j} \exp(b_{0j} - \log m_j), \qquad m_j = \#A_j.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch

from moe_stats import GaussianMoE

from .closest import Array, Family, Region, Target


def centred(truth: GaussianMoE, gate_bound: float) -> GaussianMoE:
    """The same density with gate parameters centred, where they would break a bound as they are."""
    own, shared = truth.gate.pack()
    parts = {"log_weight", *truth.gate.atoms()[1]}
    if float(own.abs().max()) <= gate_bound or set(truth.gate.translates) != parts:
        return truth
    own = own - (own.amax(0) + own.amin(0)) / 2
    gate = truth.gate.from_parameters(own, shared, **truth.gate.options)
    return GaussianMoE(gate, truth.experts)


def sharings(truth: GaussianMoE, n_experts: int) -> list[tuple[int, ...]]:
    """Every way to give each true atom one fitted atom and share out the others."""
    every = range(truth.n_experts)
    extras = itertools.combinations_with_replacement(every, n_experts - truth.n_experts)
    return [tuple(sorted((*every, *extra))) for extra in extras]


def copies(truth: GaussianMoE, family: Family, cells: tuple[int, ...]) -> Array:
    """Flat parameters of a model whose atoms are copies of true ones, sharing their masses."""
    pick = list(cells)
    own, shared = truth.gate.pack()
    counts = torch.tensor([pick.count(j) for j in pick], dtype=torch.float64)
    own = truth.gate.reweigh(own[pick], shared, -torch.log(counts))
    e = truth.experts
    parts = [own, e.slope[pick], e.intercept[pick, None], torch.log(e.scale)[pick, None]]
    return torch.cat([torch.cat(parts, -1).flatten(), shared]).numpy().copy()


def neighbourhood(target: Target, exact: Array, cells: tuple[int, ...], radius: float) -> Region:
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


def moved_apart(
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


def candidate(target: Target, rng: np.random.Generator) -> Array:
    """Experts drawn from the true ones, each at least once if they fit in, with a random gate."""
    truth, family = target.truth, target.family
    k, true = family.n_experts, truth.n_experts
    cells = [*rng.permutation(true)[:k], *rng.integers(true, size=max(0, k - true))]
    flat = copies(truth, family, tuple(int(j) for j in rng.permutation(cells)))
    layout = family.layout
    own, _ = truth.gate.pack()
    spread = own.std(0, correction=0).numpy() + 0.1
    for e in range(k):
        gate = slice(e * layout.width, e * layout.width + layout.n_own)
        flat[gate] += rng.choice([0.3, 1.0, 2.0]) * spread * rng.normal(size=layout.n_own)
    return flat

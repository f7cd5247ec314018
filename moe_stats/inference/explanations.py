"""Reasons for which a model is not identified, each with the directions it would explain.

An explanation is only a candidate: the report keeps those of its directions in which the Fisher
information vanishes. A new gate's own invariance is one more function in `EXPLANATIONS`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.gating import Layout

from ..model import GaussianMoE
from . import gauge
from .families import SAME, FlatFamily, expert_cells


@dataclass(frozen=True)
class Explanation:
    """A reason in words, and the directions (M, P) it would explain."""

    words: str
    directions: Tensor
    declared: bool = False


@dataclass(frozen=True)
class Subject:
    """A model and the features on which it is examined."""

    model: GaussianMoE
    X: Tensor  # (N, D)
    gate: Tensor  # (N, E) gate probabilities
    layout: Layout
    families: tuple[FlatFamily, ...]

    @property
    def translations(self) -> Tensor:
        """(T, P)."""
        return gauge.translations(type(self.model.gate), self.layout)

    def own(self, expert: int) -> slice:
        """Positions of an expert's parameters."""
        return slice(expert * self.layout.width, (expert + 1) * self.layout.width)


def translation(subject: Subject) -> Iterator[Explanation]:
    """The gate's declared invariance."""
    words = "gate translation: only differences of gate parameters between experts matter"
    yield Explanation(words, subject.translations, declared=True)


def scaling(subject: Subject) -> Iterator[Explanation]:
    """Gate parameters of which only ratios matter."""
    model = subject.model
    direction = gauge.scaling(model.to_params(), model.gate.form, subject.X.mT, subject.layout)
    if direction is not None:
        words = "gate scaling: a common factor of all gate parameters changes nothing"
        yield Explanation(words, direction[None])


def flatness(subject: Subject) -> Iterator[Explanation]:
    """Directions that the gate itself names, such as the ray of a temperature."""
    for words, (own, shared) in subject.model.gate.flat_directions().items():
        yield Explanation(words, gauge.in_gate(subject.layout, own, shared)[None])


def mirror(subject: Subject) -> Iterator[Explanation]:
    """Pairs of mirrored gate slopes behind one activation psi.

    The slopes move together without notice where psi' is even; where psi(z) - psi(-z) is
    linear, slopes and temperature are scaled without notice, as behind no activation.
    """
    own, shared = subject.model.gate.pack()
    slope = subject.model.gate.slope
    size = slope.norm(dim=-1)
    for i, j in itertools.combinations(range(len(slope)), 2):
        if not float((slope[i] + slope[j]).norm()) <= SAME * float(size[i] + size[j]):
            continue
        words = f"experts {i} and {j} have mirrored gate slopes"
        together = torch.zeros(slope.shape[-1], *own.shape, dtype=own.dtype)
        for d, direction in enumerate(together, start=own.shape[-1] - slope.shape[-1]):
            direction[[i, j], d] = 1.0
        directions = gauge.in_gate(subject.layout, together, torch.zeros_like(shared))
        yield Explanation(f"{words}, which may move together", directions)
        ray = gauge.in_gate(subject.layout, own, torch.ones_like(shared))[None]
        yield Explanation(f"{words}: (b0, b1, tau) may be scaled together", ray)


def silence(subject: Subject) -> Iterator[Explanation]:
    """Experts that are never selected."""
    identity = torch.eye(subject.layout.size, dtype=torch.float64)
    for e in torch.nonzero(subject.gate.amax(0) == 0).ravel().tolist():
        yield Explanation(f"expert {e} is never selected on X", identity[subject.own(e)])


def separation(subject: Subject) -> Iterator[Explanation]:
    """Gates that are never compared, since their experts are never selected together."""
    from scipy.sparse.csgraph import connected_components

    selected = (subject.gate > 0).to(torch.float64)
    count, group = connected_components((selected.mT @ selected).numpy(), directed=False)
    top_1 = subject.model.gate.form.top_k == 1 < subject.layout.n_experts
    for g in range(count):
        members = [e for e in range(len(group)) if group[e] == g]
        within = torch.zeros(subject.layout.size, dtype=torch.float64)
        for e in members:
            within[subject.own(e)] = 1.0
        words = (
            f"top-1 gate: intercept and slope of expert {members[0]}'s gate matter only for which "
            "expert is selected"
            if top_1
            else f"experts {', '.join(map(str, members))} are never selected with any other: the "
            "level of their gates is not compared with the others'"
        )
        yield Explanation(words, subject.translations * within)


def coincidence(subject: Subject) -> Iterator[Explanation]:
    """Pairs of experts that are the same in everything but their weight."""
    weight = subject.gate.mean(0)
    identity = torch.eye(subject.layout.size, dtype=torch.float64)
    for cell in expert_cells(subject.model, subject.X):
        for i, j in itertools.pairwise(cell):
            if float(weight[i]) > 0 and float(weight[j]) > 0:
                ratio = float(weight[i] / weight[j])
                words = (
                    f"experts {i} and {j} are the same: what one gains in weight, gate or line "
                    "and the other loses leaves the density as it is to first order"
                )
                yield Explanation(
                    words, identity[subject.own(i)] - ratio * identity[subject.own(j)]
                )


def flat_family(subject: Subject) -> Iterator[Explanation]:
    """Cells that are all over-fitted."""
    for family in subject.families:
        yield Explanation(str(family), family.directions())


EXPLANATIONS: tuple[Callable[[Subject], Iterator[Explanation]], ...] = (
    translation,
    flatness,
    scaling,
    silence,
    separation,
    flat_family,
    coincidence,
    mirror,
)
"""In the order in which they are tried; a direction that earlier ones span is not named twice."""

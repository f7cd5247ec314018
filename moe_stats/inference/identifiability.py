"""What a model's density says about its parameters, in words.

The null space of the expected Fisher information holds the directions in which the density does
not change to first order. It is explained by testing known reasons (`explanations.py`); what they
leave is named by its coefficients.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kernels.gating import Layout

from .._validation import as_tensor, check_features
from ..fit.problem import parameter_names
from ..model import GaussianMoE
from .explanations import EXPLANATIONS, Subject
from .families import FlatFamily, flat_families
from .fisher import fisher_information

MAX_ROWS = 2_000
"""Rows of X on which a model is examined, spread evenly; of more, the others play no part."""

NULL = 1e-12
"""Eigenvalue of the scaled Fisher information up to which a direction is null; rounding leaves
1e-15."""

ILL_CONDITIONED = 1e6
"""Condition number from which a report warns: some combination has a standard error a thousand
times that of the best."""

N_NODES = 32


@dataclass(frozen=True, eq=False)
class NullDirection:
    """A direction in which the density does not change to first order.

    Attributes
    ----------
    vector : Tensor
        (P,) of length 1, in the flat parameters.
    words : str
        What it is.
    declared : bool
        Whether it is an invariance that the gate declares.
    coefficients : dict
        Parameter name to coefficient, without those below 1e-6.
    """

    vector: Tensor
    words: str
    declared: bool
    coefficients: dict[str, float] = field(repr=False)


@dataclass(frozen=True, eq=False)
class IdentifiabilityReport:
    """Fisher information of a model on X, and the directions it leaves open.

    Attributes
    ----------
    eigenvalues : Tensor
        (P',) ascending, of the expected Fisher information per observation, each estimated
        parameter in units of its own information, intercepts taken at the features' mean.
    error : float
        Largest change of an eigenvalue when the quadrature nodes are halved.
    null_directions : tuple of NullDirection
    flat_families : tuple of FlatFamily
        Curves of models with exactly this density, found where every cell is over-fitted.
    equivalents : tuple of GaussianMoE
        Models elsewhere with exactly this density, such as a mirror image of the gate.
    condition : float
        Largest over smallest eigenvalue of the identified part.
    weakest : dict
        Coefficients of the identified direction with the smallest eigenvalue.
    n_rows : int
        Rows of X examined.
    """

    eigenvalues: Tensor
    error: float
    null_directions: tuple[NullDirection, ...]
    flat_families: tuple[FlatFamily, ...]
    equivalents: tuple[GaussianMoE, ...]
    condition: float
    weakest: dict[str, float]
    n_rows: int

    @property
    def is_identified(self) -> bool:
        """Whether only the gate's declared invariances are left open."""
        return all(direction.declared for direction in self.null_directions)

    def __str__(self) -> str:
        reasons = Counter(d.words for d in self.null_directions)
        lines = [
            f"{'Identified' if self.is_identified else 'Not identified'} up to the gate's declared "
            f"invariances: {len(self.null_directions)} of {len(self.eigenvalues)} directions leave "
            f"the density unchanged to first order ({self.n_rows} rows of X)."
        ]
        lines += [f"- {words} ({n})" for words, n in reasons.items()]
        for other in self.equivalents:
            slopes = other.gate.slope.tolist()
            lines.append(f"The same density elsewhere: gate slopes {slopes}, all else equal.")
        ill = self.condition > ILL_CONDITIONED
        lines.append(
            f"Condition number of the rest: {self.condition:.1e}"
            + (f", nearly singular along {_spoken(self.weakest)}." if ill else ".")
        )
        return "\n".join(lines)


def identifiability_report(
    model: GaussianMoE,
    X: Any,  # (N, D)
) -> IdentifiabilityReport:
    """Find and explain the directions in which a model is not identified.

    Parameters
    ----------
    model : GaussianMoE
        A single model; it may be singular in any way.
    X : array-like of shape (N, D)
        Features; at most `MAX_ROWS` evenly spread rows are used.

    Returns
    -------
    IdentifiabilityReport

    Raises
    ------
    ValueError
        If the model is a batch or X does not have its features.

    Notes
    -----
    Identified here means to first order. What only moves a selection boundary changes the density
    by a jump that no score sees, and is not counted.

    Examples
    --------
    >>> from moe_stats import GaussianMoE, LinearExperts, SoftmaxGate, Uniform
    >>> model = GaussianMoE(
    ...     SoftmaxGate([0.3, 0.0], [[5.0], [0.0]]),
    ...     LinearExperts([[2.0], [-1.0]], [1.0, 0.2], [0.3, 0.4]),
    ... )
    >>> report = identifiability_report(model, Uniform(-1, 1).sample(500, random_state=0))
    >>> report.is_identified, len(report.null_directions)
    (True, 2)
    """
    if model.batch_shape:
        raise ValueError(
            "The 'model' parameter must be a single model; got a batch of shape "
            f"{tuple(model.batch_shape)}."
        )
    X = check_features(as_tensor("X", X), model.n_features).to(torch.float64)
    if len(X) > MAX_ROWS:
        X = X[torch.linspace(0, len(X) - 1, MAX_ROWS, dtype=torch.float64).long()]
    model = model.with_params(model.to_params().detach().to(torch.float64))
    layout = Layout.of(model.gate.form, model.n_experts, model.n_features)
    names = parameter_names(layout, type(model.gate))

    fisher = fisher_information(model, X, N_NODES)
    estimated = ~model.experts.held(layout)
    units = _own_units(fisher, layout, X.mean(0))[:, estimated]
    scaled = units.mT @ fisher @ units
    eigenvalues, vectors = torch.linalg.eigh(scaled)
    coarse = units.mT @ fisher_information(model, X, N_NODES // 2) @ units
    error = float((torch.linalg.eigvalsh(coarse) - eigenvalues).abs().max())

    null = eigenvalues <= NULL
    families = flat_families(model, X)
    subject = Subject(model, X, model.gate_probs(X), layout, families)
    kept = eigenvalues[~null]
    weakest = units @ vectors[:, min(int(null.sum()), len(eigenvalues) - 1)]
    return IdentifiabilityReport(
        eigenvalues=eigenvalues,
        error=error,
        null_directions=tuple(_explained(subject, units, scaled, vectors[:, null], names)),
        flat_families=families,
        equivalents=tuple(GaussianMoE(gate, model.experts) for gate in model.gate.equivalents()),
        condition=float(kept[-1] / kept[0]) if len(kept) else 1.0,
        weakest=_named(weakest, names) if len(kept) else {},
        n_rows=len(X),
    )


def _own_units(fisher: Tensor, layout: Layout, centre: Tensor) -> Tensor:
    """Columns (P, P) along which parameters have unit information: every slope about the features'
    mean, that is with its intercept moved along, each in units of its own information."""
    units = torch.eye(layout.size, dtype=torch.float64)
    for e in range(layout.n_experts):
        start = e * layout.width
        gate_slope, slope = start + layout.n_own - layout.n_features, start + layout.n_own
        for d, mean in enumerate(centre):
            units[start, gate_slope + d] = -mean
            units[slope + layout.n_features, slope + d] = -mean
    diagonal = (units.mT @ fisher @ units).diagonal()
    silent = diagonal <= 1e-24 * diagonal.max()
    return units / torch.where(silent, 1.0, diagonal).sqrt()


def _explained(
    subject: Subject,
    units: Tensor,  # (P, P')
    scaled: Tensor,  # (P', P') Fisher information in these units
    null: Tensor,  # (P', M) orthonormal, in these units
    names: list[str],
) -> list[NullDirection]:
    """Name the null space by the explanations that span it, then by coefficients."""
    found: list[NullDirection] = []
    basis = null[:, :0]
    estimated = ~subject.model.experts.held(subject.layout)
    for explain in EXPLANATIONS:
        for explanation in explain(subject):
            for direction in explanation.directions * estimated:
                if not bool(direction.any()):
                    continue
                unit = torch.linalg.solve(units[estimated], direction[estimated])
                unit = unit / unit.norm()
                rest = unit - basis @ (basis.mT @ unit)
                if float(unit @ scaled @ unit) > NULL or float(rest.norm()) < 1e-6:
                    continue
                basis = torch.cat([basis, (rest / rest.norm()).unsqueeze(1)], dim=1)
                found.append(_direction(direction, explanation.words, explanation.declared, names))
    u, singular, _ = torch.linalg.svd(null - basis @ (basis.mT @ null), full_matrices=False)
    left = (units @ u[:, singular > 0.5]).mT  # a projector's: 1 or rounding
    known = [direction.vector for direction in found]
    size = torch.zeros(len(units), dtype=units.dtype)
    size[estimated] = 1 / units[estimated].diagonal()
    reduced = _reduced(torch.stack([*known, *left]), size) if len(left) else left
    for direction in reduced[len(known) :]:
        words = (
            f"unexplained: the density does not change along {_spoken(_named(direction, names))}"
        )
        found.append(_direction(direction, words, False, names))
    return found


def _direction(vector: Tensor, words: str, declared: bool, names: list[str]) -> NullDirection:
    vector = vector / vector.norm()
    return NullDirection(vector, words, declared, _named(vector, names))


def _reduced(
    rows: Tensor,  # (M, P)
    size: Tensor,  # (P,)
) -> Tensor:
    """Row reduction of directions, which leaves each few coefficients that the others lack."""
    for i in range(len(rows)):
        pivot = int((rows[i] * size).abs().argmax())
        rows[i] /= rows[i, pivot].clone()
        others = torch.arange(len(rows)) != i
        rows[others] -= rows[others, pivot, None] * rows[i]
    return rows


def _named(vector: Tensor, names: list[str]) -> dict[str, float]:
    large = (vector.abs() > 1e-6 * vector.abs().max()).tolist()
    return {n: float(v) for n, v, keep in zip(names, vector, large, strict=True) if keep}


def _spoken(coefficients: dict[str, float], at_most: int = 4) -> str:
    """The dominant coefficients, as in '0.71 slope[0, 0] - 0.70 slope[1, 0]'."""
    order = sorted(coefficients.items(), key=lambda item: -abs(item[1]))[:at_most]
    size = sum(v * v for v in coefficients.values()) ** 0.5
    terms = " ".join(f"{'-' if v < 0 else '+'} {abs(v) / size:.2f} {n}" for n, v in order)
    more = " + ..." if len(coefficients) > at_most else ""
    return terms.removeprefix("+ ") + more

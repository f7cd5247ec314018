r"""Search for all linear relations between the derivatives of u.

Derivatives D_k u up to an order are compared as functions of (x, y) at fixed parameters: random
points make their Gram matrix, in 120 digits, each function of length 1. Its Cholesky factor, from
the simplest derivative to the most involved, tells how far each lies from the span of those before
it: 1e-60 where a relation holds, at least 1e-7 where none does in the gates here, nothing between.
The coefficients of a relation are then followed through the parameters and recognised as Laurent
polynomials with rational coefficients; sympy proves or does not prove the result.

That nothing is missed: a relation whose coefficients are rational functions of the parameters has,
cleared of denominators, coefficients that are not all 0 at almost every parameter, so it would be
seen at a random one. Relations that hold at special parameters only are not sought.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from mpmath import mp

from ..gate_derivatives import DIGITS, NULL
from .atoms import Activation, Atom, Branch, Derivative, atom
from .laurent import recognise
from .relation import Relation, relation, written

Point = Mapping[str, Fraction]
Coefficients = dict[Derivative, dict[Derivative, Any]]
"""Dependent derivatives to the others with their coefficients, mpmath numbers."""

_POINTS_PER_FUNCTION = 2


@dataclass(frozen=True)
class RelationSearch:
    """All linear relations between derivatives of u.

    Attributes
    ----------
    atom : str
        Gate and expert.
    order : int
        Of the derivatives compared.
    derivatives : tuple of tuple of str
        What was compared, from the simplest on.
    relations : tuple of Relation
        A basis: each names one derivative by simpler ones.
    unrecognised : tuple of tuple of str
        Derivatives that depend on simpler ones with coefficients that are no Laurent polynomials.
    nearest, largest_null : float
        Distance of a derivative from the span of simpler ones, as a fraction of its length:
        smallest of the independent ones, largest of the dependent (0 without any).
    """

    atom: str
    order: int
    derivatives: tuple[Derivative, ...]
    relations: tuple[Relation, ...]
    unrecognised: tuple[Derivative, ...]
    nearest: float
    largest_null: float

    @property
    def proved(self) -> bool:
        """Whether all that was found is proved."""
        return not self.unrecognised and all(r.proved for r in self.relations)

    @property
    def status(self) -> str:
        found = "; ".join(map(str, self.relations)) or "none"
        doubt = "" if self.proved else " Not all are proved."
        if self.unrecognised:
            doubt += f" Not recognised: {', '.join(map(written, self.unrecognised))}."
        return (
            f"{self.atom}: {len(self.relations) + len(self.unrecognised)} relations among "
            f"{len(self.derivatives)} derivatives up to order {self.order}: {found} (others at "
            f"least {self.nearest:.0e} apart, these at most {self.largest_null:.0e}).{doubt}"
        )

    def involving(self, *parameters: str) -> tuple[Relation, ...]:
        """Relations that differentiate by one of these parameters."""
        return tuple(r for r in self.relations if r.parameters & set(parameters))

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain JSON."""
        return {
            "atom": self.atom,
            "order": self.order,
            "n_derivatives": len(self.derivatives),
            "relations": [r.as_dict() for r in self.relations],
            "unrecognised": [written(d) for d in self.unrecognised],
            "nearest": self.nearest,
            "largest_null": self.largest_null,
            "proved": self.proved,
            "status": self.status,
        }


def find_relations(
    gate: str,
    *,
    order: int = 2,
    activation: str | Activation | None = None,
    n_features: int = 1,
    intercept: bool = False,
    softened: bool = False,
    expert: str = "gaussian",
    random_state: int = 0,
) -> RelationSearch:
    """All linear relations between derivatives of u, constant in (x, y), rational in parameters.

    Parameters
    ----------
    gate, activation, n_features, intercept, softened, expert
        As in `theory.calculus.atom`; an activation must have values and derivatives in mpmath.
    order : {1, 2}
        Of the derivatives; u itself is among them.
    random_state : int
        Seed of the parameters and of the points (x, y).

    Returns
    -------
    RelationSearch

    Raises
    ------
    ValueError
        If an option is out of range, or the activation cannot be computed.

    Examples
    --------
    >>> for r in find_relations("softmax").relations:
    ...     print(r)
    d2u/db^2 = 2 du/ds
    d2u/da db = 2 d2u/db1 ds
    d2u/db1 db = du/da
    """
    if order not in (1, 2) or isinstance(order, bool):
        raise ValueError(f"The 'order' parameter must be 1 or 2; got {order!r}.")
    of = atom(
        gate,
        activation=activation,
        n_features=n_features,
        intercept=intercept,
        softened=softened,
        expert=expert,
    )
    rng = np.random.default_rng(random_state)
    place = list(of.parameters).index
    derivatives = tuple(
        sorted(
            of.derivatives(order),
            key=lambda d: (d.count("tau"), d.count("b0"), len(d), [place(p) for p in d]),
        )
    )
    with mp.workdps(DIGITS):
        family = _Family(of, derivatives, rng)
        coefficients, distances = family.dependencies(family.random_point())
        found = recognise(lambda point: family.dependencies(point)[0], family.random_point)
    null = [distances[d] for d in coefficients]
    kept = [distances[d] for d in derivatives if d not in coefficients]
    return RelationSearch(
        atom=of.name,
        order=order,
        derivatives=derivatives,
        relations=tuple(relation(of, d, right) for d, right in found.items() if right is not None),
        unrecognised=tuple(d for d, right in found.items() if right is None),
        nearest=float(min(kept)),
        largest_null=float(max(null, default=0)),
    )


class _Family:
    """The derivatives as functions of (x, y), at points drawn once."""

    def __init__(
        self, of: Atom, derivatives: tuple[Derivative, ...], rng: np.random.Generator
    ) -> None:
        self.of, self.derivatives, self.rng = of, derivatives, rng
        self.names = {**of.parameters, **of.constants}
        n_points = _POINTS_PER_FUNCTION * len(derivatives)
        drawn = rng.uniform(-2, 2, size=(n_points, len(of.features) + 1))
        self.points = [[mp.mpf(v) for v in row] for row in drawn.tolist()]
        self.ratios = [(self._numeric(b.where), self._ratios(b)) for b in of.branches]

    def random_point(self) -> Point:
        """Parameters away from 0, positive where they must be; gate slopes at most 1.2, so that
        points x lie on both sides of a centre."""
        values = {}
        for name, symbol in self.names.items():
            size = Fraction(int(self.rng.integers(30, 120)), 100)
            negative = not symbol.is_positive and self.rng.random() < 0.5
            values[name] = -size if negative else size
        return values

    def dependencies(self, point: Point) -> tuple[Coefficients, dict[Derivative, Any]]:
        """Derivatives that lie in the span of simpler ones, with coefficients, and all distances
        from it."""
        columns = self._columns(point)
        lengths = [mp.sqrt(mp.fdot(c, c)) for c in columns]
        scaled = [[v / n for v in c] for c, n in zip(columns, lengths, strict=True)]
        factor: list[list[Any]] = []  # Cholesky rows of the independent ones
        basis: list[int] = []
        coefficients: Coefficients = {}
        distances: dict[Derivative, Any] = {}
        for k, derivative in enumerate(self.derivatives):
            row: list[Any] = []
            for i, known in zip(basis, factor, strict=True):
                inner = mp.fdot(scaled[i], scaled[k]) - mp.fdot(row, known[: len(row)])
                row.append(inner / known[-1])
            distance = mp.sqrt(max(1 - mp.fdot(row, row), mp.zero))
            distances[derivative] = distance
            if distance > NULL:
                basis.append(k)
                factor.append([*row, distance])
                continue
            solution = _back_substituted(factor, row)
            coefficients[derivative] = {
                self.derivatives[i]: c * lengths[k] / lengths[i]
                for i, c in zip(basis, solution, strict=True)
            }
        return coefficients, distances

    def _columns(self, point: Point) -> list[list[Any]]:
        theta = [mp.mpf(v.numerator) / v.denominator for v in point.values()]
        rows = []
        for xy in self.points:
            branch = next(ratios for where, ratios in self.ratios if where(*theta, *xy))
            rows.append(branch(*theta, *xy))
        return [list(c) for c in zip(*rows, strict=True)]

    def _ratios(self, branch: Branch) -> Callable[..., Any]:
        import sympy as sp
        from sympy.core.function import AppliedUndef

        ratios = [self.of.ratio(branch, d) for d in self.derivatives]
        if any(r.has(AppliedUndef, sp.Derivative, sp.DiracDelta) for r in ratios):
            raise ValueError(
                "The 'activation' parameter must be a smooth function that mpmath computes; "
                f"got that of '{self.of.name}'. `theory.calculus.relation` takes any."
            )
        return self._numeric(ratios)

    def _numeric(self, expression: Any) -> Callable[..., Any]:
        import sympy as sp

        arguments = [*self.names.values(), *self.of.features, self.of.response]
        return sp.lambdify(arguments, expression, "mpmath", cse=True)


def _back_substituted(factor: list[list[Any]], row: list[Any]) -> list[Any]:
    """c of L'c = row, L the rows of a lower triangular matrix."""
    c = list(row)
    for i in reversed(range(len(c))):
        c[i] = (c[i] - mp.fsum(factor[j][i] * c[j] for j in range(i + 1, len(c)))) / factor[i][i]
    return c

"""Words for linear relations among a gate's derivatives.

Known reasons are tested on the null space of the Gram matrix; what they leave is written out.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import numpy as np

from .gate_derivatives import Array, Solved, Term

_SPAN = 1e-9
"""Distance from a space, in float64, up to which a vector of length 1 lies in it, and relative
difference up to which functions are the same: of words only, ranks are decided before."""

_NEW = 1e-6
"""Distance from what is named already from which a relation is another one."""


def explain(solved: Solved) -> list[str]:
    """Words for every dimension of a null space: known reasons first, then formulas."""
    terms, lengths = solved.block.terms, solved.lengths
    reasons = [_vanishing, _euler, _mirrored, _shifted, _interacting, _formulas]
    named = np.zeros((len(terms), 0))
    sentences = []
    for words, vectors in chain.from_iterable(reason(solved) for reason in reasons):
        before = named.shape[1]
        for vector in vectors:
            coefficients = np.array([vector.get(term, 0.0) for term in terms])
            named = _extend(named, lengths * coefficients, solved.null)
        if named.shape[1] > before:
            sentences.append(words)
    return sentences


Vector = dict[Term, float]
Reasons = Iterator[tuple[str, list[Vector]]]


def _vanishing(solved: Solved) -> Reasons:
    """A derivative is 0 on the support."""
    for term in solved.block.terms:
        if term.expert is not None:
            yield f"{term} is 0 on the support", [{term: 1.0}]


def _euler(solved: Solved) -> Reasons:
    """z psi'(z) = p psi(z) + c, and its derivative z psi''(z) = (p - 1) psi'(z)."""
    z, psi, slope = (solved.floats(k).ravel() for k in ("z", "psi", "psi'"))
    design = np.stack([psi, np.ones_like(psi)], -1)
    (p, c), *_ = np.linalg.lstsq(design, z * slope, rcond=None)
    if solved.block.derivative or not _equal(design @ (p, c), z * slope):
        return
    vectors = [_ray(solved, p)]
    n_experts, n_features = solved.slope.shape
    for e, u in np.ndindex(n_experts, n_features):
        curved: Vector = {
            Term("psi''", (min(u, v), max(u, v)), e): solved.slope[e, v] for v in range(n_features)
        }
        vectors.append({**curved, Term("psi'", (u,), e): 1 - p})
    right = [f"{_number(p)}psi(z)"] if abs(p) > _SPAN else []
    right += [f"{c:.6g}"] if abs(c) > _SPAN or not right else []
    yield f"z psi'(z) = {' + '.join(right)}: all slopes can be scaled together", vectors


def _mirrored(solved: Solved) -> Reasons:
    """All slopes are plus or minus one vector."""
    b1, (psi, slope, z) = solved.slope, (solved.floats(k) for k in ("psi", "psi'", "z"))
    signs = np.array([1.0 if (row == b1[0]).all() else -1.0 for row in b1])
    if solved.block.derivative or not (b1 == signs[:, None] * b1[0]).all():
        return
    e = int(signs.argmin())
    odd = float((psi[0] - psi[e]) @ z[0] / max(z[0] @ z[0], _SPAN))
    if e == 0:
        words = "all slopes are equal"
    elif _equal(psi[0], psi[e]):
        words = "psi is even: mirrored slopes give the same scores"
    elif _equal(slope[0], slope[e]):
        words = "psi' is even: mirrored slopes can be shifted together"
    elif _equal(psi[0] - psi[e], odd * z[0]):
        words = f"psi(z) - psi(-z) = {_number(odd)}z: mirrored slopes can be scaled together"
    else:
        return
    patterns = [*_patterns(solved, np.ones(len(b1))), *_patterns(solved, signs)]
    yield words, [{Term("psi", (), None): 1.0}, _ray(solved, 1.0), *patterns]


def _shifted(solved: Solved) -> Reasons:
    """psi' does not tell the experts apart."""
    if solved.block.derivative == 0:
        words = "psi' is the same at all slopes: they can be shifted together"
        yield words, _patterns(solved, np.ones(len(solved.slope)))


def _interacting(solved: Solved) -> Reasons:
    """psi' is a number at an expert, so that x_u psi' is x_u."""
    moved = [term for term in solved.block.terms if term.kind == "psi'"]
    e = moved[0].expert
    level = solved.floats("psi'")[e]
    if e is not None and solved.block.derivative and _equal(level, level[:1]):
        vectors: list[Vector] = [{t: 1.0, t._replace(kind="1"): -float(level[0])} for t in moved]
        yield f"psi'(z_{e + 1}) is constant: gate slope and expert slope interact", vectors


def _formulas(solved: Solved) -> Reasons:
    """The null space in reduced echelon form, rows with fewest functions first."""
    rows = solved.null.T.copy()
    for k in range(len(rows)):
        first, pivot = divmod(int(np.abs(rows[k:]).argmax()), rows.shape[1])
        rows[[k, k + first]] = rows[[k + first, k]]
        rows[k] /= rows[k, pivot]
        others = np.arange(len(rows)) != k
        rows[others] -= np.outer(rows[others, pivot], rows[k])
    rows[np.abs(rows) < _SPAN] = 0.0
    derivative, terms = solved.block
    where = f"is 0 in derivative {derivative} of an expert"
    if derivative == 0:
        where = "moves all scores alike"
    for row in sorted(rows, key=np.count_nonzero):
        raw = dict(zip(terms, row / solved.lengths, strict=True))
        vector: Vector = {term: float(c) for term, c in raw.items() if c}
        scale = next(iter(vector.values()))
        text = " + ".join(f"{_number(c / scale)}{term}" for term, c in vector.items())
        yield f"{text.replace('+ -', '- ')} {where}", [vector]


def _ray(solved: Solved, p: float) -> Vector:
    """Slopes scaled, and the temperature p times as much."""
    own = {Term("psi'", (u,), e): float(b) for (e, u), b in np.ndenumerate(solved.slope)}
    return {**own, Term("psi", (), None): -p}


def _patterns(
    solved: Solved,
    signs: Array,  # (E,)
) -> list[Vector]:
    """For each derivative and monomial, the change of every score by it, with these signs."""
    own: dict[tuple[str, tuple[int, ...]], Vector] = {}
    for term in solved.block.terms:
        if term.features and term.expert is not None:
            own.setdefault((term.kind, term.features), {})[term] = float(signs[term.expert])
    return list(own.values())


def _extend(
    basis: Array,  # (F, B)
    vector: Array,  # (F,)
    null: Array,  # (F, R)
) -> Array:
    """The orthonormal basis with the vector, if that lies in the null space and is new."""
    unit = vector / (np.linalg.norm(vector) or 1.0)
    new = unit - basis @ (basis.T @ unit)
    inside = np.linalg.norm(unit - null @ (null.T @ unit)) < _SPAN
    if not inside or np.linalg.norm(new) < _NEW:
        return basis
    return np.column_stack([basis, new / np.linalg.norm(new)])


def _equal(a: Array, b: Array) -> bool:
    return bool(np.abs(a - b).max() <= _SPAN * max(1.0, float(np.abs(b).max())))


def _number(value: float) -> str:
    return "" if abs(value - 1) < _SPAN else f"{value:.6g} "

"""The functions of x by which a gate's parameters move a density, and their Gram matrices.

Which they are is derived in `theory.independence`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations_with_replacement
from typing import Any, NamedTuple

import mpmath
import numpy as np
from mpmath import mp
from numpy.typing import NDArray

from .activations import Function

Array = NDArray[np.float64]

DIGITS = 120
"""Decimal digits of the Gram matrix, and so of squared singular values."""

NULL = 1e-40
"""Singular value, for functions of length 1, up to which there is a relation: rounding leaves
1e-60 of an exact one, a mirrored pair of slopes that is off by its last bit 1e-16."""

_NOISE = 1e-100
"""Derivatives up to this size, as a fraction of psi's largest value, are taken for the rounding of
`mpmath.diff`, which leaves 1e-120."""

_MPMATH = "The 'activation' parameter must compute with mpmath numbers (mpmath.tanh, not math.tanh)"
_FEWEST_NODES = 128
_NODES_PER_FUNCTION = 8
_CURVATURE = "(psi'' + psi'^2/tau)"


class Term(NamedTuple):
    """A function of x: a monomial times psi or a derivative at one expert, or at each of them."""

    kind: str  # "1", "psi", "psi'", "psi''", "psi'^2" or "(psi'' + psi'^2/tau)"
    features: tuple[int, ...]  # of the monomial, ascending
    expert: int | None

    def __str__(self) -> str:
        at = "" if self.expert is None else f"_{self.expert + 1}"
        words = [f"x_{u + 1}" for u in self.features]
        if self.kind == "1":
            return " ".join(words) or f"1{at}"
        return " ".join([*words, f"{self.kind}(z{at})"])


class Block(NamedTuple):
    """Functions that can only be related to each other, with the derivative of f_e they multiply:
    those of derivative 0 have a component an expert and count modulo a common function."""

    derivative: int
    terms: list[Term]


class Solved(NamedTuple):
    """A block with its null space, and what the reasons for one look at."""

    block: Block
    slope: Array  # (E, D)
    values: dict[str, Any]  # z, psi and its derivatives, (E, M)
    singular_values: Array  # (F,)
    null: Array  # (F, R), orthonormal, for functions of length 1
    lengths: Array  # (F,), with 1 instead of 0

    def floats(self, kind: str) -> Array:
        return np.asarray(self.values[kind], dtype=np.float64)


def blocks(
    slope: Array,  # (E, D)
    order: int,
    temperature: float | None,
) -> Iterator[Block]:
    experts, features = (range(n) for n in slope.shape)
    linear = [(u,) for u in features]
    square = list(combinations_with_replacement(features, 2))
    gate = [Term("1", (), e) for e in experts[:-1]]  # the last follows by the common constant
    gate += [Term("psi'", u, e) for e in experts for u in linear]
    gate.append(Term("psi", (), None))
    if order == 1:
        yield Block(0, gate)
        return
    kinds = ["psi''", "psi'^2"] if temperature is None else [_CURVATURE]
    yield Block(0, gate + [Term(k, uv, e) for k in kinds for e in experts for uv in square])
    for e in experts:
        straight = [Term("1", m, e) for m in [(), *linear]]
        moved = [Term("psi'", u, e) for u in linear]
        yield Block(1, straight + moved + [Term("psi'", uv, e) for uv in square])
        yield Block(2, straight + [Term("1", uv, e) for uv in square] + moved)


def nodes(
    support: Array,  # (D, 2)
    n_functions: int,
) -> tuple[Array, Array]:
    """Points (M, D) and weights (M,); M is even, so that no node is the centre of the support."""
    low, high = support.T
    count = max(_FEWEST_NODES, _NODES_PER_FUNCTION * n_functions)
    if len(support) == 1:
        nodes, weights = np.polynomial.legendre.leggauss(count)
        return (low + high + (high - low) * nodes[:, None]) / 2, weights / 2
    from scipy.stats import qmc

    halton = qmc.Halton(len(support), scramble=False)
    halton.fast_forward(1)  # the first point is a corner
    return qmc.scale(halton.random(count), low, high), np.full(count, 1 / count)


def evaluate(
    derivatives: list[Function],
    slope: Array,  # (E, D)
    x: Array,  # (M, D)
    order: int,
    temperature: float | None,
) -> dict[str, Any]:
    """Arrays of mpmath numbers: "x" (D, M); "z", psi and its derivatives (E, M)."""
    exact = np.vectorize(mp.mpf, otypes=[object])
    values = {"x": exact(x.T), "z": exact(slope) @ exact(x.T)}
    for kind, derivative in zip(("psi", "psi'", "psi''"), derivatives[: order + 1], strict=False):
        values[kind] = np.array([[_checked(derivative, v) for v in row] for row in values["z"]])
    if order == 2:
        values["psi'^2"] = values["psi'"] ** 2
        values[_CURVATURE] = values["psi''"] + values["psi'^2"] / mp.mpf(temperature or 1)
    noise = _NOISE * abs(values["psi"]).max()
    for kind in values.keys() - {"x", "z", "psi"}:
        values[kind] = np.where(abs(values[kind]) > noise, values[kind], mp.zero)
    return values


def solve(
    block: Block,
    slope: Array,  # (E, D)
    values: dict[str, Any],
    weights: Array,  # (M,)
) -> Solved:
    """Eigenvalues of the functions' Gram matrix, each function of length 1."""
    n, (n_experts, n_nodes) = len(block.terms), values["z"].shape
    root = np.array([mp.sqrt(w) for w in weights.tolist()])
    columns = np.full((n, n_experts, n_nodes), mp.zero, dtype=object)
    for column, term in zip(columns, block.terms, strict=True):
        own = slice(None) if term.expert is None else term.expert
        column[own] = root if term.kind == "1" else root * values[term.kind][own]
        for u in term.features:
            column *= values["x"][u]
    sizes = _lengths(columns)
    if block.derivative == 0:
        columns = columns - columns.sum(1, keepdims=True) / n_experts
    lengths = _lengths(columns)
    lengths[lengths <= NULL * sizes] = mp.zero  # rounding, where components are equal
    columns = columns.reshape(n, -1) / np.where(lengths > 0, lengths, mp.inf)[:, None]
    gram = mp.matrix(n)
    for i in range(n):
        for j in range(i + 1):
            gram[i, j] = gram[j, i] = mp.fdot(columns[i], columns[j])
    eigenvalues, vectors = mp.eigsy(gram)
    singular = np.array([float(mp.sqrt(max(v, mp.zero))) for v in eigenvalues])
    null = np.array(vectors.tolist(), dtype=np.float64)[:, singular <= NULL]
    units = np.where(lengths > 0, lengths, mp.one).astype(np.float64)
    return Solved(block, slope, values, singular, null, units)


def _lengths(
    columns: Any,  # (F, E, M)
) -> Any:
    flat = columns.reshape(len(columns), -1)
    return np.array([mp.sqrt(mp.fdot(c, c)) for c in flat])


def _checked(function: Function, z: Any) -> Any:
    try:
        value = function(z)
    except (TypeError, AttributeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"{_MPMATH}; got an error at z={mp.nstr(z, 6)}.") from error
    if not isinstance(value, mpmath.mpf | int):
        raise ValueError(f"{_MPMATH}; got {value!r} at z={mp.nstr(z, 6)}.")
    if not mp.isfinite(value):
        raise ValueError(
            "The 'activation' parameter must be finite on the support, with its derivatives; "
            f"got {mp.nstr(value, 6)} at z={mp.nstr(z, 6)}."
        )
    return mp.mpf(value)

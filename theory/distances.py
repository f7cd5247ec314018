r"""Distances between the conditional densities of two mixtures of experts, averaged over X.

.. math::
    E_X\, h(p(\cdot \mid X), q(\cdot \mid X)), \qquad
    h^2 = \tfrac12 \int (\sqrt p - \sqrt q)^2\, dy = 1 - \int \sqrt{pq}\, dy, \qquad
    V = \tfrac12 \int |p - q|\, dy,

so that 0 <= h, V <= 1 and h^2 <= V <= sqrt(2) h. It is the average of h, not the root of the
average of h^2: where a selection boundary is off by d, the first moves like d and the second like
d^(1/2).

Over y: Gauss-Legendre between cuts that follow the components at each x
(`theory.gaussian_mixtures`). Over x: for one feature the design's quadrature, split at the
selection boundaries of both models and at changes of the leading expert (`theory.selection`); for
more, a Monte Carlo average over the design, each term still by quadrature in y.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from kernels.checks import MAX_COUNT, check_int
from moe_stats import Design, GaussianMoE
from moe_stats.designs import MAX_NODES

from .gaussian_mixtures import Kind, Mixtures, divergence
from .selection import changes

Method = Literal["auto", "quadrature", "monte_carlo"]

_N_NODES = 64
_N_DRAWS = 1024
_Y_NODES: dict[Kind, tuple[int, int]] = {"hellinger": (8, 5), "total_variation": (16, 10)}
"""Nodes between two cuts of y, for the value and for its error; |p - q| has kinks."""
_FEWEST_NODES = 12


@dataclass(frozen=True, eq=False)
class Distance:
    """A distance with its stated error.

    Attributes
    ----------
    value : Tensor
        (...,), in [0, 1].
    error : Tensor
        (...,): by quadrature the difference from a rule with half the nodes in x and fewer in y, an
        over-estimate as a rule; by Monte Carlo the standard error.
    method : {"quadrature", "monte_carlo"}
    name : {"hellinger", "total_variation"}
    """

    value: Tensor
    error: Tensor
    method: str
    name: Kind


def hellinger(
    p: GaussianMoE,
    q: GaussianMoE,
    design: Design,
    *,
    method: Method = "auto",
    n_nodes: int | None = None,
    random_state: Any = None,
) -> Distance:
    r"""Expected Hellinger distance between two conditional densities.

    .. math:: E_X \Bigl(\tfrac12 \int (\sqrt{p(y|X)} - \sqrt{q(y|X)})^2\, dy\Bigr)^{1/2}.

    Parameters
    ----------
    p, q : GaussianMoE
        Models of D features; at most one of them a batch of R.
    design : Design
        The law of X.
    method : {"auto", "quadrature", "monte_carlo"}
        How to average over X; "auto" is quadrature for one feature, Monte Carlo for more.
    n_nodes : int or None
        Quadrature: nodes over the range of X, shared among the pieces between boundaries (at least
        12 each); 64 by default. Monte Carlo: draws of X; 1,024 by default.
    random_state : None, int, SeedSequence or Generator
        For Monte Carlo.

    Returns
    -------
    Distance
        With the batch shape of p and q.

    Raises
    ------
    ValueError
        If the numbers of features disagree, both models are batches, the method is unknown, or
        quadrature is asked for more than one feature.

    References
    ----------
    Nguyen, Akbarian, Yan and Ho (2024), arXiv 2309.13850, Theorem 1: the density's rate in E_X h.

    Examples
    --------
    >>> from moe_stats import LinearExperts, SoftmaxGate, Uniform
    >>> gate = SoftmaxGate([0.0], [[0.0]])
    >>> p = GaussianMoE(gate, LinearExperts([[1.0]], [0.0], [0.5]))
    >>> q = GaussianMoE(gate, LinearExperts([[1.0]], [0.2], [0.5]))
    >>> round(float(hellinger(p, q, Uniform(-1, 1)).value), 5)  # (1 - exp(-(.2 / .5)^2 / 8))^.5
    0.14072
    """
    return _distance(p, q, design, "hellinger", method, n_nodes, random_state)


def total_variation(
    p: GaussianMoE,
    q: GaussianMoE,
    design: Design,
    *,
    method: Method = "auto",
    n_nodes: int | None = None,
    random_state: Any = None,
) -> Distance:
    r"""Expected total variation distance between two conditional densities.

    .. math:: E_X\, \tfrac12 \int |p(y|X) - q(y|X)|\, dy.

    Parameters, returns and errors are those of `hellinger`.

    Examples
    --------
    >>> from moe_stats import LinearExperts, SoftmaxGate, Uniform
    >>> gate = SoftmaxGate([0.0], [[0.0]])
    >>> p = GaussianMoE(gate, LinearExperts([[1.0]], [0.0], [0.5]))
    >>> q = GaussianMoE(gate, LinearExperts([[1.0]], [0.2], [0.5]))
    >>> round(float(total_variation(p, q, Uniform(-1, 1)).value), 3)  # 2 Phi(.2) - 1
    0.159
    """
    return _distance(p, q, design, "total_variation", method, n_nodes, random_state)


def rows(
    model: GaussianMoE,
    X: Tensor,  # (R, N, D)
) -> Mixtures:
    """The mixture each of R models (or the one model) has at each of its N points; R N rows."""
    log_gate = model.gate.log_probs(X)
    mean = model.experts.mean(X)
    n_experts = model.n_experts
    scale = model.experts.scale.unsqueeze(-2).expand(mean.shape)
    shape = (*X.shape[:-1], n_experts)
    fields = (x.expand(shape).reshape(-1, n_experts) for x in (log_gate, mean, scale))
    return Mixtures(*fields)


def places(
    models: Sequence[GaussianMoE],
    design: Design,
) -> list[list[float]]:
    """Where an integral over one feature is to be split for these models, ascending.

    The first model may be a batch of R: one list for each of them.
    """
    ends = design.quadrature(64)[0]
    low, high = float(ends.min()), float(ends.max())
    margin = 1e-3 * (high - low)  # Gauss nodes stay inside the support
    found = [changes(m.gate, low - margin, high + margin) for m in models]
    split = []
    for r in range(len(found[0])):
        own = [f[r if k == 0 else 0] for k, f in enumerate(found)]
        breaks = [x for sets, _ in own for x in sets]
        for x in sorted(x for _, leads in own for x in leads):
            if all(abs(x - b) > 0.02 * (high - low) for b in breaks):
                breaks.append(x)
        split.append(sorted({b for b in breaks if low < b < high}))
    return split


def split_nodes(
    split: Sequence[Sequence[float]],
    design: Design,
    n_nodes: int,
) -> tuple[Tensor, Tensor]:
    """Quadrature over one feature with R lists of breaks, padded with nodes of weight 0.

    Returns
    -------
    X, weights : Tensor
        (R, M, 1) and (R, M).
    """
    grids = [
        design.quadrature(max(_FEWEST_NODES, -(-n_nodes // (len(breaks) + 1))), breaks)
        for breaks in split
    ]
    width = max(len(w) for _, w in grids)
    X = torch.stack([torch.cat([x, x[-1:].expand(width - len(x), 1)]) for x, _ in grids])
    weights = torch.stack([torch.cat([w, w.new_zeros(width - len(w))]) for _, w in grids])
    return X, weights


def _distance(
    p: GaussianMoE,
    q: GaussianMoE,
    design: Design,
    kind: Kind,
    method: Method,
    n_nodes: int | None,
    random_state: Any,
) -> Distance:
    _check(p, q, design, method, n_nodes)
    p, q = double(p), double(q)
    if q.batch_shape:  # the batch comes first: both distances are symmetric
        p, q = q, p
    if method == "quadrature" or (method == "auto" and p.n_features == 1):
        n_nodes = n_nodes or _N_NODES
        split = places([p, q], design)
        levels = zip((n_nodes, n_nodes // 2), _Y_NODES[kind], strict=True)
        value, coarse = (_by_quadrature(p, q, design, kind, split, *level) for level in levels)
        return Distance(value, (value - coarse).abs(), "quadrature", kind)
    X = design.sample(n_nodes or _N_DRAWS, random_state).to(torch.float64)
    each = _pointwise(p, q, X.expand(*p.batch_shape, *X.shape), kind, _Y_NODES[kind][0])
    error = each.std(-1) / each.shape[-1] ** 0.5
    return Distance(each.mean(-1), error, "monte_carlo", kind)


def _by_quadrature(
    p: GaussianMoE,
    q: GaussianMoE,
    design: Design,
    kind: Kind,
    split: Sequence[Sequence[float]],
    n_nodes: int,
    y_nodes: int,
) -> Tensor:
    X, weights = split_nodes(split, design, n_nodes)
    if not p.batch_shape:
        X, weights = X[0], weights[0]
    return (weights * _pointwise(p, q, X, kind, y_nodes)).sum(-1)


def _pointwise(
    p: GaussianMoE,
    q: GaussianMoE,
    X: Tensor,  # (..., N, D)
    kind: Kind,
    y_nodes: int,
) -> Tensor:
    """The distance at each x; (..., N)."""
    value = divergence(rows(p, X), rows(q, X), kind, y_nodes).reshape(X.shape[:-1])
    return value.sqrt() if kind == "hellinger" else value


def double(model: GaussianMoE) -> GaussianMoE:
    """The model in float64, without a gradient."""
    own, shared = (x.detach().to(torch.float64) for x in model.gate.pack())
    e = model.experts
    parts = (x.detach().to(torch.float64) for x in (e.slope, e.intercept, e.scale))
    gate = model.gate.from_parameters(own, shared, **model.gate.options)
    return GaussianMoE(gate, e.from_parameters(*parts))


def _check(
    p: GaussianMoE, q: GaussianMoE, design: Design, method: str, n_nodes: int | None
) -> None:
    if not p.n_features == q.n_features == design.n_features:
        raise ValueError(
            "Models and design must have the same number of features; got "
            f"{p.n_features}, {q.n_features} and {design.n_features}."
        )
    batches = p.batch_shape, q.batch_shape
    if all(batches) or max(map(len, batches)) > 1:
        raise ValueError(
            "At most one of the models may be a batch, of one dimension; got batch shapes "
            f"{tuple(batches[0])} and {tuple(batches[1])}."
        )
    if method not in get_args(Method):
        options = ", ".join(map(repr, get_args(Method)))
        raise ValueError(f"The 'method' parameter must be one of {{{options}}}; got {method!r}.")
    if method == "quadrature" and p.n_features > 1:
        raise ValueError(
            "The 'method' parameter can be 'quadrature' for one feature only; "
            f"got {p.n_features} features."
        )
    if n_nodes is not None:
        drawn = method == "monte_carlo" or p.n_features > 1
        check_int("n_nodes", n_nodes, 2, MAX_COUNT if drawn else MAX_NODES)

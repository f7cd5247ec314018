r"""Maximum likelihood of data that are never held: drawn, or read, chunk by chunk at every pass.

Log-likelihood, gradient, information and Hessian are sums over observations,

.. math:: \ell(\theta) = \sum_c \ell_c(\theta), \qquad \nabla\ell = \sum_c \nabla\ell_c, \ \dots

added over chunks in their order, so that a result depends on how data are cut by rounding alone.
Starts, EM and moves work on an evenly spread subsample, as on large data that are held. What a fit
needs beyond one chunk does not grow with the number of observations.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kernels.checks import MAX_ROWS, check_choice, check_count, check_int, check_real
from kernels.gating import Evaluation, Order, evaluate, gate_means

from .._validation import generator
from ..experts import EXPERTS
from ..gates import GateTemplate
from .maximize import EM_ROWS, maximize
from .mle import (
    MLE,
    as_template,
    check_enough,
    check_search,
    gate_limit,
    result,
    starts_of,
    weight_floor,
)
from .problem import Problem
from .starts import KINDS


@dataclass(frozen=True)
class Chunks:
    """One data set as a sequence of chunks, the same ones every time.

    Parameters
    ----------
    n : int
        Observations in all, at least 1.
    size : int
        Observations in a chunk, at least 1; the last may be shorter.
    draw : callable
        ``draw(c, length)`` gives X (length, D) and y (length,) of chunk c = 0, 1, ...; the same
        numbers at every call.

    Examples
    --------
    >>> X, y = torch.arange(5.0)[:, None], torch.zeros(5)
    >>> data = Chunks(5, 2, lambda c, length: (X[2 * c :][:length], y[2 * c :][:length]))
    >>> [x.shape[-1] for x, _ in data]
    [2, 2, 1]
    """

    n: int
    size: int
    draw: Callable[[int, int], tuple[Tensor, Tensor]]

    def __post_init__(self) -> None:
        check_int("n", self.n, 1, MAX_ROWS)
        check_int("size", self.size, 1)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """x (1, D, M) and y (1, M) of each chunk, in float64."""
        for c, first in enumerate(range(0, self.n, self.size)):
            X, y = self.draw(c, min(self.size, self.n - first))
            yield X.to(torch.float64).mT.contiguous()[None], y.to(torch.float64)[None]

    def on_disk(self) -> Chunks:
        """The same data, drawn once and read again at every pass from a file without a name, which
        takes 8 (D + 1) bytes an observation of the folder for temporary files and goes with the
        last reference to it."""
        file = tempfile.TemporaryFile()  # noqa: SIM115  # closed with its reader
        ends = [0]
        for x, y in self:
            joint = torch.cat([x, y[:, None]], 1)[0].numpy()  # (D + 1, M)
            file.write(joint.tobytes())
            ends.append(ends[-1] + joint.nbytes)
        file.flush()

        def read(c: int, length: int) -> tuple[Tensor, Tensor]:
            file.seek(ends[c])
            joint = np.fromfile(file, np.float64, (ends[c + 1] - ends[c]) // 8)
            both = torch.from_numpy(joint.reshape(-1, length))
            return both[:-1].mT, both[-1]

        weakref.finalize(read, file.close)
        return Chunks(self.n, self.size, read)


@dataclass(frozen=True, eq=False, kw_only=True)
class ChunkedProblem(Problem):
    """A `Problem` of one data set in chunks; ``x`` and ``y`` hold an evenly spread subsample.

    Attributes
    ----------
    data : Chunks
    """

    data: Chunks

    @property
    def n_observations(self) -> int:
        return self.data.n

    @property
    def most_held(self) -> int:
        """Those of a chunk."""
        return self.data.size

    def evaluate(self, params: Tensor, rows: Tensor, order: Order, n_climbs: int = 0) -> Evaluation:
        """Log-likelihoods of params (B, P), summed over chunks."""
        parts = (
            evaluate(params, self.form, x, y, rows, order=order, n_climbs=n_climbs)
            for x, y in self.data
        )
        total = next(parts)
        for part in parts:
            total = _sum(total, part)
        return total

    def gate_means(
        self, params: Tensor, rows: Tensor, tilt: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """As `Problem.gate_means`, averaged over chunks."""
        total: list[Tensor | None] = [None, None, None]
        for x, _ in self.data:
            share = x.shape[-1] / self.data.n
            found = gate_means(params, self.form, x, rows, tilt)
            for i, part in enumerate(found):
                if part is not None:
                    so_far = total[i]
                    total[i] = share * part if so_far is None else so_far + share * part
        means, jacobian, hessian = total
        assert means is not None
        return means, jacobian, hessian

    def subsample(self, n: int) -> Problem:
        """The same problem on n rows spread evenly over the data, which are held."""
        x, y = _spread(self.data, n)
        own = {field.name: getattr(self, field.name) for field in fields(Problem)}
        return Problem(**{**own, "x": x, "y": y})


def fit_mle_in_chunks(
    data: Chunks,
    *,
    n_experts: int,
    min_scale: float,
    gate: str | GateTemplate = "softmax",
    experts: str = "linear",
    n_init: int = 8,
    init: str = "auto",
    min_weight: float = 0.0,
    gate_bound: float | None = None,
    tol: float = 1e-6,
    max_iter: int = 300,
    n_rounds: int = 2,
    quasi_newton: bool = True,
    random_state: Any = None,
) -> MLE:
    """Fit one data set in chunks by maximum likelihood, as `fit_mle` fits one that is held.

    Parameters
    ----------
    data : Chunks
    n_experts : int
    min_scale : float
        Lower bound on every scale, in units of y.
    gate, experts, n_init, min_weight, gate_bound, tol, max_iter, n_rounds, quasi_newton
        As for `GaussianMoERegressor`; the gate keeps every expert.
    init : str
        "auto" or a key of `moe_stats.fit.starts.KINDS`.
    random_state : None, int, SeedSequence or Generator
        Of the starts.

    Returns
    -------
    MLE
        Its ``features`` are those of the subsample.

    Raises
    ------
    ValueError
        If a parameter breaks its rule. A gate that leaves experts out is refused: the search across
        its selection boundaries sorts all observations.
    """
    template = as_template(gate)
    form = template.form()
    check_count("n_experts", n_experts)
    if form.top_k is not None and form.top_k < n_experts:
        raise ValueError(
            "The 'gate' parameter must keep every expert where data come in chunks; got "
            f"top_k={form.top_k} with n_experts={n_experts}."
        )
    check_search(n_init, n_rounds, tol, max_iter, quasi_newton)
    check_choice("init", init, ("auto", *KINDS))
    floor = check_real("min_scale", min_scale, low=0.0, strict=True)
    x, y = _spread(data, min(data.n, EM_ROWS))
    problem = ChunkedProblem(
        x=x,
        y=y,
        form=form,
        n_experts=n_experts,
        min_scale=torch.full((1,), floor, dtype=torch.float64),
        min_weight=weight_floor(min_weight, n_experts),
        gate_bound=gate_limit(gate_bound),
        gate=template.gate,
        experts=EXPERTS[check_choice("experts", experts, tuple(EXPERTS))],
        data=data,
    )
    check_enough(data.n, problem.layout, template, problem.experts)
    rngs = [generator(random_state)]
    starts = starts_of(problem, init, n_init, rngs)
    optimum = maximize(
        problem,
        starts,
        rngs,
        tol=tol,
        max_iter=max_iter,
        n_rounds=n_rounds,
        quasi_newton=quasi_newton,
    )
    return result(problem, optimum, template, tol)


def _spread(data: Chunks, n: int) -> tuple[Tensor, Tensor]:
    """x (1, D, n) and y (1, n) at rows spread evenly over all chunks."""
    keep = torch.linspace(0, data.n - 1, n, dtype=torch.float64).long()
    xs, ys, first = [], [], 0
    for x, y in data:
        here = keep[(keep >= first) & (keep < first + y.shape[-1])] - first
        xs.append(x[..., here])
        ys.append(y[..., here])
        first += y.shape[-1]
    return torch.cat(xs, -1), torch.cat(ys, -1)


def _sum(a: Evaluation, b: Evaluation) -> Evaluation:
    pairs = zip(vars(a).values(), vars(b).values(), strict=True)
    parts = (None if mine is None else mine + its for mine, its in pairs)
    return Evaluation(*parts)  # type: ignore[arg-type]

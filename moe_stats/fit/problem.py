r"""The optimisation problem: data, gate and the compact parameter set.

.. math::
    \max_\theta\ \ell(\theta) \quad\text{subject to}\quad
    \sigma_e \ge \underline\sigma, \quad |\beta_{e}| \le B, \quad
    \frac1N \sum_n g_e(x_n) \ge \omega \ \text{ for all } e.

The box on the gate leaves its translation free: it holds every gate that *some* translation
brings inside, that is, whose coefficients differ by at most 2 B between experts. Shared gate
parameters have the bound of their gate. Positions that the experts hold at 0, such as the slopes of
constant experts, are bounded by 0 on both sides: never free, and no parameters to any report.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kernels.gating import Evaluation, GateForm, Layout, Order, evaluate, gate_means

from ..experts import LinearExperts
from ..gates import Gate, SoftmaxGate

INWARD = 0.95
"""How far short of a binding weight a flattened gate stops: interior points need room."""


@dataclass(frozen=True, eq=False)
class Problem:
    """R data sets and the parameter set over which each likelihood is maximised.

    Attributes
    ----------
    x, y : Tensor
        (R, D, N) and (R, N), contiguous float64.
    form : GateForm
        The gate.
    n_experts : int
        E.
    min_scale : Tensor
        (R,) lower bound on every scale, in units of y.
    min_weight : float
        Lower bound on each expert's mean gate probability; 0 for none.
    gate_bound : float
        Bound on the absolute value of every expert's own gate parameters; inf for none.
    gate : type of Gate
        Its class, for the names and the bound of shared parameters.
    experts : type of LinearExperts
        The kind of experts.
    """

    x: Tensor
    y: Tensor
    form: GateForm
    n_experts: int
    min_scale: Tensor
    min_weight: float = 0.0
    gate_bound: float = math.inf
    gate: type[Gate] = SoftmaxGate
    experts: type[LinearExperts] = LinearExperts

    @property
    def layout(self) -> Layout:
        return Layout.of(self.form, self.n_experts, self.x.shape[-2])

    @property
    def held(self) -> Tensor:
        """Which positions the experts hold at 0; (P,)."""
        return self.experts.held(self.layout)

    @property
    def has_slopes(self) -> bool:
        """Whether experts' means depend on x."""
        return not bool(self.held.any())

    @property
    def names(self) -> list[str]:
        """A name for every position of the flat parameter vector."""
        return parameter_names(self.layout, self.gate)

    @property
    def n_observations(self) -> int:
        return self.y.shape[-1]

    @property
    def most_held(self) -> int:
        """How many observations a subsample may hold."""
        return self.n_observations

    @property
    def is_smooth(self) -> bool:
        """Whether the gate keeps every expert, so that the likelihood has no jumps."""
        return self.form.top_k is None or self.form.top_k >= self.n_experts

    def evaluate(self, params: Tensor, rows: Tensor, order: Order, n_climbs: int = 0) -> Evaluation:
        """Log-likelihoods of params (B, P) on data sets rows (B,)."""
        return evaluate(params, self.form, self.x, self.y, rows, order=order, n_climbs=n_climbs)

    def gate_means(
        self, params: Tensor, rows: Tensor, tilt: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Mean gate probabilities (B, E); given a tilt also their Jacobian (B, E, P) and the
        Hessian (B, P, P) of the tilted sum."""
        return gate_means(params, self.form, self.x, rows, tilt)

    def bounds(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds (B, P) on the parameters."""
        layout = self.layout
        low = self.x.new_full((len(rows), layout.size), -math.inf)
        high = self.x.new_full((len(rows), layout.size), math.inf)
        for e in range(self.n_experts):
            own = slice(e * layout.width, e * layout.width + layout.n_own)
            low[:, own], high[:, own] = -self.gate_bound, self.gate_bound
            low[:, layout.scale_index(e)] = torch.log(self.min_scale[rows])
        shared = slice(self.n_experts * layout.width, layout.size)
        low[:, shared], high[:, shared] = -self.gate.shared_bound, self.gate.shared_bound
        low[:, self.held] = high[:, self.held] = 0.0
        return low, high

    def subsample(self, n: int) -> Problem:
        """The same problem on n rows spread evenly over the data."""
        keep = torch.linspace(0, self.n_observations - 1, n, dtype=torch.float64).long()
        x, y = self.x[..., keep].contiguous(), self.y[..., keep].contiguous()
        return replace(self, x=x, y=y)


def weights_hold(
    problem: Problem,
    params: Tensor,  # (B, P)
    rows: Tensor,  # (B,)
) -> Tensor:
    """Whether every mean gate probability exceeds its lower bound; (B,)."""
    if problem.min_weight == 0:
        return torch.ones(len(params), dtype=torch.bool)
    means, _, _ = problem.gate_means(params, rows)
    return means.amin(-1) > problem.min_weight


def make_feasible(
    problem: Problem,
    params: Tensor,  # (B, P)
    rows: Tensor,  # (B,)
) -> Tensor:
    """Parameters inside the bounds, the gate flattened until every weight holds with slack.

    A gate that violates ``min_weight`` even when flat (an expert the selection rule never
    picks) is returned as it is; its objective is -inf.
    """
    low, high = problem.bounds(rows)
    params = torch.clamp(params, low, high)
    bad = torch.nonzero(~weights_hold(problem, params, rows)).ravel()
    if not len(bad):
        return params
    gate, own = problem.layout.gate_indices(), rows[bad]
    steep, flat = params.new_ones(len(bad), 1), params.new_zeros(len(bad), 1)
    for _ in range(12):
        middle = (steep + flat) / 2
        trial = params[bad]
        trial[:, gate] *= middle
        holds = weights_hold(problem, trial, own)[:, None]
        flat, steep = torch.where(holds, middle, flat), torch.where(holds, steep, middle)
    found = flat[:, 0] > 0
    scaled = params[bad]
    scaled[:, gate] *= INWARD * flat
    params[bad[found]] = scaled[found]
    return params


def parameter_names(layout: Layout, gate: type[Gate]) -> list[str]:
    """A name for every position of the flat parameter vector."""
    features = range(layout.n_features)
    extra = layout.n_own - layout.n_features
    own = ["gate intercept", *(f"gate extra {i}" for i in range(1, extra))][:extra]
    names = []
    for e in range(layout.n_experts):
        names += [f"{name}[{e}]" for name in own]
        names += [f"gate slope[{e}, {d}]" for d in features]
        names += [f"slope[{e}, {d}]" for d in features]
        names += [f"intercept[{e}]", f"scale[{e}]"]
    return [*names, *gate.shared_names]

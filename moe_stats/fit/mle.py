"""Maximum-likelihood fits of many data sets at once.

`fit_mle` is what the estimator calls for one data set and what studies call for a batch of
replicates: the same starts, the same optimiser, the same bounds.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from kernels.checks import check_bool, check_choice, check_count, check_int, check_real
from kernels.gating import Layout

from .._validation import as_tensor, generator
from ..experts import EXPERTS, LinearExperts
from ..gates import GATES, Gate, GateTemplate
from ..model import GaussianMoE
from .certificate import Stationarity, active_bounds, certify, not_identified
from .maximize import Optimum, maximize, maximize_by_em
from .problem import Problem
from .starts import KINDS, draw_starts, near

ORACLE_TOL = 1e-6
"""Gain in nats at which EM from an oracle start stops: the published protocol."""

Init = Literal["auto", "random", "kmeans", "lines", "oracle"]


@dataclass(frozen=True, eq=False)
class MLE:
    """Maximum-likelihood fits of R data sets.

    Attributes
    ----------
    model : GaussianMoE
        Batch of R fitted models.
    log_likelihood : Tensor
        (R,), in nats.
    scaled_gradient : Tensor
        (R,) largest gradient in standard-error units; see `Stationarity`.
    converged : Tensor
        (R,) whether the scaled gradient met ``tol``.
    n_iter : Tensor
        (R,) iterations of the winning run.
    restarts : Tensor
        (R, S) the log-likelihood that each start, each start by L-BFGS-B and each move reached.
    tol : float
        The tolerance asked for.
    """

    model: GaussianMoE
    log_likelihood: Tensor
    scaled_gradient: Tensor
    converged: Tensor
    n_iter: Tensor
    restarts: Tensor
    tol: float
    _problem: Problem = field(repr=False)
    _stalled: Tensor = field(repr=False)

    def status(self, row: int = 0) -> str:
        """How one fit ended, in a sentence."""
        gradient = float(self.scaled_gradient[row])
        if not math.isfinite(float(self.log_likelihood[row])):
            return (
                "failed: no start has a finite likelihood inside the bounds "
                f"(min_weight={self._problem.min_weight:g})."
            )
        bounds = active_bounds(self._problem, self._params[row], row)
        held = f" Bounds that hold: {', '.join(bounds)}." if bounds else ""
        if bool(self.converged[row]):
            return f"converged: scaled gradient {gradient:.1e}.{held}"
        if bool(self._stalled[row]):
            return (
                f"stalled at a jump of the likelihood, where selections change: scaled gradient "
                f"{gradient:.1e}.{held}"
            )
        return f"stopped before convergence: scaled gradient {gradient:.1e}.{held}"

    def active_bounds(self, row: int = 0) -> tuple[str, ...]:
        """The bounds that one fit lies on, in words."""
        return active_bounds(self._problem, self._params[row], row)

    def stationarity(self, row: int = 0) -> Stationarity:
        """The certificate of one fit; computed when asked for."""
        gradient = float(self.scaled_gradient[row])
        return certify(self._problem, self._params[row], row, gradient, self.tol)

    def not_identified(self, row: int = 0) -> tuple[str, ...]:
        """Parameters on which the likelihood of one fit does not depend."""
        return not_identified(self._problem, self._params[row], row)

    def features(self, row: int = 0) -> Tensor:
        """X (N, D) of one data set."""
        return self._problem.x[row].mT

    @functools.cached_property
    def _params(self) -> Tensor:
        return self.model.to_params()


def fit_mle(
    X: Tensor,  # (R, N, D)
    y: Tensor,  # (R, N)
    *,
    n_experts: int,
    gate: str | GateTemplate = "softmax",
    experts: str = "linear",
    n_init: int = 8,
    init: Init | GaussianMoE = "auto",
    truth: GaussianMoE | None = None,
    min_scale: float | None = None,
    min_weight: float = 0.0,
    gate_bound: float | None = None,
    tol: float = 1e-6,
    max_iter: int = 300,
    n_rounds: int = 2,
    quasi_newton: bool = True,
    random_states: Sequence[Any] | None = None,
) -> MLE:
    """Fit R data sets of equal size by maximum likelihood, as one batch.

    Parameters are those of `GaussianMoERegressor`; ``random_states`` holds one seed a data
    set, so that a fit does not depend on its batch.

    Returns
    -------
    MLE

    Raises
    ------
    ValueError
        If a parameter breaks its rule, or there are fewer observations than parameters.
    """
    template = as_template(gate)
    form = template.form()
    check_count("n_experts", n_experts)
    if form.top_k is not None:
        check_int("top_k", form.top_k, 1, n_experts, why=f" with n_experts={n_experts}")
    X, y = _check_data(X, y)
    n_sets, n, n_features = X.shape
    layout = Layout.of(form, n_experts, n_features)
    kind = EXPERTS[check_choice("experts", experts, tuple(EXPERTS))]
    check_enough(n, layout, template, kind)
    check_search(n_init, n_rounds, tol, max_iter, quasi_newton)
    problem = Problem(
        x=X.mT.contiguous(),
        y=y.contiguous(),
        form=form,
        n_experts=n_experts,
        min_scale=_scale_floor(min_scale, y),
        min_weight=weight_floor(min_weight, n_experts),
        gate_bound=gate_limit(gate_bound),
        gate=template.gate,
        experts=kind,
    )
    rngs = _generators(random_states, n_sets)
    if isinstance(init, GaussianMoE):
        starts = _given_starts(init, problem)
    elif isinstance(init, str) and init == "oracle":
        if not isinstance(truth, GaussianMoE):
            raise ValueError(
                f"The 'truth' parameter must be a GaussianMoE for init='oracle'; got {truth!r}."
            )
        if truth.n_features != n_features:
            raise ValueError(
                f"The 'truth' parameter must have the data's {n_features} features; got "
                f"{truth.n_features}."
            )
        if truth.n_experts > n_experts:
            raise ValueError(
                f"The 'truth' parameter must have at most n_experts={n_experts} experts; got "
                f"{truth.n_experts}."
            )
        _check_slopes("truth", truth, problem)
        starts = near(truth, problem, rngs, n_init)
        # max_iter counts Newton steps; EM needs far more of its own
        optimum = maximize_by_em(problem, starts, tol=ORACLE_TOL, max_iter=10 * max_iter)
        return result(problem, optimum, template, tol)
    else:
        check_choice("init", init, ("auto", *KINDS, "oracle"))
        starts = starts_of(problem, str(init), n_init, rngs)
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


def _check_data(X: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Finite X (R, N, D) and y (R, N) in float64."""
    X, y = (as_tensor(name, v).to(torch.float64) for name, v in (("X", X), ("y", y)))
    if X.ndim != 3 or 0 in X.shape:
        raise ValueError(
            f"The 'X' parameter must have shape (R, N, D), none of them 0; got {tuple(X.shape)}."
        )
    if y.shape != X.shape[:-1]:
        raise ValueError(
            f"The 'y' parameter must have shape {tuple(X.shape[:-1])}, one number a row of X; "
            f"got {tuple(y.shape)}."
        )
    return X, y


def _generators(random_states: Sequence[Any] | None, n_sets: int) -> list[np.random.Generator]:
    """One generator a data set."""
    seeds = [None] * n_sets if random_states is None else random_states
    if not isinstance(seeds, Sequence) or len(seeds) != n_sets:
        raise ValueError(
            f"The 'random_states' parameter must hold {n_sets} seeds, one a data set; "
            f"got {random_states!r}."
        )
    return [generator(seed) for seed in seeds]


def as_template(gate: str | GateTemplate | Gate) -> GateTemplate:
    """A template from a gate's name, a template, or a gate with parameters."""
    if isinstance(gate, GateTemplate):
        return gate
    if isinstance(gate, Gate):
        return GateTemplate(type(gate), gate.options)
    name = check_choice("gate", gate, tuple(GATES))
    return GATES[name].template()


def check_enough(n: int, layout: Layout, template: GateTemplate, kind: type[LinearExperts]) -> None:
    """Refuse fewer observations than identified parameters."""
    zero = torch.zeros(layout.size)
    identified = int(GaussianMoE.from_params(zero, template, layout.n_experts, kind).n_identified())
    if n < identified:
        raise ValueError(
            f"There must be at least as many observations as parameters; got {n} observations "
            f"for {identified} parameters with n_experts={layout.n_experts}."
        )


def check_search(n_init: int, n_rounds: int, tol: float, max_iter: int, quasi_newton: bool) -> None:
    """Refuse parameters of a search that break their rules."""
    check_count("n_init", n_init)
    check_count("n_rounds", n_rounds, 0)
    check_real("tol", tol, low=0.0, strict=True)
    check_count("max_iter", max_iter, 0)
    check_bool("quasi_newton", quasi_newton)


def starts_of(
    problem: Problem, init: str, n_init: int, rngs: Sequence[np.random.Generator]
) -> Tensor:
    """Starts (R, S, P) of one kind, or of all with "auto"."""
    kinds = tuple(KINDS) if init == "auto" else (init,)
    return draw_starts(problem, problem.gate, n_init, kinds, rngs)


def result(problem: Problem, optimum: Optimum, template: GateTemplate, tol: float) -> MLE:
    """A problem's optimum as an `MLE`."""
    return MLE(
        model=GaussianMoE.from_params(optimum.params, template, problem.n_experts, problem.experts),
        log_likelihood=optimum.value,
        scaled_gradient=optimum.scaled_gradient,
        converged=optimum.scaled_gradient <= tol,
        n_iter=optimum.n_iter,
        restarts=optimum.restarts,
        tol=tol,
        _problem=problem,
        _stalled=optimum.stalled,
    )


def _given_starts(init: GaussianMoE, problem: Problem) -> Tensor:
    layout = problem.layout
    params = init.to_params().to(torch.float64)
    params = params.unsqueeze(0) if params.ndim == 1 else params
    if params.shape[-1] != layout.size:
        raise ValueError(
            "The 'init' model must have n_experts experts, the data's features and the gate's "
            f"parameters ({layout.size} numbers); got {params.shape[-1]}."
        )
    _check_slopes("init", init, problem)
    return params.expand(len(problem.y), *params.shape[-2:])


def _check_slopes(name: str, model: GaussianMoE, problem: Problem) -> None:
    slope = model.experts.slope
    if not problem.has_slopes and bool((slope != 0).any()):
        raise ValueError(
            f"The {name!r} model must have experts without slopes for "
            f"experts={problem.experts.kind!r}; got a slope of {float(slope.abs().max()):g}."
        )


def _scale_floor(min_scale: float | None, y: Tensor) -> Tensor:
    if min_scale is not None:
        value = check_real("min_scale", min_scale, low=0.0, strict=True)
        return torch.full((len(y),), value, dtype=torch.float64)
    return (1e-3 * y.std(-1)).clamp(min=float(np.finfo(np.float64).tiny) ** 0.25)


def gate_limit(gate_bound: float | None) -> float:
    """The bound on gate parameters, infinite for None."""
    if gate_bound is None:
        return math.inf
    return check_real("gate_bound", gate_bound, low=0.0, strict=True)


def weight_floor(min_weight: float, n_experts: int) -> float:
    """The lower bound on mean gate probabilities, which ``n_experts`` of them can meet."""
    value = check_real("min_weight", min_weight, low=0.0)
    if value * n_experts >= 1:
        raise ValueError(
            f"The 'min_weight' parameter must be below 1 / n_experts = {1 / n_experts:g}, since "
            f"mean gate probabilities sum to 1; got {min_weight!r}."
        )
    return value

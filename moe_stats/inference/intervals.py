r"""Confidence intervals for functions of a fitted model.

=================  =============================================================================
delta              :math:`f(\hat\theta) \pm z \sqrt{\nabla f' V \nabla f}`; any smooth function
likelihood-ratio   the values a profile likelihood does not reject; one parameter, or a linear
                   function
bootstrap          basic parametric bootstrap: :math:`2 f(\hat\theta) - q` for the quantiles q of
                   refits; any function
=================  =============================================================================

The first two suppose that the estimate has its normal limit, and refuse a function for which it
does not. The basic bootstrap needs only that :math:`f(\hat\theta^*) - f(\hat\theta)` imitates
:math:`f(\hat\theta) - f(\theta)`, where percentiles of the refits would need it symmetric too.

Functions see the model in the pinned gauge (`gauge.py`), so any of them respects the gate's
translations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from kernels.checks import check_choice, check_count, check_int, check_real

from ..fit.mle import MLE
from ..model import GaussianMoE
from .bootstrap import bootstrap
from .covariance import Covariance, Kind, covariance
from .profile import Profile

Method = Literal["delta", "likelihood-ratio", "bootstrap"]
Function = str | Callable[[GaussianMoE], Any]

LINEAR = 1e-8
"""Relative departure from linearity up to which a function counts as linear."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval for a function of the parameters.

    Attributes
    ----------
    estimate, low, high : float
        In the units of the function; an end may be infinite.
    level : float
        Nominal coverage.
    method : {"delta", "likelihood-ratio", "bootstrap"}
    notes : tuple of str
        What a reader should know before relying on it.
    """

    estimate: float
    low: float
    high: float
    level: float
    method: Method
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        ends = f"{self.estimate:.6g} [{self.low:.6g}, {self.high:.6g}]"
        notes = "".join(f"; {note}" for note in self.notes)
        return f"{ends} ({self.method}, {100 * self.level:g}%){notes}"


def interval(
    fit: Any,
    function: Function,
    *,
    level: float = 0.95,
    method: Method = "delta",
    row: int = 0,
    kind: Kind = "observed",
    n_replicates: int = 500,
    random_state: Any = None,
) -> Interval:
    """Confidence interval for a parameter or a function of the model.

    Parameters
    ----------
    fit : MLE or GaussianMoERegressor
        A fit.
    function : str or callable
        A parameter's name, such as "slope[0, 0]" or "scale[1]", or a function from a `GaussianMoE`
        in the pinned gauge to one number. Write it in torch operations for the delta method, which
        otherwise takes central differences.
    level : float
        Nominal coverage, in (0, 1).
    method : {"delta", "likelihood-ratio", "bootstrap"}
    row : int
        Which fit of a batch.
    kind : {"observed", "sandwich"}
        Covariance of the delta method.
    n_replicates : int
        Refits of the bootstrap, at least 50.
    random_state : None, int, SeedSequence or Generator
        For the bootstrap.

    Returns
    -------
    Interval
        A scale named by its parameter has ends worked out for its logarithm, so they are positive.

    Raises
    ------
    ValueError
        If the function is not identified, or the method's limit law does not hold for it; the
        message says why and what to use instead.

    References
    ----------
    Davison and Hinkley (1997), Bootstrap methods and their application, chapters 2 and 5.

    Examples
    --------
    >>> from moe_stats import GaussianMoE, GaussianMoERegressor, LinearExperts, SoftmaxGate, Uniform
    >>> truth = GaussianMoE(
    ...     SoftmaxGate([0.3, 0.0], [[5.0], [0.0]]),
    ...     LinearExperts([[2.0], [-1.0]], [1.0, 0.2], [0.3, 0.4]),
    ... )
    >>> X = Uniform(-1, 1).sample(1000, random_state=0)
    >>> fit = GaussianMoERegressor(2, init=truth, n_rounds=0).fit(X, truth.sample(X, 1))
    >>> steps = interval(fit, lambda m: m.experts.intercept[0] - m.experts.intercept[1])
    >>> steps.low < 0.8 < steps.high
    True
    """
    mle: MLE = getattr(fit, "_mle", fit)
    check_choice("method", method, get_args(Method))
    _check_level(level)
    check_int("row", row, 0, len(mle.log_likelihood) - 1)
    check_count("n_replicates", n_replicates, 50)
    found = covariance(mle, kind)
    quantity = _Quantity(mle, found, function, row)
    _check_identified(found, quantity, row)
    if method == "bootstrap":
        return _bootstrap(mle, found, quantity, level, row, n_replicates, random_state)
    _check_regular(found, quantity, row, method)
    if method == "delta":
        return _delta(found, quantity, level, row)
    return _likelihood_ratio(mle, found, quantity, level, row)


def delta_intervals(
    mle: MLE,
    level: float = 0.95,
    kind: Kind = "observed",
) -> tuple[Tensor, Tensor]:
    """Delta intervals for every parameter of every fit, in the pinned gauge.

    Returns
    -------
    low, high : Tensor
        (R, P), scales as logarithms; the whole line for a parameter that is not identified, nan
        where no standard error applies, as for all of a fit whose information is singular.
    """
    _check_level(level)
    found = covariance(mle, kind)
    trusted = torch.tensor([not reason for reason in found.unreliable])
    errors = found.standard_errors.masked_fill(~trusted.unsqueeze(-1), torch.nan)
    reach = _quantile(level) * errors
    return found.estimate - reach, found.estimate + reach


class _Quantity:
    """A scalar function of the pinned parameters, with its gradient at a fit."""

    def __init__(self, mle: MLE, found: Covariance, function: Function, row: int):
        self._model, self._places, self._size = mle.model, found.places, mle._params.shape[-1]
        self.function = function
        self.is_log = isinstance(function, str) and function.startswith("scale[")
        self.place = self._named(found, function, row) if isinstance(function, str) else None
        self.at = found.estimate[row]
        self.value, self.gradient = self._derive(found, row)

    def __call__(self, params: Tensor) -> Any:
        """The value at pinned parameters (P,)."""
        if self.place is not None:
            return params[self.place]
        assert callable(self.function)
        return self.function(self._model.with_params(self.flat(params)))

    def flat(self, vector: Tensor) -> Tensor:
        """A vector over the estimated parameters (P,), with 0 for those that experts hold."""
        return vector.new_zeros(self._size).index_copy(0, self._places, vector)

    def shown(self, value: float) -> float:
        """The value in the units a reader expects: a scale rather than its logarithm."""
        return math.exp(value) if self.is_log else value

    def _named(self, found: Covariance, name: str, row: int) -> int:
        if name not in found.names:
            raise ValueError(
                f"The 'function' parameter must be a parameter's name, one of "
                f"{', '.join(found.names)}, or a callable; got {name!r}."
            )
        place = found.names.index(name)
        if float(found.standard_errors[row, place]) == 0:
            raise ValueError(
                "The 'function' parameter must not be pinned: the gate of expert "
                f"{int(found.reference[row])} is 0 by convention; got {name!r}."
            )
        return place

    def _derive(self, found: Covariance, row: int) -> tuple[float, Tensor]:
        value = self(self.at)
        shape = tuple(torch.as_tensor(value).shape)
        if math.prod(shape) != 1:
            raise ValueError(f"The 'function' parameter must return one number; got shape {shape}.")
        at = self.at.clone().requires_grad_()
        traced = self(at) if isinstance(value, Tensor) else None
        if traced is not None and traced.requires_grad:
            (gradient,) = torch.autograd.grad(traced.squeeze(), at)
        else:
            errors = found._units[row].norm(dim=-1)
            gradient = self._differences(1e-4 * errors.clamp(max=1 + float(self.at.abs().max())))
        if not bool(torch.isfinite(gradient).all()):
            raise ValueError(
                "The 'function' parameter must be differentiable at the fit; got a gradient that "
                "is not finite."
            )
        return float(value), gradient

    def _differences(self, steps: Tensor) -> Tensor:
        """Central differences over steps (P,) of about a ten-thousandth of a standard error."""
        gradient = torch.zeros_like(self.at)
        for i, size in enumerate(steps):
            step = torch.zeros_like(self.at)
            step[i] = size
            up, down = float(self(self.at + step)), float(self(self.at - step))
            gradient[i] = (up - down) / (2 * size)
        return gradient


def _check_level(level: float) -> None:
    if not 0 < check_real("level", level) < 1:
        raise ValueError(f"The 'level' parameter must be in (0, 1); got {level!r}.")


def _check_identified(found: Covariance, quantity: _Quantity, row: int) -> None:
    if found.unreliable[row]:
        return  # the method decides: a singular fit may still be bootstrapped
    names = found.not_identified(quantity.gradient, row)
    if names:
        raise ValueError(
            "The 'function' parameter must be identified by the data; got one that depends on "
            f"{', '.join(names)}, of which the likelihood of this fit says nothing."
        )


def _check_regular(found: Covariance, quantity: _Quantity, row: int, method: str) -> None:
    reason = found.unreliable[row]
    if not reason:
        names = found.irregular(quantity.gradient, row)
        flags = [f for f in found.flags[row] if f.startswith(names)] if names else []
        reason = "; ".join(flags) or ", ".join(names)
    if reason:
        raise ValueError(
            f"The 'method' parameter cannot be {method!r} here, since its limit law does not "
            f"hold ({reason}); use 'bootstrap'."
        )


def _error(found: Covariance, gradient: Tensor, row: int) -> float:
    return float((gradient @ found.matrix[row] @ gradient).clamp(min=0).sqrt())


def _quantile(level: float) -> float:
    """z with P(|Z| < z) = level for a standard normal Z."""
    from scipy.special import ndtri

    return float(ndtri((1 + level) / 2))


def _delta(found: Covariance, quantity: _Quantity, level: float, row: int) -> Interval:
    reach = _quantile(level) * _error(found, quantity.gradient, row)
    ends = (quantity.value - reach, quantity.value + reach)
    low, high = map(quantity.shown, ends)
    return Interval(quantity.shown(quantity.value), low, high, level, "delta")


def _likelihood_ratio(
    mle: MLE, found: Covariance, quantity: _Quantity, level: float, row: int
) -> Interval:
    _check_linear(found, quantity, row)
    gauge, gradient = found._gauge[row], quantity.gradient
    direction = quantity.flat(gauge.mT @ gradient)
    path = quantity.flat(found.matrix[row] @ gradient)  # pinned parameters are parameters too
    params = mle._params[row]
    profile = Profile(mle._problem, row, params, direction, path)
    offset = quantity.value - profile.estimate
    low, high = profile.interval(level, _error(found, gradient, row))
    notes = []
    if profile.highest > profile.top + 1e-4:
        notes.append(
            f"the profile met a likelihood {profile.highest - profile.top:.2g} nats higher: the "
            "fit is not the maximum"
        )
    low, high = quantity.shown(low + offset), quantity.shown(high + offset)
    estimate = quantity.shown(quantity.value)
    return Interval(estimate, low, high, level, "likelihood-ratio", tuple(notes))


def _check_linear(found: Covariance, quantity: _Quantity, row: int) -> None:
    errors = torch.nan_to_num(found.standard_errors[row], nan=0.0, posinf=0.0)
    step = errors * torch.linspace(-1.3, 0.9, len(errors), dtype=errors.dtype)
    moved = float(quantity(quantity.at + step))
    predicted = quantity.value + float(quantity.gradient @ step)
    size = float(quantity.gradient.abs() @ errors)
    if abs(moved - predicted) > LINEAR * size:
        raise ValueError(
            "The 'function' parameter must be a parameter's name or linear in the flat parameters "
            "(scales as logarithms) for method='likelihood-ratio'; got one that is not: use "
            "'delta' or 'bootstrap'."
        )


def _bootstrap(
    mle: MLE,
    found: Covariance,
    quantity: _Quantity,
    level: float,
    row: int,
    n_replicates: int,
    random_state: Any,
) -> Interval:
    replicates = bootstrap(mle, n_replicates, row=row, random_state=random_state)
    pinned = replicates.params[:, found.places] @ found._gauge[row].mT
    values = torch.tensor([float(quantity(p)) for p in pinned], dtype=torch.float64)
    if not len(values) or float(values.max() - values.min()) == 0:
        raise ValueError(
            "The 'method' parameter cannot be 'bootstrap' here: the refits never move the value "
            "of 'function', so they say nothing about its error."
        )
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    below, above = torch.quantile(values, tails).tolist()
    low, high = (quantity.shown(2 * quantity.value - end) for end in (above, below))
    notes = []
    reason = found.unreliable[row] or ", ".join(found.irregular(quantity.gradient, row))
    if reason:
        notes.append(f"no normal limit ({reason}): coverage is not guaranteed")
    if replicates.n_failed:
        notes.append(f"{replicates.n_failed} of {n_replicates} refits failed and are left out")
    if replicates.n_unconverged:
        notes.append(f"{replicates.n_unconverged} of {n_replicates} refits did not converge")
    estimate = quantity.shown(quantity.value)
    return Interval(estimate, low, high, level, "bootstrap", tuple(notes))

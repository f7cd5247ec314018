r"""Covariance matrices of maximum-likelihood estimates.

With observed information A = -H and score products B = sum_n u_n u_n' at the estimate, the
covariance is A^+ (``observed``) or A^+ B A^+ (``sandwich``, also valid when the model is only the
closest one to the truth). The pseudo-inverse leaves out the gate's invariances and directions
without curvature; it is taken in complete-data units (`units.py`), where an eigenvalue is the share
of the complete-data information that the data retain.

Standard errors refer to the pinned gauge of `gauge.py`. A parameter that is pinned has 0, one the
likelihood says nothing about inf, and one to which standard errors do not apply nan: it lies on a
bound, moves a selection boundary, or its fit is no interior maximum. `Covariance.flags` says why.
Slopes that constant experts do not have are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from kernels.checks import check_choice
from kernels.gating import Layout

from ..fit.certificate import FLAT, binding_weights, silent
from ..fit.mle import MLE
from ..fit.newton import free_coordinates, scaled_hessian, standard_error_units
from .boundaries import boundary_parameters
from .gauge import in_gate, pinning, scaling, translations
from .scores import score_products
from .units import Units

Kind = Literal["observed", "sandwich"]

NEARLY_FLAT = 1e-4
"""Share of the complete-data information below which the information counts as nearly singular:
standard errors a hundred times those of complete data. Exact fits of three settings kept above
3e-2 at n = 1,000."""

STATIONARY = 0.05
"""Scaled gradient, in standard errors, up to which a fit is near enough to its maximum."""

OPEN = 1e-4
"""Part of a parameter, in complete-data units, that may lie in directions without curvature: at a
curvature of `FLAT` it adds one complete-data variance."""

_UNKNOWN = "not identified"
_HELD = "on a bound, where standard errors do not apply"
_MOVING = (
    "moves a selection boundary, so it is estimated near n^-1 and has no Hessian standard error"
)


@dataclass(frozen=True, eq=False)
class Covariance:
    """Covariance of R estimates in the pinned gauge.

    Attributes
    ----------
    estimate : Tensor
        (R, P) flat parameters in the pinned gauge, scales as logarithms.
    matrix : Tensor
        (R, P, P) on the identified subspace; of parameters without a finite standard error only
        identified combinations have a meaning.
    standard_errors : Tensor
        (R, P), in the units of `estimate`; 0 pinned, inf not identified, nan not applicable.
    flags : tuple of tuple of str
        For each fit why some of its standard errors are infinite or do not apply.
    unreliable : tuple of str
        For each fit the reason why no limit law holds for any of its parameters, or "".
    retained : Tensor
        (R,) smallest share of the complete-data information retained in any direction that no
        invariance leaves open; nan for a failed fit.
    reference : Tensor
        (R,) the expert whose gate is pinned to 0.
    names : tuple of str
        P names.
    places : Tensor
        (P,) where these parameters lie in the flat vector of a model.

    Notes
    -----
    A fit with more experts than the truth seldom shows in its curvature: of 36 such fits 28 raised
    no flag. No flag is not a proof that the limit law holds.
    """

    estimate: Tensor
    matrix: Tensor
    standard_errors: Tensor
    flags: tuple[tuple[str, ...], ...]
    unreliable: tuple[str, ...]
    retained: Tensor
    reference: Tensor
    names: tuple[str, ...]
    places: Tensor
    _gauge: Tensor = field(repr=False)  # (R, P, P)
    _units: Tensor = field(repr=False)  # (R, P, P), complete-data units
    _null: Tensor = field(repr=False)  # (R, P, M), columns in these units, or 0
    _invariances: Tensor = field(repr=False)  # (R, T, P)
    _silent: Tensor = field(repr=False)  # (R, P)
    _irregular: Tensor = field(repr=False)  # (R, P), on a bound or moving a boundary

    def not_identified(
        self,
        gradient: Tensor,  # (P,)
        row: int = 0,
    ) -> tuple[str, ...]:
        """Parameters that keep a function, given its gradient in the pinned gauge, from being
        identified; by name, none if it is."""
        free = self._gauge[row].mT @ gradient
        scaled = self._units[row].mT @ free
        open_part = float((self._null[row].mT @ scaled).norm()) > OPEN * float(scaled.norm())
        varies = (self._invariances[row] @ free).abs() > OPEN * (
            self._invariances[row].abs() @ free.abs()
        )
        if (
            open_part
            or bool(varies.any())
            or bool(self._depends_on(self._silent, gradient, row).any())
        ):
            return self._blamed(torch.isinf(self.standard_errors[row]), gradient)
        return ()

    def irregular(
        self,
        gradient: Tensor,  # (P,)
        row: int = 0,
    ) -> tuple[str, ...]:
        """Parameters on a bound, or moving a selection boundary, on which a function depends."""
        if not bool(self._depends_on(self._irregular, gradient, row).any()):
            return ()
        return self._blamed(torch.isnan(self.standard_errors[row]), gradient)

    def _depends_on(self, which: Tensor, gradient: Tensor, row: int) -> Tensor:
        free = self._gauge[row].mT @ gradient
        rounding = 1e-10 * (self._gauge[row].abs().mT @ gradient.abs())
        return which[row] & (free.abs() > rounding)

    def _blamed(self, which: Tensor, gradient: Tensor) -> tuple[str, ...]:
        blamed = which & (gradient != 0)
        blamed = blamed if bool(blamed.any()) else gradient != 0
        return tuple(n for n, b in zip(self.names, blamed.tolist(), strict=True) if b)


def covariance(mle: MLE, kind: Kind = "observed") -> Covariance:
    """Covariance matrices and standard errors of R fits.

    Parameters
    ----------
    mle : MLE
        From `fit_mle`.
    kind : {"observed", "sandwich"}
        Inverse observed information, or the sandwich with score products.

    Returns
    -------
    Covariance

    Raises
    ------
    ValueError
        If ``kind`` is unknown. Fits without standard errors are flagged, not refused.

    References
    ----------
    White (1982), Maximum likelihood estimation of misspecified models.

    Examples
    --------
    >>> from moe_stats import GaussianMoE, LinearExperts, SoftmaxGate, Uniform, fit_mle
    >>> truth = GaussianMoE(
    ...     SoftmaxGate([0.3, 0.0], [[5.0], [0.0]]),
    ...     LinearExperts([[2.0], [-1.0]], [1.0, 0.2], [0.3, 0.4]),
    ... )
    >>> X = Uniform(-1, 1).sample(1000, random_state=0)
    >>> y = truth.sample(X, random_state=1)
    >>> found = covariance(fit_mle(X[None], y[None], n_experts=2, random_states=[0]))
    >>> found.flags[0], found.standard_errors[0, 5:7].tolist()
    ((), [0.0, 0.0])
    """
    check_choice("kind", kind, get_args(Kind))
    problem, params, layout = mle._problem, mle._params, mle._problem.layout
    rows = torch.arange(len(params))
    at = problem.evaluate(params, rows, "hessian")
    assert at.gradient is not None
    assert at.information is not None
    assert at.hessian is not None
    failed = ~torch.isfinite(mle.log_likelihood) | ~torch.isfinite(at.hessian).flatten(1).all(-1)
    unheard = silent(problem, params, rows)
    moving = boundary_parameters(problem, params, rows)
    regular = ~_gates_of_moving(layout, moving)
    reference = _reference(layout, unheard)
    gauge = pinning(type(mle.model.gate), layout, reference)
    products = score_products(problem, params, rows) if kind == "sandwich" else None

    places = torch.nonzero(~problem.held).ravel()
    low, high = (bound[:, places] for bound in problem.bounds(rows))
    theta, unheard, moving, regular = (v[:, places] for v in (params, unheard, moving, regular))
    hessian, information, gauge = (
        m[:, places][:, :, places] for m in (at.hessian, at.information, gauge)
    )
    units = torch.nan_to_num(standard_error_units(information), nan=1.0)
    gradient = torch.nan_to_num(at.gradient[:, places]) / units
    held = ~free_coordinates(theta, gradient, low, high) & (gradient.abs() > mle.tol)
    fixed = held | unheard

    invariances = _invariances(mle)[..., places]
    stiffness = _stiffness(invariances * units.unsqueeze(1), held, unheard)
    observed, complete = (
        scaled_hessian(torch.nan_to_num(matrix), units, ~fixed)
        for matrix in (hessian, -information)
    )
    coordinates = Units.of(stiffness - complete)
    curvature, vectors = torch.linalg.eigh(coordinates.share(stiffness - observed))
    flat = curvature <= FLAT
    axes = coordinates.to_params @ vectors
    inverse = (axes * torch.where(flat, 0.0, 1 / curvature).unsqueeze(1)) @ axes.mT
    inverse = inverse.masked_fill(fixed.unsqueeze(1) | fixed.unsqueeze(2), 0.0)
    if products is not None:
        meat = products[:, places][:, :, places] / (units.unsqueeze(1) * units.unsqueeze(2))
        inverse = inverse @ torch.nan_to_num(meat) @ inverse

    to_pinned = gauge / units.unsqueeze(1)  # from standard-error units
    matrix = to_pinned @ inverse @ to_pinned.mT
    errors = matrix.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
    null = torch.cat([vectors * flat.unsqueeze(1), coordinates.from_params @ stiffness], dim=-1)
    whitened = to_pinned @ coordinates.to_params
    in_null = (whitened @ null).norm(dim=-1) > OPEN * whitened.norm(dim=-1)
    errors = errors.masked_fill(in_null | _touched(gauge, unheard), torch.inf)
    errors = errors.masked_fill(_touched(gauge, held | moving), torch.nan)

    slope = gradient.abs().masked_fill(fixed | moving, 0.0).amax(-1)
    spectrum = curvature.masked_fill(failed.unsqueeze(-1), torch.nan)
    reasons = [_reason(mle, row, float(slope[row]), spectrum[row]) for row in rows.tolist()]
    no_maximum = torch.tensor([kind_of == "no maximum" for kind_of, _ in reasons])
    names = tuple(problem.names[place] for place in places)
    unreliable = tuple(sentence for _, sentence in reasons)
    causes = {_MOVING: moving, _HELD: held, _UNKNOWN: torch.isinf(errors)}
    return Covariance(
        estimate=torch.einsum("rpq,rq->rp", gauge, theta),
        matrix=matrix,
        standard_errors=errors.masked_fill(no_maximum.unsqueeze(-1), torch.nan),
        flags=tuple(
            _flags(unreliable[row], names, {why: which[row] for why, which in causes.items()})
            for row in rows.tolist()
        ),
        unreliable=unreliable,
        retained=spectrum[:, 0],
        reference=reference,
        names=names,
        places=places,
        _gauge=gauge,
        _units=coordinates.to_params / units.unsqueeze(-1),
        _null=null,
        _invariances=invariances,
        _silent=unheard & regular,
        _irregular=held | moving,
    )


def _invariances(mle: MLE) -> Tensor:
    """Directions (R, T, P) in which the gate of each fit is invariant."""
    problem, params, gate = mle._problem, mle._params, mle.model.gate
    shifts = translations(type(gate), problem.layout)
    flat = [in_gate(problem.layout, *parts) for parts in gate.flat_directions().values()]
    scaled = [
        scaling(theta, problem.form, x, problem.layout)
        for theta, x in zip(params, problem.x, strict=True)
    ]
    flat.append(torch.stack([torch.zeros_like(params[0]) if s is None else s for s in scaled]))
    return torch.cat([shifts.expand(len(params), -1, -1), torch.stack(flat, dim=1)], dim=1)


def _stiffness(
    invariances: Tensor,  # (R, T, P), in standard-error units
    held: Tensor,
    silent: Tensor,
) -> Tensor:
    """Projector (R, P, P) on the invariances, which makes up for their lack of information.

    A bound that holds one of its parameters ends an invariance.
    """
    broken = (invariances * held.unsqueeze(1)).any(-1, keepdim=True)
    kept = invariances.masked_fill(silent.unsqueeze(1) | broken, 0.0)
    kept = kept / kept.norm(dim=-1, keepdim=True).clamp(min=1e-300)
    return torch.linalg.pinv(kept) @ kept


def _gates_of_moving(layout: Layout, moving: Tensor) -> Tensor:
    """All gate parameters of fits with a boundary that moves: together they place it, whether or
    not each alone does; (R, P)."""
    gates = torch.zeros_like(moving)
    gates[:, layout.gate_indices()] = moving.any(-1, keepdim=True)
    return gates


def _reference(layout: Layout, silent: Tensor) -> Tensor:
    """The last expert whose scale the likelihood depends on; (R,)."""
    scales = [layout.scale_index(e) for e in range(layout.n_experts)]
    speaks = ~silent[:, scales]
    places = torch.arange(layout.n_experts) * speaks
    return places.amax(-1)


def _touched(gauge: Tensor, which: Tensor) -> Tensor:
    """Pinned parameters (R, P) to which any of ``which`` (R, P) contributes."""
    return torch.einsum("rpq,rq->rp", gauge.abs(), which.to(gauge)) > 0


def _reason(mle: MLE, row: int, gradient: float, curvature: Tensor) -> tuple[str, str]:
    """Why no limit law holds for a whole fit: a kind and a sentence, or two empty strings."""
    if not bool(torch.isfinite(curvature).all()):
        return "no maximum", "the fit failed: its likelihood is not finite"
    binding = binding_weights(mle._problem, mle._params[row][None], torch.tensor([row]))[0]
    if bool(binding.any()):
        bound = [h for h in mle.active_bounds(row) if "min_weight" in h]
        return "no maximum", f"a bound on the weights binds: {', '.join(bound)}"
    if not gradient <= STATIONARY:
        return "no maximum", f"the fit is not stationary: scaled gradient {gradient:.1e}"
    if float(curvature[0]) < -FLAT:
        return (
            "no maximum",
            f"the fit is no local maximum: curvature {float(curvature[0]):.1e} in some direction",
        )
    flat = int((curvature <= FLAT).sum())
    if flat:
        return "singular", (
            f"the observed information is singular in {flat} direction{'s' * (flat > 1)} beyond "
            "the gate's invariances"
        )
    if float(curvature[0]) < NEARLY_FLAT:
        return "singular", (
            f"the observed information is nearly singular: it retains {float(curvature[0]):.1e} "
            "of the complete-data information in some direction"
        )
    return "", ""


def _flags(unreliable: str, names: tuple[str, ...], causes: dict[str, Tensor]) -> tuple[str, ...]:
    """What is wrong with a whole fit, then with single parameters."""
    flags = [unreliable] if unreliable else []
    for why, which in causes.items():
        flags += [f"{n}: {why}" for n, w in zip(names, which.tolist(), strict=True) if w]
    return tuple(flags)

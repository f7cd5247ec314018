r"""What was reached: the certificate of a fit.

A fit is *stationary* if no coordinate has a gradient that matters: the gradient of the
likelihood (of the Lagrangian, where `min_weight` binds), leaving out coordinates held by a
bound they push against, each in units of its complete-data standard error. It is a *local
maximum* if besides no direction curves upwards. A top-K likelihood also jumps where the
selection changes; `boundary` says whether a jump is in reach and improves.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .boundary import search
from .cells import ranks_are_affine, walls_touched
from .newton import free_coordinates, scaled_hessian, standard_error_units
from .problem import Problem

FLAT = 1e-8
"""Curvature relative to the complete-data information below which a direction is flat."""


SILENT = 1e-10
"""Complete-data information per observation, in units of the feature, taken for none."""


@dataclass(frozen=True)
class Stationarity:
    """Certificate of a stationary point.

    Attributes
    ----------
    scaled_gradient : float
        Largest gradient over the free coordinates, in standard-error units.
    tol : float
        What it was asked to be.
    curvature : float
        Largest eigenvalue of the scaled Hessian along what bounds, binding weights and
        selection boundaries leave free; at most `FLAT` at a local maximum.
    flat_directions : int
        Number of directions without curvature: the gate's invariances and, beyond them,
        directions the data say nothing about.
    active_bounds : tuple of str
        The bounds that hold.
    boundary : str
        What was searched across selection boundaries, and what was found.
    boundary_stands : bool
        Whether the search could be made and found nothing better.
    is_stationary, is_local_maximum : bool
    """

    scaled_gradient: float
    tol: float
    curvature: float
    flat_directions: int
    active_bounds: tuple[str, ...]
    boundary: str
    boundary_stands: bool

    @property
    def is_stationary(self) -> bool:
        return self.scaled_gradient <= self.tol

    @property
    def is_local_maximum(self) -> bool:
        return self.is_stationary and self.curvature <= FLAT and self.boundary_stands

    def __str__(self) -> str:
        kind = "neither stationary nor a maximum"
        if self.is_local_maximum:
            kind = "a local maximum"
        elif self.is_stationary:
            kind = "stationary, but not shown to be a local maximum"
        bounds = (
            f"; bounds that hold: {', '.join(self.active_bounds)}" if self.active_bounds else ""
        )
        return (
            f"{kind}: scaled gradient {self.scaled_gradient:.1e} (asked {self.tol:.0e}), largest "
            f"curvature {self.curvature:.1e}, {self.flat_directions} flat directions{bounds}. "
            f"{self.boundary}"
        )


def certify(
    problem: Problem,
    params: Tensor,  # (P,)
    row: int,
    scaled_gradient: float,
    tol: float,
) -> Stationarity:
    """Examine one fit: bounds, curvature and selection boundaries."""
    theta, rows = params[None], torch.tensor([row])
    at = problem.evaluate(theta, rows, "hessian")
    assert at.gradient is not None
    assert at.information is not None
    assert at.hessian is not None
    low, high = problem.bounds(rows)
    free = free_coordinates(theta, at.gradient, low, high) & ~silent(problem, theta, rows)
    scale = standard_error_units(at.information)
    hessian = scaled_hessian(at.hessian, scale, free)
    normals = _binding_normals(problem, theta, rows)
    normals = (normals / scale).masked_fill(~free, 0.0)
    held = int(torch.linalg.matrix_rank(normals)) if len(normals) else 0
    if held:
        hessian = _project_out(normals, hessian)
    eigenvalues = torch.linalg.eigvalsh(hessian)[0]
    boundary, stands = _boundary(problem, theta, rows, float(at.value))
    return Stationarity(
        scaled_gradient=scaled_gradient,
        tol=tol,
        curvature=float(eigenvalues[-1]),
        flat_directions=int((eigenvalues.abs() <= FLAT).sum()) - held,
        active_bounds=active_bounds(problem, params, row),
        boundary=boundary,
        boundary_stands=stands,
    )


def active_bounds(
    problem: Problem,
    params: Tensor,  # (P,)
    row: int,
) -> tuple[str, ...]:
    """The bounds a fit lies on, in words."""
    low, high = problem.bounds(torch.tensor([row]))
    held = []
    for i, name in enumerate(problem.names):
        if low[0, i] == high[0, i]:
            continue  # no parameter
        if params[i] <= low[0, i]:
            held.append(f"{name} at its lower bound")
        elif params[i] >= high[0, i]:
            held.append(f"{name} at its upper bound")
    binding = binding_weights(problem, params[None], torch.tensor([row]))[0]
    held += [
        f"mean gate probability of expert {e} at min_weight={problem.min_weight:g}"
        for e in torch.nonzero(binding).ravel().tolist()
    ]
    return tuple(held)


def binding_weights(
    problem: Problem,
    params: Tensor,  # (B, P)
    rows: Tensor,  # (B,)
) -> Tensor:
    """Which mean gate probabilities are at their lower bound; (B, E)."""
    if problem.min_weight == 0:
        return torch.zeros(len(params), problem.n_experts, dtype=torch.bool)
    means, _, _ = problem.gate_means(params, rows)
    return means <= problem.min_weight * (1 + 1e-4)


def not_identified(
    problem: Problem,
    params: Tensor,  # (P,)
    row: int,
) -> tuple[str, ...]:
    """Parameters on which the likelihood does not depend at this fit, by name.

    They carry no complete-data information: the gate of a top-1 model, whose size plays no
    part, or everything about an expert that is never selected.
    """
    found = silent(problem, params[None], torch.tensor([row]))[0] & ~problem.held
    return tuple(name for name, none in zip(problem.names, found.tolist(), strict=True) if none)


def silent(problem: Problem, theta: Tensor, rows: Tensor) -> Tensor:
    """Which parameters carry no complete-data information, up to rounding; (1, P)."""
    layout, n = problem.layout, problem.n_observations
    information = problem.evaluate(theta, rows, "information").information
    assert information is not None
    diagonal = information.diagonal(dim1=-2, dim2=-1) / n
    silent = torch.zeros_like(theta, dtype=torch.bool)
    mean_square = problem.x[rows].square().mean(-1)  # (1, D)
    unit = torch.ones_like(theta[:, : layout.n_own])
    unit[:, layout.n_own - layout.n_features :] = mean_square
    for e in range(layout.n_experts):
        start = e * layout.width
        own = slice(start, start + layout.n_own)
        silent[:, own] = diagonal[:, own] <= SILENT * unit
        mass = diagonal[:, layout.scale_index(e), None] / 2
        silent[:, start + layout.n_own : start + layout.width] = mass <= SILENT
    return silent


def _binding_normals(problem: Problem, theta: Tensor, rows: Tensor) -> Tensor:
    """Normals (M, P) of the binding weights and of the selection boundaries a fit lies on."""
    normals = theta.new_zeros(0, theta.shape[-1])
    binding = binding_weights(problem, theta, rows)[0]
    if bool(binding.any()):
        _, jacobian, _ = problem.gate_means(theta, rows, theta.new_zeros(1, problem.n_experts))
        assert jacobian is not None
        normals = jacobian[0, binding]
    if not problem.is_smooth and ranks_are_affine(problem.form, problem.x):
        normals = torch.cat([normals, walls_touched(problem, theta, rows)])
    return normals


def _project_out(normals: Tensor, hessian: Tensor) -> Tensor:
    """A scaled Hessian (1, P, P) on the tangent space of constraints with normals (M, P)."""
    tangent = torch.eye(normals.shape[1], dtype=hessian.dtype)
    tangent = tangent - torch.linalg.pinv(normals) @ normals
    return tangent @ hessian @ tangent


def _boundary(problem: Problem, theta: Tensor, rows: Tensor, value: float) -> tuple[str, bool]:
    """Look across the selection boundaries of a top-K gate; see `boundary`."""
    if problem.is_smooth:
        return "The gate selects no experts, so the likelihood is smooth.", True
    if not ranks_are_affine(problem.form, problem.x):
        return "Selection boundaries: not searched, since the gate's ranks are not affine.", False
    found = search(problem, theta, rows)
    gain = found.value - value
    stands = gain <= 1e-6
    outcome = "none improves" if stands else f"one improves by {gain:.2g} nats"
    return f"Selection boundaries: {found.searched}; {outcome}.", stands

r"""The gating likelihood and its derivatives, formula by formula.

With scores :math:`s_e`, experts :math:`\phi_e = N(y; a_e'x + b_e, \sigma_e^2)` and
:math:`z_e = (y - a_e'x - b_e)/\sigma_e`, write :math:`\alpha_e = s_e + \log\phi_e`. Then

.. math::
    \ell = \mathrm{LSE}_e\, \alpha_e - \mathrm{LSE}_e\, s_e, \qquad
    \nabla\ell = \sum_e r_e \nabla\alpha_e - \sum_e g_e \nabla s_e,

.. math::
    \nabla^2\ell = \mathrm{Cov}_r(\nabla\alpha) + \sum_e r_e \nabla^2\alpha_e
                 - \mathrm{Cov}_g(\nabla s) - \sum_e g_e \nabla^2 s_e,

with responsibilities r = softmax(alpha), gate probabilities g = softmax(s), both over the
selected experts. The complete-data information is
:math:`\mathrm{Cov}_g(\nabla s) - \sum_e r_e E[\nabla^2 \log\phi_e]`.

Sums over observations are taken chunk by chunk: no temporary exceeds `MAX_ELEMENTS` numbers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .form import Column, Evaluation, GateForm, Layout, Order

MAX_ELEMENTS = 2**18
"""Largest temporary of a pass, in numbers (2 MiB in float64)."""

MIN_CHUNK = 1024
"""Observations in a chunk below which a batch of models is split instead: products of thin
matrices are cheaper when they are long."""

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def log_gate(
    params: Tensor,  # (B, P)
    form: GateForm,
    x: Tensor,  # (B, D, N)
    layout: Layout,
) -> Tensor:
    """Log gate probabilities, -inf where an expert is not selected; (B, E, N)."""
    own, shared, features = columns(params, x, layout)
    scores = form.score(own, shared, features).expand(-1, -1, x.shape[-1])
    if form.top_k is not None and form.top_k < layout.n_experts:
        ranks = scores if form.rank is None else form.rank(own, shared, features)
        scores = scores.masked_fill(~select(ranks, form.top_k), -math.inf)
    return scores - torch.logsumexp(scores, dim=-2, keepdim=True)


def select(
    ranks: Tensor,  # (B, E, N)
    top_k: int,
) -> Tensor:
    """Whether each expert is among the ``top_k`` of highest rank; ties go to the first."""
    better = torch.zeros_like(ranks, dtype=torch.int16)
    for e in range(ranks.shape[-2]):
        rank = ranks[..., e : e + 1, :]
        better += rank > ranks
        better[..., e + 1 :, :] += rank == ranks[..., e + 1 :, :]
    return better < top_k


def standardized_residuals(
    params: Tensor,  # (B, P)
    x: Tensor,  # (B, D, N)
    y: Tensor,  # (B, N)
    layout: Layout,
) -> Tensor:
    """z_e = (y - mean_e) / scale_e; (B, E, N)."""
    _, slope, intercept, log_scale, _ = layout.split(params)
    mean = slope @ x + intercept.unsqueeze(-1)
    return (y.unsqueeze(-2) - mean) * torch.exp(-log_scale).unsqueeze(-1)


def log_joint(
    params: Tensor,  # (B, P)
    form: GateForm,
    x: Tensor,  # (B, D, N)
    y: Tensor,  # (B, N)
    layout: Layout,
) -> Tensor:
    """log g_e(x) + log N(y; mean_e(x), scale_e^2); (B, E, N)."""
    z = standardized_residuals(params, x, y, layout)
    return log_gate(params, form, x, layout) + log_expert(params, z, layout)


def log_expert(
    params: Tensor,  # (B, P)
    z: Tensor,  # (B, E, N) standardised residuals
    layout: Layout,
) -> Tensor:
    """log N(y; mean_e(x), scale_e^2); (B, E, N)."""
    log_scale = layout.split(params)[3].unsqueeze(-1)
    return -0.5 * z.square() - (log_scale + _HALF_LOG_2PI)


@dataclass(frozen=True)
class Terms:
    """What every observation contributes, before any sum over observations.

    Attributes
    ----------
    log_density : Tensor
        (B, N).
    responsibilities, gate : Tensor
        (B, E, N); both exactly 0 for experts that are not selected.
    score : Tensor
        (B, E, Q + Qs, N), derivatives of each score: own, then shared parameters.
    joint : Tensor
        (B, E, Q + D + 2 + Qs, N), derivatives of each score plus log density: own gate
        parameters, slope, intercept, log scale, shared gate parameters.
    weighted_score, weighted_joint : Tensor
        ``score`` times gate probabilities, ``joint`` times responsibilities.
    """

    log_density: Tensor
    responsibilities: Tensor
    gate: Tensor
    score: Tensor
    joint: Tensor
    weighted_score: Tensor
    weighted_joint: Tensor


def terms(
    params: Tensor,  # (B, P)
    form: GateForm,
    x: Tensor,  # (B, D, N)
    y: Tensor,  # (B, N)
    layout: Layout,
) -> Terms:
    """The pointwise half of a pass; see `Terms`."""
    z = standardized_residuals(params, x, y, layout)
    log_g = log_gate(params, form, x, layout)
    log_joint = log_g + log_expert(params, z, layout)
    log_density = torch.logsumexp(log_joint, dim=-2)
    r, g = torch.exp(log_joint - log_density.unsqueeze(-2)), torch.exp(log_g)
    t = z * torch.exp(-layout.split(params)[3]).unsqueeze(-1)
    density = [*(t * feature for feature in x.unsqueeze(1).unbind(2)), t, z * z - 1]
    gradient = [as_column(c, t) for c in form.score_gradient(*columns(params, x, layout))]
    own, shared = gradient[: layout.n_own], gradient[layout.n_own :]
    score, joint = torch.stack(gradient, 2), torch.stack([*own, *density, *shared], 2)
    return Terms(log_density, r, g, score, joint, g.unsqueeze(2) * score, r.unsqueeze(2) * joint)


def evaluate(
    params: Tensor,  # (B, P)
    form: GateForm,
    x: Tensor,  # (R, D, N)
    y: Tensor,  # (R, N)
    rows: Tensor,  # (B,) which of the R data sets each model is evaluated on
    layout: Layout,
    order: Order = "gradient",
    *,
    responsibilities: bool = False,
    pointwise: Callable[..., Terms] = terms,
) -> Evaluation:
    """Log-likelihood of B models with derivatives up to ``order``.

    Responsibilities are the one result of size N; they are kept only on request.
    """
    batch, n = len(params), x.shape[-1]
    widest = layout.width + layout.n_shared
    per_model = max(layout.n_experts * (1 if order == "value" else widest), layout.n_features)
    block = max(1, min(batch, MAX_ELEMENTS // (per_model * max(1, min(n, MIN_CHUNK)))))
    sums = _Sums(params, layout)
    value = params.new_zeros(batch)
    kept: list[list[Tensor]] = []
    for models in _slices(batch, block):
        theta, row, total = params[models], rows[models], sums.of(models)
        kept.append([])
        for part in _slices(n, max(1, MAX_ELEMENTS // (len(theta) * per_model))):
            xs, ys = x[row, :, part], y[row, part]
            if order == "value" and not responsibilities:
                value[models] += torch.logsumexp(log_joint(theta, form, xs, ys, layout), -2).sum(-1)
                continue
            point = pointwise(theta, form, xs, ys, layout)
            value[models] += point.log_density.sum(-1)
            if responsibilities:
                kept[-1].append(point.responsibilities)
            total.add_gradient(point)
            if order in ("information", "hessian"):
                total.add_information(point, xs)
            if order == "hessian":
                total.add_hessian(point)
                if form.score_curvature is not None:
                    excess = point.responsibilities - point.gate
                    total.curvature += _score_curvature(theta, form, xs, excess, layout)
    return Evaluation(
        value,
        sums.gradient if order != "value" else None,
        sums.information() if order in ("information", "hessian") else None,
        sums.hessian() if order == "hessian" else None,
        torch.cat([torch.cat(k, -1) for k in kept]) if responsibilities else None,
    )


class _Sums:
    """Sums over observations, from which gradient, information and Hessian are put together."""

    def __init__(self, params: Tensor, layout: Layout):
        batch, experts = len(params), layout.n_experts
        n_gate = layout.n_own + layout.n_shared
        width = layout.width + layout.n_shared
        self.layout = layout
        self.pairs = torch.triu_indices(*2 * (layout.n_features + 1,))
        self.inverse_scale = torch.exp(-layout.split(params)[3])
        self.gradient = params.new_zeros(batch, layout.size)
        self.design = params.new_zeros(batch, experts, layout.n_features + 1, layout.n_features + 1)
        self.gate_within = params.new_zeros(batch, experts, n_gate, n_gate)
        self.gate_across = params.new_zeros(batch, *2 * (len(layout.gate_indices()),))
        self.within = params.new_zeros(batch, experts, width, width)
        self.across = params.new_zeros(batch, layout.size, layout.size)
        self.curvature = params.new_zeros(batch, layout.size, layout.size)

    def of(self, models: slice) -> _Sums:
        """The sums of some of the models, as views."""
        part = copy.copy(self)
        for name in ("gradient", "design", "gate_within", "gate_across", "within", "across"):
            setattr(part, name, getattr(self, name)[models])
        part.curvature = self.curvature[models]
        return part

    def add_gradient(self, point: Terms) -> None:
        n_own = self.layout.n_own
        excess = (point.responsibilities - point.gate).unsqueeze(2)  # cancels before it is summed
        score = (excess @ point.score.mT).squeeze(2)
        density = point.weighted_joint[:, :, n_own : self.layout.width].sum(-1)
        own = torch.cat([score[..., :n_own], density], dim=-1)
        self.gradient += torch.cat([own.flatten(1), score[..., n_own:].sum(1)], dim=-1)

    def add_information(self, point: Terms, x: Tensor) -> None:
        u = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)  # (B, D + 1, n)
        i, j = self.pairs
        products = point.responsibilities @ (u[:, i] * u[:, j]).mT
        self.design[:, :, i, j] += products
        self.gate_within += point.weighted_score @ point.score.mT
        mean = _globally(point.weighted_score, self.layout.n_own)
        self.gate_across += mean @ mean.mT

    def add_hessian(self, point: Terms) -> None:
        self.within += point.weighted_joint @ point.joint.mT
        mean = _globally(point.weighted_joint, self.layout.width)
        self.across += mean @ mean.mT

    def information(self) -> Tensor:
        return self._gate_covariance() + self._density_curvature(observed=False)

    def hessian(self) -> Tensor:
        width = self.layout.width
        shared = range(self.layout.n_experts * width, self.layout.size)
        places = [
            [*range(e * width, (e + 1) * width), *shared] for e in range(self.layout.n_experts)
        ]
        second_moment = _scatter(self.within, places, self.layout.size)
        covariance = second_moment - self.across
        return (
            covariance
            - self._gate_covariance()
            - self._density_curvature(observed=True)
            + self.curvature
        )

    def _gate_covariance(self) -> Tensor:
        layout = self.layout
        places = [layout.score_indices(e) for e in range(layout.n_experts)]
        covariance = _scatter(self.gate_within, places, layout.size)
        gate = torch.tensor(layout.gate_indices(), device=covariance.device)
        covariance[:, gate[:, None], gate] -= self.gate_across
        return covariance

    def _density_curvature(self, *, observed: bool) -> Tensor:
        """-sum r d2 log phi: as expected, where cross terms vanish, or as observed."""
        layout = self.layout
        curvature = torch.zeros_like(self.across)
        for e in range(layout.n_experts):
            mean, scale = torch.tensor(layout.mean_indices(e)), layout.scale_index(e)
            upper = self.design[:, e]
            design = upper + upper.triu(1).mT
            curvature[:, mean[:, None], mean] = (
                design * self.inverse_scale[:, e, None, None].square()
            )
            curvature[:, scale, scale] = 2 * upper[:, -1, -1]  # the mass
            if observed:  # sum r z u / scale and sum r (z^2 - 1) are the gradient's
                curvature[:, scale, scale] += 2 * self.gradient[:, scale]
                curvature[:, mean, scale] = curvature[:, scale, mean] = 2 * self.gradient[:, mean]
        return curvature


def gate_means(
    params: Tensor,  # (B, P)
    form: GateForm,
    x: Tensor,  # (R, D, N)
    rows: Tensor,  # (B,)
    layout: Layout,
    tilt: Tensor | None = None,  # (B, E)
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    r"""Mean gate probabilities and, given a tilt, the derivatives of their tilted sum.

    With c_e = tilt_e - sum_f g_f tilt_f the Hessian of sum_e tilt_e g_e is

    .. math::
        \sum_e g_e c_e (\nabla s_e \nabla s_e' + \nabla^2 s_e) - T G' - G T', \quad
        T = \sum_e g_e c_e \nabla s_e, \ G = \sum_e g_e \nabla s_e.

    Returns
    -------
    means : Tensor
        (B, E), averages of g_e(x_n) over n.
    jacobian : Tensor or None
        (B, E, P) derivatives of the means.
    hessian : Tensor or None
        (B, P, P) of ``sum_e tilt_e means_e``.
    """
    batch, n = len(params), x.shape[-1]
    gate = torch.tensor(layout.gate_indices(), device=params.device)
    means = params.new_zeros(batch, layout.n_experts)
    slopes = params.new_zeros(batch, layout.n_experts, len(gate))
    across = params.new_zeros(batch, len(gate), len(gate))
    within = params.new_zeros(batch, layout.n_experts, *2 * (layout.n_own + layout.n_shared,))
    curvature = params.new_zeros(batch, layout.size, layout.size)
    per_model = max(layout.n_experts * (layout.n_own + layout.n_shared), layout.n_features)
    for part in _slices(n, max(1, MAX_ELEMENTS // max(1, batch * per_model))):
        xs = x[rows, :, part]
        g = torch.exp(log_gate(params, form, xs, layout))  # (B, E, n)
        means += g.sum(-1)
        if tilt is None:
            continue
        d_score = score_jacobian(params, form, xs, layout)  # (B, E, Q + Qs, n)
        weighted = g.unsqueeze(2) * d_score
        mean = _globally(weighted, layout.n_own)
        own = torch.einsum("beqn->beq", weighted)
        for e in range(layout.n_experts):
            slopes[:, e] -= torch.einsum("bn,bgn->bg", g[:, e], mean)
            start = e * layout.n_own
            slopes[:, e, start : start + layout.n_own] += own[:, e, : layout.n_own]
            slopes[:, e, layout.n_experts * layout.n_own :] += own[:, e, layout.n_own :]
        excess = g * (tilt.unsqueeze(-1) - (tilt.unsqueeze(-1) * g).sum(-2, keepdim=True))
        tilted = excess.unsqueeze(2) * d_score
        within += tilted @ d_score.mT
        cross = _globally(tilted, layout.n_own) @ mean.mT
        across += cross + cross.mT
        curvature += _score_curvature(params, form, xs, excess, layout)
    if tilt is None:
        return means / n, None, None
    jacobian = params.new_zeros(batch, layout.n_experts, layout.size)
    jacobian[:, :, gate] = slopes
    places = [layout.score_indices(e) for e in range(layout.n_experts)]
    hessian = curvature + _scatter(within, places, layout.size)
    hessian[:, gate[:, None], gate] -= across
    return means / n, jacobian / n, hessian / n


def _slices(n: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


def columns(
    params: Tensor,  # (B, P)
    x: Tensor,  # (B, D, N)
    layout: Layout,
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Own parameters (B, E, 1), shared ones (B, 1, 1) and features (B, 1, N), as a gate's
    elementwise functions take them."""
    own, _, _, _, shared = layout.split(params)
    own_columns = [column.unsqueeze(-1) for column in own.unbind(-1)]  # (B, E, 1)
    shared_columns = [column[:, None, None] for column in shared.unbind(-1)]
    return own_columns, shared_columns, list(x.unsqueeze(-3).unbind(-2))  # x: (B, 1, n)


def score_jacobian(
    params: Tensor,  # (B, P)
    form: GateForm,
    x: Tensor,  # (B, D, N)
    layout: Layout,
) -> Tensor:
    """Derivatives of each score by its own, then the shared, parameters; (B, E, Q + Qs, N)."""
    like = params.new_zeros(len(params), layout.n_experts, x.shape[-1])
    gradients = form.score_gradient(*columns(params, x, layout))
    return torch.stack([as_column(c, like) for c in gradients], dim=2)


def _globally(local: Tensor, width: int) -> Tensor:
    """Sum over experts: (B, E, width + Qs, n) to (B, E width + Qs, n)."""
    if local.shape[2] == width:
        return local.flatten(1, 2)
    return torch.cat([local[:, :, :width].flatten(1, 2), local[:, :, width:].sum(1)], 1)


def _scatter(blocks: Tensor, places: list[list[int]], size: int) -> Tensor:
    """Add each expert's block (B, E, w, w) at its places of a (B, size, size) matrix."""
    total = blocks.new_zeros(len(blocks), size, size)
    for e, place in enumerate(places):
        index = torch.tensor(place, device=blocks.device)
        total[:, index[:, None], index] += blocks[:, e]
    return total


def as_column(value: Column, like: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=like.dtype, device=like.device).expand(like.shape)


def _score_curvature(
    params: Tensor, form: GateForm, x: Tensor, weight: Tensor, layout: Layout
) -> Tensor:
    """sum over experts and points of weight times d2 s_e; (B, P, P)."""
    total = params.new_zeros(len(params), layout.size, layout.size)
    if form.score_curvature is None:
        return total
    curvature = form.score_curvature(*columns(params, x, layout))
    for e in range(layout.n_experts):
        places = layout.score_indices(e)
        for (q, s), value in curvature.items():
            entry = (weight[:, e] * as_column(value, weight)[:, e]).sum(-1)
            total[:, places[q], places[s]] += entry
            if q != s:
                total[:, places[s], places[q]] += entry
    return total

r"""Voronoi losses between mixing measures: how far a fitted mixture of experts is from the truth.

Write G = sum_i w_i delta_(theta_i) for the fitted measure and G* = sum_j w*_j delta_(theta*_j) for
the true one. Each fitted atom belongs to the cell A_j of the true atom nearest to it in theta (the
masses w do not enter that distance), and

.. math::
    D(G, G_*) = \inf_t \sum_j L_j(t), \qquad
    L_j(t) = \sum_{i \in A_j} w_i \sum_{q} |\theta_{iq} - \theta^*_{jq}|^{p_q(m_j)}
             + \Bigl|\sum_{i \in A_j} w_i - w^*_j\Bigr|,

over the parts q of an atom (gate slope, slope, intercept, variance), with m_j = #A_j. The power
p_q(m) is 1 for a cell with one atom; `ORDERS` holds it for the others. The infimum is over the
translations t that leave the density unchanged (`theory.translations`); cells are found anew at
each. A top-K gate takes the maximum over K-subsets of true atoms, the sum of the K largest L_j.
Where a gate of other parameters has the same density (`Gate.equivalents`), of the model or else of
the truth, the loss is the least over them.

True masses are scaled to sum to one, so that translating the gate of either model changes nothing.

References
----------
.. [1] Nguyen, Nguyen and Ho (2023), Demystifying softmax gating function in Gaussian mixture of
   experts, arXiv 2305.03288: D1 and D2 for the softmax gate.
.. [2] Nguyen, Akbarian, Yan and Ho (2024), Statistical perspective of top-K sparse softmax gating
   mixture of experts, arXiv 2309.13850: the maximum over K-subsets.
.. [3] Nguyen, Akbarian and Ho (2024), Is temperature sample efficient for softmax Gaussian mixture
   of experts?, arXiv 2401.13875.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kernels.checks import check_int
from moe_stats import GaussianMoE, MixingMeasure

from .algebra import rbar
from .cells import Problem
from .identified import identified_gate
from .translations import least_translation

Power = Callable[[int], float]


ORDERS: dict[str, dict[str, Power]] = {
    "D1": dict.fromkeys(
        ("gate_slope", "temperature", "slope", "intercept", "variance"), lambda m: 1.0
    ),
    "D2": {
        "gate_slope": lambda m: rbar(m).value,
        "temperature": lambda m: 2.0,
        "slope": lambda m: rbar(m).value / 2,
        "intercept": lambda m: rbar(m).value,
        "variance": lambda m: rbar(m).value / 2,
    },
    "sharp": {
        "gate_slope": lambda m: 2.0,
        "temperature": lambda m: 1.0,
        "slope": lambda m: 2.0,
        "intercept": lambda m: rbar(m).value,
        "variance": lambda m: rbar(m).value / 2,
    },
}
"""Powers of deviations in a cell of m > 1 atoms: "D1" and "D2" as published ([1]_, [2]_), "sharp"
as derived where some cell holds a single atom. An entry for a new gate's parts goes here."""

KINDS = ("single", "multi")


@dataclass(frozen=True, eq=False)
class VoronoiLoss:
    """A Voronoi loss with its cells and what each kind of parameter contributes.

    Leading dimensions are the model's batch shape. J counts true atoms, E fitted ones.

    Attributes
    ----------
    value : Tensor
        (...,), the loss.
    cells : Tensor
        (..., E) integers, the true atom each fitted atom belongs to.
    cell_sizes : Tensor
        (..., J) integers, how many fitted atoms each true atom has.
    translation : dict of str to Tensor
        What was added to the fitted measure: "log_weight" (...,) and gate parts (..., dim).
    weighted : dict of (str, str) to Tensor
        (group, kind) to (...,): the sum over cells of that kind of ``w |d|``, where a group is
        "mass" or a part of an atom, and kind is "single" or "multi", the number of fitted atoms in
        the cell. For "mass" it is that of absolute differences between a cell's mass and the true
        one. NaN without such a cell, and for a gate part that was translated onto the only
        single-atom cell.
    largest : dict of (str, str) to Tensor
        The same, for the largest ``|d|``, not weighted.
    order : str
        The order, "D1", "D2", "sharp" or "custom".
    compared : tuple of str
        Groups that entered the loss.
    not_identified : str
        What was not compared and why; empty if all was.
    """

    value: Tensor
    cells: Tensor
    cell_sizes: Tensor
    translation: Mapping[str, Tensor]
    weighted: Mapping[tuple[str, str], Tensor]
    largest: Mapping[tuple[str, str], Tensor]
    order: str
    compared: tuple[str, ...]
    not_identified: str = ""

    def columns(self) -> dict[str, Any]:
        """Column name to one value a model, as lists over the flattened batch.

        ``voronoi_loss``, ``cell_sizes`` ("1,2": in the order of the true atoms), ``n_single``,
        ``n_multi``, ``n_empty`` (numbers of cells), and ``{group}_{kind}_weighted`` and
        ``{group}_{kind}_largest`` for each group of `compared` and kind "single" or "multi".
        """
        sizes = self.cell_sizes.reshape(-1, self.cell_sizes.shape[-1])
        columns: dict[str, Any] = {
            "voronoi_loss": self.value.reshape(-1).tolist(),
            "cell_sizes": [",".join(map(str, row)) for row in sizes.tolist()],
            "n_single": (sizes == 1).sum(-1).tolist(),
            "n_multi": (sizes > 1).sum(-1).tolist(),
            "n_empty": (sizes == 0).sum(-1).tolist(),
        }
        for group, kind in self.weighted:
            name = f"{group}_{kind}"
            columns[f"{name}_weighted"] = self.weighted[group, kind].reshape(-1).tolist()
            columns[f"{name}_largest"] = self.largest[group, kind].reshape(-1).tolist()
        return columns

    def as_row(self) -> dict[str, Any]:
        """`columns` of a single model, as plain numbers.

        Raises
        ------
        ValueError
            If the loss is of more than one model.
        """
        if self.value.numel() != 1:
            raise ValueError(
                f"as_row() needs the loss of one model; this is a batch of {self.value.numel()}, "
                "use columns() or table()."
            )
        return {name: values[0] for name, values in self.columns().items()}

    def table(self) -> Any:
        """`columns` as a pandas DataFrame, one row a model."""
        import pandas as pd

        return pd.DataFrame(self.columns())

    def summary(self) -> str:
        """A short text: value, cells and deviations (medians over a batch)."""
        table = self.table()
        batch = f", median of {len(table)} models" if len(table) > 1 else ""
        cells = table["cell_sizes"].value_counts()
        shown = "; ".join(f"{c} ({n})" for c, n in cells.items()) if batch else cells.index[0]
        lines = [
            f"Voronoi loss {self.order}: {table['voronoi_loss'].median():.4g}{batch}",
            f"fitted atoms per true atom: {shown}",
            f"{'':14}"
            + "".join(f"{k + ' ' + s:>18}" for k in KINDS for s in ("sum w|d|", "max|d|")),
        ]
        for group in self.compared:
            values = [
                table[f"{group}_{kind}_{statistic}"].median()
                for kind in KINDS
                for statistic in ("weighted", "largest")
            ]
            lines.append(
                f"{group:14}" + "".join(f"{'-' if v != v else f'{v:.4g}':>18}" for v in values)
            )
        if self.not_identified:
            lines.append(self.not_identified)
        return "\n".join(lines)


def voronoi_loss(
    model: GaussianMoE | MixingMeasure,
    truth: GaussianMoE | MixingMeasure,
    *,
    order: str | Mapping[str, Power] = "D2",
    top_k: int | None = None,
    compare: Sequence[str] | None = None,
    anchor: str = "single",
) -> VoronoiLoss:
    r"""Voronoi loss of a model, or of each of a batch, against one truth.

    .. math:: D(G, G_*) = \inf_t \max_{|T| = K} \sum_{j \in T} L_j(t),

    with the symbols of this module's docstring.

    Parameters
    ----------
    model : GaussianMoE or MixingMeasure
        E atoms, one model or a batch.
    truth : GaussianMoE or MixingMeasure
        J atoms with the same parts, a single model. Measures are compared as they are: without
        their gates' equivalents.
    order : {"D1", "D2", "sharp"} or mapping
        Powers in cells of m > 1 atoms; a mapping gives a function of m for each part. With one
        atom in each cell all orders agree.
    top_k : int or None
        K, how many cells the maximum takes, in [1, J]; None asks the truth's gate.
    compare : sequence of str or None
        Groups to compare, among "mass" and the parts of an atom. None leaves out what the truth's
        gate does not identify. Without "mass" all atoms of a measure weigh the same.
    anchor : {"single", "infimum"}
        Translation at which the per-parameter deviations are taken. "single": equal total masses,
        and gate parts fitted to the single-atom cells where there are any. "infimum":
        that of the loss. Powers make large deviations in multi-atom cells cheap, so the infimum
        may blur a well-estimated single atom by what a multi-atom cell gets wrong.

    Returns
    -------
    VoronoiLoss
        With the model's batch shape.

    Raises
    ------
    ValueError
        If the atoms have different parts or sizes, the truth is a batch, or a name is unknown.

    Notes
    -----
    The infimum is taken over masses no smaller than at the first cell whose mass is matched:
    scaling all fitted masses to 0 would bound every loss by the truth's mass.

    Published masses are :math:`\exp(b^*_{0j})`; here they are divided by their sum, which divides
    the loss by that constant.

    References
    ----------
    See the module's docstring on invariances.

    Examples
    --------
    >>> from moe_stats import GaussianMoE, LinearExperts, SoftmaxGate
    >>> truth = GaussianMoE(
    ...     SoftmaxGate([0.3, 0.0], [[1.0], [0.0]]),
    ...     LinearExperts([[-1.0], [1.0]], [0.5, -0.5], [0.3, 0.4]),
    ... )
    >>> shifted = GaussianMoE(
    ...     SoftmaxGate([1.3, 1.0], [[3.0], [2.0]]),
    ...     LinearExperts([[-1.0], [1.0]], [0.5, -0.4], [0.3, 0.4]),
    ... )
    >>> loss = voronoi_loss(shifted, truth)
    >>> round(float(loss.value), 6), round(loss.as_row()["intercept_single_largest"], 6)
    (0.042556, 0.1)
    """
    options = (*_powers(order), top_k, compare, anchor)
    losses = [_loss(model, truth, *options)]
    others = _equivalents(model)
    losses += [_loss(other, truth, *options) for other in others]
    if not others:  # an over-fitted model has none of its own
        losses += [_loss(model, other, *options) for other in _equivalents(truth)]
    return functools.reduce(_nearer, losses)


def _loss(
    model: GaussianMoE | MixingMeasure,
    truth: GaussianMoE | MixingMeasure,
    name: str,
    powers: Mapping[str, Power],
    top_k: int | None,
    compare: Sequence[str] | None,
    anchor: str,
) -> VoronoiLoss:
    fitted, true = _measure(model), _measure(truth)
    _check(fitted, true)
    n_true = true.n_atoms
    identified, not_identified = _identified(truth, true, compare)
    parts = [part for part in true.atoms if part in identified]
    if "mass" not in identified:
        fitted, true = _even(fitted), _even(true)
    moved = [part for part in true.translates if part in parts]
    missing = [part for part in parts if part not in powers]
    if missing:
        raise ValueError(
            f"The 'order' parameter has no power for {missing}; see theory.voronoi.ORDERS."
        )

    batch = fitted.log_weight.shape[:-1]
    flat = _flatten(fitted)
    free_mass = "log_weight" in true.translates and "mass" in identified
    true_log_weight = true.log_weight - true.log_weight.logsumexp(-1)
    log_weight = flat.log_weight
    # fitted masses of about 1, whatever their level; the factor takes the rest
    base = (log_weight if free_mass else true.log_weight).logsumexp(-1, keepdim=True)
    weight = torch.exp(log_weight - base)
    n_largest = min(n_true, _top_k(truth, top_k, n_true))
    sizes = range(flat.n_atoms + 1)
    problem = Problem(
        weight=weight,
        true_weight=torch.exp(true_log_weight),
        fixed=torch.stack(
            [_gaps(flat.atoms[q], true.atoms[q]) for q in parts if q not in moved]
            or [weight.new_zeros(*weight.shape, n_true)],
            dim=-1,
        ),
        fixed_powers=_power_table([powers[q] for q in parts if q not in moved], sizes),
        moved=[flat.atoms[q] for q in moved],
        moved_true=[true.atoms[q] for q in moved],
        moved_powers=_power_table([powers[q] for q in moved], sizes),
        n_largest=n_largest,
        free_mass=free_mass,
        with_mass="mass" in identified,
    )
    found = least_translation(problem)

    chosen = torch.nn.functional.one_hot(found.cells, n_true).bool()  # (R, E, J)
    cell_sizes = chosen.sum(-2)
    own_size = cell_sizes.gather(-1, found.cells)  # (R, E)
    shift, factor = found.shift, found.factor
    if anchor == "single":
        shift = problem.anchored(shift, found.cells, own_size == 1)
        factor = torch.ones_like(factor)
    elif anchor != "infimum":
        raise ValueError(f"The 'anchor' parameter must be 'single' or 'infimum'; got {anchor!r}.")
    mass = factor.unsqueeze(-1) * weight
    shifts = dict(zip(moved, problem.split(shift), strict=True))
    weighted: dict[tuple[str, str], Tensor] = {}
    largest: dict[tuple[str, str], Tensor] = {}
    for group in identified:
        if group == "mass":
            gap = ((chosen * mass.unsqueeze(-1)).sum(-2) - problem.true_weight).abs()  # (R, J)
            size, w = cell_sizes, torch.ones_like(gap)
        else:
            z = flat.atoms[group]
            if group in shifts:
                z = z + shifts[group].unsqueeze(-2)
            gap = _gaps(z, true.atoms[group]).gather(-1, found.cells.unsqueeze(-1)).squeeze(-1)
            size, w = own_size, mass
        for kind, inside in (("single", size == 1), ("multi", size > 1)):
            none = ~inside.any(-1)
            if kind == "single" and group in shifts and anchor == "single":
                none = inside.sum(-1) <= 1  # the translation was fixed there
            total = (inside * w * gap).sum(-1).masked_fill(none, torch.nan)
            top = (inside * gap).amax(-1).masked_fill(none, torch.nan)
            weighted[group, kind] = total.reshape(batch)
            largest[group, kind] = top.reshape(batch)
    translation = dict(zip(moved, problem.split(found.shift), strict=True))
    translation = {q: t.reshape(*batch, -1) for q, t in translation.items()}
    if free_mass:
        offset = torch.log(found.factor) - base.squeeze(-1) + true.log_weight.logsumexp(-1)
        translation["log_weight"] = offset.reshape(batch)
    return VoronoiLoss(
        value=found.value.reshape(batch),
        cells=found.cells.reshape(*batch, -1),
        cell_sizes=cell_sizes.reshape(*batch, n_true),
        translation=translation,
        weighted=weighted,
        largest=largest,
        order=name,
        compared=tuple(identified),
        not_identified=not_identified,
    )


def _equivalents(model: GaussianMoE | MixingMeasure) -> list[GaussianMoE]:
    if not isinstance(model, GaussianMoE):
        return []
    return [GaussianMoE(gate, model.experts) for gate in model.gate.equivalents()]


def _nearer(a: VoronoiLoss, b: VoronoiLoss) -> VoronoiLoss:
    """Model by model the smaller of two losses."""

    def pick(x: Tensor, y: Tensor) -> Tensor:
        wins = b.value < a.value
        return torch.where(wins.reshape((*wins.shape, *(1,) * (x.ndim - wins.ndim))), y, x)

    fields: dict[str, Any] = {
        name: pick(getattr(a, name), getattr(b, name)) for name in ("value", "cells", "cell_sizes")
    }
    for name in ("translation", "weighted", "largest"):
        ours, theirs = getattr(a, name), getattr(b, name)
        fields[name] = {key: pick(ours[key], theirs[key]) for key in ours}
    return dataclasses.replace(a, **fields)


def _powers(order: str | Mapping[str, Power]) -> tuple[str, Mapping[str, Power]]:
    if isinstance(order, Mapping):
        return "custom", order
    if not isinstance(order, str) or order not in ORDERS:
        options = ", ".join(repr(o) for o in ORDERS)
        raise ValueError(
            f"The 'order' parameter must be one of {{{options}}} or a mapping of parts to powers; "
            f"got {order!r}."
        )
    return order, ORDERS[order]


def _power_table(powers: Sequence[Power], sizes: range) -> Tensor:
    """(parts, max size + 1): the power of each part in a cell of each size."""
    rows = [[1.0 if m <= 1 else float(power(m)) for m in sizes] for power in powers]
    return torch.tensor(rows or [[1.0] * len(sizes)], dtype=torch.float64)


def _measure(model: GaussianMoE | MixingMeasure) -> MixingMeasure:
    measure = model.mixing_measure() if isinstance(model, GaussianMoE) else model
    atoms = {part: value.detach().to(torch.float64) for part, value in measure.atoms.items()}
    return MixingMeasure(measure.log_weight.detach().to(torch.float64), atoms, measure.translates)


def _check(fitted: MixingMeasure, true: MixingMeasure) -> None:
    if true.log_weight.ndim != 1:
        raise ValueError(
            "The 'truth' parameter must be a single model; got batch shape "
            f"{tuple(true.log_weight.shape[:-1])}."
        )
    ours = {part: value.shape[-1] for part, value in fitted.atoms.items()}
    theirs = {part: value.shape[-1] for part, value in true.atoms.items()}
    if ours != theirs:
        raise ValueError(
            f"The 'model' and 'truth' parameters must have the same parts; got {ours} and {theirs}."
        )


def _identified(
    truth: GaussianMoE | MixingMeasure, true: MixingMeasure, compare: Sequence[str] | None
) -> tuple[list[str], str]:
    groups = ["mass", *true.atoms]
    if compare is not None:
        named = isinstance(compare, Sequence) and not isinstance(compare, str)
        if not named or any(group not in groups for group in compare):
            raise ValueError(
                f"The 'compare' parameter must name groups among {groups}; got {compare!r}."
            )
        left_out = [g for g in groups if g not in compare]
        return [g for g in groups if g in compare], (
            f"Not compared, as asked: {', '.join(left_out)}." if left_out else ""
        )
    if isinstance(truth, MixingMeasure):
        return groups, ""
    gate_parts, reason = identified_gate(truth)
    gate = {"mass", *truth.gate.atoms()[1]}
    return [g for g in groups if g not in gate or g in gate_parts], reason


def _top_k(truth: GaussianMoE | MixingMeasure, top_k: int | None, n_true: int) -> int:
    if top_k is None:
        own = truth.gate.form.top_k if isinstance(truth, GaussianMoE) else None
        return n_true if own is None else own
    return check_int("top_k", top_k, 1, n_true)


def _even(measure: MixingMeasure) -> MixingMeasure:
    return MixingMeasure(torch.zeros_like(measure.log_weight), measure.atoms, measure.translates)


def _flatten(measure: MixingMeasure) -> MixingMeasure:
    """One batch dimension R."""
    n = measure.n_atoms
    atoms = {q: v.reshape(-1, n, v.shape[-1]) for q, v in measure.atoms.items()}
    return MixingMeasure(measure.log_weight.reshape(-1, n), atoms, measure.translates)


def _gaps(
    fitted: Tensor,  # (R, E, dim)
    true: Tensor,  # (J, dim)
) -> Tensor:
    """Euclidean deviation of each fitted from each true atom; (R, E, J)."""
    return (fitted.unsqueeze(-2) - true).norm(dim=-1)

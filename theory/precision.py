r"""How precisely a truth's gate can be estimated at all, before any data.

With the Fisher information I per observation and an identified function f of the parameters, the
standard error of its maximum-likelihood estimate from n observations is about

.. math:: \sqrt{\nabla f' I^+ \nabla f / n},

:math:`I^+` the pseudo-inverse, since invariances of the gate leave null directions that no
identified function meets. A rate shows itself only from sizes where this is small beside f itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from moe_stats import Design, GateTemplate, GaussianMoE
from moe_stats.inference.fisher import fisher_information
from moe_stats.inference.identifiability import identifiability_report

PRECISE = 0.2
"""Relative standard error below which a parameter counts as estimated."""

_N_POINTS = 1_000
_NULL = 1e-10
"""Eigenvalue of the scaled information, over the largest, below which a direction is null."""
_MEETS = 1e-5
"""Share of a function's gradient in null directions from which the function is not identified."""


@dataclass(frozen=True)
class GatePrecision:
    """Expected precision of a truth's gate.

    Attributes
    ----------
    condition : float
        Condition number of the Fisher information without its null directions, each parameter in
        units of its own information.
    n_null : int
        Number of null directions.
    relative : dict of str to float
        Relative standard error from one observation of each identified gate parameter that is not
        0, among slopes (differences from the last expert's where only these are identified) and
        the temperature; from n observations it is 1 / sqrt(n) times that.
    singular : tuple of str
        Null directions that are no invariance of the gate: at such a truth no rate is predicted.
    """

    condition: float
    n_null: int
    relative: dict[str, float]
    singular: tuple[str, ...] = ()

    @property
    def n_needed(self) -> int:
        """Least n at which every relative standard error is at most `PRECISE`."""
        return math.ceil((max(self.relative.values(), default=0.0) / PRECISE) ** 2)

    def __str__(self) -> str:
        shown = ", ".join(f"{k} {v / math.sqrt(1000):.2g}" for k, v in self.relative.items())
        null = f", {self.n_null} null directions left out" if self.n_null else ""
        singular = f" The truth is singular: {'; '.join(self.singular)}." if self.singular else ""
        return (
            f"Fisher condition number {self.condition:.3g}{null}. Relative standard errors at "
            f"n = 1000: {shown}; all below {PRECISE} from n = {self.n_needed}.{singular}"
        )


def gate_precision(truth: GaussianMoE, design: Design) -> GatePrecision:
    """Expected precision of the identified parameters of a truth's gate.

    Parameters
    ----------
    truth : GaussianMoE
        A single model.
    design : Design
        The law of X, taken at 1,000 fixed draws.

    Returns
    -------
    GatePrecision

    Examples
    --------
    >>> from moe_stats import ActivationDenseToSparseGate, LinearExperts, Uniform
    >>> gate = ActivationDenseToSparseGate([-0.25, 0.0], [[5.0], [0.5]], 0.1, activation="tanh")
    >>> truth = GaussianMoE(gate, LinearExperts([[-1.0], [1.0]], [4.0, -4.0], [0.3, 0.4]))
    >>> found = gate_precision(truth, Uniform(-3, 3))
    >>> found.n_null, list(found.relative)
    (1, ['gate_slope[0]', 'gate_slope[1]', 'temperature'])
    """
    X = design.sample(_N_POINTS, 0).to(torch.float64)
    params = truth.to_params().to(torch.float64)
    information = fisher_information(truth, X)
    units = information.diagonal().clamp(min=1e-300).rsqrt()
    size, basis = torch.linalg.eigh(units[:, None] * information * units)
    basis = units[:, None] * basis
    null = size <= _NULL * size[-1]
    covariance = (basis[:, ~null] / size[~null]) @ basis[:, ~null].mT
    functions = _functions(truth, params)
    names, value = list(functions), torch.stack(list(functions.values()))
    jacobian = torch.autograd.functional.jacobian(
        lambda p: torch.stack(list(_functions(truth, p).values())), params
    )
    error = (jacobian @ covariance * jacobian).sum(-1).sqrt()
    open_ = (jacobian @ basis[:, null]).norm(dim=-1) > _MEETS * (jacobian @ basis).norm(dim=-1)
    relative = {
        name: float(e / v.abs())
        for name, e, v, unknown in zip(names, error, value.detach(), open_, strict=True)
        if v != 0 and not unknown
    }
    report = identifiability_report(truth, X)
    known = truth.gate.flat_directions()
    singular = tuple(
        direction.words
        for direction in report.null_directions
        if not direction.declared and direction.words not in known
    )
    return GatePrecision(report.condition, len(report.null_directions), relative, singular)


def _functions(truth: GaussianMoE, params: Tensor) -> dict[str, Tensor]:
    """The parts of the gate's atoms, free of the gate's translations, by name."""
    template = GateTemplate(type(truth.gate), truth.gate.options)
    gate = GaussianMoE.from_params(params, template, truth.n_experts).gate
    _, parts = gate.atoms()
    found = {}
    for part, atoms in parts.items():
        if part in gate.translates:
            atoms = (atoms - atoms[-1])[:-1]
        if part == "temperature":  # shared by all atoms
            found[part] = atoms[0, 0]
            continue
        single = atoms.shape[-1] == 1
        for e, atom in enumerate(atoms):
            for d, one in enumerate(atom):
                found[f"{part}[{e}]" if single else f"{part}[{e}, {d}]"] = one
    return found

r"""The gate protocol: all that the rest of the library asks of a gate.

A gate turns features x into a probability for each expert. It is a frozen dataclass of
parameter tensors, and it says six things about itself:

``form``
    Scores, their parameter derivatives and the selection rule, as a `kernels.gating.GateForm`.
    Simulation, likelihood, estimation and the compiled kernels need nothing else.
``pack`` / ``from_parameters``
    Its parameters as ``own`` (..., E, Q), expert by expert, and ``shared`` (..., Qs).
``shared_names`` / ``shared_bound``
    What shared parameters are called, and how far from 0 an estimate may take them.
``atoms``
    What identifies an expert's gate in the mixing measure, with the log weight of the atom:
    what the Voronoi losses compare.
``translates``
    The invariance of the gate: which of those may be shifted by the same amount for all
    experts without changing any probability.
``flat_directions``
    Invariances that are no translations, such as the ray of a temperature; few gates have any.

`SoftmaxGate` is the file to imitate when adding a gate.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from kernels.gating import GateForm, Layout, naive

from .._validation import check_features


@dataclass(frozen=True)
class GateTemplate:
    """A gate whose parameters are still to be estimated: its class and its options.

    Made by ``SoftmaxGate.template()``, ``TopKGate.template(top_k=2)`` and the like.
    """

    gate: type[Gate]
    options: Mapping[str, Any]

    def form(self) -> GateForm:
        """The kernel's view of the gate."""
        return self.gate.form_of(**self.options)

    def build(
        self,
        own: Tensor,  # (..., E, Q)
        shared: Tensor,  # (..., Qs)
    ) -> Gate:
        """The gate with these parameters."""
        return self.gate.from_parameters(own, shared, **self.options)

    def __repr__(self) -> str:
        options = ", ".join(f"{k}={v!r}" for k, v in self.options.items())
        return f"{self.gate.__name__}.template({options})"

    def __hash__(self) -> int:
        return hash((self.gate, tuple(sorted(self.options.items()))))


class Gate(abc.ABC):
    """Base class of all gates; see the module's docstring for the protocol."""

    translates: ClassVar[tuple[str, ...]] = ()
    """Names among "log_weight" and the atoms that may be shifted for all experts at once."""

    shared_names: ClassVar[tuple[str, ...]] = ()
    """Names of the shared parameters in reports."""

    shared_bound: ClassVar[float] = math.inf
    """Bound on the absolute value of every shared parameter where they are estimated."""

    intercept: Tensor
    slope: Tensor

    @classmethod
    @abc.abstractmethod
    def form_of(cls, **options: Any) -> GateForm:
        """The kernel's view of a gate with these options."""

    @classmethod
    @abc.abstractmethod
    def from_parameters(cls, own: Tensor, shared: Tensor, **options: Any) -> Self:
        """The gate with parameters ``own`` (..., E, Q) and ``shared`` (..., Qs)."""

    @classmethod
    def starting_parameters(
        cls,
        intercept: Tensor,  # (..., E)
        slope: Tensor,  # (..., E, D)
        luck: Tensor,  # (..., Qs), uniform numbers in [0, 1)
    ) -> tuple[Tensor, Tensor]:
        """Own (..., E, Q) and shared (..., Qs) parameters whose scores are about
        intercept + slope'x: where estimation starts."""
        own = torch.cat([intercept.unsqueeze(-1), slope], dim=-1)
        return own, own.new_zeros(*own.shape[:-2], 0)

    @classmethod
    def reweigh(cls, own: Tensor, shared: Tensor, log_factor: Tensor) -> Tensor:
        """Own parameters (..., E, Q) of atoms whose masses are exp(log_factor) (..., E) times
        those of the given ones."""
        return torch.cat([(own[..., 0] + log_factor).unsqueeze(-1), own[..., 1:]], dim=-1)

    @abc.abstractmethod
    def pack(self) -> tuple[Tensor, Tensor]:
        """The inverse of `from_parameters`: ``own`` and ``shared``."""

    @property
    @abc.abstractmethod
    def options(self) -> dict[str, Any]:
        """What is fixed rather than estimated, such as ``top_k``."""

    @abc.abstractmethod
    def atoms(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Log weights (..., E) and the gate's part of each atom, name to (..., E, dim)."""

    def raw_atoms(self) -> tuple[Tensor, dict[str, Tensor]]:
        """As `atoms`, of the parameters as they are where `atoms` takes identified functions."""
        return self.atoms()

    def equivalents(self) -> tuple[Self, ...]:
        """Gates of other parameters with the same probabilities at every x, beside those that
        translations and flat directions lead to."""
        return ()

    def flat_directions(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Directions that change no probability and are no translation: what they are, to their
        own (..., E, Q) and shared (..., Qs) parts, 0 for models of a batch without them."""
        return {}

    def n_open(self) -> Tensor:
        """How many numbers of the gate no data can tell, (...,): translations and flat
        directions, or all where a lone expert speaks."""
        own, shared = self.pack()
        if self.n_experts == 1:
            return torch.full(own.shape[:-2], own.shape[-1] + shared.shape[-1])
        shifts = sum(1 if name == "log_weight" else self.n_features for name in self.translates)
        count = torch.full(own.shape[:-2], shifts)
        for direction in self.flat_directions().values():
            flat = torch.cat([direction[0].flatten(-2), direction[1]], dim=-1)
            count = count + (flat != 0).any(-1)
        return count

    @classmethod
    def template(cls, **options: Any) -> GateTemplate:
        """This gate with parameters to be estimated; options are checked at once."""
        cls.form_of(**options)
        return GateTemplate(cls, options)

    @property
    def form(self) -> GateForm:
        """The kernel's view of this gate."""
        return self.form_of(**self.options)

    @property
    def n_experts(self) -> int:
        return self.slope.shape[-2]

    @property
    def n_features(self) -> int:
        return self.slope.shape[-1]

    def log_probs(
        self,
        X: Tensor,  # (..., N, D)
    ) -> Tensor:
        """Log gate probabilities (..., N, E), -inf for experts that are not selected."""
        own, shared = self.pack()
        x = check_features(X, self.n_features).to(own).mT  # (..., D, N)
        layout = Layout.of(self.form, self.n_experts, self.n_features)
        silent = own.new_zeros(*own.shape[:-1], self.n_features + 2)  # experts play no part
        params = torch.cat([torch.cat([own, silent], -1).flatten(-2), shared], -1)
        batch = torch.broadcast_shapes(params.shape[:-1], x.shape[:-2])
        flat = params.expand(*batch, -1).reshape(-1, layout.size)
        x = x.expand(*batch, *x.shape[-2:]).reshape(-1, *x.shape[-2:])
        log_gate = naive.log_gate(flat, self.form, x, layout)
        if bool(log_gate.isnan().any()):
            raise ValueError(
                "The 'X' parameter must leave the gate's scores finite; got features up to "
                f"{float(x.abs().max()):g} with 'intercept' and 'slope' up to "
                f"{float(own.abs().max()):g}."
            )
        return log_gate.mT.reshape(*batch, x.shape[-1], self.n_experts)

    def probs(
        self,
        X: Tensor,  # (..., N, D)
    ) -> Tensor:
        """Gate probabilities (..., N, E); exactly 0 for experts that are not selected."""
        return torch.exp(self.log_probs(X))

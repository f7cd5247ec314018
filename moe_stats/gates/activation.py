r"""Activation dense-to-sparse gate: what repairs the temperature.

.. math:: g_e(x) = \exp(s_e(x)) / \sum_f \exp(s_f(x)), \qquad
          s_e(x) = (\psi(b_{1e}'x) + b_{0e}) / \tau.

Behind a nonlinear activation psi the temperature and the slopes are identified, and b0/tau up to a
common shift. Two kinds of exception:

* psi homogeneous of degree p, as the identity and ReLU are for p = 1: only :math:`b_1/\tau^{1/p}`
  and b0/tau matter.
* Two experts of mirrored slopes: psi' is even for sigmoid and tanh, so both slopes may move
  together; :math:`\psi(z) - \psi(-z) = z` for GELU, SiLU and softplus, which brings the ray back.

Two experts behind psi odd up to a constant, as sigmoid and tanh are, have a second gate with the
same probabilities, the mirror image of slopes (-b1_2, -b1_1).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from kernels.gating import GateForm
from kernels.gating.form import Column

from .activations import Activation, Elementwise, activation_of
from .dense_to_sparse import RAY, DenseToSparseGate, cooling
from .softmax import linear

MAX_LOG_TEMPERATURE = math.log(1e3)
"""Bound on |log tau| in estimation. Towards 0 and infinity the gate tends to another, a softmax, a
step or a constant, and a likelihood may rise all the way; at the bound scores differ by about 1e-3
from that gate's, which cost 4e-5 nats at n = 300 where a softmax was the truth behind a sigmoid."""

START = (0.03, 3.0)
"""Range of temperatures at which estimation starts, drawn on the logarithmic scale: which maximum a
climb reaches depends on how steep the gate is at first."""


@dataclass(frozen=True, eq=False)
class ActivationDenseToSparseGate(DenseToSparseGate):
    """Softmax gate of activated slopes with a shared temperature.

    Parameters
    ----------
    intercept : array-like
        b0, shape (..., E).
    slope : array-like
        b1, shape (..., E, D), per unit of each feature.
    temperature : float or array-like
        tau > 0, shape (...,): one number a model, or one for all. The flat parameters hold its
        logarithm.
    activation : str, callable or Activation
        psi: "sigmoid", "tanh", "gelu", "silu", "softplus", "sin", "relu", "identity", or any
        elementwise torch function, whose derivatives ``torch.func`` finds.

    Raises
    ------
    ValueError
        If a temperature is not positive, shapes disagree, or the activation is unknown, not
        finite, not elementwise or not differentiable.

    Notes
    -----
    The identity, and with one feature and slopes of one sign ReLU too, are linear where it matters
    and leave a common shift of all slopes open. `flat_directions` names it, `translates` does not.

    References
    ----------
    Nguyen, Akbarian and Ho (2024), Is temperature sample efficient for softmax Gaussian mixture
    of experts?, arXiv 2401.13875.

    Examples
    --------
    >>> gate = ActivationDenseToSparseGate([-0.25, 0.0], [[5.0], [0.5]], 0.1, activation="tanh")
    >>> gate.probs(torch.tensor([[0.1]], dtype=torch.float64)).round(decimals=3).tolist()
    [[0.835, 0.165]]
    """

    activation: str | Elementwise | Activation = "sigmoid"

    translates: ClassVar[tuple[str, ...]] = ("log_weight",)
    shared_bound: ClassVar[float] = MAX_LOG_TEMPERATURE

    def __post_init__(self) -> None:
        super().__post_init__()
        activation_of(self.activation)

    @classmethod
    def form_of(cls, **options: Any) -> GateForm:
        unknown = set(options) - {"activation"}
        if unknown:
            raise ValueError(
                "ActivationDenseToSparseGate has one option, 'activation'; its options got "
                f"{sorted(unknown)}."
            )
        psi = activation_of(options.get("activation", "sigmoid"))
        return GateForm(
            score=Activated(psi),
            score_gradient=ActivatedGradient(psi),
            score_curvature=ActivatedCurvature(psi),
            n_shared=1,
        )

    @classmethod
    def starting_parameters(
        cls, intercept: Tensor, slope: Tensor, luck: Tensor
    ) -> tuple[Tensor, Tensor]:
        tau = START[0] * (START[1] / START[0]) ** luck
        own = torch.cat([(tau * intercept).unsqueeze(-1), slope], dim=-1)
        return own, torch.log(tau)

    @property
    def options(self) -> dict[str, Any]:
        return {"activation": self.activation}

    def atoms(self) -> tuple[Tensor, dict[str, Tensor]]:
        degree = activation_of(self.activation).degree
        if degree is None:
            return self.raw_atoms()
        tau = self.temperature[..., None]
        return self.intercept / tau, {"gate_slope": self.slope / tau[..., None] ** (1 / degree)}

    def equivalents(self) -> tuple[Self, ...]:
        """The mirror image (-b1_2, -b1_1) of two experts behind psi odd up to a constant:
        psi(z) - psi(w) = psi(-w) - psi(-z)."""
        if self.n_experts != 2 or not _is_odd(activation_of(self.activation)):
            return ()
        return (dataclasses.replace(self, slope=-self.slope.flip(-2)),)

    def flat_directions(self) -> dict[str, tuple[Tensor, Tensor]]:
        psi = activation_of(self.activation)
        own, shared = self.pack()
        found = {}
        if psi.degree is not None:
            powers = own.new_ones(own.shape[-1])
            powers[0] = psi.degree
            together = "" if psi.degree == 1 else f", the slopes by the power 1 / {psi.degree:g}"
            found[RAY + together] = (powers * own, torch.full_like(shared, psi.degree))
        # z -> c z, or one feature and psi(b1 x) = +-|b1|^p psi(x) with one sign for all experts
        odd, even = _is_odd(psi), _is_even(psi)
        alike = self.slope * self.slope[..., :1, :] > 0
        if odd or even:
            alike = self.slope != 0
        linear = (self.n_features == 1) & alike.flatten(-2).all(-1, keepdim=True)
        if psi.degree == 1 and odd:
            linear = torch.ones_like(linear)
        if psi.degree is not None and bool(linear.any()):
            speed = self.slope.abs() ** (1 - psi.degree) * (self.slope.sign() if even else 1.0)
            for d in range(self.n_features):
                shift = torch.zeros_like(own)
                shift[..., 1 + d] = torch.where(linear, speed[..., d], 0.0)
                words = f"linear in feature {d}: its gate slopes may be shifted together"
                found[words] = (shift, torch.zeros_like(shared))
        return found


@dataclass(frozen=True)
class Activated:
    """(psi(b1'x) + b0) / tau."""

    psi: Activation

    def __call__(
        self, own: Sequence[Column], shared: Sequence[Column], x: Sequence[Tensor]
    ) -> Tensor:
        return (self.psi.value(linear(own, shared, x)) + own[0]) * cooling(shared)


@dataclass(frozen=True)
class ActivatedGradient:
    """(1, psi' x) / tau, and minus the score for log tau."""

    psi: Activation

    def __call__(
        self, own: Sequence[Column], shared: Sequence[Column], x: Sequence[Tensor]
    ) -> tuple[Column, ...]:
        z, cool = linear(own, shared, x), cooling(shared)
        steepness = self.psi.first(z) * cool
        score = (self.psi.value(z) + own[0]) * cool
        return (cool, *(steepness * column for column in x), -score)


@dataclass(frozen=True)
class ActivatedCurvature:
    """psi'' x x' / tau in the slopes; minus the gradient with log tau; the score for it twice."""

    psi: Activation

    def __call__(
        self, own: Sequence[Column], shared: Sequence[Column], x: Sequence[Tensor]
    ) -> dict[tuple[int, int], Column]:
        z, cool, log_tau = linear(own, shared, x), cooling(shared), len(own)
        steepness, bend = self.psi.first(z) * cool, self.psi.second(z) * cool
        entries: dict[tuple[int, int], Column] = {
            (0, log_tau): -cool,
            (log_tau, log_tau): (self.psi.value(z) + own[0]) * cool,
        }
        for d, column in enumerate(x, start=1):
            entries[d, log_tau] = -steepness * column
            for f, other in enumerate(x[d - 1 :], start=d):
                entries[d, f] = bend * column * other
        return entries


def _is_odd(psi: Activation) -> bool:
    """Whether psi - psi(0) is odd."""
    z = torch.linspace(0, 4, 33, dtype=torch.float64)
    middle = 2 * psi.value(torch.zeros_like(z))
    return bool(torch.allclose(psi.value(z) + psi.value(-z), middle, rtol=0, atol=1e-14))


def _is_even(psi: Activation) -> bool:
    z = torch.linspace(0, 4, 33, dtype=torch.float64)
    return bool(torch.allclose(psi.value(z), psi.value(-z), rtol=0, atol=1e-14))

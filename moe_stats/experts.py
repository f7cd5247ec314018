r"""Gaussian experts: what each expert says about y at x.

.. math:: y \mid x, e \sim N(a_e'x + b_e,\ \sigma_e^2),

linear ones, or constant ones whose slopes a are 0. Constant experts keep the flat layout of linear
ones, so every kernel serves both, and say which of its positions they hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from kernels.checks import check_count
from kernels.gating import Layout

from ._validation import as_tensor, check_features, check_shape, per_expert


@dataclass(frozen=True, eq=False)
class LinearExperts:
    """Experts with linear means and constant scales.

    Parameters
    ----------
    slope : array-like
        a, shape (..., E, D), in units of y per unit of each feature.
    intercept : array-like
        b, shape (..., E), in units of y.
    scale : array-like
        sigma > 0, the standard deviation (not the variance), shape (..., E), in units of y.

    Raises
    ------
    ValueError
        If shapes disagree, a value is not finite or a scale is not positive.

    Examples
    --------
    >>> experts = LinearExperts(slope=[[3.0], [-2.0]], intercept=[4.0, 0.0], scale=[0.4, 0.5])
    >>> experts.mean([[1.0]]).tolist()
    [[7.0, -2.0]]
    """

    slope: Tensor
    intercept: Tensor
    scale: Tensor

    kind: ClassVar[str] = "linear"
    """What estimators call these experts."""

    def __post_init__(self) -> None:
        slope = check_shape("slope", as_tensor("slope", self.slope), 2, "(..., E, D)")
        intercept = per_expert("intercept", self.intercept, slope)
        scale = per_expert("scale", self.scale, slope)
        if bool((scale <= 0).any()):
            raise ValueError(f"The 'scale' parameter must be positive; got {float(scale.min())!r}.")
        object.__setattr__(self, "slope", slope)
        object.__setattr__(self, "intercept", intercept)
        object.__setattr__(self, "scale", scale)

    @classmethod
    def from_parameters(
        cls,
        slope: Tensor,  # (..., E, D)
        intercept: Tensor,  # (..., E)
        scale: Tensor,  # (..., E)
    ) -> Self:
        """Experts from the parts of the flat layout."""
        return cls(slope, intercept, scale)

    @classmethod
    def held(cls, layout: Layout) -> Tensor:
        """Which flat parameters are 0 whatever the data, so that they are no parameters; (P,)."""
        return torch.zeros(layout.size, dtype=torch.bool)

    @property
    def n_experts(self) -> int:
        return self.slope.shape[-2]

    @property
    def n_features(self) -> int:
        return self.slope.shape[-1]

    def mean(
        self,
        X: Tensor,  # (..., N, D)
    ) -> Tensor:
        """Each expert's mean at each x; (..., N, E), in units of y."""
        X = check_features(X, self.n_features).to(self.slope)
        mean = X @ self.slope.mT + self.intercept.unsqueeze(-2)
        if not bool(torch.isfinite(mean).all()):
            raise ValueError(
                "The 'X' parameter must leave the experts' means finite; got features up to "
                f"{float(X.abs().max()):g} with 'slope' and 'intercept' up to "
                f"{float(max(self.slope.abs().max(), self.intercept.abs().max())):g}."
            )
        return mean

    def atoms(self) -> dict[str, Tensor]:
        """The experts' part of each atom of the mixing measure, name to (..., E, dim).

        The losses speak of the variance, because d2f/dmean2 = 2 df/dvariance.
        """
        return {
            "slope": self.slope,
            "intercept": self.intercept.unsqueeze(-1),
            "variance": self.scale.square().unsqueeze(-1),
        }


class ConstantExperts(LinearExperts):
    """Experts whose means do not depend on x.

    Parameters
    ----------
    intercept : array-like
        b, shape (..., E), in units of y: the means.
    scale : array-like
        sigma > 0, the standard deviation (not the variance), shape (..., E), in units of y.
    n_features : int
        D, the number of features that the gate sees.

    Raises
    ------
    ValueError
        If shapes disagree, a value is not finite or a scale is not positive.

    Examples
    --------
    >>> experts = ConstantExperts(intercept=[4.0, 0.0], scale=[0.4, 0.5])
    >>> experts.mean([[1.0], [2.0]]).tolist(), list(experts.atoms())
    ([[4.0, 0.0], [4.0, 0.0]], ['intercept', 'variance'])
    """

    kind: ClassVar[str] = "constant"

    def __init__(self, intercept: Any, scale: Any, n_features: int = 1):
        intercept = check_shape("intercept", as_tensor("intercept", intercept), 1, "(..., E)")
        check_count("n_features", n_features)
        super().__init__(intercept.new_zeros(*intercept.shape, n_features), intercept, scale)

    @classmethod
    def from_parameters(cls, slope: Tensor, intercept: Tensor, scale: Tensor) -> Self:
        if bool((slope != 0).any()):
            raise ValueError(
                "The 'slope' parameter of constant experts must be 0; got "
                f"{float(slope.abs().max())!r}."
            )
        return cls(intercept, scale, slope.shape[-1])

    @classmethod
    def held(cls, layout: Layout) -> Tensor:
        held = super().held(layout)
        layout.split(held)[1].fill_(True)
        return held

    def __repr__(self) -> str:
        return (
            f"ConstantExperts(intercept={self.intercept!r}, scale={self.scale!r}, "
            f"n_features={self.n_features})"
        )

    def atoms(self) -> dict[str, Tensor]:
        return {name: part for name, part in super().atoms().items() if name != "slope"}


EXPERTS: dict[str, type[LinearExperts]] = {
    cls.kind: cls for cls in (LinearExperts, ConstantExperts)
}
"""Experts by what estimators call them."""

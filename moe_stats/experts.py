r"""Linear Gaussian experts: what each expert says about y at x.

.. math:: y \mid x, e \sim N(a_e'x + b_e,\ \sigma_e^2).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

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

    def __post_init__(self) -> None:
        slope = check_shape("slope", as_tensor("slope", self.slope), 2, "(..., E, D)")
        intercept = per_expert("intercept", self.intercept, slope)
        scale = per_expert("scale", self.scale, slope)
        if bool((scale <= 0).any()):
            raise ValueError(f"The 'scale' parameter must be positive; got {float(scale.min())!r}.")
        object.__setattr__(self, "slope", slope)
        object.__setattr__(self, "intercept", intercept)
        object.__setattr__(self, "scale", scale)

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
        return X @ self.slope.mT + self.intercept.unsqueeze(-2)

    def atoms(self) -> dict[str, Tensor]:
        """The experts' part of each atom of the mixing measure, name to (..., E, dim).

        The losses speak of the variance, because d2f/dmean2 = 2 df/dvariance.
        """
        return {
            "slope": self.slope,
            "intercept": self.intercept.unsqueeze(-1),
            "variance": self.scale.square().unsqueeze(-1),
        }

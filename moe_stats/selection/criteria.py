r"""Information criteria of fitted mixtures of experts; lower is better.

.. math::
    \mathrm{AIC} = -2\ell + 2P, \qquad \mathrm{BIC} = -2\ell + P \log N, \qquad
    \mathrm{ICL} = \mathrm{BIC} + 2 \sum_n H(r_n),

with P the number of parameters that data can tell apart, and H the entropy of the
responsibilities of an observation: ICL also charges for experts that speak of the same data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .._validation import as_tensor, check_features
from ..fit.mle import MLE
from ..model import GaussianMoE

if TYPE_CHECKING:
    from ..regressor import GaussianMoERegressor


@dataclass(frozen=True, eq=False)
class InformationCriteria:
    """AIC, BIC and ICL of one model or a batch of R.

    Attributes
    ----------
    log_likelihood : Tensor
        (R,), or a number for one model, in nats.
    entropy : Tensor
        Of the responsibilities, summed over observations; as ``log_likelihood``.
    n_parameters : Tensor
        Numbers that data can tell apart, see `GaussianMoE.n_identified`; as ``log_likelihood``.
    n_observations : int
        N.
    """

    log_likelihood: Tensor
    entropy: Tensor
    n_parameters: Tensor
    n_observations: int

    @property
    def aic(self) -> Tensor:
        """Akaike information criterion."""
        return -2 * self.log_likelihood + 2 * self.n_parameters

    @property
    def bic(self) -> Tensor:
        """Bayesian information criterion."""
        price = math.log(self.n_observations)
        return -2 * self.log_likelihood + price * self.n_parameters.to(self.log_likelihood)

    @property
    def icl(self) -> Tensor:
        """Integrated completed likelihood, in its BIC form."""
        return self.bic + 2 * self.entropy


def information_criteria(
    fit: GaussianMoE | GaussianMoERegressor | MLE,
    X: Any,  # (..., N, D)
    y: Any,  # (..., N)
) -> InformationCriteria:
    """Information criteria of a fit on the data it was fitted to.

    Parameters
    ----------
    fit : GaussianMoERegressor, MLE or GaussianMoE
        A fitted estimator, a batch of fits, or fitted models.
    X, y : array-like
        (..., N, D) features and (..., N) responses, with the fit's batch shape.

    Returns
    -------
    InformationCriteria

    Notes
    -----
    All three are heuristics here. With more experts than the truth the likelihood is singular: P
    counts directions in which it is flat, twice the gain in likelihood is not chi-square, and
    the penalty that approximates the marginal likelihood is below P log N (Drton and Plummer).
    BIC still finds the number of components of well-behaved mixtures as N grows (Keribin); AIC
    keeps choosing too many; ICL looks for experts that do not overlap, which need not be their
    true number.

    References
    ----------
    Akaike (1974), A new look at the statistical model identification.
    Schwarz (1978), Estimating the dimension of a model.
    Biernacki, Celeux and Govaert (2000), Assessing a mixture model for clustering with the
    integrated completed likelihood.
    Keribin (2000), Consistent estimation of the order of mixture models.
    Drton and Plummer (2017), A Bayesian information criterion for singular models.

    Examples
    --------
    >>> from moe_stats import GaussianMoE, LinearExperts, SoftmaxGate
    >>> one = GaussianMoE(SoftmaxGate([0.0], [[0.0]]), LinearExperts([[1.0]], [0.0], [1.0]))
    >>> found = information_criteria(one, [[0.0], [1.0]], [0.0, 1.0])
    >>> int(found.n_parameters), round(float(found.aic), 4), float(found.icl - found.bic)
    (3, 9.6758, 0.0)
    """
    if isinstance(fit, GaussianMoE):
        model = fit
    else:
        model = fit.model if isinstance(fit, MLE) else fit.model_
    X = check_features(X, model.n_features)
    y = as_tensor("y", y)
    return InformationCriteria(
        log_likelihood=model.log_prob(y, X).sum(-1),
        entropy=torch.special.entr(model.responsibilities(X, y)).sum((-1, -2)),
        n_parameters=model.n_identified(),
        n_observations=X.shape[-2],
    )

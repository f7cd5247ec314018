"""`GaussianMoERegressor`: maximum likelihood behind the scikit-learn estimator protocol."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from .fit.certificate import Stationarity
from .fit.mle import MLE, Init, fit_mle
from .gates import GateTemplate
from .inference import IdentifiabilityReport, covariance, identifiability_report
from .model import GaussianMoE


class GaussianMoERegressor(RegressorMixin, BaseEstimator):
    r"""Gaussian mixture of experts by maximum likelihood.

    .. math:: p(y \mid x) = \sum_e g_e(x)\, N(y;\ a_e'x + b_e,\ \sigma_e^2).

    Starts of several kinds are taken by EM into a basin and by a trust-region Newton method to
    a stationary point; split-and-merge moves then look for better basins. ``min_scale``,
    ``min_weight`` and ``gate_bound`` describe the compact parameter set that the theorems
    suppose; the bounds that hold are reported.

    Parameters
    ----------
    n_experts : int
        E.
    gate : str or GateTemplate
        A name in `moe_stats.gates.GATES`, such as "softmax" or "topk".
        For options use a template, such as ``TopKGate.template(top_k=2, rank="slope")``.
    experts : {"linear", "constant"}
        Whether experts' means depend on x; constant experts have a_e = 0.
    n_init : int
        Number of starts, and of moves in each round.
    init : {"auto", "random", "kmeans", "lines", "oracle"} or GaussianMoE
        Kind of starts; "auto" takes turns. A model, or a batch of models, is used as it is.
        "oracle" starts beside ``truth`` and stops where EM gains 1e-6 nats, as published
        simulation protocols do: for reproducing them, not for data.
    truth : GaussianMoE or None
        Needed for ``init="oracle"``.
    min_scale : float or None
        Lower bound on every scale (a standard deviation), in units of y; None takes a
        thousandth of the standard deviation of y. Without one the likelihood is unbounded.
    min_weight : float
        Lower bound on each expert's mean gate probability, in [0, 1 / n_experts).
    gate_bound : float or None
        Bound on the absolute value of every expert's gate parameters, up to translation; None for
        none. Temperatures have a bound of their own, `Gate.shared_bound`.
    tol : float
        Scaled gradient at which a fit has converged; in standard errors.
    max_iter : int
        Newton iterations of a start.
    n_rounds : int
        Rounds of split-and-merge moves.
    quasi_newton : bool
        Whether L-BFGS-B also climbs from every start, one at a time. It finds maxima that the
        batched methods miss when there are more experts than the data need, and may take as
        long as they do. Smooth gates without ``min_weight`` only.
    random_state : int, numpy.random.Generator or None
        Seed of starts and moves.

    Attributes
    ----------
    model_ : GaussianMoE
        The fitted model, in the units of the data.
    log_likelihood_ : float
        In nats.
    stationarity_ : Stationarity
        Certificate of what was reached; computed when asked for.
    status_ : str
        How the fit ended, in a sentence.
    not_identified_ : tuple of str
        Parameters on which the likelihood does not depend.
    identifiability_ : IdentifiabilityReport
        What the fitted density leaves open; computed when asked for.
    n_iter_ : int
        Iterations of the winning run.
    restarts_ : ndarray
        Log-likelihood that each start, each start by L-BFGS-B and each move reached.
    n_features_in_ : int
        D.

    Raises
    ------
    ValueError
        On NaN or infinite values, a constant feature, fewer observations than parameters, or a
        parameter out of its range.

    Examples
    --------
    >>> from moe_stats import GaussianMoE, LinearExperts, SoftmaxGate, Uniform
    >>> truth = GaussianMoE(
    ...     SoftmaxGate([0.0, 0.0], [[6.0], [0.0]]),
    ...     LinearExperts([[2.0], [-1.0]], [1.0, 0.0], [0.3, 0.3]),
    ... )
    >>> X = Uniform(-1, 1).sample(500, random_state=0)
    >>> fit = GaussianMoERegressor(n_experts=2, random_state=0).fit(X, truth.sample(X, 1))
    >>> fit.status_[:9], fit.stationarity_.is_local_maximum
    ('converged', True)
    """

    def __init__(
        self,
        n_experts: int = 2,
        gate: str | GateTemplate = "softmax",
        *,
        experts: str = "linear",
        n_init: int = 8,
        init: Init | GaussianMoE = "auto",
        truth: GaussianMoE | None = None,
        min_scale: float | None = None,
        min_weight: float = 0.0,
        gate_bound: float | None = None,
        tol: float = 1e-6,
        max_iter: int = 300,
        n_rounds: int = 2,
        quasi_newton: bool = True,
        random_state: Any = None,
    ):
        self.n_experts = n_experts
        self.gate = gate
        self.experts = experts
        self.n_init = n_init
        self.init = init
        self.truth = truth
        self.min_scale = min_scale
        self.min_weight = min_weight
        self.gate_bound = gate_bound
        self.tol = tol
        self.max_iter = max_iter
        self.n_rounds = n_rounds
        self.quasi_newton = quasi_newton
        self.random_state = random_state

    def fit(
        self,
        X: Any,  # (N, D)
        y: Any,  # (N,)
    ) -> Self:
        """Fit by maximum likelihood.

        Parameters
        ----------
        X : array-like of shape (N, D)
            Features.
        y : array-like of shape (N,)
            Responses.

        Returns
        -------
        self

        Warns
        -----
        ConvergenceWarning
            If no start met the tolerance.
        """
        X, y = validate_data(
            self, _to_numpy(X), _to_numpy(y), dtype=np.float64, y_numeric=True, ensure_min_samples=2
        )
        y = np.asarray(y, dtype=np.float64)
        constant = np.flatnonzero(np.ptp(X, axis=0) == 0)
        if len(constant):
            raise ValueError(
                "The 'X' parameter must have no constant feature, whose slope cannot be told "
                f"from the intercept; got column {constant[0]} constant at "
                f"{X[0, constant[0]]!r}."
            )
        self._mle: MLE = fit_mle(
            torch.tensor(X)[None],
            torch.tensor(y)[None],
            n_experts=self.n_experts,
            gate=self.gate,
            experts=self.experts,
            n_init=self.n_init,
            init=self.init,
            truth=self.truth,
            min_scale=self.min_scale,
            min_weight=self.min_weight,
            gate_bound=self.gate_bound,
            tol=self.tol,
            max_iter=self.max_iter,
            n_rounds=self.n_rounds,
            quasi_newton=self.quasi_newton,
            random_states=[self.random_state],
        )
        self.model_ = self._mle.model[0]
        self.log_likelihood_ = float(self._mle.log_likelihood[0])
        self.n_iter_ = max(1, int(self._mle.n_iter[0]))
        self.restarts_ = self._mle.restarts[0].numpy()
        if not bool(self._mle.converged[0]) and self.init != "oracle":
            warnings.warn(self.status_, ConvergenceWarning, stacklevel=2)
        return self

    @property
    def status_(self) -> str:
        """How the fit ended, in a sentence."""
        check_is_fitted(self, "model_")
        return self._mle.status()

    @property
    def stationarity_(self) -> Stationarity:
        """Certificate of a stationary point; see `Stationarity`."""
        check_is_fitted(self, "model_")
        return self._mle.stationarity()

    @property
    def not_identified_(self) -> tuple[str, ...]:
        """Parameters on which the likelihood of this fit does not depend."""
        check_is_fitted(self, "model_")
        return self._mle.not_identified()

    @property
    def identifiability_(self) -> IdentifiabilityReport:
        """What the fitted density leaves open on the data's features; computed when asked for."""
        check_is_fitted(self, "model_")
        return identifiability_report(self.model_, self._mle.features(0))

    def standard_errors(
        self, kind: Literal["observed", "sandwich"] = "observed"
    ) -> dict[str, float]:
        """Standard errors by parameter, scales as logarithms, the last gate fixed at 0.

        `covariance` says when one is 0, inf or nan, and flags fits to which none apply.
        """
        check_is_fitted(self, "model_")
        found = covariance(self._mle, kind)
        return dict(zip(found.names, found.standard_errors[0].tolist(), strict=True))

    def predict(self, X: Any) -> np.ndarray:
        """Conditional mean of y at each row of X; (N,), in units of y."""
        X = self._features(X)
        return self.model_.mean(X).numpy()

    def predict_dist(self, X: Any) -> PredictiveDistribution:
        """Conditional distribution of y at each row of X."""
        X = self._features(X)
        return PredictiveDistribution(self.model_, X)

    def gate_probs(self, X: Any) -> np.ndarray:
        """Gate probability of each expert at each row of X; (N, E)."""
        X = self._features(X)
        return self.model_.gate_probs(X).numpy()

    def responsibilities(self, X: Any, y: Any) -> np.ndarray:
        """Probability that each expert made y, given its row of X; (N, E)."""
        X = self._features(X)
        return self.model_.responsibilities(X, torch.tensor(np.asarray(y, float))).numpy()

    def log_prob(self, X: Any, y: Any) -> np.ndarray:
        """Log density of each y given its row of X; (N,), in nats."""
        X = self._features(X)
        return self.model_.log_prob(torch.tensor(np.asarray(y, float)), X).numpy()

    def bic(self, X: Any, y: Any) -> float:
        """Bayesian information criterion; lower is better.

        A heuristic where the model has more experts than the truth: its dimension count is
        then wrong, since the likelihood is singular.
        """
        return self._criterion(X, y, float(np.log(len(y))))

    def aic(self, X: Any, y: Any) -> float:
        """Akaike information criterion; lower is better. A heuristic, as `bic` is."""
        return self._criterion(X, y, 2.0)

    def _criterion(self, X: Any, y: Any, price: float) -> float:
        return -2 * float(self.log_prob(X, y).sum()) + price * int(self.model_.n_identified())

    def _features(self, X: Any) -> torch.Tensor:
        check_is_fitted(self, "model_")
        X = validate_data(self, _to_numpy(X), dtype=np.float64, reset=False)
        return torch.tensor(X)


@dataclass(frozen=True, eq=False)
class PredictiveDistribution:
    """Conditional distribution of y at N feature vectors.

    Attributes
    ----------
    model : GaussianMoE
    X : Tensor
        (N, D).
    """

    model: GaussianMoE
    X: torch.Tensor

    @property
    def mean(self) -> np.ndarray:
        """(N,), in units of y."""
        return self.model.mean(self.X).numpy()

    @property
    def sd(self) -> np.ndarray:
        """Standard deviation; (N,), in units of y."""
        return self.model.variance(self.X).sqrt().numpy()

    def quantile(self, level: float) -> np.ndarray:
        """The quantile of a level in (0, 1); (N,), in units of y, to 1e-12 of the spread."""
        if not 0 < level < 1:
            raise ValueError(f"The 'level' parameter must be in (0, 1); got {level!r}.")
        z = torch.special.ndtri(torch.tensor(level, dtype=self.X.dtype))
        ends = self.model.experts.mean(self.X) + z * self.model.experts.scale
        low, high = ends.amin(-1), ends.amax(-1)  # the mixture's quantile lies between
        for _ in range(100):
            middle = (low + high) / 2
            below = self.model.cdf(middle, self.X) < level
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return ((low + high) / 2).numpy()

    def interval(self, coverage: float) -> tuple[np.ndarray, np.ndarray]:
        """Central interval of a coverage in (0, 1): lower and upper ends, each (N,)."""
        return self.quantile((1 - coverage) / 2), self.quantile((1 + coverage) / 2)


def _to_numpy(value: Any) -> Any:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value

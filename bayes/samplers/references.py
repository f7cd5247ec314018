r"""Answers to compare samplers with: NUTS, and conjugate linear regression in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kernels.checks import check_int, check_real

from .._validation import as_inputs, check_instance
from .density import _starts
from .potentials import LogDensity
from .streams import seed_of


@dataclass(frozen=True)
class NUTSDraws:
    """Draws (C, S, P) of the no-U-turn sampler, and its count of divergent transitions."""

    draws: Tensor
    n_divergent: int


def nuts_reference(
    log_density: LogDensity,
    init: Tensor,
    n_chains: int | None = None,
    n_draws: int = 1000,
    burn_in: int = 1000,
    random_state: int | None = None,
    *,
    target_accept: float = 0.8,
) -> NUTSDraws:
    """Draws by Pyro's no-U-turn sampler from the density that `sample_density` takes.

    Chains run one after another, with a mass matrix and a step adapted in ``burn_in`` steps. The
    global random state is as it was afterwards. Needs Pyro.

    Parameters
    ----------
    log_density : callable
        (P,) -> scalar, differentiable.
    init : Tensor
        (C, P) or (P,).
    n_chains, n_draws, burn_in : int
    random_state : int or None
    target_accept : float
        Mean acceptance probability that the step is adapted to.

    Returns
    -------
    NUTSDraws

    References
    ----------
    Hoffman and Gelman (2014), The no-U-turn sampler.
    """
    from pyro.infer.mcmc import MCMC, NUTS

    position = _starts(init, n_chains)
    check_int("n_draws", n_draws, 1)
    check_int("burn_in", burn_in, 1)
    check_real("target_accept", target_accept, low=0, high=1, strict=True)
    # of one seed's children, so that no two chains of two seeds are the same
    seeds = np.random.SeedSequence(seed_of(random_state)).generate_state(len(position), np.uint64)
    draws, n_divergent = [], 0
    for seed, start in zip(seeds.tolist(), position, strict=True):
        with torch.random.fork_rng(devices=[]):  # Pyro knows torch's global generator alone
            torch.manual_seed(seed % 2**63)
            kernel = NUTS(
                potential_fn=lambda values: -log_density(values["q"]),
                target_accept_prob=target_accept,
            )
            sampler = MCMC(
                kernel,
                num_samples=n_draws,
                warmup_steps=burn_in,
                initial_params={"q": start},
                disable_progbar=True,
            )
            sampler.run()
        draws.append(sampler.get_samples()["q"])
        n_divergent += sum(len(v) for v in sampler.diagnostics()["divergences"].values())
    return NUTSDraws(torch.stack(draws).detach(), n_divergent)


@dataclass(frozen=True)
class LinearRegression:
    r"""Bayesian linear regression with known noise: everything in closed form.

    .. math::
        y \mid w \sim N(Xw, \sigma^2 I), \quad w \sim N(0, s^2 I), \qquad
        w \mid y \sim N(\mu, \Sigma), \quad
        \Sigma^{-1} = X^\top X/\sigma^2 + I/s^2, \quad \mu = \Sigma X^\top y/\sigma^2

    Parameters
    ----------
    X : Tensor
        (N, D).
    y : Tensor
        (N,).
    noise_scale, prior_scale : float
        sigma and s.

    Examples
    --------
    >>> model = LinearRegression(torch.eye(2).double(), torch.tensor([1.0, 2.0]).double(), 1.0, 1.0)
    >>> model.mean
    tensor([0.5000, 1.0000], dtype=torch.float64)
    """

    X: Tensor
    y: Tensor
    noise_scale: float
    prior_scale: float

    def __post_init__(self) -> None:
        for name in ("X", "y"):
            check_instance(name, getattr(self, name), Tensor, "a tensor")
        if self.X.ndim != 2 or self.y.shape != self.X.shape[:1]:
            raise ValueError(
                f"The 'y' parameter must have one number a row of X; got shapes "
                f"{tuple(self.y.shape)} and {tuple(self.X.shape)}."
            )
        least = 1e-100  # whose inverse square is a number
        check_real("noise_scale", self.noise_scale, low=least)
        check_real("prior_scale", self.prior_scale, low=least)

    @property
    def precision(self) -> Tensor:
        """Inverse covariance of the posterior, (D, D)."""
        eye = torch.eye(self.X.shape[1], dtype=self.X.dtype, device=self.X.device)
        return self.X.T @ self.X / self.noise_scale**2 + eye / self.prior_scale**2

    @property
    def covariance(self) -> Tensor:
        """Posterior covariance, (D, D)."""
        return torch.cholesky_inverse(torch.linalg.cholesky(self.precision))

    @property
    def mean(self) -> Tensor:
        """Posterior mean, (D,)."""
        right = (self.X.T @ self.y / self.noise_scale**2)[:, None]
        return torch.cholesky_solve(right, torch.linalg.cholesky(self.precision))[:, 0]

    def log_density(self, w: Tensor) -> Tensor:
        """log p(y, w), for `sample_density`; scalar for w (D,)."""
        return self._normal(self.y - self.X @ w, self.noise_scale) + self._normal(
            w, self.prior_scale
        )

    def log_evidence(self) -> Tensor:
        """log p(y), scalar: by p(y) = p(y, w)/p(w | y) at the posterior mean."""
        n = self.X.shape[1]
        log_posterior = 0.5 * torch.logdet(self.precision) - 0.5 * n * _LOG_2PI
        return self.log_density(self.mean) - log_posterior

    def predict(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (N,) of new responses at X (N, D)."""
        X = as_inputs("X", X).to(self.X)
        if X.shape[1:] != self.X.shape[1:]:
            raise ValueError(
                f"The 'X' parameter must have shape (N, {self.X.shape[1]}); got {tuple(X.shape)}."
            )
        variance = ((X @ self.covariance) * X).sum(1) + self.noise_scale**2
        return X @ self.mean, variance.sqrt()

    @staticmethod
    def _normal(residual: Tensor, scale: float) -> Any:
        z = residual / scale
        log_scale = torch.log(torch.tensor(scale, dtype=z.dtype, device=z.device))
        return -0.5 * z.square().sum() - len(z) * (log_scale + 0.5 * _LOG_2PI)


_LOG_2PI = 1.8378770664093453

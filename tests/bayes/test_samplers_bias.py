r"""Where no closed form exists: the bias against quadrature vanishes at the stated order.

The target is the posterior of a network with two weights, :math:`f(x) = w_2\tanh(w_1 x)`. Every
sampler runs at a step, its half and its quarter, and :math:`m(\varepsilon) = m_0 + b\varepsilon^p`
is fitted with the stated order p.

The quantity is E log p(w), which every direction of the posterior enters alike.

Null hypothesis: m_0 is the value by quadrature. Statistic: its deviation in standard errors between
independent chains. It is accepted below 3, with false-alarm probability 0.3% a sampler.
"""

import pytest
import torch

from bayes.samplers import (
    BAOAB,
    MCLMC,
    PSGLD,
    SGHMC,
    SGLD,
    SGNHT,
    AdaptiveSGHMC,
    sample_density,
)

X = torch.tensor([-1.0, -0.4, 0.2, 0.6, 1.0]).double()
Y = torch.tensor([-1.2, -0.6, 0.9, 0.8, 1.4]).double()
N_CHAINS, N_DRAWS = 4000, 40


class Frozen(AdaptiveSGHMC):
    """With masses found before: adapted to the smooth gradients of full batches, whose window is a
    few steps, they would differ from chain to chain, some of them near 0."""

    adapts = False

    def init(self, position, noise):
        moment = torch.tensor([1.0, 3.0]).to(position).expand_as(position)
        return super().init(position, noise)._replace(second_moment=moment)


def _adaptive(e, T):
    return Frozen(e, momentum_decay=0.5, noise_estimate="none", temperature=T)


# sampler at a step, largest step, stated order, steps between draws at the largest step
ROWS = {
    "sgld": (lambda e, T: SGLD(e, temperature=T), 0.08, 1, 5),
    "psgld": (lambda e, T: PSGLD(e, damping=1.0, temperature=T), 0.16, 1, 6),
    "sghmc": (lambda e, T: SGHMC(e, momentum_decay=0.5, temperature=T), 0.35, 2, 5),
    "adaptive": (_adaptive, 0.4, 2, 5),
    "baoab": (lambda e, T: BAOAB(e, friction=1.0, temperature=T), 0.4, 2, 5),
    "sgnht": (lambda e, T: SGNHT(e, diffusion=1.0, temperature=T), 0.45, 2, 4),
    "mclmc": (lambda e, T: MCLMC(e, decoherence_length=1.5, temperature=T), 0.55, 2, 5),
}
BELOW_ERROR = {"baoab", "sgnht"}
"""Samplers whose bias at the largest step of the asymptotic range is below Monte-Carlo error."""


def log_density(w):
    residual = Y - w[:, 1:] * torch.tanh(w[:, :1] * X)
    return -0.5 * residual.square().sum(1) - 0.5 * w.square().sum(1)


def by_quadrature():
    """E log p by the trapezoid rule, which converges faster than any power for such an integrand;
    halving the grid moves it by less than 1e-9."""

    def on_grid(n):
        axis = torch.linspace(-8, 8, n, dtype=torch.float64)
        grid = torch.cartesian_prod(axis, axis)
        weight = torch.softmax(log_density(grid), 0)
        return float((weight * log_density(grid)).sum())

    fine = on_grid(801)
    assert abs(fine - on_grid(401)) < 1e-9
    return fine


def estimate(sampler, thin, seed):
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(N_CHAINS, 2, dtype=torch.float64, generator=generator)
    run = sample_density(
        log_density,
        start,
        sampler,
        n_draws=N_DRAWS,
        burn_in=40 * thin,
        thin=thin,
        random_state=seed,
        batched=True,
    )
    own = -run.potential.mean(1)
    return float(own.mean()), float(own.std()) / N_CHAINS**0.5


def extrapolate(values, errors, order):
    """Weighted least squares of m_0 + b e^p: m_0 with its error, and b with its error."""
    steps = torch.tensor([1.0, 0.5, 0.25]).double() ** order
    design = torch.stack([torch.ones(3).double(), steps], 1)
    weight = 1 / torch.tensor(errors).double() ** 2
    covariance = torch.linalg.inv(design.T @ (weight[:, None] * design))
    fitted = covariance @ design.T @ (weight * torch.tensor(values).double())
    scale = covariance.diagonal().sqrt()
    return fitted.tolist(), scale.tolist()


def run_ladder(name, temperature=1.0):
    make, step, order, thin = ROWS[name]
    seen = [estimate(make(step / 2**k, temperature), thin * 2**k, seed=k) for k in range(3)]
    values, errors = zip(*seen, strict=True)
    return values, errors, order


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_bias_vanishes_at_the_stated_order(name):
    exact = by_quadrature()
    values, errors, order = run_ladder(name)
    (limit, slope), (limit_error, slope_error) = extrapolate(values, errors, order)
    assert abs(limit - exact) < 3 * limit_error
    if name not in BELOW_ERROR:
        assert abs(slope) > 4 * slope_error  # there is a bias to vanish
        assert abs(values[-1] - exact) < abs(values[0] - exact)


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_a_wrong_temperature_is_rejected(name):
    values, errors, order = run_ladder(name, temperature=1.15)
    (limit, _), (limit_error, _) = extrapolate(values, errors, order)
    assert abs(limit - by_quadrature()) > 3 * limit_error

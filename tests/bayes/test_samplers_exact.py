r"""Stationary moments of every linear sampler, against those of the recursion it is.

On a quadratic potential an update is an affine map with random coefficients,
:math:`z' = F z + G\,g_b(q) + n`, :math:`g_b(q) = H_b q - c_b`, where z starts with q, b is a batch
drawn with replacement and n is the injected noise. Its first and second moments are stationary
where they solve linear equations; the noise that depends on the state through :math:`H_b` included.

Null hypothesis: a run's draws have exactly these moments. Statistic: mean over chains of each
chain's average of :math:`q_i` and :math:`q_i q_j`, in standard errors between the independent
chains; the largest is compared with a normal quantile at level `FALSE_ALARM` for all of a run's
moments together (Bonferroni). With `N_CHAINS` chains their mean is normal enough.

A new sampler is one `Row`. The hardest case of each (the larger step, T below 1, batches) and one
control of each are fast; the rest of the table is marked slow.
"""

from contextlib import nullcontext
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import pytest
import torch

from bayes.samplers import BAOAB, PSGLD, SGHMC, SGLD, AdaptiveSGHMC, SamplingWarning
from bayes.samplers.chains import run

FALSE_ALARM = 1e-6  # of a run; there are about a hundred in this file
N_CHAINS = 600
THIN = 4
eye, diag = torch.eye, torch.diag


@dataclass(frozen=True)
class Row:
    """A sampler at a step size and temperature, and its linear recursion F, G, Cov n."""

    make: Any
    recursion: Any
    steps: tuple[float, float]
    targets: tuple[str, ...] = ("Gaussian", "correlated", "regression")


def _langevin(h, T, n, preconditioner=None):
    G = torch.ones(n).double() if preconditioner is None else preconditioner
    return eye(n).double(), -h * diag(G), 2 * h * T * diag(G)


def _hamiltonian(e, T, n, a, m=None, v=0.0):
    """p' = (1-a)p - e g + noise, q' = q + e p'/m, with a and m vectors."""
    m = torch.ones(n).double() if m is None else m
    a = torch.as_tensor(a, dtype=torch.float64).expand(n)
    to_z = torch.cat([diag(e / m), eye(n).double()])  # what p' adds to (q, p')
    F = torch.cat([torch.cat([eye(n).double(), torch.zeros(n, n).double()]), to_z @ diag(1 - a)], 1)
    return F, -e * to_z, to_z @ diag(2 * a * m * T - e**2 * v) @ to_z.T


def _baoab(e, T, n, gamma, scale=None):
    c = torch.exp(torch.tensor(-gamma * e, dtype=torch.float64))
    one, none = eye(n).double(), torch.zeros(n, n).double()
    unit = one if scale is None else diag(scale)
    kicked = torch.cat([0.5 * e * (1 + c) * unit, c * one])  # what p - e s g adds to (q, p)
    noisy = torch.cat([0.5 * e * unit, one])
    F = torch.cat([torch.cat([one, none]), kicked], 1)
    return F, -e * kicked @ unit, T * (1 - c**2) * noisy @ noisy.T


MOMENT = torch.tensor([2.0, 30.0], dtype=torch.float64)
UNITS = torch.tensor([1.5, 0.6], dtype=torch.float64)
LARGE = torch.tensor([2.0, 400.0], dtype=torch.float64)


class FrozenPSGLD(PSGLD):
    """With a second moment that was found before."""

    def init(self, position, noise):
        return super().init(position, noise)._replace(second_moment=MOMENT.expand_as(position))


class FrozenAdaptive(AdaptiveSGHMC):
    moment = MOMENT

    def init(self, position, noise):
        moment = self.moment.expand_as(position)
        return super().init(position, noise)._replace(second_moment=moment)


class MendedAdaptive(FrozenAdaptive):
    moment = LARGE


def _mended(e, T, n):
    decay = torch.maximum(torch.tensor(0.2).double(), e**2 * LARGE.sqrt() / (2 * T))
    assert float(decay[1]) > 0.2  # the mend is at work
    return _hamiltonian(e, T, n, decay, LARGE.sqrt(), LARGE)


ROWS = {
    "sgld": Row(lambda h, T: SGLD(h, temperature=T), _langevin, (0.12, 0.06)),
    "psgld": Row(
        lambda h, T: FrozenPSGLD(h, damping=0.5, temperature=T),
        lambda h, T, n: _langevin(h, T, n, 1 / (0.5 + MOMENT.sqrt())),
        (0.3, 0.15),
    ),
    "sghmc": Row(
        lambda e, T: SGHMC(e, momentum_decay=0.4, temperature=T),
        lambda e, T, n: _hamiltonian(e, T, n, 0.4),
        (0.4, 0.2),
    ),
    "sghmc, noise estimated": Row(
        lambda e, T: SGHMC(e, momentum_decay=0.4, noise_variance=1.5, temperature=T),
        lambda e, T, n: _hamiltonian(e, T, n, 0.4, v=1.5),
        (0.4, 0.2),
    ),
    "adaptive": Row(
        lambda e, T: FrozenAdaptive(e, momentum_decay=0.3, temperature=T),
        lambda e, T, n: _hamiltonian(e, T, n, 0.3, MOMENT.sqrt(), MOMENT),
        (0.25, 0.15),
    ),
    "adaptive, no estimate": Row(
        lambda e, T: FrozenAdaptive(e, momentum_decay=0.3, noise_estimate="none", temperature=T),
        lambda e, T, n: _hamiltonian(e, T, n, 0.3, MOMENT.sqrt()),
        (0.5, 0.25),
    ),
    "adaptive, mended": Row(
        lambda e, T: MendedAdaptive(e, momentum_decay=0.2, temperature=T),
        _mended,
        (0.2, 0.17),
        targets=("regression",),  # no noise is injected: without batches there would be none
    ),
    "baoab": Row(
        lambda e, T: BAOAB(e, friction=1.5, temperature=T),
        lambda e, T, n: _baoab(e, T, n, 1.5),
        (0.5, 0.25),
    ),
    "baoab, own units": Row(
        lambda e, T: BAOAB(e, friction=1.5, scale=UNITS, temperature=T),
        lambda e, T, n: _baoab(e, T, n, 1.5, UNITS),
        (0.28, 0.14),
    ),
}


@dataclass(frozen=True)
class Target:
    """U = mean of U_i over i, with grad U_i = H_i q - c_i; one i where there is no data."""

    H: torch.Tensor  # (N, P, P)
    c: torch.Tensor  # (N, P)

    def potential(self, scale=1.0):
        def potential(position, batch):
            if batch is None:
                H, c = self.H.mean(0).expand(len(position), 2, 2), self.c.mean(0)
            else:
                H, c = self.H[batch].mean(1), self.c[batch].mean(1)
            slope = (H @ position[..., None])[..., 0]
            return (position * (0.5 * slope - c)).sum(1), scale * (slope - c)

        return potential


def _regression(n=20):
    """Conjugate regression, noise variance 0.5, prior N(0, 4), as a mean over observations."""
    generator = torch.Generator().manual_seed(3)
    X = 0.35 * torch.randn(n, 2, dtype=torch.float64, generator=generator)
    y = X @ torch.tensor([1.0, -2.0]).double() + torch.randn(n, generator=generator).double()
    H = n * X[:, :, None] * X[:, None, :] / 0.5 + eye(2).double() / 4
    return Target(H, n * X * y[:, None] / 0.5)


TARGETS = {
    "Gaussian": Target(diag(torch.tensor([1.0, 4.0])).double()[None], torch.zeros(1, 2).double()),
    "correlated": Target(
        torch.linalg.inv(torch.tensor([[[1.0, 0.6], [0.6, 0.7]]]).double()),
        torch.tensor([[1.0, -0.5]]).double(),
    ),
    "regression": _regression(),
}

CASES = [
    pytest.param(
        *(name, target, step, temperature, batch),
        marks=[] if batch and step == row.steps[0] and temperature < 1 else pytest.mark.slow,
    )
    for name, row in ROWS.items()
    for target, batches in [("Gaussian", [None]), ("correlated", [None]), ("regression", [4, 10])]
    if target in row.targets
    for step, temperature, batch in [
        (row.steps[0], 1.0, batches[0]),
        (row.steps[1], 1.0, batches[-1]),
        (row.steps[0], 0.6, batches[-1]),
    ]
]


def stationary_moments(F, G, Q, target, batch):
    """Mean and covariance of z, and how many steps forget a start: means to 1e-4, the
    root of what is left of second moments."""
    n, size = target.H.shape[-1], F.shape[0]
    maps = F + torch.cat([G @ target.H, torch.zeros(len(target.H), size, size - n).double()], 2)
    shifts = -(target.c @ G.T)
    mean_map = maps.mean(0)
    mean = torch.linalg.solve(eye(size).double() - mean_map, shifts.mean(0))
    residual = maps @ mean + shifts - mean
    pair = torch.kron(mean_map, mean_map)
    if batch is not None:
        own = torch.stack([torch.kron(m, m) for m in maps]).mean(0)
        pair = pair + (own - pair) / batch
        Q = Q + residual.T @ residual / len(residual) / batch
    covariance = torch.linalg.solve(eye(size**2).double() - pair, Q.flatten()).view(size, size)
    radius = float(torch.linalg.eigvals(pair).abs().max())
    assert radius < 1
    forget = int(torch.log(torch.tensor(1e-8)) / torch.log(torch.tensor(radius))) + 1
    return mean, covariance, forget


def draw(sampler, potential, batch, burn_in, n_draws=20, n_observations=20, seed=0):
    mended = isinstance(sampler, MendedAdaptive)  # which says so
    with pytest.warns(SamplingWarning, match="decay was raised") if mended else nullcontext():
        result = run(
            potential,
            sampler,
            torch.zeros(N_CHAINS, 2, dtype=torch.float64),
            n_draws=n_draws + burn_in // THIN,
            burn_in=0,  # frozen scales do not adapt; the first draws are dropped instead
            thin=THIN,
            seed=seed,
            n_observations=n_observations,
            batch_size=batch,
        )
    return result.draws[:, -n_draws:]


def largest_deviation(draws, mean, covariance):
    """In standard errors, over all first and second moments."""
    second = covariance + mean[:, None] * mean[None, :]
    products = (draws[..., :, None] * draws[..., None, :]).mean(1)
    upper = torch.triu_indices(2, 2)
    seen = torch.cat([draws.mean(1), products[:, upper[0], upper[1]]], 1)  # (C, 5)
    expected = torch.cat([mean, second[upper[0], upper[1]]])
    return float(((seen.mean(0) - expected) / (seen.std(0) / len(seen) ** 0.5)).abs().max())


LIMIT = NormalDist().inv_cdf(1 - FALSE_ALARM / 2 / 5)


def check(row, target, step, temperature, batch, sampler=None, scale=1.0):
    """Deviation of a run from the law of the row's recursion."""
    F, G, Q = row.recursion(step, temperature, 2)
    mean, covariance, forget = stationary_moments(F, G, Q, target, batch)
    sampler = row.make(step, temperature) if sampler is None else sampler
    draws = draw(sampler, target.potential(scale), batch, forget)
    return largest_deviation(draws, mean[:2], covariance[:2, :2])


@pytest.mark.parametrize(("name", "target", "step", "temperature", "batch"), CASES)
def test_moments_are_those_of_the_discretised_law(name, target, step, temperature, batch):
    assert check(ROWS[name], TARGETS[target], step, temperature, batch) < LIMIT


WRONG = ("gradient x 2", "gradient / N", "T = 1", "batch of 5")
CONTROLS = [
    pytest.param(wrong, name, marks=[] if i % len(WRONG) == k else pytest.mark.slow)
    for k, wrong in enumerate(WRONG)
    for i, name in enumerate(ROWS)
]


@pytest.mark.parametrize(("wrong", "name"), CONTROLS)
def test_wrong_laws_are_rejected(name, wrong):
    """The same test refuses a factor 2 or N in the gradient, a T ignored, another batch size."""
    row, target = ROWS[name], TARGETS["regression"]
    batch = None if wrong == "T = 1" and name != "adaptive, mended" else 10
    step, temperature = row.steps[0], 0.6
    sampler = row.make(step, 1.0 if wrong == "T = 1" else temperature)
    scale = {"gradient x 2": 2.0, "gradient / N": 1 / 20}.get(wrong, 1.0)
    mean, covariance, forget = stationary_moments(
        *row.recursion(step, temperature, 2), target, batch
    )
    drawn = 5 if wrong == "batch of 5" else batch
    draws = draw(sampler, target.potential(scale), drawn, forget, n_draws=40)
    assert largest_deviation(draws, mean[:2], covariance[:2, :2]) > LIMIT


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sgld", "psgld", "sghmc", "adaptive, no estimate"])
def test_the_step_shows(name):
    """Power: at the larger step the undiscretised law is refused."""
    target = TARGETS["Gaussian"]
    draws = draw(ROWS[name].make(ROWS[name].steps[0], 1.0), target.potential(), None, 400, 100)
    exact = torch.linalg.inv(target.H[0])
    assert largest_deviation(draws, torch.zeros(2).double(), exact) > LIMIT


@pytest.mark.parametrize("lam", [0.7, 3.0])
@pytest.mark.parametrize("v", [0.0, 2.5])
def test_lyapunov_solution_is_the_closed_form(lam, v):
    """Second route to the recursion's moments: scalar formulas."""
    root = v**0.5
    target = Target(
        torch.full((2, 1, 1), lam, dtype=torch.float64),
        torch.tensor([[root], [-root]], dtype=torch.float64),
    )
    T, h, e, a = 0.6, 0.13, 0.4, 0.3

    def variance(recursion):
        return float(stationary_moments(*recursion, target, 1)[1][0, 0])

    sgld = (T + h * v / 2) / (lam * (1 - h * lam / 2))
    assert variance(_langevin(h, T, 1)) == pytest.approx(sgld, rel=1e-10)
    sghmc = (T + e**2 * v / (2 * a)) / (lam * (1 - e**2 * lam / (2 * (2 - a))))
    assert variance(_hamiltonian(e, T, 1, a)) == pytest.approx(sghmc, rel=1e-10)
    if v == 0:
        assert variance(_baoab(e, T, 1, 1.5)) == pytest.approx(T / lam, rel=1e-10)
    else:
        assert variance(_baoab(e, T, 1, 1.5)) > 1.05 * T / lam


def test_momentum_of_sghmc_is_as_warm_as_documented():
    T, a, e = 0.6, 0.4, 1e-3
    target = Target(torch.ones(1, 1, 1).double(), torch.zeros(1, 1).double())
    _, covariance, _ = stationary_moments(*_hamiltonian(e, T, 1, a), target, None)
    assert float(covariance[1, 1]) == pytest.approx(T / (1 - a / 2), rel=1e-5)

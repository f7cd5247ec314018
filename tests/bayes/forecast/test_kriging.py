"""Kriging against the dense Gaussian process, and its likelihood against the truth's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bayes.forecast.kriging import Kriging, Neighbourhood

TIGHT = 1e-9  # float64 solves of systems with condition numbers below 1e5


def _neighbourhood(n: int, j: int, seed: int) -> Neighbourhood:
    rng = np.random.default_rng(seed)
    return Neighbourhood(
        torch.from_numpy(rng.uniform(0, 30, (n, 1 + j))),
        torch.from_numpy(rng.uniform(0, 10, (n, 1 + j, 2))),
        torch.from_numpy(rng.integers(-1, 3, (n, 1 + j))),
        torch.from_numpy(rng.normal(size=(n, j))),
        torch.from_numpy(rng.random((n, j)) < 0.7),
    )


def _dense(kriging: Kriging, near: Neighbourhood, i: int) -> tuple[float, float]:
    """The conditional mean and variance of query i, the formula line by line in numpy."""
    p = kriging.parameters.numpy()
    a, noise, lag, reach, level = (
        np.exp(p[:5]),
        np.exp(p[5]),
        np.exp(p[6:11]),
        np.exp(p[11:13]),
        p[13],
    )
    kept = np.concatenate([[True], near.present[i].numpy()])
    t, s, c = (part[i].numpy()[kept] for part in (near.time, near.position, near.sensor))

    def m(x):
        return (1 + np.sqrt(3) * x) * np.exp(-np.sqrt(3) * x)

    t = np.abs(t[:, None] - t)
    d = np.linalg.norm(s[:, None] - s, axis=-1)
    same = ((c[:, None] == c) & (c >= 0)) | np.eye(len(c), dtype=bool)
    k = a[0] * m(t / lag[0]) + a[1] * m(t / lag[1]) * np.exp(-d / reach[0])
    k += a[2] * m(t / lag[2]) * np.exp(-d / reach[1]) + a[3] * m(t / lag[3]) * same
    k += a[4] * m(t / lag[4]) * np.cos(2 * np.pi * t / kriging.period)
    k += noise * np.eye(len(t))
    z = near.value[i].numpy()[kept[1:]]
    weight = np.linalg.solve(k[1:, 1:], k[0, 1:])
    return level + weight @ (z - level), k[0, 0] - weight @ k[0, 1:]


def test_it_is_the_conditional_of_the_dense_process():
    near = _neighbourhood(20, 9, seed=0)
    kriging = Kriging(period=7.0, spacing=3.0)
    kriging.parameters[13] = 0.4
    mean, spread = kriging.predict(near, chunk=7)
    expected = np.array([_dense(kriging, near, i) for i in range(20)])
    np.testing.assert_allclose(mean, expected[:, 0], atol=1e-5)  # distances are softened by 1e-6
    np.testing.assert_allclose(spread, np.sqrt(expected[:, 1]), atol=1e-5)
    kriging.parameters[13] = 0.0  # negative control: another mean is told apart
    assert np.abs(kriging.predict(near)[0].numpy() - expected[:, 0]).max() > 1e-3


def test_absent_neighbours_do_not_matter():
    near = _neighbourhood(20, 9, seed=1)
    kriging = Kriging(period=7.0, spacing=3.0)
    changed = near._replace(value=torch.where(near.present, near.value, 1e6 * near.value.abs()))
    torch.testing.assert_close(kriging.predict(changed), kriging.predict(near), rtol=0, atol=0)
    present = near._replace(value=near.value + 1)
    assert (kriging.predict(present)[0] - kriging.predict(near)[0]).abs().max() > 0.1


def test_without_neighbours_it_is_the_prior():
    near = _neighbourhood(3, 4, seed=2)
    kriging = Kriging(period=7.0, spacing=3.0)
    mean, spread = kriging.predict(near._replace(present=torch.zeros_like(near.present)))
    total = kriging.parameters[:6].exp().sum()
    torch.testing.assert_close(mean, torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(spread, total.sqrt().expand(3), rtol=1e-6, atol=0)


def test_fitting_finds_the_scale_of_time():
    """Series with a lag of 20 steps: the fit's one-step prediction error comes within 3 % of that
    of the true parameters, and the first guess's does not come within 20 %."""
    generator = torch.Generator().manual_seed(0)
    truth = Kriging(period=1e6, spacing=1.0)
    truth.parameters[:5] = torch.tensor([-9.0, -9.0, -9.0, 0.0, -9.0])
    truth.parameters[5] = -8.0
    truth.parameters[9] = np.log(20.0)
    n, j = 1500, 4
    time = torch.arange(0.0, 1 + j, dtype=torch.float64).expand(n, -1)
    position = torch.zeros(n, 1 + j, 1, dtype=torch.float64)
    sensor = torch.zeros(n, 1 + j, dtype=torch.int64)
    present = torch.ones(n, j, dtype=torch.bool)
    near = Neighbourhood(time, position, sensor, torch.zeros(n, j, dtype=torch.float64), present)
    k = truth.covariance(truth.parameters, near)[0] + truth.parameters[5].exp() * torch.eye(1 + j)
    noise = torch.randn(n, 1 + j, generator=generator, dtype=torch.float64)
    z = noise @ torch.linalg.cholesky(k).T
    near = near._replace(value=z[:, 1:])

    def error(kriging: Kriging) -> float:
        return float((kriging.predict(near)[0] - z[:, 0]).square().mean().sqrt())

    first = Kriging(period=1e6, spacing=1.0)
    assert error(first) > 1.2 * error(truth)
    fitted = Kriging(period=1e6, spacing=1.0).fit(near, z[:, 0], generator, n_steps=80)
    assert error(fitted) < 1.03 * error(truth)


@pytest.mark.parametrize("seed", [0, 1])
def test_weights_make_the_mean(seed):
    near = _neighbourhood(10, 6, seed=seed)
    kriging = Kriging(period=7.0, spacing=3.0)
    weight, variance = kriging.weights(near)
    mean, spread = kriging.predict(near)
    torch.testing.assert_close((weight * near.value).sum(1), mean, rtol=TIGHT, atol=TIGHT)
    torch.testing.assert_close(variance.sqrt(), spread, rtol=TIGHT, atol=TIGHT)
    assert (weight[~near.present] == 0).all()

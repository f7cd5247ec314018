"""Distances between laws: closed forms, identities and POT as oracle."""

import math

import numpy as np
import pytest
import torch

from bayes.priors import sinkhorn
from bayes.priors.energy import distances, energy_distance
from bayes.priors.gaussian_w2 import fidelity, gaussian_w2, gaussian_w2_squared, square_root
from bayes.priors.sinkhorn import sinkhorn_divergence
from bayes.priors.sliced import sliced_w1

ot = pytest.importorskip("ot")

ROUNDING = 1e-9
"""float64 eigendecompositions of well-conditioned 6 x 6 matrices, and their square roots."""


def rand(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def law(seed, m=6):
    a = rand(m, m, seed=seed)
    return rand(m, seed=seed + 100), a @ a.mT + 0.1 * torch.eye(m)


def test_gaussian_w2_against_pot():
    (m1, a), (m2, b) = law(1), law(2)
    expected = float(ot.gaussian.bures_wasserstein_distance(m1, m2, a, b))
    assert float(gaussian_w2(m1, a, m2, b)) == pytest.approx(expected, rel=ROUNDING)
    assert float(gaussian_w2(m1, a, m2, 1.1 * b)) != pytest.approx(expected, rel=1e-3)


def test_gaussian_w2_of_commuting_laws():
    """With one eigenbasis it is the distance of means and of the standard deviations."""
    q = torch.linalg.qr(rand(5, 5, seed=3))[0]
    s, t, shift = rand(5, seed=4).abs() + 0.1, rand(5, seed=5).abs() + 0.1, rand(5, seed=6)
    squared = gaussian_w2_squared(shift, (q * s**2) @ q.mT, 0 * shift, (q * t**2) @ q.mT)
    assert float(squared) == pytest.approx(float((s - t).square().sum() + shift.square().sum()))


def test_gaussian_w2_to_itself_and_symmetry():
    (m1, a), (m2, b) = law(1), law(2)
    assert float(gaussian_w2_squared(m1, a, m1, a)) == pytest.approx(0, abs=1e-10)
    forth, back = gaussian_w2_squared(m1, a, m2, b), gaussian_w2_squared(m2, b, m1, a)
    assert float(forth) == pytest.approx(float(back), rel=ROUNDING)


def test_gradient_of_the_fidelity():
    (_, a), (_, b) = law(1), law(2)
    root = square_root(b)
    assert torch.autograd.gradcheck(lambda a: fidelity(a + a.mT, root), a.clone().requires_grad_())


def test_gradient_at_a_singular_covariance_is_finite():
    low = rand(6, 2, seed=7).requires_grad_()
    (_, b) = law(2)
    value = gaussian_w2_squared(torch.zeros(6), low @ low.mT, torch.zeros(6), b)
    (gradient,) = torch.autograd.grad(value, low)
    assert bool(torch.isfinite(gradient).all())


def test_energy_distance_is_the_double_sum():
    f, g = rand(7, 3, seed=1), rand(5, 3, seed=2) + 1

    def mean(a, b, skip):
        pairs = [(x - y).norm() for i, x in enumerate(a) for j, y in enumerate(b) if i != j or skip]
        return sum(pairs) / len(pairs)

    expected = 2 * mean(f, g, True) - mean(f, f, False) - mean(g, g, False)
    assert float(energy_distance(f, g)) == pytest.approx(float(expected), rel=1e-12)


def test_energy_distance_of_normal_laws():
    """N(0, 1) against N(m, 1): E|X - Y| = 2 s phi(m/s) + m (2 Phi(m/s) - 1) with s^2 = 2, hence E.
    Statistic: the mean of 20 estimates from 500 draws in its standard errors; false alarm 1e-6 by
    Student's t with 19 degrees of freedom, bound 6.9."""
    m, s = 0.8, math.sqrt(2)
    phi = math.exp(-0.5 * (m / s) ** 2) / math.sqrt(2 * math.pi)
    cross = 2 * s * phi + m * math.erf(m / s / math.sqrt(2))
    expected = 2 * cross - 2 * 2 / math.sqrt(math.pi)
    values = torch.stack(
        [
            energy_distance(rand(500, 1, seed=2 * k), rand(500, 1, seed=2 * k + 1) + m)
            for k in range(20)
        ]
    )
    error = float(values.std()) / math.sqrt(20)
    assert abs(float(values.mean()) - expected) < 6.9 * error
    assert abs(float(values.mean()) - 2 * expected) > 6.9 * error  # control


def test_energy_distance_of_one_law_is_zero_on_average():
    """Unbiased: 200 estimates from small samples; Student's t with 199 degrees of freedom, false
    alarm 1e-6. The V-statistic, with draws paired with themselves, is the control."""
    values, biased = [], []
    for k in range(200):
        f, g = rand(10, 4, seed=2 * k), rand(10, 4, seed=2 * k + 1)
        values.append(float(energy_distance(f, g)))
        within = distances(f, f).mean() + distances(g, g).mean()
        biased.append(float(2 * distances(f, g).mean() - within))
    t = [np.mean(v) / np.std(v, ddof=1) * math.sqrt(200) for v in (values, biased)]
    assert abs(t[0]) < 5.05
    assert abs(t[1]) > 5.05


def test_gradients_of_distances_at_equal_points():
    f = rand(4, 3).requires_grad_()
    (gradient,) = torch.autograd.grad(distances(f, f).sum(), f)
    assert bool(torch.isfinite(gradient).all())
    g = rand(5, 3, seed=9)
    assert torch.autograd.gradcheck(lambda f: distances(f, g), f)
    assert torch.autograd.gradcheck(lambda f: energy_distance(f, g), f)


def test_sliced_w1_in_one_dimension_is_exact():
    f, g = rand(40, 1, seed=1), 2 * rand(40, 1, seed=2) + 0.3
    expected = ot.emd2_1d(f[:, 0].numpy(), g[:, 0].numpy(), metric="euclidean")
    assert float(sliced_w1(f, g, random_state=0)) == pytest.approx(float(expected), rel=1e-12)


def test_sliced_w1_against_pot():
    """The same directions: equal to rounding. POT normalises them alike."""
    f, g = rand(50, 4, seed=1), rand(50, 4, seed=2) + 0.5
    generator = torch.Generator().manual_seed(5)
    u = torch.randn((4, 30), generator=generator, dtype=torch.float64)
    u = u / u.norm(dim=0)
    expected = ot.sliced_wasserstein_distance(f, g, projections=u, p=1)
    again = torch.Generator().manual_seed(5)
    assert float(sliced_w1(f, g, 30, again)) == pytest.approx(float(expected), rel=1e-12)


def test_sliced_w1_needs_equal_samples():
    with pytest.raises(ValueError, match=r"same shape.*\(3, 2\)"):
        sliced_w1(rand(3, 2), rand(4, 2))


def test_sinkhorn_divergence(monkeypatch):
    """Zero between a sample and itself, to the square of the tolerance of potentials; near the
    squared distance of a shift for little regularisation; differentiable."""
    f = rand(60, 3, seed=1)
    assert float(sinkhorn_divergence(f, f.clone())) == pytest.approx(0, abs=1e-6)
    shift = torch.tensor([2.0, 0.0, 0.0])
    assert float(sinkhorn_divergence(f, f + shift)) == pytest.approx(4.0, rel=0.02)
    g = (f + shift).requires_grad_()
    (gradient,) = torch.autograd.grad(sinkhorn_divergence(g, f), g)
    # d/dc of c^2 along the shift, shared by the 60 points
    assert float(gradient.sum(0)[0]) == pytest.approx(2 * 2.0, rel=0.05)
    with pytest.raises(ValueError, match="'regularisation'"):
        sinkhorn_divergence(f, f, 0.0)
    monkeypatch.setattr(sinkhorn, "MAX_ITERATIONS", 50)
    with pytest.raises(ValueError, match=r"'regularisation'.*settle; got 0.001"):
        sinkhorn_divergence(f, f + shift, 0.001)


def test_sinkhorn_divergence_is_that_of_pot():
    """Value and gradient, both routes run to the rounding of plans where that is quick; the other
    route takes POT's alternating iterations within samples too. Control: half the regularisation
    is another divergence."""
    f, g = rand(30, 2, seed=1).requires_grad_(), 1 + 2 * rand(40, 2, seed=2)
    between = ot.dist(f, g)
    epsilon = 0.5 * float(between.detach().mean())

    def cost(squared):
        options = {"max_iter": 5_000, "tol": 1e-9, "grad": "envelope"}
        return ot.solve(squared, reg=epsilon, reg_type="entropy", **options).value

    expected = cost(between) - 0.5 * (cost(ot.dist(f, f)) + cost(ot.dist(g, g)))
    (slope,) = torch.autograd.grad(expected, f)
    ours = sinkhorn_divergence(f, g, 0.5)
    (own_slope,) = torch.autograd.grad(ours, f)
    assert float(ours.detach()) == pytest.approx(float(expected.detach()), abs=1e-7)
    assert torch.allclose(own_slope, slope, rtol=0, atol=1e-3 * float(slope.abs().max()))
    off = sinkhorn_divergence(f, g, 0.25).detach() - expected.detach()
    assert abs(float(off)) > 1e-3

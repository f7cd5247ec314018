"""Scores agree with closed forms and are minimal at the truth."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from bayes.forecast import scores
from bayes.forecast.scores import CRPS_LEVELS, LEVELS


def crps_normal(y, mean, sd):
    """Gneiting and Raftery (2007), equation (21)."""
    z = (y - mean) / sd
    return sd * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi))


def test_crps_of_quantiles_tends_to_the_closed_form():
    y = np.array([-1.3, 0.2, 2.4])
    truth = crps_normal(y, 0.4, 1.7)
    errors = []
    for n in (10, 100, 1000):
        levels = (np.arange(n) + 0.5) / n  # midpoints: twice the mean pinball is the integral
        q = np.tile(norm.ppf(levels, 0.4, 1.7), (3, 1))
        errors.append(np.abs(scores.crps_quantiles(y, q, levels) - truth).max())
    assert errors[2] < errors[1] / 5 < errors[0] / 25
    assert errors[2] < 1e-4
    wrong = np.tile(norm.ppf(levels, 0.5, 1.7), (3, 1))
    assert np.abs(scores.crps_quantiles(y, wrong, levels) - truth).max() > 0.01


def test_crps_of_samples_is_exact_for_their_distribution():
    rng = np.random.default_rng(0)
    y, x = rng.normal(size=5), rng.normal(size=(5, 40))
    pairs = np.abs(x[:, :, None] - x[:, None, :]).mean(axis=(1, 2))
    direct = np.abs(x - y[:, None]).mean(axis=1) - pairs / 2
    np.testing.assert_allclose(scores.crps_samples(y, x), direct, rtol=1e-12)

    def square(t, i):
        return ((x[i] <= t).mean() - (y[i] <= t)) ** 2

    edges = np.sort(np.append(x[0], y[0]))
    pieces = [quad(square, a, b, args=(0,))[0] for a, b in pairwise(edges)]
    assert scores.crps_samples(y[:1], x[:1])[0] == pytest.approx(sum(pieces), rel=1e-9)


def test_pinball_and_interval_score_are_minimal_at_the_true_quantiles():
    """On a fine grid of y with normal weights; perturbed quantiles must do worse."""
    y = norm.ppf((np.arange(20000) + 0.5) / 20000)
    best = scores.interval_score(y, norm.ppf(0.05), norm.ppf(0.95), 0.9).mean()
    closed = 2 * 2 * norm.pdf(norm.ppf(0.95)) / 0.1  # 2 (E[y | upper tail]) per Winkler
    assert best == pytest.approx(closed, rel=1e-3)
    for low, high in ((0.1, 0.0), (-0.1, 0.0), (0.0, 0.1), (0.0, -0.1), (0.2, 0.2)):
        moved = scores.interval_score(y, norm.ppf(0.05) + low, norm.ppf(0.95) + high, 0.9)
        assert moved.mean() > best + 1e-3
    for level in (0.1, 0.5, 0.8):
        losses = [
            scores.pinball(y, np.full((len(y), 1), norm.ppf(level) + move), [level]).mean()
            for move in (-0.1, 0.0, 0.1)
        ]
        assert losses[1] < min(losses[0], losses[2])


def test_the_quantiles_stand_for_a_density():
    q = norm.ppf(LEVELS)[None]

    def density(t):
        return np.exp(-scores.log_score(np.array([t]), q, LEVELS)[0])

    total = quad(density, -40, 40, points=list(q[0]), limit=200)[0]
    nearly = 1e-4  # edges are up to 21 millionths of their range, 4, to the right of the quantiles
    assert total == pytest.approx(1, abs=nearly)
    below = quad(density, -40, 0.3, points=list(q[0][q[0] < 0.3]), limit=200)[0]
    assert scores.pit(np.array([0.3]), q, LEVELS)[0] == pytest.approx(below, abs=nearly)
    y = norm.ppf((np.arange(2000) + 0.5) / 2000)
    entropy = 0.5 * np.log(2 * np.pi * np.e)  # the least expected log score
    right = scores.log_score(y, np.tile(q, (2000, 1)), LEVELS).mean()
    assert entropy < right < entropy + 0.03
    for factor, move in ((0.7, 0), (1.4, 0), (1, 0.4)):
        wrong = scores.log_score(y, np.tile(factor * q + move, (2000, 1)), LEVELS).mean()
        assert wrong > entropy + 0.05


def test_pit_is_uniform_if_and_only_if_the_forecast_is_right():
    """Kolmogorov-Smirnov distance of 20,000 values on a grid: 0 but for interpolation (< .01)."""
    n = 20000
    y = norm.ppf((np.arange(n) + 0.5) / n)
    grid = (np.arange(n) + 0.5) / n
    right = scores.pit(y, np.tile(norm.ppf(LEVELS), (n, 1)), LEVELS)
    assert np.abs(np.sort(right) - grid).max() < 0.01
    wrong = scores.pit(y, np.tile(0.7 * norm.ppf(LEVELS), (n, 1)), LEVELS)
    assert np.abs(np.sort(wrong) - grid).max() > 0.05


def test_coinciding_quantiles_have_finite_scores():
    q = np.zeros((2, len(LEVELS)))
    q[1, 10:] = 5.0
    assert np.isfinite(scores.log_score([0.0, 2.0], q, LEVELS)).all()
    assert (
        (scores.pit([0.0, 2.0], q, LEVELS) >= 0) & (scores.pit([0.0, 2.0], q, LEVELS) <= 1)
    ).all()


def test_score_table_averages_by_group():
    rng = np.random.default_rng(0)
    y = rng.normal(size=300)
    q = np.tile(norm.ppf(LEVELS), (300, 1))
    group = np.repeat(["a", "b", "c"], 100)
    table = scores.score_table(y, q, np.full(300, 0.5), by=group, n_bootstrap=0)
    own = group == "b"
    assert table.loc["b", "n"] == 100
    assert table.loc["b", "mae"] == pytest.approx(np.abs(y[own]).mean())
    assert table.loc["b", "rmse"] == pytest.approx(np.sqrt(np.mean((y[own] - 0.5) ** 2)))
    columns = [int(np.argmin(np.abs(LEVELS - level))) for level in CRPS_LEVELS]
    crps = scores.crps_quantiles(y[own], q[own][:, columns], CRPS_LEVELS).mean()
    assert table.loc["b", "crps"] == pytest.approx(crps)
    assert table.loc["b", "coverage95"] == np.mean(np.abs(y[own]) <= norm.ppf(0.975))
    assert table.loc["b", "width90"] == pytest.approx(2 * norm.ppf(0.95))


def test_block_bootstrap_sees_dependence():
    """Blocks of 20 equal rows: the true standard error of the mean is sqrt(20) times that of
    independent rows. A bootstrap standard deviation from 400 resamples is off by 3.5% (one sd);
    the bounds are six of them (false alarm below 1e-8)."""
    rng = np.random.default_rng(1)
    block = np.repeat(np.arange(200), 20)
    y = rng.normal(size=200)[block]
    q = np.tile(norm.ppf(LEVELS), (len(y), 1))
    by_block = scores.score_table(y, q, blocks=block, n_bootstrap=400)["mae_se"].iloc[0]
    by_row = scores.score_table(y, q, n_bootstrap=400)["mae_se"].iloc[0]
    classical = np.abs(y[::20]).std() / np.sqrt(200)
    assert by_block == pytest.approx(classical, rel=0.21)
    assert by_row < 0.5 * classical
    one = scores.score_table(y, q, blocks=np.zeros(len(y)), n_bootstrap=20)
    assert np.isnan(one["mae_se"].iloc[0])  # one block tells nothing of its spread


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="columns at LEVELS"):
        scores.score_table([1.0], [[1.0, 2.0]])
    with pytest.raises(ValueError, match="finite"):
        scores.score_table([np.nan], [LEVELS])

"""Densities, distribution functions and quantiles of a likelihood agree with each other."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from bayes.forecast.likelihoods import LIKELIHOODS, Law
from bayes.forecast.predictive import Predictive
from bayes.forecast.recalibration import Recalibration
from bayes.forecast.records import Schema, read_records
from bayes.forecast.scale import TargetScale

LAW = Law(np.array([0.3]), np.array([0.6]), np.array([1.1]))
TARGETS = np.array([1.0, 2.0, 2.0, 3.0, 5.0, 8.0, 13.0])
CONTINUOUS = [name for name, kind in LIKELIHOODS.items() if not kind.discrete]


def _log_prob(kind, z: np.ndarray, scale: TargetScale) -> np.ndarray:
    location, spread, tail = (torch.tensor(part) for part in LAW)
    return kind.log_prob(torch.tensor(z), location, spread.log(), tail, scale).numpy()


@pytest.mark.parametrize("name", CONTINUOUS)
def test_the_density_is_the_slope_of_the_distribution_function(name):
    kind = LIKELIHOODS[name]()
    scale = kind.target_scale(TARGETS)
    z = kind.quantile(np.linspace(0.05, 0.95, 7), LAW, scale)
    h = 1e-5
    slope = (kind.cdf(z + h, LAW, scale) - kind.cdf(z - h, LAW, scale)) / (2 * h)
    density = np.exp(_log_prob(kind, z, scale))
    np.testing.assert_allclose(slope, density, rtol=1e-6)  # differences err by h^2 + eps/h
    wider = Law(LAW.location, 1.1 * LAW.scale, LAW.tail)  # negative control
    other = (kind.cdf(z + h, wider, scale) - kind.cdf(z - h, wider, scale)) / (2 * h)
    assert np.abs(other / density - 1).max() > 0.02


@pytest.mark.parametrize("name", CONTINUOUS)
def test_quantiles_invert_the_distribution_function(name):
    kind = LIKELIHOODS[name]()
    scale = kind.target_scale(TARGETS)
    p = np.array([0.001, 0.2, 0.5, 0.9, 0.999])
    np.testing.assert_allclose(kind.cdf(kind.quantile(p, LAW, scale), LAW, scale), p, rtol=1e-8)


def test_counts_follow_the_negative_binomial():
    kind = LIKELIHOODS["negative-binomial"]()
    scale = kind.target_scale(np.floor(TARGETS))
    y = np.arange(12.0)
    mean = np.exp(LAW.location * scale.spread + scale.middle)
    size = 1 / (LAW.scale * scale.spread) ** 2
    law = stats.nbinom(size, size / (size + mean))
    z = kind.to_working(y, scale)
    np.testing.assert_allclose(_log_prob(kind, z, scale), law.logpmf(y), rtol=1e-9)
    np.testing.assert_allclose(kind.cdf(z, LAW, scale), law.cdf(y), rtol=1e-9)
    p = np.array([0.1, 0.5, 0.95])
    found = kind.from_working(kind.quantile(p, LAW, scale), scale)
    np.testing.assert_array_equal(found, law.ppf(p))


def test_zero_inflated_counts_have_more_zeros():
    """P(0) = pi + (1 - pi) f(0) and P(y) = (1 - pi) f(y), f being the negative binomial's."""
    kind, plain = LIKELIHOODS["zero-inflated"](), LIKELIHOODS["negative-binomial"]()
    scale = kind.target_scale(np.floor(TARGETS))
    y = np.arange(200.0)
    z = kind.to_working(y, scale)
    more = 1 / (1 + np.exp(LAW.tail))
    expected = (1 - more) * np.exp(_log_prob(plain, z, scale)) + more * (y == 0)
    mass = np.exp(_log_prob(kind, z, scale))
    np.testing.assert_allclose(mass, expected, rtol=1e-9)
    np.testing.assert_allclose(kind.cdf(z, LAW, scale), np.cumsum(mass), rtol=1e-9)
    assert np.abs(plain.cdf(z, LAW, scale) - np.cumsum(mass)).max() > 0.1  # negative control
    p = np.array([0.01, 0.3, 0.6, 0.95])
    found = kind.from_working(kind.quantile(p, LAW, scale), scale)
    np.testing.assert_array_equal(found, np.searchsorted(np.cumsum(mass), p))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("log-normal", 0.0),
        ("gamma", -1.0),
        ("truncated-normal", -1.0),
        ("negative-binomial", 0.5),
        ("zero-inflated", -2.0),
    ],
)
def test_impossible_targets_are_refused(name, wrong):
    df = pd.DataFrame({"time": pd.date_range("2024", periods=7, freq="h"), "x": 0.0, "y": TARGETS})
    LIKELIHOODS[name]().check(read_records(df, Schema("time", ["x"], "y")))
    df.loc[2, "y"] = wrong
    with pytest.raises(ValueError, match="'y'"):
        LIKELIHOODS[name]().check(read_records(df, Schema("time", ["x"], "y")))


@pytest.mark.parametrize("power", [0.0, 0.35, 1.0, None])
def test_the_working_scale_goes_there_and_back(power):
    scale = TargetScale.fit(TARGETS, power)
    np.testing.assert_allclose(scale.inverse(scale.forward(TARGETS)), TARGETS, rtol=1e-10)
    h = 1e-6
    slope = (scale.forward(TARGETS + h) - scale.forward(TARGETS - h)) / (2 * h)
    np.testing.assert_allclose(scale.log_slope(TARGETS), np.log(slope), atol=1e-7)


def test_the_power_is_that_of_the_data():
    """Box-Cox likelihood of 4000 values: the power has a standard error of about .02."""
    x = np.random.default_rng(0).normal(10, 1.5, 4000)
    assert abs(TargetScale.fit(np.exp(x / 3)).power) <= 0.1
    assert abs(TargetScale.fit(x**2).power - 0.5) <= 0.2
    assert TargetScale.fit(np.append(x, -1.0)).power == 1
    assert TargetScale.fit(np.append(x, 0.0)).low == 0


def _mixture(recalibration: Recalibration | None = None, n_members: int = 3) -> Predictive:
    rng = np.random.default_rng(0)
    law = Law(
        rng.normal(size=(n_members, 50)),
        rng.uniform(0.2, 2, (n_members, 50)),
        rng.normal(1, 0.3, (n_members, 1)),
    )
    group = rng.integers(0, 2, 50)
    scale = TargetScale(1.0, 0.0, 5.0, 2.0, -np.inf)
    kind = LIKELIHOODS["student-t"]()
    return Predictive(law, group, kind, scale, recalibration or Recalibration.identity(2))


def test_mixture_quantiles_invert_the_mixture():
    mixture = _mixture()
    for alpha in (0.01, 0.3, 0.5, 0.975):
        y = mixture.quantile(np.array([alpha]))[:, 0]
        np.testing.assert_allclose(mixture.cdf(y), alpha, atol=1e-6)  # the solver's tolerance
    one = mixture.likelihood.quantile(np.array(0.3), mixture.law, mixture.target_scale)[0]
    wrong = mixture.likelihood.from_working(one, mixture.target_scale)
    assert np.abs(mixture.cdf(wrong) - 0.3).max() > 0.05  # negative control: one member's


def test_quantiles_of_a_mixture_of_counts_are_the_least_that_reach_the_level():
    kind = LIKELIHOODS["negative-binomial"]()
    scale = kind.target_scale(np.floor(TARGETS))
    mixture = _mixture()
    mixture = Predictive(mixture.law, mixture.group, kind, scale, mixture.recalibration)
    for alpha in (0.05, 0.5, 0.9):
        y = mixture.quantile(np.array([alpha]))[:, 0]
        np.testing.assert_array_equal(y, np.rint(y))
        assert (mixture.cdf(y) >= alpha - 1e-9).all()
        assert (mixture.cdf(y - 1) < alpha).all()


def test_means_and_variances_of_a_mixture():
    normal = LIKELIHOODS["normal"]()
    mixture = _mixture()
    mixture = Predictive(
        mixture.law, mixture.group, normal, mixture.target_scale, mixture.recalibration
    )
    location, scale = 5 + 1 + 2 * mixture.law.location, 2 * mixture.law.scale  # inverse adds 1
    np.testing.assert_allclose(mixture.mean(), location.mean(0), atol=0.03)  # 32 nodes cut tails
    epistemic, aleatoric = mixture.variances()
    np.testing.assert_allclose(epistemic, location.var(0), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(aleatoric, np.square(scale).mean(0), rtol=0.02)


def test_recalibration_is_uniform_on_what_it_was_fitted_to_and_goes_back():
    rng = np.random.default_rng(1)
    u = np.concatenate([rng.beta(3, 3, 4000), rng.beta(0.5, 0.8, 4000)])
    group = np.repeat([0, 1], 4000)
    fitted = Recalibration.fit(u, group, np.arange(8000), n_groups=3)
    for g in (0, 1):
        p = fitted.probabilities(u[group == g], np.full(4000, g))
        # 4000 uniforms: Kolmogorov's distance exceeds 2.0/sqrt(n) with probability 7e-4
        assert stats.kstest(p, "uniform").statistic < 2.0 / np.sqrt(4000)
        assert stats.kstest(u[group == g], "uniform").statistic > 0.1  # negative control
    alpha = np.array([0.003, 0.2, 0.5, 0.99, 0.999])
    for g, row in enumerate(fitted.levels(alpha)):
        np.testing.assert_allclose(fitted.probabilities(row, np.full(5, g)), alpha, atol=1e-9)
    mixture = _mixture(fitted)
    y = mixture.quantile(np.array([0.1, 0.9]))
    np.testing.assert_allclose(mixture.cdf(y[:, 1]), 0.9, atol=1e-6)


def test_recalibration_covers_as_conformal_prediction_does():
    """1000 exchangeable rows, a shrinkage of 5 in 1005: a 90 % interval covers .9.

    300 repetitions of 200 new rows; the standard error of the mean coverage is below .002, so
    that .88 is more than five of them away. Uncalibrated, the same interval covers below .75.
    """
    rng = np.random.default_rng(2)
    covered, raw = [], []
    for _ in range(300):
        u = rng.beta(0.4, 0.4, 1200)
        old, new = u[:1000], u[1000:]
        fitted = Recalibration.fit(old, np.zeros(1000, int), np.arange(1000), n_groups=1)
        low, high = fitted.levels(np.array([0.05, 0.95]))[0]
        covered.append(np.mean((new >= low) & (new <= high)))
        raw.append(np.mean((new >= 0.05) & (new <= 0.95)))
    assert np.mean(covered) > 0.88
    assert np.mean(raw) < 0.75

"""The climate: fitted without the fold held out, and given a share only where it helps."""

from __future__ import annotations

import numpy as np
import pytest

from bayes.forecast.climate import Climate
from bayes.forecast.likelihoods import LIKELIHOODS, Law
from bayes.forecast.recalibration import PRIOR_BLOCKS
from bayes.forecast.scale import TargetScale

R, M, N_BLOCKS = 4000, 4, 40
SCALE = TargetScale(1.0, 0.0, 0.0, 1.0, -np.inf)
CLIMATE, EXACT = 0, 4  # groups: nothing but the climate is known, and the signal is
TAIL = np.full((M, 1), 1.5)


def world(seed: int = 0) -> dict[str, np.ndarray]:
    """Seasons of amplitude 2 and a signal of deviation 1, known in one group only."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 2 * np.pi, R)
    block = rng.integers(N_BLOCKS, size=R)
    signal = rng.normal(size=R)
    season = np.column_stack([np.cos(phase), np.sin(phase)])
    group = np.where(rng.random(R) < 0.5, CLIMATE, EXACT)
    noise = 0.1 * rng.normal(size=R)
    return {
        "z": 1 + 2 * season[:, 1] + signal + noise,
        "season": season,
        "group": group,
        "block": block,
        "outside": np.arange(M)[:, None] == block % M,
        "guess": 1 + 2 * season[:, 1] + signal,
        "wrong": rng.normal(size=R),
    }


def fit(w: dict[str, np.ndarray], known: np.ndarray, kind: str = "student-t") -> Climate:
    """The members guess right where ``known`` and are wrong by three elsewhere."""
    location = np.where(known, w["guess"], w["guess"] + 3 * w["wrong"])
    law = Law(np.tile(location, (M, 1)), np.full((M, R), 0.2), TAIL)
    return Climate.fit(
        w["z"], law, w["outside"], w["season"], w["group"], w["block"], LIKELIHOODS[kind](),
        SCALE, (2, 4),
    )  # fmt: skip


def test_the_climate_gets_a_share_only_where_members_know_less():
    """40 blocks: a share is at most 40/45. The members guess worse than the climate in one group,
    though not independently of the truth, and err by a tenth in the other; exchanging the groups
    exchanges the shares."""
    w = world()
    whole = N_BLOCKS / (N_BLOCKS + PRIOR_BLOCKS)
    share = fit(w, w["group"] == EXACT).share
    assert 0.8 * whole <= share[CLIMATE] <= whole
    assert share[EXACT] == 0
    share = fit(w, w["group"] == CLIMATE).share
    assert share[CLIMATE] == 0
    assert 0.8 * whole <= share[EXACT] <= whole


def test_ages_never_met_take_the_share_of_the_next_younger():
    share = fit(world(), np.zeros(R, bool)).share.reshape(2, 4)
    assert (share[0] == share[0, 0]).all()
    assert share[0, 0] > 0.5
    assert fit(world(), world()["group"] == EXACT).share.reshape(2, 4)[1].max() == 0


def test_seasons_and_spread_are_found():
    """Ridge 0.02 shrinks coefficients of regressors with variance 1/2 by 4%; the signal and the
    noise have variance 1.01. Standard errors are at most .03; bound 4."""
    climate = fit(world(), np.zeros(R, bool), "normal")
    np.testing.assert_allclose(climate.coefficients[:, 0], 1, atol=0.12)
    np.testing.assert_allclose(climate.coefficients[:, 2], 2 / 1.04, atol=0.12)
    np.testing.assert_allclose(climate.scale[:, 0], np.sqrt(1.01), atol=0.06)


def test_a_members_climate_does_not_know_its_fold():
    w = world()
    before = fit(w, np.zeros(R, bool)).coefficients
    changed = {**w, "z": np.where(w["outside"][1], w["z"] + 5, w["z"])}
    after = fit(changed, np.zeros(R, bool)).coefficients
    moved = np.abs(after - before).max(1)
    assert moved[1] == 0
    assert (np.delete(moved, 1) > 0.5).all()


@pytest.mark.parametrize(
    ("kind", "exact"), [("student-t", True), ("normal", True), ("gamma", False)]
)
def test_pooling_averages_quantiles_of_location_scale_families(kind, exact):
    """A gamma law is none: its quantiles are not averaged."""
    share, p = 0.3, np.array([0.025, 0.3, 0.9])
    climate = Climate(np.tile([1.0, 0.5], (M, 1)), np.full((M, 1), 2.0), np.array([share]))
    law = Law(np.full((M, 1), -1.0), np.full((M, 1), 0.5), TAIL)
    season, group = np.array([[1.0]]), np.zeros(1, int)
    likelihood = LIKELIHOODS[kind]()
    far = Law(np.full((M, 1), 1.5), climate.scale, TAIL)
    pooled, own, other = (
        likelihood.quantile(p, one, SCALE) for one in (climate.pool(law, season, group), law, far)
    )
    average = (1 - share) * own + share * other
    assert np.allclose(pooled, average, atol=1e-12) == exact


def test_scales_give_the_standard_deviation():
    """By quadrature of the quantile function, whose tails beyond 1e-5 hold less than 1% here."""
    p = np.linspace(1e-5, 1 - 1e-5, 200_001)
    tail = np.array(np.log(4.0))
    for kind in ("normal", "student-t"):
        likelihood = LIKELIHOODS[kind]()
        scale = likelihood.scale_of(np.array(3.0), tail)
        z = likelihood.quantile(p, Law(np.zeros(()), scale, tail), SCALE)
        assert z.std() == pytest.approx(3.0, rel=0.01)


def test_none_changes_nothing():
    law = Law(np.full((M, 2), 0.7), np.full((M, 2), 0.3), TAIL)
    same = Climate.none(M, 1, 3).pool(law, np.ones((2, 1)), np.array([0, 2]))
    np.testing.assert_array_equal(same.location, law.location)
    np.testing.assert_array_equal(same.scale, law.scale)

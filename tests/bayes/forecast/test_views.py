"""What training hides: each pattern does what it says, in the shares that it says."""

from __future__ import annotations

import numpy as np
import pytest

from bayes.forecast.views import SHARES, draw_view, draw_views

LONGEST, N = 48.0, 4000


def _rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 500, N).astype(float), rng.normal(size=(N, 2)), rng.integers(0, 5, N)


@pytest.mark.parametrize("pattern", list(SHARES))
def test_a_target_never_sees_itself(pattern):
    time, position, sensor = _rows()
    query = draw_view(pattern, time, position, sensor, LONGEST, np.random.default_rng(1))
    assert (query.own[:, 0] <= time).all()
    assert (query.own[:, 1] >= time).all()


def test_patterns_hide_what_they_say():
    time, position, sensor = _rows()
    rng = np.random.default_rng(1)
    view = {p: draw_view(p, time, position, sensor, LONGEST, rng) for p in SHARES}
    for pattern in ("point", "block", "sensor"):
        network = view[pattern].network
        assert (network[:, 0] > network[:, 1]).all()  # empty
    for pattern in ("outage", "forecast"):
        np.testing.assert_array_equal(view[pattern].network, view[pattern].own)
    assert np.isinf(view["sensor"].own).all()
    assert (view["forecast"].own[:, 1] == np.inf).all()
    longest = {"point": 3, "block": LONGEST, "outage": LONGEST / 4}
    for pattern, most in longest.items():
        length = np.ptp(view[pattern].own, axis=1) + 1
        assert length.min() >= 1
        assert length.max() == most
    ahead = time - view["forecast"].own[:, 0] + 1
    assert (ahead.min(), ahead.max()) == (1, LONGEST)


def test_lengths_are_log_uniform():
    """Half of the horizons are below the square root of the longest: 4000 draws, standard error
    .008; a uniform law would have a seventh there."""
    time, position, sensor = _rows()
    query = draw_view("forecast", time, position, sensor, LONGEST, np.random.default_rng(2))
    ahead = time - query.own[:, 0] + 1
    assert abs(np.mean(ahead < np.sqrt(LONGEST + 1)) - 0.5) < 0.05


def test_shares_and_rows():
    time, position, sensor = _rows()
    sensor[:1000] = -1
    query, rows = draw_views(time, position, sensor, 1000, LONGEST, np.random.default_rng(3))
    np.testing.assert_array_equal(query.time, time[rows])
    np.testing.assert_array_equal(query.sensor, sensor[rows])
    hidden = np.isinf(query.own).all(1)
    assert hidden.sum() == round(1000 * SHARES["sensor"])
    assert (query.sensor[hidden] >= 0).all()
    assert (query.sensor[~hidden] < 0).any()
    assert sum(SHARES.values()) == pytest.approx(1)

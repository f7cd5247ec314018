"""A context must not depend on anything that is hidden from its query."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from bayes.forecast.context import N_SUMMARY, Context, Observations
from bayes.forecast.effects import effects_nearby, sensor_effects
from bayes.forecast.kriging import Kriging
from bayes.forecast.neighbours import Query
from bayes.forecast.views import SHARES, draw_view

PERIOD, SPACING, S = 6.0, 0.5, 6


def _rows() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    time, sensor = (a.ravel().astype(float) for a in np.meshgrid(np.arange(50), np.arange(S)))
    kept = rng.random(len(time)) < 0.7
    sensor = sensor[kept].astype(int)
    return time[kept], rng.normal(size=(S, 2))[sensor], sensor, rng.normal(size=kept.sum())


def _context(z: np.ndarray, query: Query, effects: np.ndarray) -> Context:
    time, position, sensor, _ = _rows()
    observations = Observations(time, position, sensor, z, effects, PERIOD, SPACING)
    return observations.context(query, Kriging(PERIOD, SPACING))


def _differs(first: Context, second: Context) -> bool:
    return any(
        not np.array_equal(getattr(first, f.name), getattr(second, f.name)) for f in fields(first)
    )


@pytest.mark.parametrize("pattern", [*SHARES, "plain"])
def test_hidden_values_do_not_matter(pattern):
    """Values of what is hidden from a query are replaced by junk: its context stays bit by bit.

    Negative control: junk in everything that is not hidden changes it.
    """
    time, position, sensor, z = _rows()
    everything = draw_view(
        pattern, time, position, sensor, 12.0, np.random.default_rng(1)
    ) if pattern != "plain" else Query.plain(time, position, sensor)  # fmt: skip
    effects = np.linspace(-1, 1, S)
    moved = 0
    for i in range(0, len(time), 17):
        query = everything[i : i + 1]
        own = (sensor == sensor[i]) & (time >= query.own[0, 0]) & (time <= query.own[0, 1])
        hidden = own | ((time >= query.network[0, 0]) & (time <= query.network[0, 1]))
        assert hidden[i]
        before = _context(z, query, effects)
        assert not _differs(_context(np.where(hidden, 1e3, z), query, effects), before)
        moved += _differs(_context(np.where(hidden, z, z + 1), query, effects), before)
    assert moved > 0


def test_the_effect_of_a_hidden_sensor_does_not_matter():
    time, position, sensor, z = _rows()
    rng = np.random.default_rng(2)
    query = draw_view("sensor", time, position, sensor, 12.0, rng)
    query = query[sensor == 0]
    effects = np.linspace(-1, 1, S)
    changed = effects.copy()
    changed[0] -= 0.1  # the median of the effects stays
    before, after = _context(z, query, effects), _context(z, query, changed)
    assert not _differs(before, after)
    other = effects.copy()
    other[4] += 0.1
    assert _differs(before, _context(z, query, other))


def test_values_and_means_carry_the_effect_of_the_sensor():
    """Adding a constant to a sensor and to its effect adds it to all that is predicted for it."""
    time, position, sensor, z = _rows()
    query = Query.plain(time, position, sensor)[sensor == 1]
    effects = np.zeros(S)
    raised = np.where(np.arange(S) == 1, 2.0, 0.0)
    before = _context(z, query, effects)
    after = _context(z + raised[sensor], query, raised)
    np.testing.assert_allclose(after.mean, before.mean + 2, atol=1e-9)
    np.testing.assert_allclose(after.value, before.value + 2 * before.present, atol=1e-5)
    np.testing.assert_allclose(after.edge, before.edge, atol=1e-5)


def test_a_lonely_query_has_finite_features():
    time, position, sensor, z = _rows()
    observations = Observations(
        time[:1], position[:1], sensor[:1], z[:1], np.zeros(S), PERIOD, SPACING
    )
    query = Query.plain(time[:1], position[:1], sensor[:1])
    context = observations.context(query, Kriging(PERIOD, SPACING))
    assert not context.present.any()
    assert context.summary.shape == (1, N_SUMMARY)
    assert all(np.isfinite(getattr(context, f.name)).all() for f in fields(context))


def test_effects_are_shrunken_deviations_from_the_network():
    """Two sensors seen together n times, one b above the other: by hand, b/2 n/(n + 48) each."""
    step, sensor = np.repeat(np.arange(100), 2), np.tile([0, 1], 100)
    z = np.where(sensor == 0, 1.5, -1.5) + np.repeat(np.random.default_rng(0).normal(size=100), 2)
    found = sensor_effects(step, sensor, z, 3)
    assert found[0] - found[1] == pytest.approx(3 * 100 / 148)
    assert found[2] == pytest.approx(0, abs=1e-9)


def test_effects_nearby_are_between_the_median_and_the_nearest():
    places = np.array([[0.0, 0.0], [10.0, 0.0], [20.0, 0.0]])
    effects, nothing = np.array([-3.0, 1.0, 2.0]), np.zeros((1, 3), bool)
    at = effects_nearby(places[:1], places, effects, nothing, spacing=5.0)[0]
    far = effects_nearby(np.array([[1e6, 0.0]]), places, effects, nothing, spacing=5.0)[0]
    assert -3 < at < -1
    assert far == pytest.approx(1, abs=1e-6)
    hidden = np.array([[True, False, False]])
    assert effects_nearby(places[:1], places, effects, hidden, spacing=5.0)[0] > 0.9

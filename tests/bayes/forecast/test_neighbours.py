"""Neighbour search against brute force, and what a query must never see."""

from __future__ import annotations

import numpy as np
import pytest

from bayes.forecast.neighbours import N_OWN, N_SEASON, N_SPACE, NeighbourIndex, Query
from bayes.forecast.views import SHARES, draw_view

PERIOD = 6.0


@pytest.fixture
def network() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times, places and sensors of 40 steps of 7 sensors, 60 % of them observed."""
    rng = np.random.default_rng(0)
    time, sensor = (a.ravel().astype(float) for a in np.meshgrid(np.arange(40), np.arange(7)))
    kept = rng.random(len(time)) < 0.6
    places = rng.normal(size=(7, 2))
    sensor = sensor[kept].astype(int)
    return time[kept], places[sensor], sensor


def _hidden(query: Query, i: int, time: np.ndarray, sensor: np.ndarray) -> np.ndarray:
    own = (sensor == query.sensor[i]) & (time >= query.own[i, 0]) & (time <= query.own[i, 1])
    return own | ((time >= query.network[i, 0]) & (time <= query.network[i, 1]))


@pytest.mark.parametrize("pattern", [*SHARES, "plain"])
def test_own_and_season_agree_with_brute_force(network, pattern):
    time, position, sensor = network
    index = NeighbourIndex(time, position, sensor, PERIOD)
    query = Query.plain(time, position, sensor)
    if pattern != "plain":
        query = draw_view(pattern, time, position, sensor, 12.0, np.random.default_rng(1))
    found = index.search(query)
    for i in range(len(time)):
        visible = (sensor == sensor[i]) & ~_hidden(query, i, time, sensor)
        same_phase = visible & (time % PERIOD == time[i] % PERIOD)
        for rows, candidates, count in (
            (found.own[i], visible, N_OWN),
            (found.season[i], same_phase, N_SEASON),
        ):
            before = np.sort(time[candidates & (time < time[i])])[::-1][:count]
            after = np.sort(time[candidates & (time > time[i])])[:count]
            expected = np.full(2 * count, -1.0)
            expected[: len(before)], expected[count : count + len(after)] = before, after
            np.testing.assert_array_equal(np.where(rows >= 0, time[rows], -1.0), expected)


@pytest.mark.parametrize("pattern", list(SHARES))
def test_nothing_hidden_is_found(network, pattern):
    time, position, sensor = network
    query = draw_view(pattern, time, position, sensor, 12.0, np.random.default_rng(2))
    found = NeighbourIndex(time, position, sensor, PERIOD).search(query)
    rows = np.concatenate([found.own, found.season, found.space], axis=1)
    for i in range(len(time)):
        seen = rows[i][rows[i] >= 0]
        assert not _hidden(query, i, time, sensor)[seen].any()
        assert not ((time[seen] == time[i]) & (sensor[seen] == sensor[i])).any()
    # negative control: with nothing hidden but the row itself, some of the hidden rows are found
    plain = NeighbourIndex(time, position, sensor, PERIOD).search(
        Query.plain(time, position, sensor)
    )
    rows = np.concatenate([plain.own, plain.season, plain.space], axis=1)
    assert any(
        _hidden(query, i, time, sensor)[rows[i][rows[i] >= 0]].any() for i in range(len(time))
    )


def test_space_is_the_nearest_of_the_step(network):
    time, position, sensor = network
    index = NeighbourIndex(time, position, sensor, PERIOD)
    found = index.search(Query.plain(time, position, sensor)).space
    for i in range(len(time)):
        others = np.flatnonzero((time == time[i]) & (sensor != sensor[i]))
        distance = np.linalg.norm(position[others] - position[i], axis=1)
        expected = others[np.argsort(distance)]
        np.testing.assert_array_equal(found[i, : len(expected)], expected[:N_SPACE])


def test_an_outage_is_seen_from_both_sides(network):
    time, position, sensor = network
    dark = (time >= 10) & (time <= 14)
    index = NeighbourIndex(time[~dark], position[~dark], sensor[~dark], PERIOD)
    found = index.search(Query.plain(time[dark], position[dark], sensor[dark])).space
    seen = index.time[found[found >= 0].reshape(-1)]
    assert set(np.unique(seen)) >= {9.0, 15.0}
    assert seen.min() >= 5
    assert seen.max() <= 19


def test_without_sensors_a_row_does_not_find_itself():
    rng = np.random.default_rng(3)
    time, position = np.arange(30.0) // 3, rng.normal(size=(30, 2))
    nobody = np.full(30, -1)
    found = NeighbourIndex(time, position, nobody, PERIOD).search(
        Query.plain(time, position, nobody)
    )
    assert (found.own == -1).all()
    assert (found.season == -1).all()
    assert not (found.space == np.arange(30)[:, None]).any()
    assert (found.space >= 0).any(1).all()

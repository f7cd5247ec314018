r"""Which observations a query may look at: fixed numbers of them, found in O(N log N).

Three relations, each an index array with -1 where there is no such neighbour:

* *own*: the last a observations of the query's sensor before, and the first a after;
* *season*: the same among those at the same phase of the shortest season, such as the hour of day;
* *space*: the k nearest of other sensors at the query's step. If nobody was observed then, k/2
  from around the last step before at which somebody was, and k/2 from around the first after.

What a query must not see is a closed interval of time for its own sensor and one for the whole
network (`Query`). The row at the query's own time and sensor, or time and place where there are no
sensors, is never among its neighbours.

Times are measured in sampling steps. Sensors are searched by bisection in observations sorted by
sensor and time, space by a k-d tree in which one step is farther than any two places.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

N_OWN, N_SEASON, N_SPACE = 3, 2, 8


@dataclass(frozen=True)
class Query:
    """Where Q predictions are wanted and what is hidden from each.

    Attributes
    ----------
    time : ndarray (Q,)
        In steps.
    position : ndarray (Q, C)
    sensor : ndarray (Q,)
        -1 for none.
    own, network : ndarray (Q, 2)
        Closed intervals hidden at the query's sensor and at all sensors. ``own`` holds the query's
        time; an empty interval is (inf, -inf).
    """

    time: np.ndarray
    position: np.ndarray
    sensor: np.ndarray
    own: np.ndarray
    network: np.ndarray

    @classmethod
    def plain(cls, time: np.ndarray, position: np.ndarray, sensor: np.ndarray) -> Query:
        """Hide nothing but the row itself."""
        nothing = np.tile([np.inf, -np.inf], (len(time), 1))
        return cls(time, position, sensor, np.stack([time, time], axis=1), nothing)

    @classmethod
    def join(cls, parts: list[Query]) -> Query:
        return cls(*(np.concatenate([getattr(p, f) for p in parts]) for f in cls.__annotations__))

    def __getitem__(self, rows: np.ndarray | slice) -> Query:
        return Query(*(getattr(self, f)[rows] for f in self.__annotations__))

    def __len__(self) -> int:
        return len(self.time)


@dataclass(frozen=True)
class Neighbours:
    """Rows of the observations, -1 where there is none.

    Attributes
    ----------
    own : ndarray (Q, 2a)
        Before, nearest first, then after.
    season : ndarray (Q, 2b)
        Likewise.
    space : ndarray (Q, k)
    """

    own: np.ndarray
    season: np.ndarray
    space: np.ndarray


class NeighbourIndex:
    """Observations arranged for search.

    Parameters
    ----------
    time : ndarray (N,)
        In steps.
    position : ndarray (N, C)
    sensor : ndarray (N,)
        -1 for none; such observations are nobody's own.
    period : float
        Of the season, in steps.

    Examples
    --------
    >>> time = np.array([0.0, 1.0, 2.0, 1.0])
    >>> index = NeighbourIndex(time, np.zeros((4, 1)), np.array([0, 0, 0, 1]), period=24.0)
    >>> query = Query.plain(np.array([1.0]), np.zeros((1, 1)), np.array([0]))
    >>> found = index.search(query)
    >>> found.own[:, [0, N_OWN]], found.space[0, 0]
    (array([[0, 2]]), np.int64(3))
    """

    def __init__(
        self, time: np.ndarray, position: np.ndarray, sensor: np.ndarray, period: float
    ) -> None:
        self.time, self.position, self.sensor, self.period = time, position, sensor, period
        self._first = float(time.min())
        self._reach = float(time.max()) - self._first + 3.0
        known = np.flatnonzero(sensor >= 0)
        self._own = _Sorted(known, self._key(sensor, time)[known])
        self._season = _Sorted(known, self._key(self._phased(sensor, time), time)[known])
        extent = np.ptp(position, axis=0)
        self._unit = 2.0 * float(np.hypot.reduce(extent)) or 1.0
        self._steps = np.unique(np.rint(time))
        self._tree = cKDTree(np.column_stack([position / self._unit, np.rint(time)]))

    def search(self, query: Query) -> Neighbours:
        """The neighbours of each query."""
        return Neighbours(
            own=self._sided(self._own, query.sensor, query, N_OWN),
            season=self._sided(
                self._season, self._phased(query.sensor, query.time), query, N_SEASON
            ),
            space=self._near(query),
        )

    def _key(self, group: np.ndarray, time: np.ndarray) -> np.ndarray:
        """Numbers that order by group, then time."""
        inside = np.clip(time - self._first, -1.0, self._reach - 2.0)
        return group * self._reach + inside

    def _phased(self, sensor: np.ndarray, time: np.ndarray) -> np.ndarray:
        n_phases = max(int(np.ceil(self.period)), 1)
        return sensor * n_phases + np.floor(np.mod(time + 1e-6, self.period)).astype(np.int64)

    def _sided(self, order: _Sorted, group: np.ndarray, query: Query, count: int) -> np.ndarray:
        low = np.minimum(query.own[:, 0], query.network[:, 0])
        high = np.maximum(query.own[:, 1], query.network[:, 1])
        before = order.rank(self._key(group, low), "left")[:, None] - 1 - np.arange(count)
        after = order.rank(self._key(group, high), "right")[:, None] + np.arange(count)
        found = order.take(np.concatenate([before, after], axis=1))
        target = group[:, None]
        row_group = (
            self.sensor[found]
            if order is self._own
            else self._phased(self.sensor[found], self.time[found])
        )
        visible = np.concatenate(
            [
                self.time[found[:, :count]] < low[:, None],
                self.time[found[:, count:]] > high[:, None],
            ],
            axis=1,
        )
        good = (found >= 0) & (row_group == target) & visible & (query.sensor[:, None] >= 0)
        return np.where(good, found, -1)

    def _near(self, query: Query) -> np.ndarray:
        step = np.rint(query.time)
        hidden = query.network[:, 0] <= query.network[:, 1]
        low = np.where(hidden, np.ceil(query.network[:, 0]) - 1, step)
        high = np.where(hidden, np.floor(query.network[:, 1]) + 1, step)
        last = np.searchsorted(self._steps, low, "right") - 1
        first = np.searchsorted(self._steps, high, "left")
        n_steps = len(self._steps)
        before = np.where(last >= 0, self._steps[np.maximum(last, 0)], np.nan)
        after = np.where(first < n_steps, self._steps[np.minimum(first, n_steps - 1)], np.nan)
        together = before == after
        found = np.full((len(query), N_SPACE), -1)
        half = N_SPACE // 2
        for rows, anchor, columns in (
            (together, before, slice(0, N_SPACE)),
            (~together & ~np.isnan(before), before, slice(0, half)),
            (~together & ~np.isnan(after), after, slice(half, N_SPACE)),
        ):
            where = np.flatnonzero(rows)
            if len(where):
                width = columns.stop - columns.start
                found[where, columns] = self._around(query[where], anchor[where], width)
        return found

    def _around(self, query: Query, anchor: np.ndarray, count: int) -> np.ndarray:
        """The nearest visible observations of others around a step (Q, count)."""
        points = np.column_stack([query.position / self._unit, anchor])
        ask = min(2 * count + 4, len(self.time))
        _, found = self._tree.query(points, k=ask)
        found = found.reshape(len(points), ask)
        time = self.time[found]
        unseen = (time >= query.network[:, :1]) & (time <= query.network[:, 1:])
        alike = self.sensor[found] == query.sensor[:, None]
        known = query.sensor[:, None] >= 0
        place = np.all(self.position[found] == query.position[:, None, :], axis=-1)
        itself = alike & np.where(known, True, place & (time == query.time[:, None]))
        good = ~(unseen | itself)
        order = np.argsort(~good, axis=1, kind="stable")[:, :count]
        chosen = np.where(
            np.take_along_axis(good, order, axis=1), np.take_along_axis(found, order, axis=1), -1
        )
        out = np.full((len(points), count), -1)
        out[:, : chosen.shape[1]] = chosen
        return out


@dataclass(frozen=True)
class _Sorted:
    """Rows in the order of a key."""

    rows: np.ndarray
    keys: np.ndarray

    def __post_init__(self) -> None:
        order = np.argsort(self.keys, kind="stable")
        object.__setattr__(self, "rows", self.rows[order])
        object.__setattr__(self, "keys", self.keys[order])

    def rank(self, key: np.ndarray, side: str) -> np.ndarray:
        return np.searchsorted(self.keys, key, side=side)  # type: ignore[call-overload]

    def take(self, ranks: np.ndarray) -> np.ndarray:
        if not len(self.rows):
            return np.full(ranks.shape, -1)
        inside = (ranks >= 0) & (ranks < len(self.rows))
        return np.where(inside, self.rows[np.clip(ranks, 0, len(self.rows) - 1)], -1)

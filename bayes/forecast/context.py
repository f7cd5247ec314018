r"""The context of a query: what its neighbours propose for its value, and what kriging makes of it.

On the working scale, the effects of sensors taken off and the query's put on, neighbours make
proposals of five kinds:

==========  ====================================================================================
own         what the query's sensor showed before or after, :math:`z_j`
season      the same at the same phase of the shortest season
space       what another sensor shows at the step, or at the nearest step that anybody saw
transfer    what the others show now, and how the sensor differed from them then:
            :math:`c_q + z_j - c_j`, c being the inverse-distance mean of the others at a step
line        a straight line between the nearest before and after, own and transferred
==========  ====================================================================================

Each comes with features of its age, distance, bearing, kind, and difference from the conditional
mean of the Gaussian process given the same neighbours (`kriging`). That mean and the conditional
standard deviation are where the network starts from; which proposals correct it, attention learns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .effects import effects_nearby
from .kriging import Kriging, Neighbourhood
from .neighbours import N_OWN, N_SEASON, N_SPACE, NeighbourIndex, Neighbours, Query

KINDS = ("own", "season", "space", "transfer", "line")
SIZES = (2 * N_OWN, 2 * N_SEASON, N_SPACE, 2 * N_OWN, 2)
N_PROPOSALS = sum(SIZES)
N_EDGE = 8 + len(KINDS)
N_SUMMARY = 10
N_AROUND = 4  # neighbours in space of the nearest own observations, for kriging
CHUNK = 4096
AGES = np.array([1.5, 3.5, 6.5, 12.5, 24.5, 96.5])  # steps: edges of groups of isolation
N_AGES = len(AGES) + 1
N_COMPANIES = 6  # own sensor seen on 0, 1 or 2 sides; others at the step or not
N_GROUPS = N_COMPANIES * N_AGES


@dataclass(frozen=True)
class Context:
    """What Q queries know of their neighbours.

    Attributes
    ----------
    value : ndarray (Q, J) of float32
        Proposals, 0 where there is none.
    present : ndarray (Q, J) of bool
    edge : ndarray (Q, J, F) of float32
        Features of each proposal.
    summary : ndarray (Q, G) of float32
        Features of all of them together.
    mean, spread : ndarray (Q,)
        Of the Gaussian process given the neighbours.
    group : ndarray (Q,) of int64
        Alike in isolation: whether others are seen at the step, on how many sides the own sensor
        is, and how far from that.
    """

    value: np.ndarray
    present: np.ndarray
    edge: np.ndarray
    summary: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    group: np.ndarray

    @classmethod
    def join(cls, parts: list[Context]) -> Context:
        return cls(*(np.concatenate([getattr(p, f) for p in parts]) for f in cls.__annotations__))


class Observations:
    """What has been observed, ready to give any query its context.

    Parameters
    ----------
    time, position, sensor : ndarray (N,), (N, C), (N,)
        Times in steps.
    z : ndarray (N,)
        On the working scale.
    effects : ndarray (S,)
        Of sensors.
    period : float
        The shortest season, in steps.
    spacing : float
        Typical distance of a place to the next.
    """

    def __init__(
        self,
        time: np.ndarray,
        position: np.ndarray,
        sensor: np.ndarray,
        z: np.ndarray,
        effects: np.ndarray,
        period: float,
        spacing: float,
    ) -> None:
        self.index = NeighbourIndex(time, position, sensor, period)
        self.period, self.spacing, self.effects = period, spacing, effects
        padded = np.append(effects, 0.0)  # the last is for no sensor
        self.z = z - padded[sensor]
        codes, first = np.unique(sensor, return_index=True)
        first, codes = first[codes >= 0], codes[codes >= 0]
        self._codes, self._places = codes, position[first]
        self._reference = np.empty(len(z))
        self._around = np.empty((len(z), N_AROUND), np.int64)
        for start in range(0, len(z), CHUNK):
            rows = slice(start, start + CHUNK)
            query = Query.plain(time[rows], position[rows], sensor[rows])
            space = self.index.search(query).space
            self._reference[rows] = self._mean_around(query, space)
            near = space[:, :N_AROUND]
            self._around[rows] = np.where(self._simultaneous(query, near), near, -1)

    def effect(self, query: Query) -> np.ndarray:
        """Effects (Q,) of the queries' sensors, or of their surroundings if a sensor is hidden."""
        known = (query.sensor >= 0) & (query.own[:, 0] > -np.inf)
        hidden = query.sensor[:, None] == self._codes
        near = effects_nearby(
            query.position, self._places, self.effects[self._codes], hidden, self.spacing
        )
        return np.where(known, np.append(self.effects, 0.0)[query.sensor], near)

    def neighbourhood(self, query: Query) -> Neighbourhood:
        """What kriging conditions on: the neighbours, and who surrounded the nearest own ones."""
        return self._neighbourhood(query, self.index.search(query))

    def context(self, query: Query, kriging: Kriging) -> Context:
        """The context of each query."""
        starts = range(0, len(query), CHUNK)
        return Context.join([self._context(query[i : i + CHUNK], kriging) for i in starts])

    def _context(self, query: Query, kriging: Kriging) -> Context:
        found = self.index.search(query)
        mean, spread = (part.numpy() for part in kriging.predict(self._neighbourhood(query, found)))
        here = self._mean_around(query, found.space)
        rows = np.concatenate([found.own, found.season, found.space, found.own], axis=1)
        rows = np.concatenate([rows, rows[:, [0, 0]]], axis=1)
        present = rows >= 0
        value = self.z[rows]
        transfer = slice(-2 * N_OWN - 2, -2)
        value[:, transfer] += here[:, None] - self._reference[found.own]
        present[:, transfer] &= np.isfinite(value[:, transfer])
        age = self.index.time[rows] - query.time[:, None]
        _draw_lines(value, present, age)
        value = np.where(present, value, 0.0)
        age = np.where(present, age, 0.0)
        offset = self.index.position[rows] - query.position[:, None, :]
        offset = np.where(present[..., None], offset, 0.0)
        distance = np.sqrt(np.square(offset).sum(-1)) / self.spacing
        surprise = (value - mean[:, None]) / spread[:, None]
        edge = self._edges(age, offset, distance, present, surprise)
        together = self._simultaneous(query, found.space)
        effect = self.effect(query)
        return Context(
            np.where(present, value + effect[:, None], 0.0).astype(np.float32),
            present,
            edge,
            _summary(age, distance, present, together, spread),
            mean + effect,
            spread,
            _group(age, present, together),
        )

    def _edges(
        self,
        age: np.ndarray,
        offset: np.ndarray,
        distance: np.ndarray,
        present: np.ndarray,
        surprise: np.ndarray,
    ) -> np.ndarray:
        log_age = 0.5 * np.log1p(np.abs(age))
        bearing = offset[..., [0, -1]] / np.maximum(self.spacing * distance, 1e-9)[..., None]
        surprise = np.clip(np.where(present, surprise, 0.0), -10, 10)
        kind = np.repeat(np.eye(len(KINDS)), SIZES, axis=0)
        features = [
            log_age,
            np.sign(age) * log_age,
            np.where(present, np.cos(2 * np.pi * age / self.period), 0.0),
            np.log1p(distance),
            bearing[..., 0],
            bearing[..., 1],
            0.3 * surprise,
            0.3 * np.abs(surprise),
        ]
        kinds = np.broadcast_to(kind, (len(age), *kind.shape))
        return np.concatenate([np.stack(features, -1), kinds], -1).astype(np.float32)

    def _neighbourhood(self, query: Query, found: Neighbours) -> Neighbourhood:
        nearest = found.own[:, [0, N_OWN]]
        around = np.where(nearest[..., None] >= 0, self._around[nearest], -1)
        rows = np.concatenate(
            [found.own, found.season, found.space, around.reshape(len(query), -1)], axis=1
        )
        rows.sort(axis=1)
        rows[:, 1:][rows[:, 1:] == rows[:, :-1]] = -1  # found twice
        present = rows >= 0
        index = self.index
        return Neighbourhood(
            torch.from_numpy(np.concatenate([query.time[:, None], index.time[rows]], axis=1)),
            torch.from_numpy(
                np.concatenate([query.position[:, None], index.position[rows]], axis=1)
            ),
            torch.from_numpy(np.concatenate([query.sensor[:, None], index.sensor[rows]], axis=1)),
            torch.from_numpy(np.where(present, self.z[rows], 0.0)),
            torch.from_numpy(present),
        )

    def _simultaneous(self, query: Query, rows: np.ndarray) -> np.ndarray:
        return (rows >= 0) & (np.rint(self.index.time[rows]) == np.rint(query.time)[:, None])

    def _mean_around(self, query: Query, space: np.ndarray) -> np.ndarray:
        """c: the inverse-distance mean of the others at the same step (Q,), NaN if none."""
        together = self._simultaneous(query, space)
        offset = self.index.position[space] - query.position[:, None, :]
        weight = together / (np.square(offset).sum(-1) + (0.5 * self.spacing) ** 2)
        with np.errstate(invalid="ignore"):
            return (weight * self.z[space]).sum(1) / weight.sum(1)


def _draw_lines(value: np.ndarray, present: np.ndarray, age: np.ndarray) -> None:
    """Fill the last two proposals: lines between the nearest before and after.

    Their age is a b / (a + b) for ages a and b of the ends, which is what the variance of a
    Brownian bridge is proportional to.
    """
    before, after = np.abs(age[:, 0]), np.abs(age[:, N_OWN])
    total = np.maximum(before + after, 1e-9)
    share = (after / total)[:, None]
    first = N_PROPOSALS - 2 * N_OWN - 2  # of the transfers
    old, new = [0, first], [N_OWN, first + N_OWN]
    value[:, -2:] = share * value[:, old] + (1 - share) * value[:, new]
    present[:, -2:] = present[:, old] & present[:, new]
    age[:, -2:] = (before * after / total)[:, None]


def _summary(
    age: np.ndarray,
    distance: np.ndarray,
    present: np.ndarray,
    together: np.ndarray,
    spread: np.ndarray,
) -> np.ndarray:
    space = slice(2 * (N_OWN + N_SEASON), 2 * (N_OWN + N_SEASON) + N_SPACE)
    sides = slice(0, N_OWN), slice(N_OWN, 2 * N_OWN), space
    nearest = np.where(together, distance[:, space], np.inf).min(1)
    features = [
        *(0.5 * np.log1p(_least(np.abs(age), present, side)) for side in sides),
        *(present[:, side].any(1) for side in sides),
        together.any(1),
        np.log1p(np.where(np.isfinite(nearest), nearest, 0.0)),
        present.mean(1),
        np.log(spread),
    ]
    return np.stack(features, axis=1).astype(np.float32)


def _group(age: np.ndarray, present: np.ndarray, together: np.ndarray) -> np.ndarray:
    sides = [present[:, :N_OWN].any(1), present[:, N_OWN : 2 * N_OWN].any(1)]
    n_sides = sides[0].astype(np.int64) + sides[1]
    own, rest = slice(0, 2 * N_OWN), slice(2 * N_OWN, N_PROPOSALS)
    ages = np.where(present, np.abs(age), np.inf)
    nearest = np.where(n_sides > 0, ages[:, own].min(1), ages[:, rest].min(1))
    far = (nearest[:, None] > AGES).sum(1)
    return far + N_AGES * (n_sides + 3 * together.any(1))


def _least(age: np.ndarray, present: np.ndarray, columns: slice) -> np.ndarray:
    least = np.where(present[:, columns], age[:, columns], np.inf).min(1)
    return np.where(np.isfinite(least), least, 0.0)

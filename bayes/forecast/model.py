"""A fitted model: from records to predictive distributions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from .architecture import Inputs, Network
from .climate import Climate
from .context import Observations
from .features import Features
from .kriging import Kriging
from .likelihoods import Law, Likelihood
from .neighbours import Query
from .predictive import Predictive
from .recalibration import Recalibration
from .records import Records
from .scale import TargetScale

MEMBER_ROWS = 16_384  # members times rows that pass through the network at once


@dataclass
class Model:
    """What `CGLUBNF.fit` learns.

    Attributes
    ----------
    records : Records
        Training rows with a known target, which predictions look at.
    effects : ndarray (S,)
        Of sensors, on the working scale.
    period : float
        The shortest season, in steps.
    spacing : float
        Typical distance of a place to the next.
    """

    records: Records
    features: Features
    likelihood: Likelihood
    target_scale: TargetScale
    effects: np.ndarray
    period: float
    spacing: float
    kriging: Kriging
    network: Network
    climate: Climate
    recalibration: Recalibration

    def observations(self, more: Records | None = None) -> Observations:
        """The training rows, and ``more`` where they are not known in training."""
        parts = [self.records]
        if more is not None:
            parts.append(more.take(np.flatnonzero(more.observed & ~_shared(more, self.records))))
        target = np.concatenate([part.target for part in parts])
        return Observations(
            np.concatenate([part.hours for part in parts]) / self.step,
            np.concatenate([part.position for part in parts]),
            np.concatenate([part.sensor for part in parts]),
            self.likelihood.to_working(target, self.target_scale),
            self.effects,
            self.period,
            self.spacing,
        )

    @property
    def step(self) -> float:
        return self.records.reference.step

    @cached_property
    def seen(self) -> Observations:
        return self.observations()

    def predict(self, records: Records, more: Records | None = None) -> Predictive:
        """Predictive distributions of the rows of ``records``, whose targets are not looked at."""
        observations = self.seen if more is None else self.observations(more)
        query = self.query(records)
        parts = []
        chunk = max(MEMBER_ROWS // self.network.n_members, 1)
        for start in range(0, len(query), chunk):
            rows = slice(start, start + chunk)
            context = (
                observations.context(query[rows], self.kriging) if self.features.context else None
            )
            inputs = self.features.inputs(query[rows], records.covariates[rows], context)
            group = np.zeros(len(inputs.base), np.int64) if context is None else context.group
            law = self.climate.pool(self.network_law(inputs), inputs.season.numpy(), group)
            parts.append((law.location, law.scale, group))
        location, scale, group = (np.concatenate(p, axis=-1) for p in zip(*parts, strict=True))
        return Predictive(
            Law(location, scale, law.tail),
            group,
            self.likelihood,
            self.target_scale,
            self.recalibration,
        )

    def network_law(self, inputs: Inputs) -> Law:
        """What the members say of N rows, before climate and recalibration."""
        with torch.no_grad():
            location, log_scale, tail = self.network(inputs.expand(self.network.n_members))
        parts = location, log_scale.double().exp(), tail.detach()
        return Law(*(part.double().numpy() for part in parts))

    def query(self, records: Records) -> Query:
        """What rows may look at: not at an observation of their own time and sensor or place.

        A row where training has an observation already is taken for another instrument's, to which
        nothing of that sensor is its own.
        """
        time = records.hours / self.step
        query = Query.plain(time, records.position, records.sensor)
        query.own[_shared(records, self.records)] = -np.inf, np.inf
        return query


def _shared(records: Records, known: Records) -> np.ndarray:
    """Rows (N,) at a time, sensor and place of a known one."""
    keys = [
        np.column_stack([part.hours, part.sensor, part.position.round(3)])
        for part in (known, records)
    ]
    code = np.unique(np.concatenate(keys), axis=0, return_inverse=True)[1].ravel()
    return np.isin(code[len(known) :], code[: len(known)])

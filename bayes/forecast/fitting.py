"""From records to a model: scales, effects, kriging, training under views, recalibration."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from .architecture import N_FOLDS, Architecture, Network
from .climate import Climate
from .context import N_AGES, N_COMPANIES, N_EDGE, N_GROUPS, N_SUMMARY, Observations
from .effects import sensor_effects
from .features import Features
from .kriging import Kriging
from .likelihoods import Law, Likelihood
from .model import MEMBER_ROWS, Model
from .neighbours import Query
from .recalibration import Recalibration
from .records import Records
from .seasons import DAY, HALF_DAY
from .training import Targets, held_out
from .views import draw_views

N_TARGETS, TARGETS_PER_ROW = 24_000, 3
N_KRIGING = 3000
KRIGING_STEPS = 120
STRETCHES_PER_FOLD = 6
LONGEST = 14 * DAY


@dataclass(frozen=True)
class Problem:
    """An untrained model, and what to train and recalibrate it on.

    Attributes
    ----------
    model : Model
    targets : Targets
        R of them.
    group, block : ndarray (R,)
        Of isolation, and of targets that are taken as dependent.
    """

    model: Model
    targets: Targets
    group: np.ndarray
    block: np.ndarray

    def log_prob(self, z: Tensor, location: Tensor, log_scale: Tensor, tail: Tensor) -> Tensor:
        model = self.model
        return model.likelihood.log_prob(z, location, log_scale, tail, model.target_scale)


def prepare(
    records: Records,
    validation: Records | None,
    likelihood: Likelihood,
    periods: list[float],
    architecture: Architecture,
    n_members: int,
    hold_out: bool,
    generator: torch.Generator,
) -> Problem:
    """Everything but the training of the network.

    Parameters
    ----------
    records, validation : Records
        With known targets only.
    likelihood : Likelihood
    periods : list of float
        Seasons in hours.
    architecture : Architecture
        Its counts of inputs are filled in.
    n_members : int
    hold_out : bool
        Whether each member leaves out a fold of the targets.
    generator : torch.Generator
    """
    rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    step = records.reference.step
    time = records.hours / step
    target_scale = likelihood.target_scale(records.target)
    z = likelihood.to_working(records.target, target_scale)
    features = Features.fit(records, periods, architecture.context)
    period = (periods[0] if periods else DAY) / step
    spacing = _spacing(records.position)
    architecture = replace(
        architecture,
        n_coords=features.n_coords,
        n_season=features.n_season,
        n_covariates=features.n_covariates,
        n_edge=N_EDGE,
        n_summary=N_SUMMARY,
    )
    model = Model(
        records,
        features,
        likelihood,
        target_scale,
        sensor_effects(np.rint(time), records.sensor, z, records.n_sensors),
        period,
        spacing,
        Kriging(period, spacing),
        Network(architecture, n_members, _kernel(), generator),
        Climate.none(n_members, features.n_season, N_GROUPS),
        Recalibration.identity(N_GROUPS),
    )
    observations = model.observations()
    if architecture.context:
        longest = max(min(float(np.ptp(records.hours)) / 4, LONGEST) / step, 4.0)
        rows_of = time, records.position, records.sensor
        query, rows = draw_views(*rows_of, min(N_KRIGING, 3 * len(z)), longest, rng)
        target = torch.from_numpy(z[rows] - observations.effect(query))
        model.kriging.fit(observations.neighbourhood(query), target, generator, KRIGING_STEPS)
        n_targets = min(N_TARGETS, TARGETS_PER_ROW * len(z))
        query, rows = draw_views(*rows_of, n_targets, longest, rng)
    else:
        rows = np.arange(len(z))
        query = Query.plain(time, records.position, records.sensor)
    fold, block = _folds(query, rng)
    if not architecture.context:
        fold = rng.integers(N_FOLDS, size=len(rows))  # a field cannot tell a stretch it never saw
    if validation is not None or not hold_out:
        fold = np.full(len(rows), N_FOLDS)
    targets, group = _targets(model, observations, query, records.covariates[rows], z[rows], fold)
    if validation is not None:
        asked = Query.plain(validation.hours / step, validation.position, validation.sensor)
        known = likelihood.to_working(validation.target, target_scale)
        outside = np.full(len(known), -1)
        more, more_group = _targets(
            model, observations, asked, validation.covariates, known, outside
        )
        targets = Targets.join([targets, more])
        group = np.concatenate([group, more_group])
        block = np.floor(np.concatenate([block, validation.hours / HALF_DAY]))
    return Problem(model, targets, group, block)


def held_out_law(problem: Problem) -> tuple[Law, np.ndarray]:
    """What the members say of all targets (M, R), and which they are not trained on (M, R)."""
    model, targets = problem.model, problem.targets
    chunk = max(MEMBER_ROWS // model.network.n_members, 1)
    laws = [
        model.network_law(targets.inputs.rows(slice(start, start + chunk)))
        for start in range(0, len(targets.z), chunk)
    ]
    location, scale = (np.concatenate([law[i] for law in laws], axis=1) for i in (0, 1))
    return Law(location, scale, laws[0].tail), held_out(model.network, targets.fold).numpy()


def climate_of(problem: Problem, law: Law, outside: np.ndarray) -> Climate:
    """The members' climates, and how much of them helps on the targets they held out."""
    model, targets = problem.model, problem.targets
    return Climate.fit(
        targets.z.double().numpy(),
        law,
        outside,
        targets.inputs.season.numpy(),
        problem.group,
        problem.block,
        model.likelihood,
        model.target_scale,
        (N_COMPANIES, N_AGES),
    )


def recalibrate(problem: Problem, law: Law, outside: np.ndarray) -> Recalibration:
    """From what the members that held a target out say of it."""
    model, targets = problem.model, problem.targets
    law = model.climate.pool(law, targets.inputs.season.numpy(), problem.group)
    u = model.likelihood.cdf(targets.z.double().numpy(), law, model.target_scale)
    judged = outside.any(0)
    u = np.where(outside, u, 0.0).sum(0)[judged] / outside.sum(0)[judged]
    return Recalibration.fit(u, problem.group[judged], problem.block[judged], N_GROUPS)


def _targets(
    model: Model,
    observations: Observations,
    query: Query,
    covariates: np.ndarray,
    z: np.ndarray,
    fold: np.ndarray,
) -> tuple[Targets, np.ndarray]:
    context = observations.context(query, model.kriging) if model.features.context else None
    inputs = model.features.inputs(query, covariates, context)
    group = np.zeros(len(z), np.int64) if context is None else context.group
    return Targets(inputs, torch.from_numpy(z.astype(np.float32)), torch.from_numpy(fold)), group


def _folds(query: Query, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Folds and dependent blocks (Q,) of targets.

    Both are made of stretches of time, of which each fold has as many, or, where the sensor is
    hidden, of sensors: what a member makes of one it never saw is what counts.
    """
    n_stretches = N_FOLDS * STRETCHES_PER_FOLD
    share = (query.time - query.time.min()) / (np.ptp(query.time) + 1e-9)
    stretch = np.minimum((share * n_stretches).astype(int), n_stretches - 1)
    of_stretch = np.concatenate([rng.permutation(N_FOLDS) for _ in range(STRETCHES_PER_FOLD)])
    hidden = (query.own[:, 0] == -np.inf) & (query.sensor >= 0)
    of_sensor = rng.permutation(max(int(query.sensor.max()) + 1, 1)) % N_FOLDS
    fold = np.where(hidden, of_sensor[query.sensor], of_stretch[stretch])
    block = np.where(hidden, -1 - query.sensor, stretch)
    return fold, block


def _kernel() -> Tensor:
    """Where attention to the features of proposals starts: less with age, distance, surprise."""
    kernel = torch.zeros(N_EDGE)
    kernel[[0, 3, 7]] = torch.tensor([-2.0, -1.5, -1.0])
    return kernel


def _spacing(position: np.ndarray) -> float:
    """The median distance of a place to the next, 1 if there is one place only."""
    places = np.unique(position, axis=0)
    if len(places) < 2:
        return 1.0
    return float(np.median(cKDTree(places).query(places, k=2)[0][:, 1]))

"""Kind `rates`: simulate from a truth, fit by maximum likelihood, measure how far off the fit is.

An arm is a way of fitting ("constrained", "unconstrained", "oracle") and, where it says so, a gate
of its own; arms share their data. A row holds the fit's certificate, its Hellinger distance to the
truth, its Voronoi loss and the deviations of each group of parameters in cells with one and with
several atoms; where gate parameters move selection boundaries, how far these are off as well, and
of a gate with a temperature how far off that is and the slopes before and after division by it.

A truth may move with n (`_moving`): a row then holds deviations from the truth of its own n.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from experiments.kinds import Batch, ProfileModel, SettingModel, replicate_batches
from experiments.kinds._moving import (
    MovingSetting,
    check_moving,
    moving_deviations,
    of_a_fixed_truth,
    truth_at,
)
from experiments.simulation import (
    DesignSetting,
    GateSetting,
    TruthSetting,
    design,
    known_gate,
    simulate,
    truth,
)
from experiments.study import Study

PROFILED = 3_000
"""Observations behind the profile likelihood of a temperature."""

CHUNK = 2**17
"""Observations drawn at once where a setting asks for chunks; part of what its results are."""


class ArmSetting(SettingModel):
    """A way of fitting: the parameters of `moe_stats.GaussianMoERegressor`."""

    init: Literal["auto", "random", "kmeans", "lines", "oracle"] = "auto"
    n_init: int = Field(default=8, ge=1)
    n_rounds: int = Field(default=1, ge=0)
    quasi_newton: bool = False
    min_scale: float | None = Field(default=None, gt=0)
    min_weight: float = Field(default=0.0, ge=0)
    gate_bound: float | None = Field(default=None, gt=0)
    max_iter: int = Field(default=300, ge=1)


class RatesArmSetting(ArmSetting):
    """A way of fitting, with another gate than the study's where one is given."""

    fitted_gate: GateSetting | None = None


class RatesSetting(SettingModel):
    """What is simulated and how it is fitted.

    With ``in_chunks``, data of more than `CHUNK` observations are drawn to a temporary file and
    read from it chunk by chunk at every pass of a fit, never held.
    """

    design: DesignSetting
    truth: TruthSetting
    n_experts: int = Field(ge=1, description="experts of the fitted model")
    fitted_gate: GateSetting
    loss: Literal["D1", "D2"]
    arms: dict[str, RatesArmSetting] = Field(min_length=1)
    moving: MovingSetting | None = None
    in_chunks: bool = False

    @model_validator(mode="after")
    def _builds(self) -> RatesSetting:
        truth(self)
        for arm in self.arms:
            template(self, arm)
        if self.moving is not None:
            check_moving(self)
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without keys added later where they say nothing: they enter the configuration's hash."""
        stated: dict[str, Any] = handler(self)
        added = {"moving": None, "in_chunks": False}
        return {k: v for k, v in stated.items() if k not in added or v != added[k]}


class RatesProfile(ProfileModel):
    """Sample sizes and number of replicates, the latter in tens so that batches are full."""

    sizes: tuple[int, ...] = Field(min_length=1)
    replicates: int = Field(ge=10, multiple_of=10)


def template(setting: RatesSetting, arm: str) -> Any:
    """The `moe_stats.GateTemplate` of an arm's fitted models."""
    from moe_stats.gates import GATES

    gate = setting.arms[arm].fitted_gate or setting.fitted_gate
    return known_gate(gate.name, GATES).template(**gate.options)


def chunks(study: Study, true: Any, law: Any, n: int, replicate: int) -> Any:
    """The `moe_stats.fit.chunked.Chunks` of a replicate: chunk c has seeds of its own."""
    from moe_stats.fit.chunked import Chunks

    def draw(c: int, length: int) -> tuple[Any, Any]:
        X = law.sample(length, study.seed_of(n, replicate, "X", c))
        return X, true.sample(X, study.seed_of(n, replicate, "y", c))

    return Chunks(n, CHUNK, draw)


class Rates:
    """See the module's docstring."""

    name = "rates"
    revision = 4
    Setting = RatesSetting
    Profile = RatesProfile

    def batches(self, setting: RatesSetting, profile: RatesProfile) -> list[Batch]:
        """Those of each arm; see `replicate_batches`."""
        arms = {arm: (arm,) for arm in setting.arms}
        return replicate_batches(arms, profile.sizes, profile.replicates)

    def prepare(self, study: Study) -> dict[str, Any]:
        """The smallest distance that each arm's fitted family can attain, by quadrature; of a gate
        with a temperature also how precisely it can be estimated, and its profile likelihood."""
        setting: RatesSetting = study.setting
        families: dict[tuple[Any, ...], dict[str, Any]] = {}
        arms = {}
        for name, arm in setting.arms.items():
            family = template(setting, name), arm.min_weight, arm.gate_bound
            if family not in families:
                families[family] = _attainable(study, *family)
            arms[name] = families[family]
        if setting.truth.temperature is None:
            return {"arms": arms}
        return {"arms": arms, **_temperature(study)}

    def describe(self, prepared: dict[str, Any]) -> str:
        """Each arm's attainable distance in a sentence, and the gate's precision."""
        sentences = {name: arm["sentence"] for name, arm in prepared.get("arms", {}).items()}
        lines = [f"{name}: {sentence}" for name, sentence in sentences.items()]
        if len(set(sentences.values())) <= 1:
            lines = sorted(set(sentences.values()))
        if "precision" in prepared:
            lines.append(prepared["precision"]["sentence"])
        return "\n".join(lines)

    def run_batch(self, study: Study, batch: Batch) -> list[dict[str, Any]]:
        """Simulate and fit the batch's replicates as one tensor program."""
        from theory import hellinger, voronoi_loss
        from theory.temperature import temperature_deviations

        setting: RatesSetting = study.setting
        n = batch.cells[0].n
        true, law = truth_at(setting, n), design(setting)
        keys = [(cell.n, cell.replicate) for cell in batch.cells]
        fit, pieces = _fit(study, batch.cells[0].arm, true, law, keys)
        loss = voronoi_loss(fit.model, true, order=setting.loss)
        distance = hellinger(fit.model, true, law, random_state=study.seed_of(0, 0, "hellinger"))
        columns = {
            "log_likelihood": fit.log_likelihood.tolist(),
            "gain": (
                fit.log_likelihood - sum(true.log_prob(y, X).sum(-1) for X, y in pieces())
            ).tolist(),
            "scaled_gradient": fit.scaled_gradient.tolist(),
            "converged": fit.converged.tolist(),
            "fit_status": [fit.status(r) for r in range(len(keys))],
            "n_active_bounds": [len(fit.active_bounds(r)) for r in range(len(keys))],
            "least_weight": sum(
                X.shape[-2] / n * fit.model.gate_probs(X).mean(-2) for X, _ in pieces()
            )
            .amin(-1)
            .tolist(),
            "least_scale": fit.model.experts.scale.amin(-1).tolist(),
            "hellinger": np.atleast_1d(distance.value).tolist(),
            "mass_deviation": _mass_deviation(loss).tolist(),
            **_boundaries(fit.model, true, law, loss.cells),
            **{
                k: v.tolist()
                for k, v in temperature_deviations(fit.model, true, loss.cells).items()
            },
            **loss.columns(),
        }
        if setting.moving is not None:
            columns = {k: v for k, v in columns.items() if k not in of_a_fixed_truth(loss)}
            columns |= moving_deviations(fit.model, true, setting.moving)
        rows = [
            dict(zip(columns, values, strict=True))
            for values in zip(*columns.values(), strict=True)
        ]
        for row in rows:
            if not math.isfinite(row["log_likelihood"]):
                row.update(status="failed", error=row["fit_status"])
        return rows


def _fit(
    study: Study, arm: str, true: Any, law: Any, keys: Sequence[tuple[int, int]]
) -> tuple[Any, Callable[[], Iterator[tuple[Any, Any]]]]:
    """The `MLE` of an arm for replicates of one n, and what gives their X (R, M, D), y (R, M)."""
    from moe_stats import fit_mle
    from moe_stats.fit.chunked import fit_mle_in_chunks

    setting: RatesSetting = study.setting
    arguments = {
        "n_experts": setting.n_experts,
        "gate": template(setting, arm),
        "experts": true.experts.kind,
        **setting.arms[arm].model_dump(exclude={"fitted_gate"}),
    }
    seeds = [study.seed_of(n, r, "fit", arm) for n, r in keys]
    if setting.in_chunks and keys[0][0] > CHUNK:  # one replicate a batch at such sizes
        data = chunks(study, true, law, *keys[0]).on_disk()
        fit = fit_mle_in_chunks(data, random_state=seeds[0], **arguments)
        return fit, lambda: ((x.mT, y) for x, y in data)
    X, y = simulate(study, true, law, keys)
    return fit_mle(X, y, truth=true, random_states=seeds, **arguments), lambda: iter([(X, y)])


def _attainable(
    study: Study, gate: Any, min_weight: float, gate_bound: float | None
) -> dict[str, Any]:
    """What `prepare` keeps of a family's attainable distance, infinities and NaN as None."""
    from theory import attainable_distance

    setting: RatesSetting = study.setting
    found = attainable_distance(
        truth_at(setting, 1),
        design(setting),
        n_experts=setting.n_experts,
        gate=gate,
        min_weight=min_weight,
        gate_bound=math.inf if gate_bound is None else gate_bound,
        random_state=study.seed_of(0, 0, "attainable"),
    )
    models = {"near": found.near_model, "everywhere": found.everywhere_model}
    return {
        "near": found.near if math.isfinite(found.near) else None,
        "everywhere": found.everywhere if math.isfinite(found.everywhere) else None,
        "error": found.error if math.isfinite(found.error) else None,
        "models": {k: m.to_params().tolist() if m else None for k, m in models.items()},
        "cells": {"near": found.near_cells, "everywhere": found.everywhere_cells},
        "sentence": _sentence(
            setting.n_experts,
            gate.options.get("top_k"),
            min_weight,
            found.near,
            found.everywhere,
        ),
    }


def _temperature(study: Study) -> dict[str, Any]:
    """What `prepare` keeps of a gate with a temperature: the expected precision of its parameters,
    and the profile likelihood of log tau on one data set."""
    import torch

    from moe_stats import fit_mle
    from moe_stats.inference.shared_profile import shared_profile
    from theory.precision import gate_precision

    true, law = truth(study.setting), design(study.setting)
    precision = gate_precision(true, law)
    X, y = simulate(study, true, law, [(PROFILED, 0)], "profile")
    seed = study.seed_of(PROFILED, 0, "profile fit")
    fit = fit_mle(
        X,
        y,
        n_experts=true.n_experts,
        gate=true.gate,
        experts=true.experts.kind,
        random_states=[seed],
    )
    profile = shared_profile(fit)
    kept = torch.isfinite(torch.from_numpy(profile.log_likelihood))
    return {
        "precision": {
            "condition": precision.condition,
            "n_null": precision.n_null,
            "relative": precision.relative,
            "n_needed": precision.n_needed,
            "sentence": str(precision),
        },
        "profile": {
            "n": PROFILED,
            "log_temperature": profile.value[kept].tolist(),
            "log_likelihood": profile.log_likelihood[kept].tolist(),
            "estimate": profile.estimate,
        },
    }


def _sentence(
    n_experts: int, top_k: int | None, min_weight: float, near: float, everywhere: float
) -> str:
    from theory.attainable import ATTAINED

    family = f"With {n_experts} experts" + (f", {top_k} of them selected" if top_k else "")
    if min_weight > 0:
        family += f", and mean gate probabilities of at least {min_weight:g}"
    if near < ATTAINED:
        return f"{family}, the truth is attained near its own atoms, E_X h = {near:.2g}."
    if not math.isfinite(everywhere):
        return f"{family}, no model was found within the bounds."
    attained = everywhere < ATTAINED
    if math.isnan(near):  # fewer experts than the truth
        outcome = "attained" if attained else "not attained in this search"
        return f"{family}, the smallest E_X h found is {everywhere:.2g}: the truth is {outcome}."
    outcome = "attained away from them" if attained else "not attained in this search"
    return (
        f"{family}, the smallest E_X h found is {near:.2g} near the truth's atoms and "
        f"{everywhere:.2g} anywhere: the truth is {outcome}."
    )


def _mass_deviation(loss: Any) -> Any:
    """Sum over cells of what their masses are off by; NaN with an empty cell, or where masses are
    not identified."""
    import torch

    if "mass" not in loss.compared:
        return torch.full_like(loss.value, torch.nan)
    mass = sum(torch.nan_to_num(loss.weighted["mass", kind]) for kind in ("single", "multi"))
    return torch.where((loss.cell_sizes > 0).all(-1), mass, torch.nan)


def _boundaries(model: Any, true: Any, law: Any, cells: Any) -> dict[str, list[float]]:
    """Columns on selection boundaries, none where no gate parameter moves one."""
    from theory.boundaries import boundary_deviation, has_boundaries, selection_distance

    if not (has_boundaries(true) and has_boundaries(model)):
        return {}
    distance = selection_distance(model, true, law, cells=cells)
    columns = {"selection_distance": distance.value.tolist()}
    if true.gate.rank == "slope":
        deviation = boundary_deviation(model, true, cells=cells)
        columns["direction_deviation"] = deviation.direction.tolist()
        columns["length_deviation"] = deviation.length.tolist()
    return columns


KIND = Rates()

"""Kind `rates`: simulate from a truth, fit by maximum likelihood, measure how far off the fit is.

An arm is a way of fitting ("constrained", "unconstrained", "oracle"); arms share their data. A row
holds the fit's certificate, its Hellinger distance to the truth, its Voronoi loss and the
deviations of each group of parameters in cells with one and with several atoms.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from experiments.kinds import Batch, Cell, ProfileModel, SettingModel
from experiments.study import Study

Vector = tuple[float, ...]
Matrix = tuple[Vector, ...]


class GateSetting(SettingModel):
    """A gate by name with its options, parameters left out."""

    name: str = "softmax"
    top_k: int | None = Field(default=None, ge=1)
    rank: Literal["slope", "logit"] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The options that are set, as the gate's class takes them."""
        return self.model_dump(exclude={"name"}, exclude_none=True)


class DesignSetting(SettingModel):
    """Where X comes from: the parameters of `moe_stats.Uniform`."""

    low: float
    high: float
    n_features: int = Field(default=1, ge=1)


class TruthSetting(SettingModel):
    """The true model. Slopes are one row an expert, one column a feature."""

    gate: GateSetting
    gate_intercept: Vector
    gate_slope: Matrix
    slope: Matrix
    intercept: Vector
    scale: Vector


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


class RatesSetting(SettingModel):
    """What is simulated and how it is fitted."""

    design: DesignSetting
    truth: TruthSetting
    n_experts: int = Field(ge=1, description="experts of the fitted model")
    fitted_gate: GateSetting
    loss: Literal["D1", "D2"]
    arms: dict[str, ArmSetting] = Field(min_length=1)

    @model_validator(mode="after")
    def _builds(self) -> RatesSetting:
        truth(self)
        template(self)
        return self


class RatesProfile(ProfileModel):
    """Sample sizes and number of replicates, the latter in tens so that batches are full."""

    sizes: tuple[int, ...] = Field(min_length=1)
    replicates: int = Field(ge=10, multiple_of=10)


def truth(setting: RatesSetting) -> Any:
    """The true `moe_stats.GaussianMoE`."""
    from moe_stats import GaussianMoE, LinearExperts
    from moe_stats.gates import GATES

    t: Any = setting.truth
    gate = _known_gate(t.gate.name, GATES)(t.gate_intercept, t.gate_slope, **t.gate.options)
    return GaussianMoE(gate, LinearExperts(t.slope, t.intercept, t.scale))


def template(setting: RatesSetting) -> Any:
    """The `moe_stats.GateTemplate` of the fitted models."""
    from moe_stats.gates import GATES

    gate = setting.fitted_gate
    return _known_gate(gate.name, GATES).template(**gate.options)


def design(setting: RatesSetting) -> Any:
    """The design of X."""
    from moe_stats import Uniform

    return Uniform(**setting.design.model_dump())


class Rates:
    """See the module's docstring."""

    name = "rates"
    revision = 1
    Setting = RatesSetting
    Profile = RatesProfile

    def batches(self, setting: RatesSetting, profile: RatesProfile) -> list[Batch]:
        """Replicates in tens while data are small, then in fives, then one by one."""
        batches = []
        for arm in setting.arms:
            for n in profile.sizes:
                size = 10 if n <= 2_000 else 5 if n <= 20_000 else 1
                for first in range(0, profile.replicates, size):
                    cells = tuple(Cell(arm, n, r) for r in range(first, first + size))
                    batches.append(Batch(f"{arm}-n{n}-r{first}-{first + size - 1}", cells))
        return batches

    def prepare(self, study: Study) -> dict[str, Any]:
        """The smallest distance that the fitted family can attain, by quadrature."""
        from theory import attainable_distance

        setting = study.setting
        bounds = next(iter(setting.arms.values()))
        attainable = attainable_distance(
            truth(setting),
            design(setting),
            n_experts=setting.n_experts,
            gate=template(setting),
            min_weight=bounds.min_weight,
            gate_bound=math.inf if bounds.gate_bound is None else bounds.gate_bound,
            random_state=study.seed_of(0, 0, "attainable"),
        )
        return {
            "near": attainable.near,
            "everywhere": attainable.everywhere,
            "error": attainable.error,
            "sentence": attainable.sentence,
        }

    def describe(self, prepared: dict[str, Any]) -> str:
        """The attainable distance in a sentence."""
        return str(prepared["sentence"])

    def run_batch(self, study: Study, batch: Batch) -> list[dict[str, Any]]:
        """Simulate and fit the batch's replicates as one tensor program."""
        import torch

        from moe_stats import fit_mle
        from theory import hellinger, voronoi_loss

        setting: RatesSetting = study.setting
        true, law = truth(setting), design(setting)
        arm = setting.arms[batch.cells[0].arm]
        keys = [(cell.n, cell.replicate) for cell in batch.cells]
        X = torch.stack([law.sample(n, study.seed_of(n, r, "X")) for n, r in keys])
        y = torch.stack(
            [true.sample(x, study.seed_of(n, r, "y")) for x, (n, r) in zip(X, keys, strict=True)]
        )
        fit = fit_mle(
            X,
            y,
            n_experts=setting.n_experts,
            gate=template(setting),
            truth=true,
            random_states=[study.seed_of(n, r, "fit", batch.cells[0].arm) for n, r in keys],
            **arm.model_dump(),
        )
        loss = voronoi_loss(fit.model, true, order=setting.loss)
        mass = sum(torch.nan_to_num(loss.weighted["mass", kind]) for kind in ("single", "multi"))
        no_empty_cell = (loss.cell_sizes > 0).all(-1)
        distance = hellinger(fit.model, true, law, random_state=study.seed_of(0, 0, "hellinger"))
        columns = {
            "log_likelihood": fit.log_likelihood.tolist(),
            "gain": (fit.log_likelihood - true.log_prob(y, X).sum(-1)).tolist(),
            "scaled_gradient": fit.scaled_gradient.tolist(),
            "converged": fit.converged.tolist(),
            "fit_status": [fit.status(r) for r in range(len(keys))],
            "n_active_bounds": [len(fit.active_bounds(r)) for r in range(len(keys))],
            "least_weight": fit.model.gate_probs(X).mean(-2).amin(-1).tolist(),
            "least_scale": fit.model.experts.scale.amin(-1).tolist(),
            "hellinger": np.atleast_1d(distance.value).tolist(),
            "mass_deviation": torch.where(no_empty_cell, mass, torch.nan).tolist(),
            **loss.columns(),
        }
        rows = [
            dict(zip(columns, values, strict=True))
            for values in zip(*columns.values(), strict=True)
        ]
        for row in rows:
            if not math.isfinite(row["log_likelihood"]):
                row.update(status="failed", error=row["fit_status"])
        return rows


def _known_gate(name: str, gates: dict[str, Any]) -> Any:
    if name not in gates:
        raise ValueError(f"gate name must be one of {sorted(gates)}; got {name!r}")
    return gates[name]


KIND = Rates()

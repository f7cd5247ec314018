"""Kind `selection`: simulate from truths, choose the number of experts, see how often it is right.

A case is a truth with its design, an arm a case and a method ("two-bic"): the methods of a case
share its data and its fits. A row holds the number chosen and by how much it beat the next best.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, model_validator

from experiments.kinds import Batch, ProfileModel, SettingModel, replicate_batches
from experiments.kinds.rates import ArmSetting
from experiments.simulation import DesignSetting, TruthSetting, design, simulate, truth
from experiments.study import Study


class CaseSetting(SettingModel):
    """A truth and the design its features come from."""

    design: DesignSetting
    truth: TruthSetting


class FitSetting(ArmSetting):
    """How every number of experts is fitted: the parameters of `moe_stats.GaussianMoERegressor`."""

    init: Literal["auto", "random", "kmeans", "lines"] = "auto"


class SelectionSetting(SettingModel):
    """What is simulated and how the number of experts is chosen."""

    cases: dict[str, CaseSetting] = Field(min_length=1)
    methods: tuple[Literal["bic", "aic", "icl", "dendrogram"], ...] = Field(min_length=1)
    max_experts: int = Field(ge=2, description="the largest number of experts considered")
    fit: FitSetting = FitSetting()

    @model_validator(mode="after")
    def _builds(self) -> SelectionSetting:
        for name, case in self.cases.items():
            n_true = softmax_truth(case).n_experts
            if n_true > self.max_experts:
                raise ValueError(
                    f"max_experts must be at least the {n_true} experts of case {name!r}; got "
                    f"{self.max_experts}"
                )
        return self


class SelectionProfile(ProfileModel):
    """Sample sizes and number of replicates, the latter in tens so that batches are full."""

    sizes: tuple[int, ...] = Field(min_length=1)
    replicates: int = Field(ge=10, multiple_of=10)


def softmax_truth(case: CaseSetting) -> Any:
    """The true `moe_stats.GaussianMoE` of a case, whose gate is the fitted models' own."""
    gate = case.truth.gate.name
    if gate != "softmax":
        raise ValueError(f"gate name must be 'softmax', the fitted models' own; got {gate!r}")
    return truth(case)


class Selection:
    """See the module's docstring."""

    name = "selection"
    revision = 3
    Setting = SelectionSetting
    Profile = SelectionProfile

    def batches(self, setting: SelectionSetting, profile: SelectionProfile) -> list[Batch]:
        """All methods of a case together; see `replicate_batches`."""
        cases = {case: [f"{case}-{method}" for method in setting.methods] for case in setting.cases}
        return replicate_batches(cases, profile.sizes, profile.replicates)

    def prepare(self, study: Study) -> dict[str, Any]:
        """How far from each truth the best model with one expert fewer stays, by quadrature."""
        from moe_stats import SoftmaxGate
        from theory import attainable_distance

        fit = study.setting.fit
        distances = {}
        for name, case in study.setting.cases.items():
            true = softmax_truth(case)
            if true.n_experts > 1 and true.n_features == 1:
                distances[name] = attainable_distance(
                    true,
                    design(case),
                    n_experts=true.n_experts - 1,
                    gate=SoftmaxGate.template(),
                    near=False,
                    min_weight=fit.min_weight,
                    gate_bound=math.inf if fit.gate_bound is None else fit.gate_bound,
                    random_state=study.seed_of(0, 0, "attainable", name),
                ).everywhere
        return {"one_fewer": distances}

    def describe(self, prepared: dict[str, Any]) -> str:
        """The distances in a sentence."""
        parts = [f"{distance:.2g} ({name})" for name, distance in prepared["one_fewer"].items()]
        if not parts:
            return ""
        return f"With one expert fewer the smallest Hellinger distance found is {', '.join(parts)}."

    def run_batch(self, study: Study, batch: Batch) -> list[dict[str, Any]]:
        """Simulate the batch's replicates and choose by every method, as one tensor program."""
        import torch

        from moe_stats.selection import select_n_experts_batch

        setting: SelectionSetting = study.setting
        name = batch.cells[0].arm.rpartition("-")[0]
        true, law = softmax_truth(setting.cases[name]), design(setting.cases[name])
        keys = list(dict.fromkeys((cell.n, cell.replicate) for cell in batch.cells))
        X, y = simulate(study, true, law, keys, name)
        chosen = select_n_experts_batch(
            X,
            y,
            setting.max_experts,
            methods=setting.methods,
            random_states=[study.seed_of(n, r, "fit", name) for n, r in keys],
            **setting.fit.model_dump(),
        )
        converged = torch.stack([fit.converged for fit in chosen.fits.values()]).all(0).tolist()
        rows = []
        for cell in batch.cells:
            method = cell.arm.rpartition("-")[2]
            at = keys.index((cell.n, cell.replicate))
            best, second = chosen.scores[method][at].sort().values[:2].tolist()
            row = {
                "case": name,
                "method": method,
                "n_true": true.n_experts,
                "n_chosen": int(chosen.n_experts[method][at]),
                "margin": second - best if math.isfinite(second) else None,
                "converged": converged[at],
            }
            if not math.isfinite(best):
                row.update(status="failed", error="no number of experts has a finite score")
            rows.append(row)
        return rows


KIND = Selection()

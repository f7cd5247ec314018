"""Kind `coverage`: simulate from truths, fit, see how often nominal intervals hold the truth.

A case is a truth with its design, fitted with as many experts; an arm is a case, a covariance and
a factor on its standard errors ("topk-sandwich-x0.8"). A factor other than 1 is a negative control:
its intervals must not cover as often as they say. The arms of a case share its data and its fits.
A row holds, for each identified parameter in the pinned gauge, experts in the truth's order,
whether the interval covers the truth, how wide it is and how far off the estimate, scales as
logarithms. A parameter without an interval covers nothing and misses nothing: `flags` says why.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import Field, model_validator

from experiments.kinds import Batch, ProfileModel, SettingModel, replicate_batches
from experiments.kinds.selection import CaseSetting, FitSetting
from experiments.simulation import design, simulate, truth
from experiments.study import Study

Method = Literal["observed", "sandwich"]


class CoverageSetting(SettingModel):
    """What is simulated, and which intervals are looked at."""

    cases: dict[str, CaseSetting] = Field(min_length=1)
    level: float = Field(gt=0, lt=1, description="nominal coverage")
    methods: tuple[Method, ...] = Field(min_length=1)
    factors: tuple[float, ...] = Field(description="by which standard errors are multiplied")
    fit: FitSetting = FitSetting()

    @model_validator(mode="after")
    def _builds(self) -> CoverageSetting:
        if 1 not in self.factors or min(self.factors) <= 0:
            raise ValueError(f"factors must be positive and hold 1; got {list(self.factors)}")
        case: Any
        for case in self.cases.values():
            truth(case)
        return self


class CoverageProfile(ProfileModel):
    """Sample sizes and number of replicates, the latter in tens so that batches are full."""

    sizes: tuple[int, ...] = Field(min_length=1)
    replicates: int = Field(ge=10, multiple_of=10)


@dataclass(frozen=True, eq=False)
class Intervals:
    """Delta intervals of R fits beside the truth, in the pinned gauge.

    Attributes
    ----------
    deviation : Tensor
        (R, P) estimate less truth.
    reach : Tensor
        (R, P) half the interval's width; inf or nan where there is none.
    free : Tensor
        (R, P) whether a parameter is not pinned.
    flags : tuple of tuple of str
        For each fit why some of its intervals are missing.
    names : tuple of str
        P names of parameters.
    """

    deviation: Any
    reach: Any
    free: Any
    flags: tuple[tuple[str, ...], ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, fit: Any, true: Any, level: float, kind: Method) -> Intervals:
        """Intervals of an `MLE` whose experts are in the truth's order."""
        from moe_stats.inference import covariance, delta_intervals
        from moe_stats.inference.gauge import pinning

        found = covariance(fit, kind)
        low, high = delta_intervals(fit, level, kind)
        gauge = pinning(type(true.gate), _layout(true), found.reference)
        return cls(
            deviation=found.estimate - gauge @ true.to_params(),
            reach=(high - low) / 2,
            free=(gauge != 0).any(-1),
            flags=found.flags,
            names=found.names,
        )

    def columns(self, row: int, factor: float) -> dict[str, Any]:
        """Of one fit, with intervals made wider by a factor."""
        columns: dict[str, Any] = {"flags": "; ".join(self.flags[row])}
        for p in self.free[row].nonzero().ravel().tolist():
            name = "_".join(re.findall(r"\w+", self.names[p]))  # "gate slope[0, 1]": gate_slope_0_1
            deviation, reach = float(self.deviation[row, p]), factor * float(self.reach[row, p])
            given = math.isfinite(reach)
            columns[f"covered_{name}"] = abs(deviation) <= reach if given else None
            columns[f"width_{name}"] = 2 * reach if given else None
            columns[f"deviation_{name}"] = deviation if math.isfinite(deviation) else None
        return columns


class Coverage:
    """See the module's docstring."""

    name = "coverage"
    revision = 2
    Setting = CoverageSetting
    Profile = CoverageProfile

    def batches(self, setting: CoverageSetting, profile: CoverageProfile) -> list[Batch]:
        """All arms of a case together; see `replicate_batches`."""
        arms = _arms(setting)
        cases = {case: [a for a in arms if arms[a][0] == case] for case in setting.cases}
        return replicate_batches(cases, profile.sizes, profile.replicates)

    def prepare(self, study: Study) -> dict[str, Any]:
        """Nothing: the nominal level is all there is to compare with."""
        return {}

    def describe(self, prepared: dict[str, Any]) -> str:
        """Nothing."""
        return ""

    def run_batch(self, study: Study, batch: Batch) -> list[dict[str, Any]]:
        """Simulate and fit the batch's replicates as one tensor program."""

        from moe_stats import fit_mle

        setting: Any = study.setting
        arms = _arms(setting)
        name = arms[batch.cells[0].arm][0]
        true, law = truth(setting.cases[name]), design(setting.cases[name])
        keys = list(dict.fromkeys((cell.n, cell.replicate) for cell in batch.cells))
        X, y = simulate(study, true, law, keys, name)
        fit = fit_mle(
            X,
            y,
            n_experts=true.n_experts,
            gate=true.gate,
            random_states=[study.seed_of(n, r, "fit", name) for n, r in keys],
            **setting.fit.model_dump(),
        )
        fit = in_order_of(true, fit)
        found = {kind: Intervals.of(fit, true, setting.level, kind) for kind in setting.methods}
        rows = []
        for cell in batch.cells:
            _, method, factor = arms[cell.arm]
            at = keys.index((cell.n, cell.replicate))
            row = {
                "case": name,
                "method": method,
                "factor": factor,
                "converged": bool(fit.converged[at]),
                **found[method].columns(at, factor),
            }
            if not math.isfinite(fit.log_likelihood[at]):
                row.update(status="failed", error=fit.status(at))
            rows.append(row)
        return rows


def in_order_of(true: Any, fit: Any) -> Any:
    """Fits (an `MLE`) with their experts in the order of a model's, lines and scales closest."""
    from moe_stats.inference.bootstrap import match_experts

    params = fit.model.to_params()
    for row in fit.log_likelihood.isfinite().nonzero().ravel().tolist():
        found, X = params[row : row + 1], fit.features(row)
        params[row] = match_experts(found, true.to_params(), _layout(true), X)[0]
    return replace(fit, model=true.with_params(params))


def _arms(setting: CoverageSetting) -> dict[str, tuple[str, Method, float]]:
    """Case, covariance and factor of each arm."""
    return {
        f"{case}-{method}-x{factor:g}": (case, method, factor)
        for case in setting.cases
        for method in setting.methods
        for factor in setting.factors
    }


def _layout(true: Any) -> Any:
    from kernels.gating import Layout

    return Layout.of(true.gate.form, true.n_experts, true.n_features)


KIND = Coverage()

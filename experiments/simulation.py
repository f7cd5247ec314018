"""A true model and the data simulated from it, as studies of mixtures of experts state them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from pydantic import Field

from .kinds import SettingModel
from .study import Study

Vector = tuple[float, ...]
Matrix = tuple[Vector, ...]


class GateSetting(SettingModel):
    """A gate by name with its options, parameters left out."""

    name: str = "softmax"
    top_k: int | None = Field(default=None, ge=1)
    rank: Literal["slope", "logit"] | None = None
    activation: str | None = None

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
    """The true model. Slopes are one row an expert, one column a feature; without experts' slopes
    their means are constant, and so are those of the fitted experts."""

    gate: GateSetting
    gate_intercept: Vector
    gate_slope: Matrix
    temperature: float | None = None
    slope: Matrix | None = None
    intercept: Vector
    scale: Vector


class Simulated(Protocol):
    """A setting with a truth and the design of its features."""

    @property
    def truth(self) -> TruthSetting: ...

    @property
    def design(self) -> DesignSetting: ...


def truth(setting: Simulated) -> Any:
    """The true `moe_stats.GaussianMoE`."""
    from moe_stats import ConstantExperts, GaussianMoE, LinearExperts
    from moe_stats.gates import GATES

    t: Any = setting.truth
    gate: Any = known_gate(t.gate.name, GATES)
    gate.template(**t.gate.options)  # refuses options that are not its own
    shared = {} if t.temperature is None else {"temperature": t.temperature}
    expected = {"temperature"} & gate.__dataclass_fields__.keys()
    if shared.keys() != expected:
        rule = "must be given for" if expected else "is no parameter of"
        raise ValueError(f"the truth's 'temperature' {rule} gate {t.gate.name!r}; got {shared}")
    built = gate(t.gate_intercept, t.gate_slope, **shared, **t.gate.options)
    if t.slope is None:
        return GaussianMoE(built, ConstantExperts(t.intercept, t.scale, built.n_features))
    return GaussianMoE(built, LinearExperts(t.slope, t.intercept, t.scale))


def design(setting: Simulated) -> Any:
    """The design of X."""
    from moe_stats import Uniform

    return Uniform(**setting.design.model_dump())


def simulate(
    study: Study, true: Any, law: Any, keys: Sequence[tuple[int, int]], *case: str
) -> tuple[Any, Any]:
    """X (R, N, D) and y (R, N) of the replicates with these (n, replicate), of one case."""
    import torch

    X = torch.stack([law.sample(n, study.seed_of(n, r, "X", *case)) for n, r in keys])
    seeds = [study.seed_of(n, r, "y", *case) for n, r in keys]
    return X, torch.stack([true.sample(x, seed) for x, seed in zip(X, seeds, strict=True)])


def known_gate(name: str, gates: dict[str, Any]) -> Any:
    """The gate class of that name among ``gates``."""
    if name not in gates:
        raise ValueError(f"gate name must be one of {sorted(gates)}; got {name!r}")
    return gates[name]

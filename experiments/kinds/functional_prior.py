"""Kind `functional_prior`: match priors over a network's weights to a law of functions, measure.

An arm is a family of priors with the methods by which it is matched, on one data set; n is the
number of steps of the last method, 0 for a prior that is not matched. Beside the arms of a setting
stands "gp", the target itself. A row holds `bayes.priors.report` at fresh measurement sets, drawn
alike for all arms of a replicate: each distance with its floor (``*_target``, between target and
itself), each statistic with the target's, all with standard errors over the repetitions; and, in
replicate 0, some functions along a line; where functions are a classifier's logits, the same of the
class probabilities (``class_*``). `seconds` is the fit's process CPU time, imports apart. Data that
are not part of the project are known by their hash.
"""

from __future__ import annotations

import json
import math
import time
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from experiments.datasets import DataError, Inputs, banana, bundled, uci
from experiments.kinds import Batch, Cell, ProfileModel, SettingModel, batch_each
from experiments.kinds._prior_settings import (
    ArmSetting,
    NetworkSetting,
    TargetSetting,
    family,
    function_target,
    network,
)
from experiments.study import Study

TARGET = "gp"
"""The arm that is the target."""

N_LINES = 5
"""Functions that are kept for drawing."""


class GridData(SettingModel):
    """An even grid in one dimension."""

    source: Literal["grid"]
    low: float
    high: float
    n_points: int = Field(default=200, ge=2)

    @property
    def names(self) -> tuple[str, ...]:
        return ("grid",)


class BananaData(SettingModel):
    """Two interleaved crescents, generated."""

    source: Literal["banana"]
    n_rows: int = Field(ge=2)
    noise: float = Field(ge=0)

    @property
    def names(self) -> tuple[str, ...]:
        return ("banana",)


class TableData(SettingModel):
    """Data sets that come with scikit-learn, or UCI folders; hashes, if given, must be theirs."""

    source: Literal["scikit-learn", "uci"]
    names: tuple[str, ...] = Field(min_length=1)
    split: int = Field(default=0, ge=0)
    folder: str | None = None
    sha256: dict[str, str] = Field(default={}, description="by name")


DataSetting = Annotated[GridData | BananaData | TableData, Field(discriminator="source")]


class EvaluationSetting(SettingModel):
    """Of `bayes.priors.report`."""

    class_probabilities: bool = Field(
        default=False, description="compare the softmax of the functions too"
    )
    n_functions: int = Field(default=1000, ge=2)
    n_measurement: int = Field(default=100, ge=2)
    n_repeats: int = Field(default=5, ge=2)


class FunctionalPriorSetting(SettingModel):
    """What is matched, to what, where, and how it is judged."""

    data: DataSetting
    network: NetworkSetting
    target: TargetSetting
    n_measurement: int = Field(default=50, ge=2, description="points in a measurement set of a fit")
    arms: dict[str, ArmSetting] = Field(min_length=1)
    evaluation: EvaluationSetting = EvaluationSetting()

    @model_validator(mode="after")
    def _builds(self) -> FunctionalPriorSetting:
        if TARGET in self.arms:
            raise ValueError(f"no arm may be called {TARGET!r}: that is the target")
        for arm in self.arms.values():
            try:
                for method in arm.methods:
                    method.build(1)
            except TypeError as error:
                raise ValueError(f"a method has no such option: {error}") from None
        return self


class FunctionalPriorProfile(ProfileModel):
    """Steps of the last method, replicates, and what the figures shall say of energy distances."""

    steps: tuple[int, ...] = Field(min_length=1)
    replicates: int = Field(ge=1)
    at_most: dict[str, float] = Field(default={}, description="bound of an arm")
    at_most_half_of: dict[str, tuple[str, ...]] = Field(
        default={}, description="an arm's bounds, by other arms"
    )


class FunctionalPrior:
    """See the module's docstring."""

    name = "functional_prior"
    revision = 4
    Setting = FunctionalPriorSetting
    Profile = FunctionalPriorProfile

    def batches(
        self, setting: FunctionalPriorSetting, profile: FunctionalPriorProfile
    ) -> list[Batch]:
        """One cell each."""
        return batch_each(
            Cell(label, n, r)
            for label, (_, arm) in labelled(setting).items()
            for n in steps(arm, profile)
            for r in range(profile.replicates)
        )

    def prepare(self, study: Study) -> dict[str, Any]:
        """Which data sets there are, with their rows, columns and hashes."""
        found: dict[str, Any] = {}
        reasons = []
        for name in study.setting.data.names:
            try:
                inputs = load(study, name)
            except DataError as error:
                reasons.append(str(error))
            else:
                rows, features = inputs.X.shape
                found[name] = {"rows": rows, "features": features, "sha256": inputs.sha256}
        if not found:
            raise DataError(reasons[0])
        return {"data": found, "missing": reasons}

    def describe(self, prepared: dict[str, Any]) -> str:
        """The data, and what is missing."""
        found = [f"{k}: {v['rows']} x {v['features']}" for k, v in prepared["data"].items()]
        return "\n".join(["Inputs: " + ", ".join(found), *prepared["missing"]])

    def run_batch(self, study: Study, batch: Batch) -> list[dict[str, Any]]:
        """Fit the cell's prior and measure it."""
        import torch

        from bayes.priors import as_network, fixed_gaussian
        from bayes.priors.measurement import Grid, as_measurement
        from bayes.priors.report import class_probabilities, line_through

        (cell,), setting = batch.cells, study.setting
        name, arm = labelled(setting)[cell.arm]
        inputs = load(study, name)
        X = torch.from_numpy(inputs.X)
        measurement = as_measurement(X)
        if setting.data.source == "grid":
            measurement = Grid(setting.data.low, setting.data.high, setting.data.n_points)
        net = as_network(network(setting.network, X.shape[1]))
        target = function_target(setting.target, X.shape[1], net.n_outputs)
        prior: Any = fixed_gaussian(net)
        row: dict[str, Any] = {"data": name, "data_sha256": inputs.sha256, "seconds": 0.0}
        if arm is not None:
            prior = family(arm, net)
            if arm.methods:
                seed = study.seed_of(cell.n, cell.replicate, "fit", bits=32)
                methods = [method.build(cell.n) for method in arm.methods]
                options = {"n_measurement": setting.n_measurement, "random_state": seed}
                prior, row["seconds"] = timed_fit(prior, target, measurement, methods, **options)
                row["status_of_fit"] = "; ".join(prior.fit_.status)
        seed = study.seed_of(0, cell.replicate, "evaluation", bits=32)
        options = dict(setting.evaluation) | {"random_state": seed}
        of_classes = options.pop("class_probabilities")
        found = prior.report(target, measurement, **options)
        row |= columns(found.table, of_target=arm is None)
        if of_classes:
            found = prior.report(target, measurement, link=class_probabilities, **options)
            ours = columns(found.table, of_target=arm is None)
            row |= {f"class_{name}": value for name, value in ours.items()}
        if cell.replicate == 0:
            line, position = line_through(X)
            drawn = target if arm is None else prior
            functions = drawn.sample_functions(line, N_LINES, seed)
            row["position"], row["functions"] = _text(position), _text(functions[..., 0])
            if of_classes:
                row["class_functions"] = _text(class_probabilities(functions)[..., 0])
        return [row]


def labelled(setting: FunctionalPriorSetting) -> dict[str, tuple[str, ArmSetting | None]]:
    """Data set and arm by the cells' arm names; None is the target."""
    names = setting.data.names
    arms: dict[str, ArmSetting | None] = {TARGET: None, **setting.arms}
    return {
        (label if len(names) == 1 else f"{name}-{label}"): (name, arm)
        for name in names
        for label, arm in arms.items()
    }


def steps(arm: ArmSetting | None, profile: FunctionalPriorProfile) -> tuple[int, ...]:
    """The profile's, but where an arm is not matched or its last method has its own number."""
    if arm is None or not arm.methods:
        return (0,)
    own = arm.methods[-1].n_steps
    return profile.steps if own is None else (own,)


def load(study: Study, name: str) -> Inputs:
    """A data set of a study.

    Raises
    ------
    DataError
        If it is not there, or is another than the study names by its hash.
    """
    import numpy as np

    data = study.setting.data
    if data.source == "grid":
        points = np.linspace(data.low, data.high, data.n_points)[:, None]
        return Inputs(points, Inputs.of(points).sha256)
    if data.source == "banana":
        return banana(data.n_rows, data.noise, study.seed_of(data.n_rows, 0, "inputs", bits=32))
    found = uci(name, data.split, data.folder) if data.source == "uci" else bundled(name)
    if data.sha256.get(name, found.sha256) != found.sha256:
        raise DataError(
            f"the inputs of {name!r} are not those of the study: their hash is {found.sha256}, "
            f"the study's {data.sha256[name]}; take the study's data, or the hash out of the study"
        )
    return found


def timed_fit(
    prior: Any, target: Any, measurement: Any, methods: list[Any], **options: Any
) -> tuple[Any, float]:
    """The fitted prior and the process CPU seconds of its fit, what is done only once left out."""
    import torch

    from bayes.priors import fit_functional_prior

    generator = torch.Generator().manual_seed(0)
    for method in methods:  # imports what it needs
        method.loss(prior, target, measurement.sample(10, generator), generator)
    began = time.process_time()
    fitted = fit_functional_prior(prior.net, prior, target, measurement, method=methods, **options)
    return fitted, time.process_time() - began


def columns(table: Any, of_target: bool) -> dict[str, float | None]:
    """The columns of a row from a report's table; the target's own stand on both sides."""
    row: dict[str, float | None] = {}
    for quantity, found in table.iterrows():
        name = str(quantity).lower().replace(" ", "_").replace("-", "_")
        for ending in ("", "_error"):
            ours = float(found["target" + ending if of_target else "prior" + ending])
            row[name + ending] = ours if math.isfinite(ours) else None
            theirs = float(found["target" + ending])
            row[f"{name}_target{ending}"] = theirs if math.isfinite(theirs) else None
    return row


def _text(values: Any) -> str:
    """JSON of a tensor, to four decimals."""
    return json.dumps(values.double().numpy().round(4).tolist())


KIND = FunctionalPrior()

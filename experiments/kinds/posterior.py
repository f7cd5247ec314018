"""Kind `posterior`: sample a network's posterior under several priors, score what it predicts.

An arm is a prior, matched to a law of functions or not, or a deep ensemble; n is the number of
draws a chain; a replicate is a split of the data, or for the toy function a data set. The arms of a
replicate share its data. A row holds scores on the test rows (root mean squared error and negative
log densities in the response's own units, or accuracy, negative log probability and calibration
error), how far chains agree on predictions, their temperature, and the process CPU seconds of
matching and of sampling. On the toy function it holds the posterior's bands as well, and the arm
"gp" is the exact posterior of the Gaussian process that the data are from.
"""

from __future__ import annotations

import json
import math
import time
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from experiments.kinds import Batch, Cell, ProfileModel, SettingModel, batch_each
from experiments.kinds._prior_settings import (
    ArmSetting,
    NetworkSetting,
    TargetSetting,
    family,
    function_target,
    network,
)
from experiments.splits import Split, digits_split, uci_split
from experiments.study import Study

EXACT = "gp"
"""The arm of the toy function that is no network."""

BAND = (0.05, 0.5, 0.95)
"""Quantiles of the functions that are kept for drawing."""


N_DIAGNOSED = 100
"""Predictions at most, in which chains must agree: those for the first test rows."""


OF_AN_ARM = ("step_size", "thin", "burn_in")
"""Of the sampling, what an arm may have of its own."""


HOT = 1.2
"""Temperature from which a cell is no sample of the posterior: its status is "hot"."""


class UCIData(SettingModel):
    """Folders of regression sets; a replicate is a split."""

    source: Literal["uci"]
    names: tuple[str, ...] = Field(min_length=1)
    folder: str | None = None


class DigitsData(SettingModel):
    """Handwritten digits; a replicate is a random choice of the training rows."""

    source: Literal["digits"]
    n_train: int = Field(1000, ge=10, le=1700)

    @property
    def names(self) -> tuple[str, ...]:
        return ("digits",)


class ToyData(SettingModel):
    """A function drawn from the target on two intervals, with noise; tested on a grid."""

    source: Literal["toy"]
    n_rows: int = Field(ge=2)
    intervals: tuple[tuple[float, float], ...] = Field(min_length=1)
    reach: float = Field(gt=0, description="the grid is [-reach, reach]")
    n_points: int = Field(100, ge=2)

    @property
    def names(self) -> tuple[str, ...]:
        return ("toy",)


class PosteriorArm(ArmSetting):
    """A prior to sample under; or modes found by optimisation from draws of it."""

    ensemble: bool = False
    step_size: float | None = Field(None, gt=0, description="of the sampler, if not as for all")
    thin: int | None = Field(None, ge=1, description="if not as for all")
    burn_in: int | None = Field(None, ge=0, description="if not as for all")


class SamplingSetting(SettingModel):
    """How an arm is sampled."""

    sampler: Literal["sgld", "psgld", "sghmc", "adaptive-sghmc", "baoab", "sgnht"]
    step_size: float = Field(gt=0)
    friction: float | None = Field(None, gt=0, description="of baoab")
    momentum_decay: float | None = Field(None, gt=0, le=1, description="of sghmc")
    n_chains: int = Field(ge=1)
    thin: int = Field(ge=1)
    burn_in: int = Field(ge=0)
    batch_size: int | None = Field(None, ge=1, description="none: full batches")
    noise_variance: float | None = Field(None, gt=0, description="none: learned by Gibbs steps")
    gibbs_every: int = Field(
        10, ge=1, description="steps between draws of a learned noise and of a prior's precisions"
    )

    def build(self, scale: Any = None) -> Any:
        """The sampler: baoab in units of the prior's scales (P,), adaptive-sghmc with no estimate
        of the noise of batches where there are none."""
        from bayes.samplers import SAMPLERS

        options = self.model_dump(include={"friction", "momentum_decay"}, exclude_none=True)
        if self.sampler == "baoab":
            options["scale"] = scale
        if self.sampler == "adaptive-sghmc" and self.batch_size is None:
            options["noise_estimate"] = "none"
        return SAMPLERS[self.sampler](self.step_size, **options)


class PosteriorSetting(SettingModel):
    """What is conditioned on, under which priors, and how it is sampled; "fg" is the baseline."""

    data: Annotated[UCIData | DigitsData | ToyData, Field(discriminator="source")]
    network: NetworkSetting
    target: TargetSetting
    match_steps: int = Field(100, ge=1, description="of a method that names none")
    arms: dict[str, PosteriorArm] = Field(min_length=1)
    sampling: SamplingSetting

    @model_validator(mode="after")
    def _builds(self) -> PosteriorSetting:
        if EXACT in self.arms:
            raise ValueError(f"no arm may be called {EXACT!r}: that is the Gaussian process")
        if self.data.source == "toy" and self.target.law != "rbf":
            raise ValueError("the toy function needs target.law = 'rbf', whose posterior is exact")
        try:
            self.sampling.build()
        except TypeError as error:
            raise ValueError(f"the sampler has no such option: {error}") from None
        return self


class PublishedScores(SettingModel):
    """Scores of the literature, a number a split."""

    rmse: tuple[float, ...]
    nll: tuple[float, ...]


class PosteriorProfile(ProfileModel):
    """Draws a chain, replicates, and scores of the literature to stand beside an arm's."""

    draws: int = Field(ge=8)
    replicates: int = Field(ge=1)
    published: dict[str, PublishedScores] = Field({}, description="by arm")


class Posterior:
    """See the module's docstring."""

    name = "posterior"
    revision = 3
    Setting = PosteriorSetting
    Profile = PosteriorProfile

    def batches(self, setting: PosteriorSetting, profile: PosteriorProfile) -> list[Batch]:
        """One cell each."""
        return batch_each(
            Cell(label, profile.draws, r)
            for label in labelled(setting)
            for r in range(profile.replicates)
        )

    def prepare(self, study: Study) -> dict[str, Any]:
        """Sizes of the data; and that they are there, before the first cell."""
        sizes = {}
        for name in study.setting.data.names:
            split = load(study, name, 0)
            sizes[name] = [len(split.X), len(split.X_test), split.X.shape[1]]
        return {"rows": sizes}

    def describe(self, prepared: dict[str, Any]) -> str:
        """The data."""
        return "\n".join(
            f"{name}: {n} rows, {m} to test on, {d} features"
            for name, (n, m, d) in prepared["rows"].items()
        )

    def run_batch(self, study: Study, batch: Batch) -> list[dict[str, Any]]:
        """Match the cell's prior, sample, score."""
        (cell,), setting = batch.cells, study.setting
        data, label = labelled(setting)[cell.arm]
        split = load(study, data, cell.replicate)
        row: dict[str, Any] = {"data": data, "prior": label}
        if label == EXACT:
            return [row | bands(split, *exact_posterior(study, split))]
        net = network(setting.network, split.X.shape[1])
        arm = setting.arms[label]
        began = time.process_time()
        prior = matched(study, arm, net, split, cell)
        row["match_seconds"] = time.process_time() - began
        began = time.process_time()
        row |= (ensemble if arm.ensemble else posterior)(study, prior, split, cell)
        row["sample_seconds"] = time.process_time() - began
        return [row]


def labelled(setting: PosteriorSetting) -> dict[str, tuple[str, str]]:
    """Data set and arm by the cells' arm names."""
    names = setting.data.names
    arms = [*setting.arms, *([EXACT] if setting.data.source == "toy" else [])]
    return {
        (arm if len(names) == 1 else f"{name}-{arm}"): (name, arm) for name in names for arm in arms
    }


def load(study: Study, name: str, replicate: int) -> Split:
    """The data of a replicate."""
    data = study.setting.data
    if data.source == "uci":
        return uci_split(name, replicate, data.folder)
    if data.source == "digits":
        return digits_split(data.n_train, study.seed_of(0, replicate, "split", bits=32))
    return toy_split(study, replicate)


def toy_split(study: Study, replicate: int) -> Split:
    """A function of the target with noise; tested against itself on the grid."""
    import numpy as np
    import torch

    setting, data = study.setting, study.setting.data
    rng = np.random.default_rng(study.seed_of(0, replicate, "toy"))
    low, high = np.array(data.intervals).T
    which = rng.integers(len(low), size=data.n_rows)
    X = rng.uniform(low[which], high[which])[:, None]
    grid = np.linspace(-data.reach, data.reach, data.n_points)[:, None]
    target = function_target(setting.target, 1, 1)
    seed = study.seed_of(0, replicate, "function", bits=32)
    f = target.sample_functions(torch.from_numpy(np.concatenate([X, grid])), 1, seed)[0, :, 0]
    f = f.numpy()
    noise = math.sqrt(setting.sampling.noise_variance) * rng.standard_normal(data.n_rows)
    return Split(X, f[: data.n_rows] + noise, grid, f[data.n_rows :])


def exact_posterior(study: Study, split: Split) -> tuple[Any, Any]:
    """Mean and standard deviation (M,) of the Gaussian process on the grid, given the data."""
    import numpy as np
    import torch

    setting = study.setting
    target = function_target(setting.target, 1, 1)
    covariance = target.laws(torch.from_numpy(np.concatenate([split.X, split.X_test])), 1)[1][0]
    n = len(split.X)
    noisy = covariance[:n, :n] + setting.sampling.noise_variance * torch.eye(n).to(covariance)
    weights = torch.linalg.solve(noisy, covariance[:n, n:])
    mean = weights.mT @ torch.from_numpy(split.y)
    variance = covariance[n:, n:].diagonal() - (weights * covariance[:n, n:]).sum(0)
    return mean, variance.clamp(min=0).sqrt()


def matched(study: Study, arm: PosteriorArm, net: Any, split: Split, cell: Cell) -> Any:
    """The arm's prior, matched to the target on the training inputs if it has methods."""
    import torch

    from bayes.priors import Grid, fit_functional_prior

    setting = study.setting
    prior = family(arm, net)
    if not arm.methods:
        return prior.requires_grad_(False)
    inputs: Any = torch.from_numpy(split.X)
    if setting.data.source == "toy":
        inputs = Grid(-setting.data.reach, setting.data.reach, setting.data.n_points)
    return fit_functional_prior(
        net,
        prior,
        function_target(setting.target, split.X.shape[1], net.n_outputs),
        inputs,
        method=[method.build(setting.match_steps) for method in arm.methods],
        random_state=study.seed_of(0, cell.replicate, "match", cell.arm, bits=32),
    )


def posterior(study: Study, prior: Any, split: Split, cell: Cell) -> dict[str, Any]:
    """Scores of the posterior, and what the chains say of themselves."""
    import torch

    from bayes.samplers import sample

    setting = study.setting
    _, label = labelled(setting)[cell.arm]
    own = setting.arms[label].model_dump(include=set(OF_AN_ARM), exclude_none=True)
    how = setting.sampling.model_copy(update=own)
    X, y, X_test, _ = tensors(split)
    found = sample(
        prior.net,
        prior,
        X,
        y,
        how.build(prior.gaussian_scale().detach().to(X)),
        how.n_chains,
        cell.n,
        how.thin,
        how.burn_in,
        how.batch_size,
        likelihood=likelihood(setting),
        gibbs_every=how.gibbs_every,
        random_state=study.seed_of(cell.n, cell.replicate, "sample", cell.arm, bits=32),
    )
    law = found.predict(X_test)
    few = X_test[: N_DIAGNOSED // prior.net.n_outputs]
    row: dict[str, Any] = {
        "stopped": len(found.run.divergences),
        "rhat": float(found.rhat(few).max()),
        "ess": float(found.ess(few).min()),
        "temperature": temperature(found),
    }
    if not row["temperature"] < HOT:
        row["status"] = "hot"
    if setting.data.source == "toy":
        functions = found.functions(X_test)[..., 0].flatten(0, 1).double()
        levels = torch.quantile(functions, torch.tensor(BAND).double(), 0)
        return row | bands(split, functions.mean(0), functions.std(0), levels)
    return row | scores(law, split)


def temperature(found: Any) -> float:
    """Configurational temperature, averaged over all weights."""
    blocks = found.net.blocks
    by_block = found.run.temperatures().blocks
    weighted = sum(by_block[block.name].configurational * block.size for block in blocks)
    return float(weighted / found.net.n_weights)


def ensemble(study: Study, prior: Any, split: Split, cell: Cell) -> dict[str, Any]:
    """Scores of as many modes as there are chains."""
    import torch

    from bayes.samplers import Classes, Mixture, NetworkPotential, deep_ensemble

    setting = study.setting
    X, y, X_test, _ = tensors(split)
    seed = study.seed_of(0, cell.replicate, "ensemble", cell.arm, bits=32)
    law = likelihood(setting)
    members = setting.sampling.n_chains
    start = torch.cat([prior.sample(members, seed).to(X), law.start(members, X)], 1)
    modes = deep_ensemble(
        NetworkPotential(prior.net, prior, X, y, law),
        start,
        seed=seed,
        n_observations=len(X),
        batch_size=setting.sampling.batch_size,
    )
    n = prior.net.n_weights
    outputs = prior.net(modes[:, :n], X_test)
    if setting.data.source == "digits":
        return scores(Classes(torch.softmax(outputs, -1).mean(0)), split)
    if setting.data.source == "toy":
        f = outputs[..., 0].double()
        return bands(split, f.mean(0), f.std(0))
    location, scale = law.location_scale(outputs, modes[:, n:])
    return scores(Mixture(location, scale, law), split)


def likelihood(setting: PosteriorSetting) -> Any:
    """Of labels, or of numbers with the noise of the setting."""
    from bayes.samplers import Categorical, Gaussian

    if setting.data.source == "digits":
        return Categorical()
    variance = setting.sampling.noise_variance
    return Gaussian(None if variance is None else math.sqrt(variance))


def scores(law: Any, split: Split) -> dict[str, float]:
    """Of a predictive law on the test rows."""
    import torch

    from bayes.samplers import Classes

    if isinstance(law, Classes):
        labels = torch.from_numpy(split.y_test)
        return {
            "accuracy": law.accuracy(labels),
            "nll": float(-law.log_prob(labels).mean()),
            "ece": law.ece(labels),
        }
    y = torch.from_numpy(split.y_test).to(law.locations)
    low, high = law.interval(0.9)
    return {
        "rmse": law.rmse(y) * split.scale,
        "nll": float(law.gaussian_nll(y).mean()) + math.log(split.scale),
        "mixture_nll": float(-law.log_prob(y).mean()) + math.log(split.scale),
        "coverage": float(((low <= y) & (y <= high)).double().mean()),
    }


def bands(split: Split, mean: Any, spread: Any, levels: Any = None) -> dict[str, Any]:
    """Bands on the grid, as JSON, normal ones unless levels (3, M) are given."""
    import torch

    if levels is None:
        normal = torch.special.ndtri(torch.tensor(BAND).double())[:, None]
        levels = mean + normal * spread
    drawn = {
        "position": split.X_test[:, 0],
        "truth": split.y_test,
        "low": levels[0].numpy(),
        "middle": levels[1].numpy(),
        "high": levels[2].numpy(),
        "mean": mean.numpy(),
        "spread": spread.numpy(),
        "X": split.X[:, 0],
        "y": split.y,
    }
    return {name: json.dumps(values.round(4).tolist()) for name, values in drawn.items()}


def tensors(split: Split) -> tuple[Any, ...]:
    """X, y, X_test, y_test in single precision, labels as they are."""
    import torch

    values = (split.X, split.y, split.X_test, split.y_test)
    return tuple(
        torch.from_numpy(v).float() if v.dtype.kind == "f" else torch.from_numpy(v) for v in values
    )


KIND = Posterior()

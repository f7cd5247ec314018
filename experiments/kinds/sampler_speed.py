"""Kind `sampler_speed`: steps that chains take in a second of processor time.

An arm is a sampler with batches of a size, or full ones; n is the number of chains; replicates
repeat the timing, each after a short run that warms up. A row holds the rate of all chains
together. Rates belong to the machine they were taken on.
"""

from __future__ import annotations

import time
from typing import Any, Literal

from pydantic import Field, model_validator

from experiments.kinds import Batch, Cell, ProfileModel, SettingModel, batch_each
from experiments.study import Study


class SpeedArm(SettingModel):
    """A sampler, and the observations of a step's gradient."""

    sampler: Literal["sgld", "psgld", "sghmc", "adaptive-sghmc", "baoab", "sgnht", "mclmc"]
    batch_size: int | None = Field(None, ge=1, description="none: all of them")

    @model_validator(mode="after")
    def _fits(self) -> SpeedArm:
        from bayes.samplers import SAMPLERS

        if self.batch_size is not None and SAMPLERS[self.sampler].full_batch_only:
            raise ValueError(f"{self.sampler} needs full batches")
        return self


class SamplerSpeedSetting(SettingModel):
    """A regression with a dense tanh network, and what runs on it."""

    n_observations: int = Field(ge=1)
    n_inputs: int = Field(ge=1)
    hidden: tuple[int, ...]
    n_steps: int = Field(ge=1, description="of a timing, all chains together")
    arms: dict[str, SpeedArm] = Field(min_length=1)


class SamplerSpeedProfile(ProfileModel):
    """Numbers of chains, and how often each is timed."""

    chains: tuple[int, ...] = Field(min_length=1)
    replicates: int = Field(ge=1)


class SamplerSpeed:
    """See the module's docstring."""

    name = "sampler_speed"
    revision = 1
    Setting = SamplerSpeedSetting
    Profile = SamplerSpeedProfile

    def batches(self, setting: SamplerSpeedSetting, profile: SamplerSpeedProfile) -> list[Batch]:
        """One cell each."""
        return batch_each(
            Cell(arm, n, r)
            for arm in setting.arms
            for n in profile.chains
            for r in range(profile.replicates)
        )

    def prepare(self, study: Study) -> dict[str, Any]:
        """Nothing."""
        return {}

    def describe(self, prepared: dict[str, Any]) -> str:
        """Nothing."""
        return ""

    def run_batch(self, study: Study, batch: Batch) -> list[dict[str, Any]]:
        """Time the cell's chains."""
        import torch

        from bayes.networks import MLP
        from bayes.priors import GaussianPrior
        from bayes.samplers import SAMPLERS, Gaussian, NetworkPotential
        from bayes.samplers.chains import run

        (cell,), setting = batch.cells, study.setting
        arm = setting.arms[cell.arm]
        generator = torch.Generator().manual_seed(study.seed_of(0, cell.replicate, bits=32))
        X = torch.randn(setting.n_observations, setting.n_inputs, generator=generator)
        y = torch.randn(setting.n_observations, generator=generator)
        net = MLP(setting.n_inputs, setting.hidden, 1)
        potential = NetworkPotential(net, GaussianPrior.per_layer(net), X, y, Gaussian(0.3))
        start = 0.1 * torch.randn(cell.n, net.n_weights, generator=generator)

        def steps(n: int) -> int:
            return run(
                potential,
                SAMPLERS[arm.sampler](1e-4),
                start,
                n_draws=1,
                burn_in=n,
                seed=0,
                n_observations=len(X),
                batch_size=arm.batch_size,
            ).n_steps

        steps(1)
        began = time.process_time()
        taken = steps(-(-setting.n_steps // cell.n))
        seconds = time.process_time() - began
        return [{"sampler": arm.sampler, "rate": cell.n * taken / seconds, "seconds": seconds}]


KIND = SamplerSpeed()

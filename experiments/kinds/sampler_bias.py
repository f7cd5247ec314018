r"""Kind `sampler_bias`: how far a sampler's averages are from the truth, at steps halved in turn.

An arm is a sampler on a target; n counts halvings of its largest step. Two targets have truths:

* "gaussian": :math:`U = \lambda q^2/2` with gradients of known noise variance v, where the variance
  of a sampler's stationary law has a closed form (`closed_form`), and so has its bias;
* "tanh": the posterior of :math:`f(x) = w_2 \tanh(w_1 x)`, where the mean log density is known by
  quadrature, the mean square of a momentum is 1, and biases must vanish at the sampler's order.

A row holds the bias with its standard error between independent chains, and the closed form's.
"""

from __future__ import annotations

import math
import time
from typing import Any, Literal

from pydantic import Field, model_validator

from experiments.kinds import Batch, Cell, ProfileModel, SettingModel, batch_each
from experiments.study import Study

SamplerName = Literal["sgld", "psgld", "sghmc", "baoab", "sgnht", "mclmc"]

ORDERS: dict[str, int] = {"sgld": 1, "psgld": 1, "sghmc": 2, "baoab": 2, "sgnht": 2, "mclmc": 2}
"""Powers of the step at which biases vanish."""

N_COORDINATES = 4
"""Independent coordinates of the Gaussian target, a small sample each."""

INPUTS = (-1.0, -0.4, 0.2, 0.6, 1.0)
RESPONSES = (-1.2, -0.6, 0.9, 0.8, 1.4)
"""What the two weights of the tanh target are fitted to, with noise and weights of scale 1."""


class BiasArm(SettingModel):
    """A sampler, its largest step, and how it is run there; at half the step it takes twice as
    many steps between draws."""

    target: Literal["gaussian", "tanh"]
    sampler: SamplerName
    step_size: float = Field(gt=0)
    thin: int = Field(ge=1)
    options: dict[str, float] = Field({}, description="beside the step")
    quantity: Literal["log density", "momentum"] = Field(
        "log density", description="whose mean, or mean square, is looked at on the tanh target"
    )
    precision: float = Field(1.0, gt=0, description="lambda of the Gaussian")
    noise_variance: float = Field(0.0, ge=0, description="v, of the Gaussian's gradients")

    def build(self, halvings: int) -> Any:
        """The sampler at its step, halved so many times."""
        from bayes.samplers import SAMPLERS

        return SAMPLERS[self.sampler](self.step_size / 2**halvings, **self.options)

    @model_validator(mode="after")
    def _builds(self) -> BiasArm:
        try:
            self.build(0)
        except TypeError as error:
            raise ValueError(f"the sampler has no such option: {error}") from None
        if self.noise_variance and (self.target == "tanh" or self.sampler not in ("sgld", "sghmc")):
            raise ValueError("noise_variance is for sgld and sghmc on the Gaussian target alone")
        if self.target == "gaussian" and self.sampler not in ("sgld", "sghmc", "baoab"):
            raise ValueError(f"there is no closed form for {self.sampler} on the Gaussian target")
        if self.quantity == "momentum" and (
            self.target == "gaussian" or self.sampler not in ("baoab", "sgnht")
        ):
            raise ValueError("quantity 'momentum' is for baoab and sgnht on the tanh target alone")
        return self

    def truth(self) -> float:
        """What the mean is without bias."""
        if self.target == "gaussian":
            return 1 / self.precision
        return 1.0 if self.quantity == "momentum" else by_quadrature()


class SamplerBiasSetting(SettingModel):
    """Which samplers, in how many independent chains of how many draws."""

    arms: dict[str, BiasArm] = Field(min_length=1)
    n_draws: int = Field(ge=2)
    burn_in: int = Field(ge=0, description="in units of an arm's thin")


class SamplerBiasProfile(ProfileModel):
    """Halvings of the step, and replicates of 1,000 chains."""

    halvings: tuple[int, ...] = Field(min_length=1)
    replicates: int = Field(ge=1)


N_CHAINS = 1000
"""Of a cell."""


class SamplerBias:
    """See the module's docstring."""

    name = "sampler_bias"
    revision = 2
    Setting = SamplerBiasSetting
    Profile = SamplerBiasProfile

    def batches(self, setting: SamplerBiasSetting, profile: SamplerBiasProfile) -> list[Batch]:
        """One cell each."""
        return batch_each(
            Cell(arm, k, r)
            for arm in setting.arms
            for k in profile.halvings
            for r in range(profile.replicates)
        )

    def prepare(self, study: Study) -> dict[str, Any]:
        """The mean log density of the tanh target."""
        return {"tanh": by_quadrature()}

    def describe(self, prepared: dict[str, Any]) -> str:
        """Nothing."""
        return ""

    def run_batch(self, study: Study, batch: Batch) -> list[dict[str, Any]]:
        """Run the cell's chains."""
        (cell,) = batch.cells
        arm = study.setting.arms[cell.arm]
        seed = study.seed_of(cell.n, cell.replicate, cell.arm, bits=32)
        began = time.process_time()
        averages = chain_averages(arm, cell.n, study.setting, seed)
        truth = arm.truth()
        step = arm.step_size / 2**cell.n
        return [
            {
                "target": arm.target,
                "sampler": arm.sampler,
                "noise_variance": arm.noise_variance,
                "order": ORDERS[arm.sampler],
                "step_size": step,
                "bias": float(averages.mean()) - truth,
                "standard_error": float(averages.std()) / math.sqrt(len(averages)),
                "predicted": closed_form(arm, step) - truth if arm.target == "gaussian" else None,
                "seconds": time.process_time() - began,
            }
        ]


def closed_form(arm: BiasArm, step_size: float) -> float:
    r"""Stationary variance on :math:`U = \lambda q^2/2` with gradient noise of variance v.

    ============ =======================================================================
    SGLD         :math:`\lambda^{-1} (1 + hv/2) / (1 - h\lambda/2)`
    SGHMC        :math:`\lambda^{-1} (1 + \varepsilon^2 v/(2a)) /
                 (1 - \varepsilon^2\lambda/(2(2 - a)))`, decay a
    BAOAB        :math:`\lambda^{-1}` without gradient noise
    ============ =======================================================================

    Examples
    --------
    >>> arm = BiasArm(target="gaussian", sampler="sgld", step_size=0.5, thin=1, precision=2.0)
    >>> closed_form(arm, 0.5)
    1.0
    """
    precision, v = arm.precision, arm.noise_variance
    if arm.sampler == "baoab":
        return 1 / precision
    if arm.sampler == "sgld":
        return (1 + step_size * v / 2) / (1 - step_size * precision / 2) / precision
    decay = arm.build(0).momentum_decay
    square = step_size**2
    return (1 + square * v / (2 * decay)) / (1 - square * precision / (2 * (2 - decay))) / precision


def log_density(w: Any) -> Any:
    """Of the tanh target, (S,) of weights (S, 2)."""
    import torch

    x, y = torch.tensor(INPUTS).to(w), torch.tensor(RESPONSES).to(w)
    residual = y - w[:, 1:] * torch.tanh(w[:, :1] * x)
    return -0.5 * residual.square().sum(1) - 0.5 * w.square().sum(1)


def by_quadrature() -> float:
    """Mean of `log_density` under its own law, by the trapezoid rule, exact to 1e-9.

    Examples
    --------
    >>> round(by_quadrature(), 4)
    -2.5211
    """
    import torch

    axis = torch.linspace(-8, 8, 801, dtype=torch.float64)
    values = log_density(torch.cartesian_prod(axis, axis))
    return float((torch.softmax(values, 0) * values).sum())


def chain_averages(arm: BiasArm, halvings: int, setting: Any, seed: int) -> Any:
    """Each chain's average of the quantity that the bias is of, (C,)."""
    import torch

    from bayes.samplers.chains import run
    from bayes.samplers.potentials import potential_of

    gaussian = arm.target == "gaussian"
    generator = torch.Generator().manual_seed(seed)
    width = N_COORDINATES if gaussian else 2
    start = torch.randn(N_CHAINS, width, dtype=torch.float64, generator=generator)
    thin = arm.thin * 2**halvings
    signs = torch.tensor([-1.0, 1.0], dtype=torch.float64) * math.sqrt(arm.noise_variance)

    def noisy(position: Any, batch: Any) -> tuple[Any, Any]:
        gradient = arm.precision * position
        value = 0.5 * (gradient * position).sum(1)
        return value, gradient if batch is None else gradient + signs[batch]

    batches = {"n_observations": 2, "batch_size": 1} if arm.noise_variance else {}
    found = run(
        noisy if gaussian else potential_of(log_density, batched=True),
        arm.build(halvings),
        start,
        n_draws=setting.n_draws,
        burn_in=setting.burn_in * thin,
        thin=thin,
        seed=seed,
        **batches,  # type: ignore[arg-type]
    )
    if gaussian:
        return found.draws.square().mean((1, 2))
    if arm.quantity == "momentum":
        return (found.moments.kinetic / found.moments.count).mean(1)
    return log_density(found.draws.flatten(0, 1)).view(N_CHAINS, -1).mean(1)


KIND = SamplerBias()

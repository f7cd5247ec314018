"""Settings that kinds of studies of priors share, and what they build: networks, laws of functions,
methods and families.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from experiments.kinds import SettingModel


class NetworkSetting(SettingModel):
    """Dense hidden layers, or convolutions of images."""

    hidden: tuple[int, ...] | None = None
    image_shape: tuple[int, int, int] | None = None
    channels: tuple[int, ...] | None = None
    n_outputs: int = Field(default=1, ge=1)
    activation: str = "tanh"

    @model_validator(mode="after")
    def _is_one_of_both(self) -> NetworkSetting:
        images = (self.image_shape is None, self.channels is None)
        if images != (self.hidden is not None,) * 2:
            raise ValueError("must have 'hidden', or 'image_shape' and 'channels'")
        return self


class TargetSetting(SettingModel):
    """A Gaussian process with an RBF kernel, or a mixture of them over hyperparameters."""

    law: Literal["rbf", "hierarchical-rbf", "softplus-rbf"]
    lengthscale: float = Field(default=1.0, gt=0, description="of rbf alone, as the variance")
    variance: float = Field(default=1.0, gt=0)


class MethodSetting(SettingModel):
    """A method of `bayes.priors.matching`, or "published", with options other than its own."""

    name: Literal["moments", "energy", "bures", "sliced", "sinkhorn", "wasserstein", "published"]
    n_steps: int | None = Field(default=None, ge=1, description="instead of the profile's")
    learning_rate: float | None = Field(default=None, gt=0)
    n_functions: int | None = Field(default=None, ge=2)
    n_critic_steps: int | None = Field(default=None, ge=1)

    def build(self, n_steps: int) -> Any:
        """The method, with that many steps unless it has its own."""
        from bayes.priors.matching.methods import METHODS
        from experiments.published_prior import PublishedCritic

        options = {"n_steps": n_steps} | self.model_dump(exclude={"name"}, exclude_none=True)
        return (METHODS | {"published": PublishedCritic})[self.name](**options)


class ArmSetting(SettingModel):
    """A family and where it starts, and the methods in order; none leaves it where it starts."""

    family: Literal["gaussian", "hierarchical", "student_t", "flow"]
    by: Literal["layer", "ard", "parameter"] = "layer"
    shape: float = Field(
        default=4.0, gt=0.5, description="of the precisions of hierarchical, and their rate"
    )
    methods: tuple[MethodSetting, ...] = ()


def network(setting: NetworkSetting, n_inputs: int) -> Any:
    """The network of a setting."""
    from bayes.priors import MLP, ConvNet

    n_outputs, activation = setting.n_outputs, setting.activation
    if setting.hidden is not None:
        return MLP(n_inputs, setting.hidden, n_outputs, activation=activation)
    assert setting.image_shape is not None
    assert setting.channels is not None
    return ConvNet(setting.image_shape, setting.channels, n_outputs, activation=activation)


def function_target(setting: TargetSetting, n_features: int, n_outputs: int) -> Any:
    """The target of a setting."""
    from gpytorch.kernels import RBFKernel, ScaleKernel

    from bayes.priors import hierarchical_rbf
    from bayes.priors.targets import as_target
    from experiments.published_prior import softplus_rbf

    if setting.law == "hierarchical-rbf":
        return hierarchical_rbf(n_features, n_outputs)
    if setting.law == "softplus-rbf":
        return as_target(softplus_rbf, n_outputs)
    kernel = ScaleKernel(RBFKernel())
    kernel.outputscale, kernel.base_kernel.lengthscale = setting.variance, setting.lengthscale
    return as_target(kernel, n_outputs)


def family(setting: ArmSetting, net: Any) -> Any:
    """The prior of an arm before it is matched."""
    from bayes.priors import FlowPrior, GaussianPrior, HierarchicalPrior, StudentTPrior

    if setting.family == "hierarchical":
        return HierarchicalPrior(net, setting.by, setting.shape, setting.shape)
    if setting.family == "student_t":
        return StudentTPrior(net, setting.by)
    return FlowPrior(net) if setting.family == "flow" else GaussianPrior(net, setting.by)

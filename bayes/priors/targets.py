r"""What functions should look like: Gaussian processes, mixtures of them, or any sampler.

.. math:: \theta \sim p(\theta), \qquad f \mid \theta \sim \mathcal{GP}(m_\theta, k_\theta),

with :math:`\theta` drawn anew for every function and output where the kernel or mean carries
gpytorch priors, and fixed where it does not. Outputs are independent. Functions are free of noise:
that belongs to the likelihood.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kernels.checks import check_int

from .._validation import (
    as_inputs,
    check_callable,
    check_instance,
    check_size,
    torch_generator,
)

if TYPE_CHECKING:
    from gpytorch.kernels import Kernel, ScaleKernel
    from gpytorch.means import Mean

JITTER = (1e-8, 1e-6, 1e-4)
"""Added to the diagonal in units of its mean, the first with which a Cholesky factor exists."""

AT_ONCE = 2**19
"""Numbers that a batch of covariance matrices holds: what a cache holds."""


class FunctionTarget(ABC):
    """Functions to match: something that draws them."""

    n_outputs: int

    @abstractmethod
    def sample_functions(self, X: Tensor, n: int, random_state: Any = None) -> Tensor:
        """n functions (n, N, n_outputs) at the rows of X (N, D), float64."""

    def moments(self, X: Tensor, n: int, random_state: Any = None) -> tuple[Tensor, Tensor]:
        """Mean (O, N) and covariance (O, N, N) of each output, estimated from n functions."""
        f = self.sample_functions(X, n, random_state).permute(2, 0, 1)
        mean = f.mean(1)
        centred = f - mean.unsqueeze(1)
        return mean, centred.mT @ centred / (n - 1)


class CallableTarget(FunctionTarget):
    """Any callable that draws functions.

    Parameters
    ----------
    draw : callable
        ``draw(X, n, generator)`` returns (n, N) or (n, N, n_outputs); it takes its randomness
        from the `torch.Generator`.
    n_outputs : int

    Examples
    --------
    >>> def lines(X, n, generator):
    ...     return torch.randn(n, 1, generator=generator) * X[:, 0]
    >>> CallableTarget(lines).sample_functions(torch.ones(3, 1), 2, random_state=0).shape
    torch.Size([2, 3, 1])
    """

    def __init__(
        self, draw: Callable[[Tensor, int, torch.Generator], Tensor], n_outputs: int = 1
    ) -> None:
        self.draw = check_callable("draw", draw, "draw(X, n, generator)")
        self.n_outputs = check_int("n_outputs", n_outputs, 1)

    def sample_functions(self, X: Tensor, n: int, random_state: Any = None) -> Tensor:
        X = as_inputs("X", X)
        n = check_size("n", n, 1, 8 * len(X) * self.n_outputs)
        f = torch.as_tensor(self.draw(X, n, torch_generator(random_state))).double()
        f = f.unsqueeze(-1) if f.ndim == 2 else f
        if f.shape != (n, len(X), self.n_outputs) or not bool(torch.isfinite(f).all()):
            raise ValueError(
                f"The 'target' callable must return finite functions of shape (n, N, n_outputs) = "
                f"({n}, {len(X)}, {self.n_outputs}); got shape {tuple(f.shape)}"
                f"{'' if bool(torch.isfinite(f).all()) else ' with NaN or infinity'}."
            )
        return f


class GaussianProcessTarget(FunctionTarget):
    """A Gaussian process, or a mixture of them over hyperparameters.

    Parameters
    ----------
    kernel : gpytorch.kernels.Kernel
        Its registered priors are drawn from anew for each function; they speak of the parameter
        itself (a `LogNormalPrior` for the lengthscale is one for the lengthscale in input units).
    mean : gpytorch.means.Mean, optional
        Zero by default.
    n_outputs : int

    Raises
    ------
    ValueError
        When drawing, if the kernel takes another number of features or its matrix is singular
        beyond the jitter.

    Examples
    --------
    >>> from gpytorch.kernels import RBFKernel
    >>> target = GaussianProcessTarget(RBFKernel())
    >>> target.sample_functions(torch.linspace(0, 1, 5)[:, None], 3, random_state=0).shape
    torch.Size([3, 5, 1])
    """

    def __init__(self, kernel: Kernel, mean: Mean | None = None, n_outputs: int = 1) -> None:
        from gpytorch.kernels import Kernel
        from gpytorch.means import Mean, ZeroMean

        check_instance("kernel", kernel, Kernel, "a gpytorch kernel")
        if mean is not None:
            check_instance("mean", mean, Mean, "a gpytorch mean or None")
        self.kernel = copy.deepcopy(kernel).double()
        self.mean = copy.deepcopy(ZeroMean() if mean is None else mean).double()
        self.n_outputs = check_int("n_outputs", n_outputs, 1)
        self.is_mixture = any(True for m in (self.kernel, self.mean) for _ in m.named_priors())

    def laws(self, X: Tensor, n: int, random_state: Any = None) -> tuple[Tensor, Tensor]:
        """Means (n, N) and covariances (n, N, N) for n draws of the hyperparameters; n is 1 if
        they are fixed."""
        X = as_inputs("X", X).detach().double()
        check_int("n", n, 1)
        _check_features(self.kernel, X.shape[-1])
        n, generator = n if self.is_mixture else 1, torch_generator(random_state)
        with torch.no_grad():
            kernel = _drawn(self.kernel, n, generator)
            mean = _drawn(self.mean, n, generator)
            covariance = kernel(X).to_dense().expand(n, -1, -1)
            return mean(X).expand(n, -1), covariance

    def moments(self, X: Tensor, n: int, random_state: Any = None) -> tuple[Tensor, Tensor]:
        """Mean and covariance averaged over n draws of the hyperparameters."""
        X = as_inputs("X", X)
        n = check_int("n", n, 1) if self.is_mixture else 1
        generator = torch_generator(random_state)
        mean = torch.zeros(len(X), dtype=torch.float64)
        covariance = torch.zeros(len(X), len(X), dtype=torch.float64)
        for size in _batches(n, len(X)):
            means, covariances = self.laws(X, size, generator)
            mean = mean + means.sum(0) / n
            covariance = covariance + (covariances.sum(0) + means.mT @ means) / n
        covariance = covariance - torch.outer(mean, mean)
        shape = (self.n_outputs, *covariance.shape)
        return mean.expand(shape[:2]), covariance.expand(shape)

    def sample_functions(self, X: Tensor, n: int, random_state: Any = None) -> Tensor:
        X = as_inputs("X", X)
        n = check_size("n", n, 1, 16 * len(X) * self.n_outputs)
        generator, count = torch_generator(random_state), n * self.n_outputs
        parts = []
        for size in _batches(count, len(X)) if self.is_mixture else [count]:
            mean, covariance = self.laws(X, size, generator)
            noise = torch.randn(size, len(X), 1, generator=generator, dtype=torch.float64)
            root = cholesky(covariance)
            parts.append(mean + (root @ noise.to(root)).squeeze(-1))
        return torch.cat(parts).unflatten(0, (n, self.n_outputs)).mT


def hierarchical_rbf(n_features: int, n_outputs: int = 1) -> GaussianProcessTarget:
    r"""RBF-ARD target with a lengthscale drawn for every feature and a variance, per function.

    .. math:: \ell_d \sim \mathrm{LogNormal}(\log \sqrt{2D}, 1), \qquad
        \sigma^2 \sim \mathrm{LogNormal}(0.1, 1),

    for standardised inputs and outputs.

    References
    ----------
    Tran, Rossi, Milios and Filippone (2022), JMLR 23, section 5.

    Examples
    --------
    >>> hierarchical_rbf(13).is_mixture
    True
    """
    return GaussianProcessTarget(hierarchical_rbf_kernel(n_features), n_outputs=n_outputs)


def hierarchical_rbf_kernel(n_features: int) -> ScaleKernel:
    """The kernel of `hierarchical_rbf`."""
    from gpytorch.kernels import RBFKernel, ScaleKernel
    from gpytorch.priors import LogNormalPrior

    centre = 0.5 * math.log(2 * check_int("n_features", n_features, 1))
    rbf = RBFKernel(ard_num_dims=n_features, lengthscale_prior=LogNormalPrior(centre, 1.0))
    return ScaleKernel(rbf, outputscale_prior=LogNormalPrior(0.1, 1.0))


def as_target(target: Any, n_outputs: int = 1) -> FunctionTarget:
    """A target from a gpytorch kernel, a pair (mean, kernel) or a callable that draws functions.

    Raises
    ------
    ValueError
        If it is none of these, or its number of outputs is not the network's.
    """
    from gpytorch.kernels import Kernel
    from gpytorch.means import Mean

    if isinstance(target, FunctionTarget):
        if target.n_outputs != n_outputs:
            raise ValueError(
                f"The 'target' parameter must have as many outputs as the network, {n_outputs}; "
                f"got {target.n_outputs}."
            )
        return target
    if isinstance(target, Kernel):
        return GaussianProcessTarget(target, n_outputs=n_outputs)
    if isinstance(target, tuple) and len(target) == 2 and isinstance(target[1], Kernel):
        mean, kernel = target
        if isinstance(mean, Mean):
            return GaussianProcessTarget(kernel, mean, n_outputs)
    if callable(target) and not isinstance(target, torch.nn.Module):
        return CallableTarget(target, n_outputs)
    raise ValueError(
        "The 'target' parameter must be a gpytorch kernel, a pair (mean, kernel) of gpytorch "
        f"modules, or a callable draw(X, n, generator); got {type(target).__name__}."
    )


def cholesky(covariance: Tensor) -> Tensor:
    """Lower Cholesky factors (..., N, N), each matrix with the least `JITTER` that it needs.

    Raises
    ------
    ValueError
        If a matrix has no factor even with the largest.
    """
    scale = covariance.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True)
    jitter = torch.tensor(JITTER).to(covariance)
    level = torch.zeros_like(scale, dtype=torch.long)
    for _ in JITTER:
        raised = covariance.clone()
        raised.diagonal(dim1=-2, dim2=-1).add_(jitter[level] * scale)
        root, info = torch.linalg.cholesky_ex(raised)
        exists = (info == 0) & root.diagonal(dim1=-2, dim2=-1).isfinite().all(-1)
        if bool(exists.all()):
            return root
        level = (level + ~exists.unsqueeze(-1)).clamp(max=len(JITTER) - 1)
    if not bool(torch.isfinite(covariance).all()):
        raise ValueError(
            "The kernel's matrix has NaN or infinity; check its hyperparameters and the inputs."
        )
    raise ValueError(
        f"The kernel's matrix of {covariance.shape[-1]} rows is singular: no Cholesky factor "
        f"exists even with {JITTER[-1]:g} of its mean variance ({float(scale.min()):.3g} at least) "
        "on the diagonal. Use a kernel that is positive definite and has variance at these inputs."
    )


def _check_features(kernel: Kernel, n_features: int) -> None:
    for part in kernel.modules():
        active, ard = getattr(part, "active_dims", None), getattr(part, "ard_num_dims", None)
        needs = int(active.max()) + 1 if active is not None else ard
        fits = n_features >= (needs or 0) if active is not None else n_features == needs
        if needs is not None and not fits:
            option = "active_dims" if active is not None else "ard_num_dims"
            cure = f"below {n_features}" if active is not None else f"{n_features}"
            raise ValueError(
                f"The kernel {type(part).__name__} takes {needs} features ({option}); the inputs "
                f"have {n_features}. Make it with {option} {cure}."
            )


def _drawn(module: Any, n: int, generator: torch.Generator) -> Any:
    """A copy of a gpytorch module in a batch of n, every parameter with a prior drawn from it."""
    from gpytorch.kernels import Kernel

    if not any(True for _ in module.named_priors()):
        return module
    module = copy.deepcopy(module)
    values = [
        (part, setter, _draw(prior, (n, *closure(part).shape), generator))
        for _, part, prior, closure, setter in module.named_priors()
    ]
    for part in module.modules():
        for parameter in part._parameters.values():
            if parameter is not None:
                parameter.data = parameter.data.expand(n, *parameter.shape).clone()
        if isinstance(part, Kernel):
            part.batch_shape = torch.Size([n])
    for part, setter, value in values:
        setter(part, value)
    return module


def _draw(prior: Any, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Numbers from a gpytorch prior; its own `sample` would use the global generator."""
    if hasattr(prior, "concentration") and hasattr(prior, "rate"):
        ones = torch.ones(shape, dtype=torch.float64)
        return torch._standard_gamma(prior.concentration * ones, generator) / prior.rate
    u = torch.rand(shape, generator=generator, dtype=torch.float64)
    try:
        return prior.icdf(u)
    except NotImplementedError as error:
        raise ValueError(
            f"The prior {type(prior).__name__} cannot be drawn from with a generator of its own; "
            "use a LogNormal, Normal, Gamma, Uniform, HalfNormal or HalfCauchy prior, or a "
            "callable target."
        ) from error


def _batches(n: int, n_rows: int) -> list[int]:
    """Sizes, adding up to n, of batches of (n_rows, n_rows) matrices."""
    at_once = max(1, AT_ONCE // n_rows**2)
    return [min(at_once, n - start) for start in range(0, n, at_once)]

"""
From a kernel to a posterior
============================

A belief about functions becomes a prior over a network's weights, and the prior a posterior.
"""

import gpytorch
import matplotlib.pyplot as plt
import torch

from bayes.priors import MLP, GaussianPrior, fit_functional_prior, fixed_gaussian
from bayes.samplers import SGHMC, Gaussian, sample

# %%
# The data
# --------
# Twelve noisy values of a wave, none of them in the middle.

generator = torch.Generator().manual_seed(0)
X = torch.cat([torch.linspace(-3, -1, 6), torch.linspace(1, 3, 6)]).double()[:, None]
noise = 0.2
y = torch.sin(1.5 * X[:, 0]) + noise * torch.randn(12, generator=generator, dtype=torch.float64)
grid = torch.linspace(-4, 4, 161, dtype=torch.float64)[:, None]

# %%
# The belief
# ----------
# Functions of size about 1 that change over a length of about 1: a Gaussian process.

kernel = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel())
kernel.base_kernel.lengthscale = 1.0
kernel.outputscale = 1.0

# %%
# The prior
# ---------
# One scale a layer, matched to the kernel in about a second: the covariance of a network with one
# hidden layer is known exactly. Beside it the customary N(0, 1) weights.

net = MLP(1, [50], 1, activation="tanh")
priors = {
    "N(0, 1) weights": fixed_gaussian(net),
    "matched to the kernel": fit_functional_prior(
        net, GaussianPrior.per_layer(net), kernel, grid[::4], method="moments", random_state=0
    ),
}

fig, axes = plt.subplots(1, 2, figsize=(8, 2.8), sharey=True, layout="constrained")
for ax, (name, prior) in zip(axes, priors.items(), strict=True):
    functions = prior.sample_functions(grid, 8, random_state=1)[..., 0].detach()
    ax.plot(grid[:, 0], functions.T, lw=1)
    ax.set(title=f"prior: {name}", xlabel="x")
axes[0].set_ylabel("f(x)")
plt.show()

# %%
# The posterior
# -------------
# Full-batch SGHMC from four starts at once; chains are a dimension of one tensor. `diagnose` says
# in sentences what is wrong: nothing here.

fig, axes = plt.subplots(1, 2, figsize=(8, 2.8), sharey=True, layout="constrained")
for ax, (name, prior) in zip(axes, priors.items(), strict=True):
    posterior = sample(
        net,
        prior,
        X,
        y,
        sampler=SGHMC(step_size=0.03, momentum_decay=0.01),
        likelihood=Gaussian(scale=noise),
        n_chains=4,
        n_draws=100,
        burn_in=8000,
        batch_size=None,
        thin=250,
        random_state=0,
    )
    low, high = posterior.predict(grid).interval(0.9)
    ax.fill_between(grid[:, 0], low.squeeze(), high.squeeze(), alpha=0.3, label="90% interval")
    ax.plot(X[:, 0], y, "k.", label="data")
    ax.set(title=f"posterior: {name}", xlabel="x")
    print(name, posterior.diagnose())
axes[0].set_ylabel("y")
axes[0].legend()
plt.show()

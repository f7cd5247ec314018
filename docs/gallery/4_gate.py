"""
A gate of your own
==================

A gate is one class. Simulation, likelihood, compiled kernels, estimation, intervals and losses work
with it by the gate protocol alone (`moe_stats.gates.base`).
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

from kernels.gating import GateForm
from moe_stats import GaussianMoE, GaussianMoERegressor, LinearExperts, SoftmaxGate, Uniform
from moe_stats.gates.softmax import affine
from theory import voronoi_loss

# %%
# The gate
# --------
# With linear scores a far outlier in x decides for one expert beyond doubt. Scores of tanh(x) level
# off. Both functions are elementwise and at module level: the compiled kernel keeps one program for
# each. Adding the same to all parameters still changes nothing, which `SoftmaxGate` already says.


def squashed(own, shared, x):
    """b0 + b1'tanh(x)."""
    return affine(own, shared, [torch.tanh(column) for column in x])


def squashed_gradient(own, shared, x):
    """(1, tanh(x))."""
    return (1.0, *(torch.tanh(column) for column in x))


class SquashedGate(SoftmaxGate):
    """Softmax gate of squashed features."""

    @classmethod
    def form_of(cls, **options):
        if options:
            raise ValueError(f"SquashedGate has no options; got {sorted(options)}.")
        return GateForm(score=squashed, score_gradient=squashed_gradient)


# %%
# Simulated, fitted, compared
# ---------------------------

truth = GaussianMoE(
    SquashedGate(intercept=[0.5, 0.0], slope=[[4.0], [0.0]]),
    LinearExperts(slope=[[1.0], [-0.5]], intercept=[0.0, 1.0], scale=[0.3, 0.2]),
)
X = Uniform(low=-4, high=4, n_features=1).sample(3000, random_state=0)
y = truth.sample(X, random_state=1)
fit = GaussianMoERegressor(n_experts=2, gate=SquashedGate.template(), n_init=4, random_state=0)
fit.fit(X, y)
print(fit.status_)
print(voronoi_loss(fit.model_, truth).summary())

# %%
# Its own probabilities beside those of the gate that was fitted, with a linear one for comparison.

linear = GaussianMoERegressor(n_experts=2, n_init=4, random_state=0).fit(X, y)
print(f"log-likelihood: {fit.log_likelihood_:.1f} squashed, {linear.log_likelihood_:.1f} linear")

grid = torch.linspace(-4, 4, 201, dtype=torch.float64)[:, None]


def first_expert(model):
    """Probability of the expert with the rising mean."""
    rising = int(np.argmax(model.experts.slope[:, 0]))
    return model.gate_probs(grid)[:, rising]


fig, ax = plt.subplots(figsize=(5, 3), layout="constrained")
ax.plot(grid[:, 0], first_expert(truth), "k", lw=4, alpha=0.3, label="truth")
ax.plot(grid[:, 0], first_expert(fit.model_), label="squashed, fitted")
ax.plot(grid[:, 0], first_expert(linear.model_), "--", label="linear, fitted")
ax.set(xlabel="x", ylabel="probability of the rising expert")
ax.legend()
plt.show()

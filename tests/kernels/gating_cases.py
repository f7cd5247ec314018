"""What tests of gating passes share: every gate, and random models of it."""

import torch

from moe_stats import SoftmaxGate, TopKGate
from moe_stats.gates import (
    ActivationDenseToSparseGate,
    DenseToSparseGate,
    LaplaceGate,
    SigmoidGate,
)
from moe_stats.gates.activations import ACTIVATIONS

FORMS = {
    "softmax": SoftmaxGate.template().form(),
    "top-2 by slope": TopKGate.template(top_k=2, rank="slope").form(),
    "top-2 by logit": TopKGate.template(top_k=2, rank="logit").form(),
    "temperature": DenseToSparseGate.template().form(),
    "Laplace": LaplaceGate.template(softening=0.1).form(),
    "sigmoid ratings": SigmoidGate.template().form(),
} | {name: ActivationDenseToSparseGate.template(activation=name).form() for name in ACTIVATIONS}


def make(
    form,
    n_experts,
    n_features,
    n,
    *,
    batch=3,
    n_sets=2,
    dtype=torch.float64,
    seed=0,
    tempered=False,
):
    """Random (params, form, x, y, rows); data sets repeat and come in no order.

    Shared parameters are log temperatures, or if ``tempered`` temperatures.
    """
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=rng, dtype=torch.float64).to(dtype)

    width = 2 * n_features + form.extra_parameters + 2
    params = normal(batch, n_experts * width)
    params[:, width - 1 :: width] = 0.3 * params[:, width - 1 :: width] - 0.2  # log scales
    shared = normal(batch, form.n_shared)
    shared = 0.6 + shared.abs() if tempered else 0.3 * shared
    x, y = normal(n_sets, n_features, n), 1.5 * normal(n_sets, n)
    rows = torch.tensor([1, 0, 1, 1, 0])[:batch] % n_sets
    return torch.cat([params, shared], -1), form, x, y, rows

"""Why float32 sums are blocked and not compensated: their error beside that of their terms."""

import numpy as np
import pytest
import torch

from kernels import gating, gpu, simulate
from kernels.gating import naive
from kernels.philox import Stream
from moe_stats import GaussianMoE, LinearExperts, SoftmaxGate

N, LANES = 2**18, 128

MODEL = GaussianMoE(
    SoftmaxGate([0.2, 0.0, -0.3], [[4.0], [0.0], [-4.0]]),
    LinearExperts([[3.0], [-2.0], [1.0]], [4.0, 0.0, -4.0], [0.4, 0.5, 0.45]),
)


def terms(x, y, dtype):
    """What every observation adds to every entry of the gradient, (P, N)."""
    params, form = MODEL.to_params()[None].float().to(dtype) + 0.05, MODEL.gate.form
    layout = gating.layout_of(form, params, x)
    point = naive.terms(params, form, x.to(dtype), y.to(dtype), layout)
    score = (point.responsibilities - point.gate).unsqueeze(2) * point.score
    density = point.weighted_joint[:, :, layout.n_own : layout.width]
    return torch.cat([score, density], 2)[0].flatten(0, 1).numpy()


def by_runs(columns, run, *, compensated=False):
    """The sums of a kernel's lanes over runs of terms, in the columns' precision, added in float64;
    compensated as Kahan does."""
    parts = columns.reshape(len(columns), -1, run, LANES)
    total = np.zeros_like(parts[:, :, 0])
    lost = np.zeros_like(total)
    for i in range(run):
        term = parts[:, :, i] - lost
        new = total + term
        if compensated:
            lost = (new - total) - term
        total = new
    return total.astype(np.float64).sum((1, 2))


def test_blocked_sums_err_less_than_their_terms():
    """In units of rounding of the sum of absolute terms, largest over the gradient: compensating
    runs as long as the kernel's improves on an error that is a tenth of the terms' own at most.
    Controls: one by one, and in long runs, plain sums err more than their terms."""
    if gpu.missing():
        pytest.skip(f"Triton 3.6 or newer is needed: {gpu.missing()}")
    from kernels.gating.triton_sums import _MAX_RUN

    source = simulate.Truth(
        MODEL.to_params(), MODEL.gate.form, simulate.Design("uniform", -1.0, 2.0)
    )
    x, y = (part.float() for part in simulate.draw(source, Stream(0), 0, N))
    columns, exact = terms(x, y, torch.float32), terms(x, y, torch.float64)
    unit = np.finfo(np.float32).eps / 2 * np.abs(exact).sum(1)
    added = columns.astype(np.float64).sum(1)

    def error(sums, wanted=added):
        return float((np.abs(sums - wanted) / unit).max())

    of_terms = error(added, exact.sum(1))
    assert error(by_runs(columns, _MAX_RUN)) < 0.1 * of_terms
    assert error(by_runs(columns, _MAX_RUN, compensated=True)) < 0.1 * of_terms
    assert error(by_runs(columns, N // LANES)) > 5 * error(by_runs(columns, _MAX_RUN))
    one_by_one = np.add.accumulate(columns, axis=1)[:, -1].astype(np.float64)
    assert error(one_by_one) > 5 * of_terms

"""Fits to data in chunks: the sums, the fit and the memory are those stated."""

import subprocess
import sys

import pytest
import torch

from kernels.gating import Order
from moe_stats import GaussianMoE, LinearExperts, SoftmaxGate, TopKGate, Uniform
from moe_stats.fit.chunked import ChunkedProblem, Chunks, fit_mle_in_chunks
from moe_stats.fit.mle import fit_mle
from moe_stats.fit.problem import Problem

ORDERS: tuple[Order, ...] = ("value", "gradient", "information", "hessian")


def truth():
    gate = SoftmaxGate(_array([-2.0, 0.0]), _array([[6.0], [0.0]]))
    return GaussianMoE(
        gate, LinearExperts(_array([[-4.0], [4.0]]), _array([3.0, -1.0]), _array([0.5, 0.6]))
    )


def simulated(n):
    X = Uniform(0, 1).sample(n, random_state=0)
    return X, truth().sample(X, random_state=1)


def cut(X, y, size):
    return Chunks(len(y), size, lambda c, length: (X[c * size :][:length], y[c * size :][:length]))


def both(n, size):
    """The same problem held and in chunks."""
    X, y = simulated(n)
    parts = {
        "x": X.mT[None].contiguous(),
        "y": y[None],
        "form": truth().gate.form,
        "n_experts": 2,
        "min_scale": _array([0.05]),
        "min_weight": 0.1,
    }
    return Problem(**parts), ChunkedProblem(**parts, data=cut(X, y, size))


@pytest.mark.parametrize("size", [7, 64, 300, 400])
def test_sums_over_chunks_are_sums_over_observations(size):
    held, chunked = both(300, size)
    params = truth().to_params()[None] + 0.1
    rows = torch.tensor([0])
    for order in ORDERS:
        one, other = held.evaluate(params, rows, order), chunked.evaluate(params, rows, order)
        for mine, its in zip(vars(one).values(), vars(other).values(), strict=True):
            assert (mine is None) == (its is None)
            if mine is not None:  # rounding of 300 terms
                assert torch.allclose(mine, its, rtol=1e-12, atol=1e-12 * float(mine.abs().max()))
    tilt = _array([[0.3, -1.2]])
    for mine, its in zip(
        held.gate_means(params, rows, tilt), chunked.gate_means(params, rows, tilt), strict=True
    ):
        assert torch.allclose(mine, its, rtol=1e-12, atol=1e-13)


def test_a_chunk_that_is_left_out_shows():
    held, chunked = both(300, 64)
    params, rows = truth().to_params()[None], torch.tensor([0])
    full = chunked.data.draw
    broken = Chunks(300, 64, lambda c, length: full(max(c, 1), length))
    short = ChunkedProblem(**{**vars(chunked), "data": broken})
    gap = short.evaluate(params, rows, "value").value - held.evaluate(params, rows, "value").value
    assert gap.abs() > 1e-3


def test_data_on_disk_are_the_same_every_time():
    X, y = simulated(300)
    wide = torch.cat([X, X.square()], 1)
    data = cut(wide, y, 64)
    kept = data.on_disk()
    for _ in range(2):
        for one, other in zip(data, kept, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_subsample_is_that_of_held_data():
    held, chunked = both(300, 64)
    for name in ("x", "y"):
        assert torch.equal(getattr(held.subsample(37), name), getattr(chunked.subsample(37), name))
    assert chunked.n_observations == 300


@pytest.mark.slow
@pytest.mark.parametrize("bounds", [{"min_weight": 0.1, "gate_bound": 30.0}, {}])
def test_a_fit_in_chunks_is_the_fit_of_held_data(bounds):
    X, y = simulated(10_400)  # beyond the subsample on which starts are worked out
    arguments = {"n_experts": 2, "min_scale": 0.05, "n_init": 2, "n_rounds": 0, **bounds}
    held = fit_mle(X[None], y[None], random_states=[5], **arguments)
    fits = [fit_mle_in_chunks(cut(X, y, s), random_state=5, **arguments) for s in (4_000, 7_001)]
    for fit in fits:
        assert bool(fit.converged)
        # both stop where the scaled gradient is 1e-6: standard errors are about 1e-2
        assert torch.allclose(fit.model.to_params(), held.model.to_params(), atol=1e-6)
        assert float(fit.log_likelihood - held.log_likelihood) == pytest.approx(0, abs=1e-6)
    other = fit_mle(X[None, :-400], y[None, :-400], random_states=[5], **arguments)
    assert not torch.allclose(other.model.to_params(), held.model.to_params(), atol=1e-6)


def test_bad_requests_are_refused():
    data = cut(*simulated(100), 40)
    top_k = TopKGate.template(top_k=1, rank="slope")
    with pytest.raises(ValueError, match="must keep every expert where data come in chunks"):
        fit_mle_in_chunks(data, n_experts=2, min_scale=0.1, gate=top_k)
    with pytest.raises(ValueError, match="'init' parameter"):
        fit_mle_in_chunks(data, n_experts=2, min_scale=0.1, init="oracle")
    with pytest.raises(ValueError, match="'min_scale' parameter"):
        fit_mle_in_chunks(data, n_experts=2, min_scale=0.0)
    with pytest.raises(ValueError, match="as many observations as parameters"):
        fit_mle_in_chunks(cut(*simulated(7), 4), n_experts=2, min_scale=0.1)
    with pytest.raises(ValueError, match="'size' parameter"):
        Chunks(10, 0, data.draw)


MEMORY = """
import sys
import numpy as np
import torch
from moe_stats.fit.chunked import Chunks, fit_mle_in_chunks
from moe_stats.fit.mle import fit_mle

SIZE = 2**14

def draw(c, length):
    rng = np.random.default_rng(c)
    x = rng.uniform(0, 1, (length, 1))
    y = np.where(x[:, 0] > .5, 2 - x[:, 0], x[:, 0]) + .3 * rng.standard_normal(length)
    return torch.from_numpy(x), torch.from_numpy(y)

def peak(n):
    data = Chunks(n, SIZE, draw)
    arguments = dict(n_experts=2, min_scale=.05, min_weight=.1, gate_bound=30., n_init=1,
                     n_rounds=0, max_iter=1)
    if sys.argv[1] == "held":
        X, y = (torch.cat(part, -1) for part in zip(*data))
        fit_mle(X.mT, y, random_states=[0], **arguments)
    else:
        fit_mle_in_chunks(data.on_disk(), random_state=0, **arguments)
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))

torch.set_num_threads(1)
before = peak(60_000)
print((peak(3_000_000) - before) / 1024)
"""
"""MiB added by 2,940,000 observations, in a process of its own: VmHWM is the peak of that alone."""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory from /proc")
def test_memory_does_not_grow_with_the_observations():
    def added(how):
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, how], capture_output=True, text=True, check=True
        )
        return float(done.stdout)

    held = 2_940_000 * 16 / 2**20  # x and y alone
    assert added("chunks") < 6  # what the allocator keeps in pieces
    assert added("held") > 0.7 * held  # some of it where the first run had been


def _array(values):
    return torch.tensor(values, dtype=torch.float64)

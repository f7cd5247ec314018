"""Which form of the gating pass runs, and what happens where nothing can be compiled."""

import os
import subprocess
import sys
import warnings

import pytest
import torch
from gating_cases import make

from kernels import compiler, gating
from kernels.gating import Evaluation, compiled, naive
from moe_stats import SoftmaxGate, TopKGate

SOFTMAX = SoftmaxGate.template().form()
TOP_SLOPE = TopKGate.template(top_k=2, rank="slope").form()


@pytest.fixture
def ran(monkeypatch):
    """Names of the forms that were called, in place of their work."""
    calls = []
    for module in (naive, compiled):
        name = module.__name__.rpartition(".")[2]
        monkeypatch.setattr(
            module,
            "evaluate",
            lambda params, *rest, name=name, **more: calls.append(name) or Evaluation(params[:, 0]),
        )
    monkeypatch.setattr(gating, "_compiles", lambda: True)
    return calls


def dispatched(ran, n, batch, *, n_sets=1, n_experts=2, **options):
    ran.clear()
    x, y = torch.zeros(n_sets, 1, n).double(), torch.zeros(n_sets, n).double()
    params = torch.zeros(batch, 5 * n_experts).double()
    rows = torch.arange(batch) % n_sets
    gating.evaluate(params, SOFTMAX, x, y, rows, **options)
    return ran[0]


def test_the_size_of_the_batch_decides_which_form_runs(ran):
    data, points = gating.MIN_COMPILED_DATA, gating.MIN_COMPILED_POINTS
    enough = -(-points // data)
    assert dispatched(ran, data, enough) == "compiled"
    assert dispatched(ran, data, enough - 1) == "naive"  # too few points
    assert dispatched(ran, data - 1, 10 * enough) == "naive"  # little data
    assert dispatched(ran, data // 2, 10 * enough, n_sets=2) == "compiled"
    assert dispatched(ran, points, 1) == "compiled"
    most = gating.MAX_COMPILED_PARAMETERS // 5
    assert dispatched(ran, points, 1, n_experts=most) == "compiled"
    assert dispatched(ran, points, 1, n_experts=most + 1) == "naive"  # too long to unroll


def test_climbs_one_after_another_pay_for_a_compilation_together(ran):
    n = gating.MIN_COMPILED_DATA // 2
    enough = -(-gating.MIN_COMPILED_POINTS // n)
    assert dispatched(ran, n, 1) == "naive"
    assert dispatched(ran, n, 1, n_climbs=enough - 1) == "naive"
    assert dispatched(ran, n, 1, n_climbs=enough) == "compiled"


def test_a_named_form_runs_whatever_the_size(ran, monkeypatch):
    assert dispatched(ran, 10, 1, backend="compiled") == "compiled"
    assert dispatched(ran, gating.MIN_COMPILED_POINTS, 1, backend="naive") == "naive"
    monkeypatch.setattr(gating, "_compiles", lambda: False)
    assert dispatched(ran, gating.MIN_COMPILED_POINTS, 1) == "naive"


@pytest.fixture
def no_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    for cached in (gating._compiles, compiler.missing):
        cached.cache_clear()
    yield
    for cached in (gating._compiles, compiler.missing):
        cached.cache_clear()


def test_a_compiler_that_fails_is_as_good_as_none(tmp_path):
    """As where PyTorch's headers are not installed. Inductor reads CXX once, at its import."""
    path = tmp_path / "c++"
    path.write_text("#!/bin/sh\nexit 1\n")
    path.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", "from kernels import compiler; print(compiler.missing())"],
        env={**os.environ, "CXX": str(path), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("The C++ compiler fails (")


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_one_warning_and_the_same_results():
    arguments = make(TOP_SLOPE, 3, 1, gating.MIN_COMPILED_POINTS)
    with pytest.warns(RuntimeWarning, match="No C\\+\\+ compiler was found") as caught:
        first = gating.evaluate(*arguments)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = gating.evaluate(*arguments)
    plain = gating.evaluate(*arguments, backend="naive")
    assert torch.equal(first.gradient, plain.gradient)
    assert torch.equal(second.gradient, plain.gradient)


@pytest.mark.usefixtures("no_compiler")
def test_small_batches_need_no_compiler():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gating.evaluate(*make(TOP_SLOPE, 3, 1, 7))

"""Every kernel compiles for a GPU: down to machine code for Hopper, where none is at hand.

What the interpreter accepts, the compiler may not: arguments it specialises on, tuples, constants.
A child process, for Triton decides on its interpreter when it is imported.
"""

import json
import os
import subprocess
import sys

import pytest

from kernels import gpu

COMPILE = """
import json, sys
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

class Hopper:
    def get_current_target(self): return GPUTarget("cuda", 90, 32)
    def get_current_device(self): return 0
    def get_current_stream(self, device=None): return 0

driver.set_active(Hopper())
run, compiled = triton.JITFunction.run, []

def compile_only(self, *args, grid, warmup, **kwargs):
    kernel = run(self, *args, grid=grid, warmup=True, **kwargs)
    doubles = kernel.asm["ptx"].count("fma.rn.f64")
    compiled.append((self.__name__, len(kernel.asm["cubin"]), doubles))

triton.JITFunction.run = compile_only

from kernels import gating, gpu, sgmcmc, simulate
from kernels.philox import Stream, triton as philox
from moe_stats import TopKGate
from moe_stats.gates import ActivationDenseToSparseGate

gpu.is_available = lambda device=None: True
forms = [
    TopKGate.template(top_k=2, rank="slope").form(),
    ActivationDenseToSparseGate.template(activation="gelu").form(),
]
for dtype in (torch.float32, torch.float64):
    state = torch.zeros(2, 96, dtype=dtype)
    philox.normal(1, 1, (5, 7), state)
    for noise in (state, Stream(1, 1)):
        sgmcmc.sgld(state, state, noise, 0.1, 1.0, backend="triton")
        sgmcmc.sghmc(state, state, state, noise, 0.1, state, state, state, 1.0, backend="triton")
        sgmcmc.baoab(state, state, state.T.contiguous().T, noise, 0.1, 1.0, 1.0, backend="triton")
    x, y = torch.zeros(1, 2, 1000, dtype=dtype), torch.zeros(1, 1000, dtype=dtype)
    for form, order, law in zip(forms, ("value", "gradient"), ("uniform", "normal")):
        params = torch.zeros(2, gating.Layout.of(form, 3, 2).size, dtype=dtype)
        options = {"order": order, "backend": "triton"}
        gating.evaluate(params, form, x, y, responsibilities=True, **options)
        truth = simulate.Truth(params[0], form, simulate.Design(law, n_features=2))
        simulate.evaluate(params, form, truth, Stream(1, 1), 1000, **options)
print(json.dumps(compiled))
"""


@pytest.mark.slow
def test_kernels_compile_for_hopper(tmp_path):
    if reason := gpu.missing():
        pytest.skip(f"Triton 3.6 or newer is needed: {reason}")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    child = subprocess.run(
        [sys.executable, "-c", COMPILE],
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr[-2000:]
    compiled = json.loads(child.stdout.splitlines()[-1])
    half = len(compiled) // 2
    names = [name for name, _, _ in compiled]
    launched = ["_normal", *["_kernel"] * 6, *["_pass", "_simulated"] * 2]
    assert names == 2 * launched
    assert all(size > 0 for _, size, _ in compiled)
    assert not any(
        doubles for name, _, doubles in compiled[:half] if name in ("_normal", "_kernel")
    )
    assert all(doubles for _, _, doubles in compiled[half:])  # float64 is computed in float64

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
    compiled.append((self.__name__, len(kernel.asm["cubin"]), doubles, kernel.asm["ttir"]))

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
    x, options = x[:, :1], {"order": "hessian", "backend": "triton"}
    params = torch.zeros(2, gating.Layout.of(forms[1], 3, 1).size, dtype=dtype)
    gating.evaluate(params, forms[1], x, y, **options)
    truth = simulate.Truth(params[0, :15], forms[0], simulate.Design())
    simulate.evaluate(params[:, :15], forms[0], truth, Stream(1, 1), 1000, **options)
tanh = ActivationDenseToSparseGate.template(activation="tanh").form()
truth = simulate.Truth(params[0], tanh, simulate.Design())
for form in (forms[1], tanh):
    simulate.evaluate(params, form, truth, Stream(1, 1), 1000, order="value", backend="triton")
erfs = [ttir.count("math.erf") for *_, ttir in compiled]
print(json.dumps([(*one[:3], erf) for one, erf in zip(compiled, erfs)]))
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
    assert all(size > 0 for _, size, _, _ in compiled)
    *compiled, of_gelu, of_tanh = compiled
    assert of_gelu[3] > 0  # the models' gate is not taken for the truth's, tanh, although
    assert of_tanh[3] == 0  # both functions take the same arguments
    half = len(compiled) // 2
    names = [name for name, *_ in compiled]
    second = ["_pass", "_second", "_second", "_simulated", "_simulated_second"]
    launched = ["_normal", *["_kernel"] * 6, *["_pass", "_simulated"] * 2, *second]
    assert names == 2 * launched
    updates = [doubles for name, _, doubles, _ in compiled[:half] if name in ("_normal", "_kernel")]
    assert not any(updates)
    assert all(doubles for _, _, doubles, _ in compiled[half:])  # float64 is computed in float64

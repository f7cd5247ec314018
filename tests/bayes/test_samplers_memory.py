"""A thousand chains of the toy network, and streamed draws, in the memory that `chains` states.

Peak resident memory is that of a process of its own, in which a run of one chain came first: code,
libraries and thread pools are loaded, and what is added afterwards is the run's. It is Linux's
VmHWM: the peak that getrusage gives is inherited from the parent process.
"""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="peak memory from /proc")

N_CHAINS, N_DRAWS = 1000, 4
N_PARAMETERS = 5251  # 1-50-50-50-1
TENSORS = 48 + 16
"""Of C x P numbers beside draws and noise, as `chains` states: here a block takes one draw."""

TOY = f"""
import sys, warnings
import torch
from bayes.networks import MLP
from bayes.priors import GaussianPrior
from bayes.samplers import AdaptiveSGHMC, Gaussian, SamplingWarning, loop, sample

warnings.simplefilter("ignore", SamplingWarning)
loop.BLOCK_NUMBERS = int(sys.argv[1]) or loop.BLOCK_NUMBERS
net = MLP(1, [50, 50, 50], 1)
assert net.n_weights == {N_PARAMETERS}
prior = GaussianPrior.per_layer(net)
x = torch.linspace(-1, 1, 40)[:, None]

def peak(n_chains):
    run = sample(
        net, prior, x, x[:, 0].sin(), AdaptiveSGHMC(1e-3), n_chains, {N_DRAWS}, 2, 4, 32,
        likelihood=Gaussian(0.1), random_state=0,
    ).run
    assert run.draws.shape == (n_chains, {N_DRAWS}, {N_PARAMETERS}) and len(run.kept) == n_chains
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))

before = peak(1)
print(peak({N_CHAINS}) - before)
"""

CHUNK, RETURNED = 2**23, 2**24
STREAM = f"""
import sys, tempfile
import torch
from bayes.samplers import AdaptiveSGHMC, folder, sample_density

folder.CHUNK_BYTES, folder.RETURNED_BYTES = {CHUNK}, {RETURNED}

def peak(n_draws, path):
    sample_density(
        lambda q: -0.5 * q.square().sum(1), torch.zeros(50, 5000), AdaptiveSGHMC(0.01),
        n_draws=n_draws, burn_in=1, random_state=0, batched=True, stream_to=path,
    )
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))

with tempfile.TemporaryDirectory() as path:
    before = peak(1, path + "/a")
    print(peak(300, path + "/b" if sys.argv[1] == "stream" else None) - before)
"""


def added_bytes(program, argument):
    """Peak memory of a program's second run beyond that of its first."""
    command = [sys.executable, "-W", "ignore", "-c", program, str(argument)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    return 1024 * int(done.stdout)


@pytest.mark.slow
def test_a_thousand_chains_in_bounded_memory():
    """Control: blocks of 16 steps, whose noise and draws are held at once, break the bound."""
    noise = N_CHAINS * max(N_PARAMETERS, 2**14)
    state = N_CHAINS * N_PARAMETERS
    draws = N_DRAWS * state
    bound = 4 * (draws + noise + TENSORS * state)
    assert added_bytes(TOY, 0) < bound
    assert added_bytes(TOY, 16 * N_PARAMETERS) > bound


@pytest.mark.slow
def test_streamed_draws_are_not_in_memory():
    """The draws handed back, a chunk three times while it is written (its parts, whole, and as a
    file's bytes), and what `chains` states beside draws: 125 MB. Control: the same run without a
    folder, whose draws are 300 MB."""
    bound = RETURNED + 3 * CHUNK + 4 * 50 * (2**14 + (48 + 2 * 16) * 5000)
    assert added_bytes(STREAM, "stream") < bound
    assert added_bytes(STREAM, "memory") > bound

"""Draws streamed to a folder are those of a run in memory, whatever stops it."""

import os
import shutil
import subprocess
import sys

import pytest
import torch

from bayes.samplers import (
    BAOAB,
    SGLD,
    SamplingWarning,
    StorageError,
    folder,
    read_draws,
    sample_density,
)

OPTIONS = {"n_draws": 400, "burn_in": 20, "thin": 2, "random_state": 3}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """A block's draws fill one."""
    monkeypatch.setattr(folder, "CHUNK_BYTES", 1000)


def bowl(q):
    return -0.5 * (q * q * torch.tensor([1.0, 3.0]).to(q)).sum()


def start(n_chains=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n_chains, 2, dtype=torch.float64, generator=generator)


def run(**options):
    return sample_density(bowl, start(), BAOAB(0.3), **{**OPTIONS, **options})


@pytest.fixture(scope="module")
def plain():
    return run()


def stop_after(n_blocks):
    seen = []

    def callback(progress):
        seen.append(progress)
        if len(seen) == n_blocks:
            raise KeyboardInterrupt

    return callback


def on_disk(path):
    return torch.cat(list(read_draws(path)), 1)


def test_the_folder_has_all_draws(plain, tmp_path):
    streamed = run(stream_to=tmp_path)
    assert len(list(tmp_path.iterdir())) > 5
    assert torch.equal(on_disk(tmp_path), plain.draws)
    assert torch.equal(streamed.draws, plain.draws)
    assert torch.equal(streamed.potential, plain.potential)
    assert (streamed.thin, streamed.n_steps) == (plain.thin, plain.n_steps)


def test_no_more_than_a_chunk_waits(tmp_path, monkeypatch):
    """64 draws of 3 chains and 2 parameters, 3072 bytes, are a block's. Control: a chunk takes
    several blocks, and without the limit all draws would wait."""
    waited, flush = [], folder.DrawFolder.flush

    def watched(self):
        waited.append(sum(t.nbytes for t in self._waiting))
        flush(self)

    monkeypatch.setattr(folder.DrawFolder, "flush", watched)
    monkeypatch.setattr(folder, "CHUNK_BYTES", 8000)
    run(stream_to=tmp_path / "a")
    assert 8000 <= max(waited) < 8000 + 3072
    waited.clear()
    monkeypatch.setattr(folder, "CHUNK_BYTES", 2**20)
    run(stream_to=tmp_path / "b")
    assert max(waited) > 400 * 48


@pytest.mark.parametrize("k", [2, 3, 7])
def test_what_memory_does_not_hold_is_thinned(plain, tmp_path, monkeypatch, k):
    """Every k-th draw, counted through chunks whose sizes k does not divide."""
    monkeypatch.setattr(folder, "RETURNED_BYTES", plain.draws.nbytes // k + 1)
    streamed = run(stream_to=tmp_path)
    assert torch.equal(streamed.draws, plain.draws[:, k - 1 :: k])
    assert torch.equal(streamed.potential, plain.potential[:, k - 1 :: k])
    assert torch.equal(streamed.draws, run(thin=2 * k, n_draws=400 // k).draws)
    assert streamed.thin == 2 * k
    assert torch.equal(on_disk(tmp_path), plain.draws)


def test_a_resumed_run_is_bit_identical(plain, tmp_path):
    first = run(stream_to=tmp_path, callback=stop_after(3))
    assert first.interrupted
    n = first.draws.shape[1]
    assert 0 < n < 400
    assert torch.equal(on_disk(tmp_path), plain.draws[:, :n])
    run(stream_to=tmp_path)
    assert torch.equal(on_disk(tmp_path), plain.draws)
    for n_draws in (401, 500):  # one more, of a block already taken, and many more
        longer = run(stream_to=tmp_path, n_draws=n_draws)
        assert torch.equal(on_disk(tmp_path), run(n_draws=n_draws).draws)
        assert longer.draws.shape[1] == n_draws


def test_a_chunk_that_no_state_counts_is_written_again(plain, tmp_path):
    """Killed between a chunk and its state."""
    run(stream_to=tmp_path, callback=stop_after(3))
    kept = (tmp_path / "state.safetensors").read_bytes()
    run(stream_to=tmp_path, callback=stop_after(2))
    (tmp_path / "state.safetensors").write_bytes(kept)
    run(stream_to=tmp_path)
    assert torch.equal(on_disk(tmp_path), plain.draws)


@pytest.mark.parametrize("n_good", [1, 4, 5])
def test_a_full_disk_loses_no_draw(plain, tmp_path, monkeypatch, n_good):
    """Whether it is full at a chunk or at a state."""
    fsync, calls = os.fsync, []

    def full(file):
        calls.append(file)
        if len(calls) > n_good:
            raise OSError(28, "No space left on device")
        fsync(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match=r"no space is left.*is intact"):
            run(stream_to=tmp_path)
    if n_good > 1:  # a chunk and a state
        kept = on_disk(tmp_path)
        assert kept.shape[1] > 0
        assert torch.equal(kept, plain.draws[:, : kept.shape[1]])
    run(stream_to=tmp_path)
    assert torch.equal(on_disk(tmp_path), plain.draws)


def test_stopped_chains(tmp_path):
    init = start()
    init[1] = 50.0

    def quartic(q):
        return -0.25 * (q**4).sum()

    options = {**OPTIONS, "sampler": SGLD(0.05)}
    with pytest.warns(SamplingWarning, match="Chain 1 was stopped"):
        streamed = sample_density(quartic, init, stream_to=tmp_path, **options)
    with pytest.warns(SamplingWarning, match="Chain 1 was stopped"):
        held = sample_density(quartic, init, **options)
    assert torch.equal(streamed.draws.nan_to_num(7), held.draws.nan_to_num(7))
    assert streamed.kept == [0, 2]


def test_folders_that_are_not_this_runs_are_refused(tmp_path):
    run(stream_to=tmp_path)
    with pytest.raises(StorageError, match="seed was 3, now 4"):
        run(stream_to=tmp_path, random_state=4)
    with pytest.raises(ValueError, match="'checkpoint' parameter must be None with 'stream_to'"):
        run(stream_to=tmp_path, checkpoint=tmp_path / "run")
    chunks = sorted(tmp_path.glob("draws-*"))
    chunks[1].write_bytes(chunks[0].read_bytes())
    with pytest.raises(StorageError, match=r"'draws' must be torch.float64 \(3, 64, 2\)"):
        on_disk(tmp_path)
    chunks[1].write_bytes(b"torn")
    with pytest.raises(StorageError, match="torn"):
        on_disk(tmp_path)
    with pytest.raises(FileNotFoundError):
        on_disk(tmp_path / "none")


FULL_DISK = """
import subprocess, sys, torch
from bayes.samplers import BAOAB, StorageError, folder, read_draws, sample_density

folder.CHUNK_BYTES = 20_000
start = torch.randn(3, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

def run(**options):
    return sample_density(
        lambda q: -0.5 * q.square().sum(1), start, BAOAB(0.3), n_draws=2000, burn_in=20,
        random_state=3, batched=True, **options,
    ).draws

def on_disk():
    return torch.cat(list(read_draws(sys.argv[1])), 1)

try:
    run(stream_to=sys.argv[1])
except StorageError as error:
    assert "no space is left" in str(error), error
else:
    raise AssertionError("the disk was not full")
kept, all_draws = on_disk(), run()
assert 0 < kept.shape[1] < 2000
assert torch.equal(kept, all_draws[:, :kept.shape[1]])
subprocess.run(["mount", "-o", "remount,size=8m", sys.argv[1]], check=True)
run(stream_to=sys.argv[1])
assert torch.equal(on_disk(), all_draws)
print("kept", kept.shape[1])
"""


@pytest.mark.slow
def test_a_disk_that_is_really_full(tmp_path):
    """A file system of 400 kB for draws of 960 kB, in a namespace of its own: what was taken stays,
    and with more room the same call ends as if nothing had been."""
    alone = ["unshare", "--user", "--map-root-user", "--mount"]
    mount = f"mount -t tmpfs -o size=400k tmpfs {tmp_path}"
    if (
        shutil.which("unshare") is None
        or subprocess.run([*alone, "sh", "-c", mount], check=False, capture_output=True).returncode
    ):
        pytest.skip("no file system can be mounted here")
    script = f'{mount} && "{sys.executable}" -W ignore -c "$0" {tmp_path}'
    done = subprocess.run(
        [*alone, "sh", "-c", script, FULL_DISK], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert 0 < int(done.stdout.split()[1]) < 2000

"""The benchmarks' command line: one JSON object a line, with the fields that readers rely on.

How long anything takes is not asserted.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", ["first_fit", "batch"])
def test_rows_are_json(name):
    done = run("run", name, "--quick", "--json")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    for row in rows:
        assert {"operation", "form", "shape", "median_s", "ratio_to_eager"} <= row.keys()
        assert row["median_s"] > 0


def test_an_unknown_benchmark_is_named():
    done = run("run", "nothing")
    assert done.returncode == 2
    assert "'nothing'" in done.stderr


def test_the_peer_finds_the_same_optimum():
    sys.path.insert(0, str(ROOT))
    from benchmarks.fit import numpy_em
    from benchmarks.settings import draw, two_experts
    from moe_stats import GaussianMoERegressor

    X, y = draw(two_experts(), 2_000, 0)
    peer = max(numpy_em(X[:, 0].numpy(), y.numpy(), 2, seed) for seed in range(3))
    ours = GaussianMoERegressor(2, n_rounds=0, random_state=0).fit(X, y).log_likelihood_
    # EM stops at a relative change of 1e-8: 2e-5 nats an iteration here, a few tens of them short
    assert ours == pytest.approx(peer, abs=5e-3)
    assert ours >= peer - 1e-6


def test_a_scaling_run_that_was_broken_off_has_a_picture():
    """The rows of every moment of a run, from the first one on."""
    from benchmarks.scaling import ARMS, ScalingRow, picture

    rows = []
    for form, workers in ARMS:
        rows.append(ScalingRow("s", form, "", 9 / workers, workers, "", workers, 10, 9.0, 0.1, 1.0))
        assert picture(rows).startswith(b"\x89PNG")


def test_the_projection_is_bounded_by_the_workers_and_by_the_parent():
    from benchmarks.scaling import busy_workers, projected

    batch = {"batch_s": 0.7, "parent_s": 0.01}
    assert projected(1, **batch, batches_a_worker=1e9) == pytest.approx(1)
    assert projected(8, **batch, batches_a_worker=50) < 8
    assert projected(10**6, **batch, batches_a_worker=50) == pytest.approx(busy_workers(**batch))

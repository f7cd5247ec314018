"""The benchmark of the GPU kernels runs, on tiny sizes; its figures mean nothing here."""

import json

import pytest
import torch

from benchmarks import events, report
from benchmarks import triton as benchmark

TINY = {"copy": 2**10, "state": 2**10, "data": 300, "simulated": 300, "peer": 200}
OUTCOMES = {"gating": "passed", "sgmcmc": "passed", "simulate": "passed"}


@pytest.mark.slow
def test_every_row_is_there(device, tmp_path):
    rows = list(benchmark.rows(device, TINY, 3, OUTCOMES))
    operations = {row.operation for row in rows}
    assert operations == {
        "copy",
        "sgld update",
        "sghmc update",
        "sghmc, scale-adapted update",
        "baoab update",
        "gating likelihood and gradient",
        "simulate and accumulate",
    }
    for row in rows[1:]:
        assert row.tests == "passed"
        if row.form == "triton":
            assert "relative difference" in row.note
        else:
            assert row.form in ("eager", "torch.compile")
        if row.bytes_moved:
            assert row.share > 0
            assert row.ratio_to_compiled > 0
    report.save("tiny", rows, folder=tmp_path)
    saved = json.loads((tmp_path / "tiny.json").read_text())
    assert len(saved["rows"]) == len(rows)
    assert saved["versions"]["torch"] in torch.__version__
    assert (tmp_path / "tiny.md").read_text().count("\n") == len(rows) + 2
    assert (tmp_path / "tiny.png").stat().st_size > 1000


def test_a_wrong_kernel_is_not_timed():
    right = torch.ones(3)
    assert "relative difference 0e+00" in benchmark._agreement(right, right)
    for wrong in (right + 1e-3, right * float("nan")):
        with pytest.raises(RuntimeError, match="A kernel is wrong by"):
            benchmark._agreement(wrong, right)


def test_without_a_gpu_nothing_is_measured(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert list(benchmark.run(quick=True)) == []
    assert "nothing was measured" in capsys.readouterr().err


def test_the_binding_ceiling_counts():
    ceilings = events.Ceilings(bandwidth=100.0, arithmetic=10.0)
    assert ceilings.seconds(200, 10) == 2.0
    assert ceilings.seconds(200, 40) == 4.0
    assert events.median_and_spread([1.0, 2.0, 3.0, 4.0, 5.0]) == (3.0, 3.0)

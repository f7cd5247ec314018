"""Triton's kernels run on a GPU where there is one, else in its interpreter (`../conftest.py`)."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # for gating_cases
pytest.register_assert_rewrite("gating_cases")


@pytest.fixture
def device():
    """Where a kernel of Triton runs."""
    from kernels import gpu

    if reason := gpu.missing():
        pytest.skip(f"Triton 3.6 or newer is needed: {reason}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    assert gpu.is_available(device), "Triton was imported before its interpreter was asked for"
    return device


@pytest.fixture
def poison(monkeypatch):
    """NaN in all memory that a kernel is given to write; gives the sizes that were asked for."""
    from kernels import gpu

    if reason := gpu.missing():
        pytest.skip(f"Triton 3.6 or newer is needed: {reason}")
    original, sizes = torch.Tensor.new_empty, []

    def new_empty(like, *shape, **options):
        made = original(like, *shape, **options)
        sizes.append(made.numel())
        return made.fill_(float("nan")) if made.is_floating_point() else made

    monkeypatch.setattr(torch.Tensor, "new_empty", new_empty)
    return sizes

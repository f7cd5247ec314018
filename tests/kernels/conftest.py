"""Triton's kernels run on a GPU where there is one, else in Triton's interpreter."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when Triton is imported


@pytest.fixture
def device():
    """Where a kernel of Triton runs."""
    from kernels import gpu

    if reason := gpu.missing():
        pytest.skip(f"Triton 3.6 or newer is needed: {reason}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    assert gpu.is_available(device), "Triton was imported before its interpreter was asked for"
    return device

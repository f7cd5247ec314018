"""Where Triton is missing or too old, and that a slower path is told once."""

import warnings
from importlib.metadata import PackageNotFoundError

import pytest
import torch

from kernels import gpu


def found(monkeypatch, version):
    """What `gpu.missing` says of an installed version, or of none."""

    def installed(name):
        assert name == "triton"
        if version is None:
            raise PackageNotFoundError(name)
        return version

    monkeypatch.setattr(gpu, "version", installed)
    return gpu.missing.__wrapped__()


@pytest.mark.parametrize("version", ["3.6.0", "3.7.1", "3.10.0", "4.0.0", "3.6.0+git1a2b3c"])
def test_versions_that_serve(version, monkeypatch):
    assert found(monkeypatch, version) == ""


@pytest.mark.parametrize("version", ["3.5.1", "3.1.0", "2.99.0"])
def test_versions_that_are_too_old(version, monkeypatch):
    assert found(monkeypatch, version) == f"version {version} is installed"


def test_no_triton_at_all(monkeypatch):
    reason = found(monkeypatch, None)
    assert reason == "it is not installed"
    monkeypatch.setattr(gpu, "missing", lambda: reason)
    assert not gpu.is_available()
    assert not gpu.is_available(torch.device("cuda"))
    with pytest.raises(ImportError, match=r"needs Triton 3\.6 or newer; it is not installed"):
        gpu.require(torch.device("cuda"))


def test_a_slower_path_is_told_once_for_a_reason():
    gpu.warn_slower.cache_clear()
    with pytest.warns(RuntimeWarning, match="kernel of an operation is not used: a reason. A slow"):
        gpu.warn_slower("an operation", "a reason")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gpu.warn_slower("an operation", "a reason")
    with pytest.warns(RuntimeWarning, match="another reason"):
        gpu.warn_slower("an operation", "another reason")
    gpu.warn_slower.cache_clear()

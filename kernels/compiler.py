"""Whether this machine can compile what ``torch.compile`` makes for a CPU."""

import functools
import os
import shutil

import torch


@functools.cache
def missing() -> str:
    """Why nothing can be compiled; empty if it can.

    Inductor needs a C++ compiler (``CXX``, g++ or clang++) that also finds PyTorch's headers and
    OpenMP: whether it does is tried, once a process.
    """
    candidates = [os.environ.get("CXX", ""), "g++", "clang++"]
    if os.name == "nt" or not any(shutil.which(name) for name in candidates if name):
        return "No C++ compiler was found (g++ or clang++ on PATH, or CXX)"
    from torch._dynamo.exc import BackendCompilerFailed

    try:
        torch.compile(_probe)(torch.zeros(2))
    except BackendCompilerFailed as error:
        lines = str(error).splitlines()
        said = [line for line in lines if " error: " in line] or lines
        return f"The C++ compiler fails ({said[0].strip()})"
    return ""


def _probe(x: torch.Tensor) -> torch.Tensor:
    return x + 1

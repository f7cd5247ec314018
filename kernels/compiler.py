"""Whether this machine can compile what ``torch.compile`` makes for a CPU."""

import functools
import os
import shutil


@functools.cache
def has_compiler() -> bool:
    """Whether inductor finds a C++ compiler: ``CXX``, g++ or clang++."""
    candidates = [os.environ.get("CXX", ""), "g++", "clang++"]
    return os.name != "nt" and any(shutil.which(name) for name in candidates if name)

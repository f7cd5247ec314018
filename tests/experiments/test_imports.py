"""What importing does: our packages and no others, quickly, and nothing that unpickles files."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ["theory", "bayes", "moe_stats", "kernels", "experiments", "paper_figures"]


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_are_from_this_project(package):
    file = import_module(package).__file__
    assert file is not None, f"{package} is a folder without code, not our package"
    assert Path(file).resolve() == ROOT / package / "__init__.py"


HEAVY = {"matplotlib", "pyro", "gpytorch", "sympy", "jinja2", "ot", "arviz_stats", "dask", "rich"}
"""What is imported where it is used, so that importing a package stays quick."""


def test_importing_all_packages_is_clean_and_leaves_heavy_ones_out():
    code = f"import {', '.join(PACKAGES)}, sys; print(*sys.modules)"
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert set(PACKAGES) <= loaded
    assert not HEAVY & loaded


UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal"}
UNSAFE_CALLS = {"torch.load", "joblib.load", "yaml.load", "yaml.unsafe_load"}


def unsafe(source: str) -> list[str]:
    """What in a source could run code that a file holds: unpicklers and their kin."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in UNSAFE_MODULES]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{a.name}" for a in node.names]
            found += names if str(node.module).split(".")[0] in UNSAFE_MODULES else []
            found += [name for name in names if name in UNSAFE_CALLS]
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            allowed = [k for k in node.keywords if k.arg == "allow_pickle"]
            found += [called] if called in UNSAFE_CALLS or "read_pickle" in called else []
            found += [f"{called}(allow_pickle)"] if allowed else []
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_is_unpickled(package):
    for path in sorted((ROOT / package).rglob("*.py")):
        assert not unsafe(path.read_text()), path


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "def f():\n    from torch import load",
        "x = torch.load(path)",
        "pandas.read_pickle(path)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text)",
    ],
)
def test_unpicklers_would_be_found(source):
    assert unsafe(source)

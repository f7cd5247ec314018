"""What importing does: our packages and no others, quickly, and nothing that unpickles files."""

import ast
import json
import os
import subprocess
import sys
from collections import defaultdict
from importlib import import_module
from pathlib import Path
from statistics import median

import pytest

import moe_stats

ROOT = Path(__file__).parents[2]
PACKAGES = ["theory", "bayes", "moe_stats", "kernels", "experiments", "paper_figures"]


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_are_from_this_project(package):
    file = import_module(package).__file__
    assert file is not None, f"{package} is a folder without code, not our package"
    assert Path(file).resolve() == ROOT / package / "__init__.py"


def test_importing_all_packages_is_clean():
    code = f"import {', '.join(PACKAGES)}"
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


HEAVY = {
    *("matplotlib", "pyro", "gpytorch", "sympy", "jinja2", "ot", "arviz_stats", "dask", "rich"),
    *("sklearn", "pandas", "scipy.stats", "scipy.optimize"),
}
"""What is imported where it is used, so that importing a package stays quick."""

USES = {"paper_figures": {"pandas"}}  # figures are drawn from tables

STATEMENTS = {
    **{package: f"import {package}" for package in PACKAGES},
    "moe_stats, first use": "from moe_stats import GaussianMoE, fit_mle, interval",
    "theory, first use": "from theory import *",
}

AFTER_TORCH = """
import json, os, sys, time
import torch
before = set(sys.modules)
for name, statement in json.loads(sys.argv[1]):
    if os.fork() == 0:
        start = time.process_time()
        exec(statement)
        seconds = time.process_time() - start
        print(json.dumps([name, seconds, sorted(set(sys.modules) - before)]), flush=True)
        os._exit(0)
    if os.wait()[1]:
        sys.exit(f"{statement} failed")
"""
"""Each statement in a process of its own that has imported torch."""


def cost(statements, repeats):
    """Name to the median of its CPU times in seconds, and to the modules that it loaded."""
    runs = repeats * list(statements.items())
    command = [sys.executable, "-c", AFTER_TORCH, json.dumps(runs)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seconds, modules = defaultdict(list), {}
    for line in done.stdout.splitlines():
        name, took, modules[name] = json.loads(line)
        seconds[name].append(took)
    return {name: median(took) for name, took in seconds.items()}, modules


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_importing_a_package_takes_less_than_a_second_of_cpu_beyond_torch():
    """What is asked of every package; on an idle machine none takes a third of it."""
    seconds, modules = cost(STATEMENTS, repeats=3)
    assert not {name: took for name, took in seconds.items() if took >= 1}
    for name in STATEMENTS:
        assert not (HEAVY - USES.get(name, set())) & set(modules[name]), name


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_what_is_slow_and_heavy_would_be_found():
    statement = "import moe_stats.regressor\nwhile time.process_time() < start + 1: pass"
    seconds, modules = cost({"control": statement}, repeats=1)
    assert seconds["control"] >= 1
    assert {"sklearn", "pandas"} <= set(modules["control"])


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_are_all_there(package):
    """Also those imported on first use; a name that is not offered is refused as usual."""
    module = import_module(package)
    names = getattr(module, "__all__", [])
    star: dict[str, object] = {}
    exec(f"from {package} import *", star)
    assert set(names) <= set(star)
    with pytest.raises(AttributeError, match="nonsense"):
        module.nonsense  # noqa: B018


def test_names_imported_on_first_use_are_listed():
    assert set(moe_stats.__all__) <= set(dir(moe_stats))


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

"""The packages are this project's: `kernels` is the name of an unrelated package too."""

from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "package", ["theory", "bayes", "moe_stats", "kernels", "experiments", "paper_figures"]
)
def test_packages_are_from_this_project(package):
    file = import_module(package).__file__
    assert file is not None, f"{package} is a folder without code, not our package"
    assert Path(file).resolve() == ROOT / package / "__init__.py"

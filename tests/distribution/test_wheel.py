"""The wheel, unpacked away from the checkout as an installer would, holds what is needed."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

builder = pytest.importorskip("hatchling.builders.wheel", reason="needs hatchling")

ROOT = Path(__file__).parents[2]
PACKAGES = ("theory", "bayes", "moe_stats", "kernels", "experiments", "paper_figures")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    (path,) = builder.WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    return Path(path)


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """What `sys.path` gets: a wheel of pure Python is installed by unpacking it."""
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def python(installed, folder, code):
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_holds_every_file_of_the_packages_and_no_other(wheel):
    there = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    here = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert there == here
    assert {f"{package}/py.typed" for package in PACKAGES} <= there


def test_packages_are_imported_from_it(installed, tmp_path):
    code = "\n".join(f"import {package}; print({package}.__file__)" for package in PACKAGES)
    files = python(installed, tmp_path, code).split()
    assert [Path(file) for file in files] == [installed / p / "__init__.py" for p in PACKAGES]


@pytest.mark.slow
def test_it_runs_the_main_study_and_draws_its_figure(installed, tmp_path):
    main = "import sys; from experiments.cli import main; sys.argv = {}; main()"
    study = ["topk-exact", "--profile", "smoke", "--out", "results"]
    python(installed, tmp_path, main.format(["moebius", "run", *study, "--jobs", "1"]))
    python(installed, tmp_path, main.format(["moebius", "figures", *study]))
    (picture,) = tmp_path.glob("results/topk-exact/figures/*.png")
    assert picture.stat().st_size > 0

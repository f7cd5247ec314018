import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for the workers too, which import the toy kind

from toy_kinds import TOY, OneThread  # noqa: E402

from experiments.kinds import register  # noqa: E402
from experiments.study import Study, study_from_document  # noqa: E402

register(TOY)
register(OneThread())


def toy_document(**changes):
    """A study of the toy kind as plain dicts; `setting` and `profiles` are merged."""
    document = {
        "name": "toy-study",
        "kind": "toy",
        "title": "Mean and median",
        "verifies": "The error of a mean shrinks as n^(-1/2).",
        "reference": "Gauss 1809",
        "seed": 11,
        "setting": {"scale": 1.3},
        "profiles": {
            "smoke": {"minutes": 0.1, "sizes": [7, 30], "replicates": 3},
            "quick": {"minutes": 0.2, "sizes": [7, 30, 90], "replicates": 6},
        },
    }
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(document.get(key), dict):
            document[key] = {**document[key], **value}
        else:
            document[key] = value
    return document


def toy_study(**changes) -> Study:
    return study_from_document(toy_document(**changes))


def toml_text(document) -> str:
    """Enough of a TOML writer for the toy's documents."""

    def inline(value):
        if isinstance(value, dict):
            return "{" + ", ".join(f"{k} = {inline(v)}" for k, v in value.items()) + "}"
        if isinstance(value, list | tuple):
            return "[" + ", ".join(map(inline, value)) + "]"
        return f'"{value}"' if isinstance(value, str) else repr(value)

    return "".join(f"{key} = {inline(value)}\n" for key, value in document.items())


def results(table: pd.DataFrame) -> pd.DataFrame:
    """What must be equal bit for bit between two ways of running: all but the timings."""
    return table.drop(columns="seconds")


def start_cli(*args, pids=None) -> subprocess.Popen:
    """Start `moebius` with the toy kind in a process (and process group) of its own."""
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    if pids is not None:
        environment["TOY_PIDS"] = str(pids)
    return subprocess.Popen(
        [sys.executable, str(HERE / "drive.py"), *map(str, args)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture(scope="session")
def study() -> Study:
    return toy_study()


@pytest.fixture(scope="session")
def helpers():
    """The functions of this file (test modules cannot import a conftest)."""
    return sys.modules[__name__]

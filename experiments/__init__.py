"""Studies from TOML to a store of rows: who computes what, where it is kept, how it is resumed.

A *study* (`Study`, one TOML file) names a *kind* (`experiments.kinds`) and hands it a setting. The
kind cuts the study into *cells* (arm, sample size, replicate) grouped in *batches*; the runner
(`experiments.runner`) computes batches in worker processes; the store (`experiments.store`) keeps
one Parquet file per batch, one row per cell. Nothing flows back.

Read `experiments/kinds/__init__.py` first.

Examples
--------
>>> from experiments import load_study, run, Store          # doctest: +SKIP
>>> study = load_study("topk-exact")                        # doctest: +SKIP
>>> run(study, "smoke", "results", n_jobs=2)                # doctest: +SKIP
>>> Store("results", study).table()                         # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any


class UserError(Exception):
    """An error that the person at the keyboard can put right; the message says how."""


if TYPE_CHECKING:
    from .keys import seed_of
    from .kinds import Batch, Cell, Kind, ProfileModel, SettingModel, get_kind, register
    from .runner import RunSummary, run
    from .store import Store
    from .study import Study, list_studies, load_study

_HOME = {
    "seed_of": "keys",
    "Batch": "kinds",
    "Cell": "kinds",
    "Kind": "kinds",
    "ProfileModel": "kinds",
    "SettingModel": "kinds",
    "get_kind": "kinds",
    "register": "kinds",
    "RunSummary": "runner",
    "run": "runner",
    "Store": "store",
    "Study": "study",
    "list_studies": "study",
    "load_study": "study",
}

__all__ = [
    "Batch",
    "Cell",
    "Kind",
    "ProfileModel",
    "RunSummary",
    "SettingModel",
    "Store",
    "Study",
    "UserError",
    "get_kind",
    "list_studies",
    "load_study",
    "register",
    "run",
    "seed_of",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its home on first use, so that `import experiments` is quick."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)

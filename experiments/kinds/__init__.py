"""What a study can be made of: the `Kind` protocol and the register of kinds.

A five-minute introduction to `experiments`
-------------------------------------------
A **study** is a TOML file. Its `kind` says what a cell of it computes; `[setting]` says on what;
`[profiles.quick]` and the like say how many cells.

A **cell** is the smallest thing with a result: an arm (a method under comparison), a sample size n
and a replicate. It ends as one row of the store.

A **batch** is a group of cells computed by one call, since replicates are often fitted together in
one tensor program. It is the unit of work and of storage: computed whole, written atomically, never
split. A batch's rows depend only on the study's configuration (`Study.config_hash`) and on the
batch, so results are bit-identical however a run is interrupted, resumed or spread over workers,
and a batch that occurs in two profiles is computed once.

A **kind** is one object with the members of `Kind`. All randomness comes from
`study.seed_of(n, replicate, purpose)`. To add a kind, write one file in this folder that defines
`KIND`; elsewhere (a notebook, a test, a package of yours), call `register(kind)` once. A worker
process receives the kind by pickle, so define it in a module that workers can import.

Examples
--------
The mean of n normal numbers, whose error shrinks as n^(-1/2):

>>> import numpy as np
>>> from experiments.kinds import Batch, Cell, ProfileModel, SettingModel, register
>>> class MeanSetting(SettingModel):
...     scale: float
>>> class MeanProfile(ProfileModel):
...     sizes: tuple[int, ...]
...     replicates: int
>>> class Mean:
...     name = "mean-doctest"
...     revision = 1
...     Setting = MeanSetting
...     Profile = MeanProfile
...
...     def batches(self, setting, profile):
...         return [Batch(f"n{n}-r{r}", (Cell("mean", n, r),))
...                 for n in profile.sizes for r in range(profile.replicates)]
...
...     def prepare(self, study):
...         return {"expected_slope": -0.5}
...
...     def describe(self, prepared):
...         return f"The error should shrink with slope {prepared['expected_slope']}."
...
...     def run_batch(self, study, batch):
...         rows = []
...         for cell in batch.cells:
...             rng = np.random.default_rng(study.seed_of(cell.n, cell.replicate, "data"))
...             rows.append({"error_abs": abs(rng.normal(0, study.setting.scale, cell.n).mean())})
...         return rows
>>> register(Mean()).name
'mean-doctest'
"""

import difflib
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from .. import UserError
from ..keys import checked_name

if TYPE_CHECKING:
    from ..study import Study


class KindError(UserError, ValueError):
    """An unknown kind, or one that breaks the rules of `Kind`."""


class SettingModel(BaseModel):
    """Base of a kind's `[setting]`: frozen, unknown keys and non-finite numbers refused.

    Everything that determines a cell's result belongs here, nothing else: a change of the setting
    changes the study's configuration hash, and with it the folder of the store. Use tuples for
    lists, so that a setting is frozen all the way down.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ProfileModel(BaseModel):
    """Base of a kind's `[profiles.NAME]`: which cells are wanted, and about how long they take."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    minutes: float = Field(gt=0, description="rough expected time in minutes on two cores")


@dataclass(frozen=True, order=True)
class Cell:
    """The smallest unit with a result.

    Parameters
    ----------
    arm : str
        What is compared within the study (a method); a name by `experiments.keys.NAME_RULE`.
    n : int
        Sample size, at least 0.
    replicate : int
        Number of the replicate, at least 0. By convention arms share the data of a replicate.

    Examples
    --------
    >>> Cell("mle", 1000, 3).key
    'mle-n1000-r3'
    """

    arm: str
    n: int
    replicate: int

    def __post_init__(self) -> None:
        checked_name(self.arm)
        for name, value in (("n", self.n), ("replicate", self.replicate)):
            if type(value) is not int or value < 0:
                raise KindError(f"A cell's {name!r} must be an int of at least 0; got {value!r}.")

    @property
    def key(self) -> str:
        """The cell's name within its study."""
        return f"{self.arm}-n{self.n}-r{self.replicate}"


@dataclass(frozen=True)
class Batch:
    """Cells that are computed by one call and stored in one file.

    Parameters
    ----------
    key : str
        The file's name, by `experiments.keys.NAME_RULE`; the same cells always have the same key.
    cells : tuple of Cell
        At least one, all different.

    Examples
    --------
    >>> batch = Batch("mle-n100-0", tuple(Cell("mle", 100, r) for r in range(5)))
    >>> batch.weight
    500
    """

    key: str
    cells: tuple[Cell, ...]

    def __post_init__(self) -> None:
        checked_name(self.key)
        if not self.cells or len(set(self.cells)) < len(self.cells):
            raise KindError(f"Batch {self.key!r} must have at least one cell, each only once.")

    @property
    def weight(self) -> int:
        """Number of observations in all cells: what the runner takes a batch to cost."""
        return sum(max(cell.n, 1) for cell in self.cells)


def batch_each(cells: Iterable[Cell]) -> list[Batch]:
    """A batch for every cell, of the same name: where a cell takes seconds or more."""
    return [Batch(cell.key, (cell,)) for cell in cells]


def replicate_batches(
    groups: Mapping[str, Sequence[str]], sizes: Sequence[int], replicates: int
) -> list[Batch]:
    """Batches of each group of arms: replicates in tens while data are small, then in fives, then
    one by one, all arms of a group together."""
    batches = []
    for group, arms in groups.items():
        for n in sizes:
            count = 10 if n <= 2_000 else 5 if n <= 20_000 else 1
            for first in range(0, replicates, count):
                last = first + count - 1
                cells = tuple(Cell(arm, n, r) for arm in arms for r in range(first, last + 1))
                batches.append(Batch(f"{group}-n{n}-r{first}-{last}", cells))
    return batches


class Kind(Protocol):
    """What the runner asks of a kind; any object with these members is one."""

    @property
    def name(self) -> str:
        """The word that a study's `kind` uses; for a file in this folder, the file's name."""
        ...

    @property
    def revision(self) -> int:
        """Raise it when `run_batch` would give other numbers or other batches than before."""
        ...

    @property
    def Setting(self) -> type[SettingModel]:  # noqa: N802
        """The model of `[setting]`."""
        ...

    @property
    def Profile(self) -> type[ProfileModel]:  # noqa: N802
        """The model of `[profiles.NAME]`."""
        ...

    def batches(self, setting: Any, profile: Any) -> Sequence[Batch]:
        """Cut a profile of a setting into batches.

        Batches are fixed groups: two with the same key have the same cells, whatever the profile.
        So let the key name all that is in the batch, as in "mle-n1000-r0-9".
        """
        ...

    def prepare(self, study: "Study") -> dict[str, Any]:
        """Compute once, before the first cell, facts that a reader of the results needs.

        Runs in a worker process. The result is kept as JSON (finite numbers, str, bool, None,
        lists, dicts) and is handed to `describe` and to the figures; {} if there is nothing.
        """
        ...

    def describe(self, prepared: dict[str, Any]) -> str:
        """Return the text printed before a run; "" for none. Cheap: runs in the parent process."""
        ...

    def run_batch(self, study: "Study", batch: Batch) -> Sequence[dict[str, Any]]:
        """Compute a batch: one row per cell, in the order of `batch.cells`.

        A pure function of (study configuration, batch). A row holds the kind's own columns, each a
        str, bool, int, float or None; it may set `seconds` (by default the batch's time divided by
        its cells). A cell that fails alone gives {"status": "failed", "error": "why"}; any other
        `status` than the default "ok" is the kind's own word for a result of that sort. An
        exception fails all cells of the batch.
        """
        ...


K = TypeVar("K", bound=Kind)

_registered: dict[str, Kind] = {}


def register(kind: K) -> K:
    """Make a kind known by its name and return it.

    Raises
    ------
    KindError
        If the name is taken by another kind, or `kind` breaks a rule that can be checked here.
    """
    checked_name(kind.name)
    if type(kind.revision) is not int:
        raise KindError(f"Kind {kind.name!r}: 'revision' must be an int; got {kind.revision!r}.")
    for role, model, base in (
        ("Setting", kind.Setting, SettingModel),
        ("Profile", kind.Profile, ProfileModel),
    ):
        if not issubclass(model, base):
            raise KindError(f"Kind {kind.name!r}: '{role}' must be a subclass of {base.__name__}.")
    taken = _registered.get(kind.name)
    same = taken is not None and type(taken).__qualname__ == type(kind).__qualname__
    if (taken is not None and not same) or (taken is None and kind.name in _built_in()):
        raise KindError(f"The name {kind.name!r} is taken by another kind.")
    _registered[kind.name] = kind
    return kind


def get_kind(name: str) -> Kind:
    """Return the kind of that name, importing the file of a built-in one on first use.

    Raises
    ------
    KindError
        If there is none; the message lists the known names.
    """
    if name not in _registered and name in _built_in():
        _registered[name] = import_module(f".{name}", __name__).KIND
    if name not in _registered:
        known = known_kinds()
        near = difflib.get_close_matches(str(name), known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise KindError(f"unknown kind {name!r}; {hint}known kinds: {', '.join(known)}")
    return _registered[name]


def known_kinds() -> list[str]:
    """Return the names of all kinds: the files of this folder and what was registered."""
    return sorted(_built_in() | _registered.keys())


def _built_in() -> set[str]:
    return {module.name for module in pkgutil.iter_modules(__path__) if module.name[0] != "_"}

"""The register of kinds, cells and batches."""

import subprocess
import sys

import pytest
from toy_kinds import TOY, Toy

from experiments.keys import BadNameError
from experiments.kinds import Batch, Cell, KindError, get_kind, known_kinds, register


def test_a_kind_is_registered_in_one_line():
    assert get_kind("toy") is TOY
    assert "toy" in known_kinds()
    assert register(TOY) is TOY  # once more, as a notebook cell run twice


def test_unknown_kind():
    with pytest.raises(KindError, match="unknown kind 'toyy'; did you mean 'toy'") as caught:
        get_kind("toyy")
    assert all(name in str(caught.value) for name in known_kinds())


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ({"name": "toy"}, "The name 'toy' is taken by another kind"),
        ({"name": "../x"}, "A name must have"),
        ({"name": "other", "revision": "1"}, "'revision' must be an int; got '1'"),
        ({"name": "other", "Setting": dict}, "'Setting' must be a subclass of SettingModel"),
        ({"name": "other", "Profile": Toy.Setting}, "must be a subclass of ProfileModel"),
    ],
)
def test_rules_of_a_kind(members, sentence):
    bad = type("Bad", (Toy,), members)()
    with pytest.raises((KindError, BadNameError), match=sentence):
        register(bad)
    assert "other" not in known_kinds()


@pytest.mark.parametrize("n", [-1, 1.0, "3", True, None])
def test_rules_of_a_cell(n):
    with pytest.raises(KindError, match="must be an int of at least 0"):
        Cell("mle", n, 0)
    with pytest.raises(KindError, match="must be an int of at least 0"):
        Cell("mle", 0, n)
    with pytest.raises(BadNameError):
        Cell("../mle", 1, 1)


def test_rules_of_a_batch(study, monkeypatch):
    cell = Cell("mle", 1, 1)
    for cells in ((), (cell, cell)):
        with pytest.raises(KindError, match="at least one cell, each only once"):
            Batch("a", cells)
    with pytest.raises(BadNameError):
        Batch("../a", (cell,))
    for batches in (
        [Batch("a", (cell,)), Batch("a", (Cell("mle", 1, 2),))],
        [Batch("a", (cell,)), Batch("b", (cell,))],
    ):
        monkeypatch.setattr(TOY, "batches", lambda *_, made=batches: made, raising=False)
        with pytest.raises(KindError, match="share a key or a cell"):
            study.batches("smoke")


def test_importing_the_register_does_not_import_torch():
    code = "import experiments.kinds, experiments.study, experiments.cli, sys; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "pandas", "pyarrow", "joblib", "matplotlib"} & set(modules)

"""Data sets of studies: standardised, known by a hash, refused with a sentence."""

import numpy as np
import pytest

from experiments.datasets import DataError, Inputs, banana, bundled, uci


@pytest.fixture
def folder(tmp_path):
    """A data set of 6 rows, 3 inputs (the last constant) and an output between them."""
    place = tmp_path / "tiny"
    place.mkdir()
    rng = np.random.default_rng(0)
    data = np.c_[rng.normal(3, 2, 6), rng.normal(size=6), rng.normal(size=6), np.full(6, 7.0)]
    np.savetxt(place / "data.txt", data)
    np.savetxt(place / "index_features.txt", [0, 2, 3], fmt="%d")
    np.savetxt(place / "index_train_1.txt", [5, 0, 2, 3], fmt="%d")
    return tmp_path, data


def test_a_uci_folder_gives_training_inputs_alone(folder, monkeypatch):
    home, data = folder
    found = uci("tiny", 1, home)
    raw = data[[5, 0, 2, 3]][:, [0, 2, 3]]
    assert found.X.shape == (4, 3)
    assert np.allclose(found.X[:, :2], (raw - raw.mean(0))[:, :2] / raw.std(0)[:2])
    assert (found.X[:, 2] == 0).all()  # constant
    monkeypatch.setenv("MOEBIUS_UCI", str(home))
    assert uci("tiny", 1).sha256 == found.sha256


def test_the_hash_tells_data_apart():
    X = np.arange(6.0).reshape(3, 2)
    assert Inputs.of(X).sha256 == Inputs.of(X.copy(order="F")).sha256
    moved = X.copy()
    moved[1, 1] += 1e-12
    others = [Inputs.of(other).sha256 for other in (moved, X.T, X.reshape(2, 3))]
    assert len({Inputs.of(X).sha256, *others}) == 4


def test_generated_and_bundled_sets():
    assert banana(50, 0.1, 3).sha256 == banana(50, 0.1, 3).sha256
    assert banana(50, 0.1, 3).sha256 != banana(50, 0.1, 4).sha256
    digits = bundled("digits").X
    assert digits.shape == (1797, 64)
    assert np.isfinite(digits).all()  # some pixels are dark in all images


def test_what_is_not_there_is_named(folder, monkeypatch):
    home, _ = folder
    monkeypatch.delenv("MOEBIUS_UCI", raising=False)
    with pytest.raises(DataError, match=r"'boston' is not part of the project.*MOEBIUS_UCI"):
        uci("boston")
    with pytest.raises(DataError, match=r"there is no .*boston.index_train_0\.txt"):
        uci("boston", folder=home)
    with pytest.raises(DataError, match=r"index_train_7\.txt"):
        uci("tiny", 7, home)
    with pytest.raises(DataError, match=r"bundles breast_cancer, .*; got 'boston'"):
        bundled("boston")
    (home / "tiny" / "index_features.txt").write_text("0 9\n")
    with pytest.raises(
        DataError, match=r"6 rows and 4 columns of data\.txt; got row 5 and column 9"
    ):
        uci("tiny", 1, home)
    (home / "tiny" / "data.txt").write_text("1 2\nthree 4\n")
    with pytest.raises(DataError, match="is not a table of numbers"):
        uci("tiny", 1, home)

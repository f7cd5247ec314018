"""Keyed randomness: pinned values, injectivity, types; names that may become file names."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.keys import BadNameError, checked_name, seed_of

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
PARTS = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | st.text(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("key", "seed"),
    [
        ((), "4f53cda18c2baa0c0354bb5f9a3ecbe5"),
        (("topk-exact", 0, 1000, 7, "data"), "733fb520688dd8bc7a391b17b9d011ab"),
        (("é", 0.1, None, True, [1, "2"]), "30fc3c0e82c8d43d210db175ca31504f"),
    ],
)
def test_seeds_are_the_same_everywhere_and_for_ever(key, seed):
    assert f"{seed_of(*key):032x}" == seed


@given(st.lists(PARTS, max_size=4), st.lists(PARTS, max_size=4))
def test_keys_that_differ_have_seeds_that_differ(one, other):
    # repr tells 1 from True and 0.0 from -0.0, as the canonical text does
    assert (seed_of(*one) == seed_of(*other)) == (repr(one) == repr(other))


@given(st.lists(PARTS, max_size=4), st.integers(1, 256))
def test_a_narrow_seed_is_the_head_of_a_wide_one(key, bits):
    assert seed_of(*key, bits=bits) == seed_of(*key, bits=256) >> (256 - bits)


def test_numpy_numbers_and_tuples_are_what_they_equal():
    assert seed_of("a", np.int64(3), np.float64(0.1), (1, 2)) == seed_of("a", 3, 0.1, [1, 2])


@pytest.mark.parametrize("part", [{1, 2}, b"a", object(), np.zeros(2), 1j])
def test_other_types_are_refused(part):
    with pytest.raises(TypeError, match="A key is made of"):
        seed_of("a", part)


def test_bad_numbers_are_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        seed_of(float("nan"))
    with pytest.raises(ValueError, match=r"in \[1, 256\]; got 0"):
        seed_of("a", bits=0)


@pytest.mark.parametrize("name", ["a", "topk-exact", "n1000-r0-9", "a.b_c=d", "0", "a" * 100])
def test_names(name):
    assert checked_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "/etc",
        "a\\b",
        "-a",
        ".a",
        "a.",
        "A",
        "é",
        "a b",
        "a\n",
        "a\0",
        "~",
    ],
)
def test_hostile_names(name):
    with pytest.raises(BadNameError, match="A name must have"):
        checked_name(name)


@pytest.mark.parametrize("name", ["a" * 101, 3, None, b"a"])
def test_what_is_no_name(name):
    with pytest.raises(BadNameError, match="A name must have"):
        checked_name(name)


@given(st.text())
def test_a_name_stays_in_its_folder(name):
    try:
        checked_name(name)
    except BadNameError:
        return
    assert not set(name) & set("/\\\0\n ~")
    assert name.strip(".") == name

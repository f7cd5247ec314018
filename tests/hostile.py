"""Values that nobody should pass, and what a public function owes whoever passes one.

A function is listed with arguments that work (`Entry`). One of them is replaced by a hostile value;
then the function either works and its numbers are finite, or raises ValueError or TypeError with a
message that names the parameter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

SEEDS = ("random_state", "seed", "number")

MAX_EXAMPLES = 12
"""Of each function and parameter. Examples are drawn anew from the same seed in every run."""

ODD = [
    None,
    True,
    "",
    "auto",
    "nöthing\x00",
    b"bytes",
    1j,
    Fraction(1, 3),
    object(),
    {},
    {"a": 1},
    set(),
    [],
    [[]],
    [None],
    ["a"],
    [[1.0], [2.0, 3.0]],
    float("nan"),
    float("inf"),
    -float("inf"),
    np.float32(1.5),
    np.int8(-3),
    np.bool_(True),
    np.array("word"),
    np.empty(0),
    np.zeros((0, 1)),
    np.zeros((2, 2, 2, 2)),
    np.array([np.nan, 1.0]),
    np.array([[1j, 2.0]]),
    np.array([object()]),
    np.array(["2020-01-01"], dtype="datetime64[D]"),
    torch.tensor(3),
    torch.tensor([True, False]),
    torch.tensor([float("nan"), 1.0]),
    torch.zeros(2, 0),
    torch.zeros(3, 2, 1),
    lambda: None,
]


def hostile() -> st.SearchStrategy[Any]:
    """Values of wrong types and shapes, and numbers near and beyond the ends of their ranges."""
    numbers = st.integers(-3, 4) | st.floats(width=64) | st.just(1e-320)
    return st.sampled_from(ODD) | numbers | st.lists(st.floats(-2, 2) | numbers, max_size=3)


@dataclass(frozen=True)
class Entry:
    """A public function, arguments with which it works, and which of them are replaced.

    ``called`` says which other words will do, where a rule joins several parameters.
    """

    call: Callable[..., Any]
    valid: Mapping[str, Any]
    vary: tuple[str, ...] = ()
    called: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def parameters(self) -> tuple[str, ...]:
        return self.vary or tuple(self.valid)


def each(entries: Mapping[str, Entry]) -> Any:
    """Parametrise a test by the functions and parameters of a table."""
    pairs = [(name, p) for name, entry in entries.items() for p in entry.parameters()]
    return pytest.mark.parametrize(
        ("function", "parameter"), pairs, ids=["-".join(pair) for pair in pairs]
    )


def sizes(entries: Mapping[str, Entry]) -> Any:
    """Parametrise a test by the functions of a table and their sizes: what works is an int, and
    not a seed."""
    pairs = [
        (name, p)
        for name, entry in entries.items()
        for p in entry.parameters()
        if type(entry.valid[p]) is int and p not in SEEDS
    ]
    return pytest.mark.parametrize(
        ("function", "parameter"), pairs, ids=["-".join(pair) for pair in pairs]
    )


def refuses_huge(entry: Entry, parameter: str) -> None:
    """A size of 2^70 is refused by name, which a loop over it or an array of it would not do."""
    with pytest.raises(ValueError, match=parameter):
        entry.call(**{**entry.valid, parameter: 2**70})


def check(entry: Entry, parameter: str, max_examples: int = MAX_EXAMPLES) -> None:
    """Try hostile values for one parameter.

    Examples
    --------
    >>> from kernels.checks import check_int
    >>> check(Entry(lambda n: check_int("n", n, 1), {"n": 3}), "n")
    """

    @settings(max_examples=max_examples, deadline=None, derandomize=True, database=None)
    @given(hostile())
    def answers(value: Any) -> None:
        try:
            result = entry.call(**{**entry.valid, parameter: value})
        except (ValueError, TypeError) as error:
            words = (parameter, *entry.called.get(parameter, ()))
            if not any(re.search(rf"\b{word}\b", str(error)) for word in words):
                message = f"{error!r} does not name {parameter!r}, which was {value!r}"
                raise AssertionError(message) from error
        else:
            assert is_finite(result), f"{result!r} from {parameter}={value!r}"

    answers()


def is_finite(result: Any) -> bool:
    """Whether a result, if it is numbers, has neither NaN nor infinity."""
    if isinstance(result, tuple):
        return all(map(is_finite, result))
    if isinstance(result, torch.Tensor):
        return bool(torch.isfinite(result).all())
    if isinstance(result, float | np.floating | np.ndarray):
        return bool(np.isfinite(result).all())
    return True

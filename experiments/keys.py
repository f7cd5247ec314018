"""Keyed randomness: every random number of a study is drawn from a seed that its key determines.

A key is a sequence of names and numbers, such as study name, base seed, sample size, replicate and
purpose. Its seed is the head of the SHA-256 digest of the key's canonical JSON text, so

* seeds do not depend on the order in which cells are computed, on the number of workers, on the
  platform or on the version of Python;
* different keys have independent-looking seeds: ("a", "bc") and ("ab", "c") differ, and so do the
  integer 1, the float 1.0, the string "1" and True.
"""

import hashlib
import json
import re
from numbers import Integral
from typing import Any

from . import UserError

NAME_RULE = (
    "lower-case letters, digits and . _ = - only, 1 to 100 of them, "
    "a letter or digit first and last"
)
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._=-]{0,98}[a-z0-9])?", flags=re.ASCII)


class BadNameError(UserError, ValueError):
    """A name that cannot be the name of a file or folder of the store."""


def seed_of(*key: Any, bits: int = 128) -> int:
    """Return the seed of a key: the first `bits` bits of SHA-256 over its canonical JSON.

    Parameters
    ----------
    *key : str, int, float, bool, None, or lists, tuples and str-keyed dicts of these
        The parts of the key, the widest first. Tuples count as lists; NumPy scalars as numbers.
    bits : int, default 128
        Width of the seed: 128 for `numpy.random.SeedSequence`, at most 64 for
        `torch.Generator.manual_seed`, 32 for scikit-learn's `random_state`. A narrower seed is the
        head of the wider one.

    Returns
    -------
    int
        In [0, 2**bits).

    Raises
    ------
    TypeError
        If a part of the key is of another type.
    ValueError
        If `bits` is outside [1, 256] or a float is not finite.

    Examples
    --------
    >>> seed_of("topk-exact", 0, 1000, 7, "data")
    153192007901150404003281606543657669035
    >>> seed_of("topk-exact", 0, 1000, 7, "data", bits=32) == seed_of(
    ...     "topk-exact", 0, 1000, 7, "data") >> 96
    True
    """
    if not 1 <= bits <= 256:
        raise ValueError(f"The 'bits' parameter must be an int in [1, 256]; got {bits!r}.")
    digest = hashlib.sha256(canonical_json(list(key)).encode("ascii")).digest()
    return int.from_bytes(digest, "big") >> (256 - bits)


def canonical_json(value: Any) -> str:
    """Write a value as the one JSON text that stands for it (sorted keys, ASCII, no spaces).

    Floats are written as the shortest decimal that reads back as the same float.

    Examples
    --------
    >>> canonical_json({"b": (1, 2.5), "a": None})
    '{"a":null,"b":[1,2.5]}'
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain_number
    )


def checked_name(name: str) -> str:
    """Return `name` if it may name a file or folder of the store, else raise `BadNameError`.

    Examples
    --------
    >>> checked_name("topk-exact")
    'topk-exact'
    >>> checked_name("../x")
    Traceback (most recent call last):
        ...
    experiments.keys.BadNameError: A name must have lower-case letters, ...; got '../x'.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadNameError(f"A name must have {NAME_RULE}; got {name!r}.")
    return name


def _plain_number(value: Any) -> int:
    if isinstance(value, Integral):  # NumPy integers; NumPy's float64 is a float already
        return int(value)
    raise TypeError(f"A key is made of str, int, float, bool, None; got {type(value).__name__}.")

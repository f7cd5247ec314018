"""Parts of a file's header as dataclasses, with every field of the type that the class says."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def from_document(kind: type[T], document: Any, missing: tuple[str, ...] = ()) -> T:
    """A dataclass from the JSON that `dataclasses.asdict` and `json` made of one.

    Lists become tuples, and documents inside become the dataclasses that the fields ask for.

    Parameters
    ----------
    kind : type
        Its fields are bool, int, float, str, None, tuples of these, sequences of text, dataclasses
        or, as ``Hashable``, any of JSON's plain values.
    document : dict
    missing : tuple of str
        Fields in which NaN stands for what is missing; elsewhere it is refused.

    Raises
    ------
    ValueError
        If fields are missing, unknown or of another type; the message names them.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Box:
    ...     low: tuple[float, ...]
    ...     n: int
    >>> from_document(Box, {"low": [0.0, 1.5], "n": 3})
    Box(low=(0.0, 1.5), n=3)
    >>> from_document(Box, {"low": [0.0, "a"], "n": 3})
    Traceback (most recent call last):
        ...
    ValueError: The field 'low' of Box must be tuple[float, ...]; got [0.0, 'a'].
    """
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    if not isinstance(document, dict) or document.keys() != set(names):
        got = sorted(document) if isinstance(document, dict) else repr(document)
        raise ValueError(f"A {kind.__name__} must have the fields {sorted(names)}; got {got}.")
    values = {}
    for name, hint in _hints(kind).items():
        try:
            values[name] = _value(hint, document[name], nan=name in missing)
        except TypeError:
            told = str(hint) if get_args(hint) else hint.__name__
            raise ValueError(
                f"The field {name!r} of {kind.__name__} must be {told}; got {document[name]!r}."
            ) from None
    return kind(**values)


def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _value(hint: Any, value: Any, nan: bool) -> Any:
    """A value of a type, or TypeError."""
    if is_dataclass(hint):
        return from_document(hint, value)  # type: ignore[arg-type]
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        if value is None and type(None) in inner:
            return None
        (one,) = (h for h in inner if h is not type(None))
        return _value(one, value, nan)
    if origin in (tuple, Sequence):
        if not isinstance(value, list):
            raise TypeError
        if origin is Sequence or inner[1:] == (...,):
            return tuple(_value(inner[0], v, nan) for v in value)
        if len(value) != len(inner):
            raise TypeError
        return tuple(_value(h, v, nan) for h, v in zip(inner, value, strict=True))
    if hint is Hashable:
        if isinstance(value, dict):
            raise TypeError
        return tuple(_value(hint, v, nan) for v in value) if isinstance(value, list) else value
    if hint is float and type(value) in (float, int):
        if math.isnan(value) and not nan:
            raise TypeError
        return float(value)
    if type(value) is not hint:
        raise TypeError
    return value

"""Files: tensors and a JSON header in one safetensors file, written whole or not at all.

Its metadata name what kind of content a file holds and which version of that kind, and have a
digest of header and tensors, so that no changed number is served. Nothing is pickled.

Who reads a kind of file looks at its content inside `understanding` and with `check_tensors`:
another program may have written it, or another version of this one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ._validation import check_path
from .files import write_whole


class StorageError(ValueError):
    """A file cannot be written, read or used here."""


def write(
    path: str | os.PathLike[str],
    kind: str,
    version: int,
    header: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
) -> None:
    """Write a file in place of what may be there.

    Parameters
    ----------
    path : path
    kind : str
        What the file holds, in words.
    version : int
        Of this kind's layout; to be raised whenever old files could be misread.
    header : dict
        JSON's types.
    tensors : dict of Tensor

    Raises
    ------
    StorageError
        If it cannot be written; what was there is intact.

    Examples
    --------
    >>> import tempfile, torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(folder + "/a", "number", 1, {"unit": "s"}, {"x": torch.ones(1)})
    ...     read(folder + "/a", "number", 1)
    ({'unit': 's'}, {'x': tensor([1.])})
    """
    from safetensors.torch import save

    target, text = check_path("path", path), json.dumps(header)
    own: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, value in tensors.items():
        flat = value.detach().cpu().contiguous()
        where = flat.untyped_storage().data_ptr()
        own[name] = flat.clone() if where in places else flat  # a file shares no memory
        places.add(where)
    content = save(
        own,
        {"kind": kind, "version": str(version), "header": text, "sha256": _digest(text, own)},
    )
    try:
        write_whole(target, content)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "no space is left" if full else error.strerror or error
        raise StorageError(
            f"{str(path)!r} could not be written: {what}. What was there before is intact."
        ) from error


def read(
    path: str | os.PathLike[str], kind: str, version: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header and the tensors of a file of a kind.

    Raises
    ------
    FileNotFoundError
    StorageError
        If the file cannot be read, is torn or changed, of another kind or of another version.
    """
    from safetensors import SafetensorError, safe_open

    place = check_path("path", path)
    try:
        if not place.is_file():
            raise FileNotFoundError(f"There is no file {str(path)!r}.")
        with safe_open(place, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise
    except OSError as error:
        why = error.strerror or error
        raise StorageError(f"{str(path)!r} cannot be read: {why}.") from error
    except (SafetensorError, RuntimeError) as error:  # torch's is for shapes it cannot hold
        raise StorageError(
            f"{str(path)!r} is torn or not a safetensors file: {error}. Choose another, or "
            f"remove it."
        ) from error
    if metadata.get("kind") != kind:
        raise StorageError(
            f"{str(path)!r} must hold a {kind}; got {metadata.get('kind', 'none')!r}."
        )
    if metadata.get("version") != str(version):
        raise StorageError(
            f"{str(path)!r} is of version {metadata.get('version')}; this library reads version "
            f"{version}. Make it again, or use the library that wrote it."
        )
    if "sha256" not in metadata:
        raise StorageError(
            f"{str(path)!r} has no digest: an earlier version of this library wrote it, or another "
            f"program. Make it again."
        )
    text = metadata.get("header", "")
    if metadata["sha256"] != _digest(text, tensors):
        raise StorageError(
            f"{str(path)!r} was changed after it was written: its digest does not agree with its "
            f"content. Choose another, or remove it."
        )
    with understanding(place):
        header = json.loads(text)
        if not isinstance(header, dict):
            raise ValueError(f"the header must be an object; got {header!r}")
    return header, tensors


@contextmanager
def understanding(path: str | os.PathLike[str]) -> Iterator[None]:
    """Say of a file that its content is of no use here, if what is made of it inside fails.

    Examples
    --------
    >>> with understanding("a.safetensors"):
    ...     {}["draws"]
    Traceback (most recent call last):
        ...
    bayes.storage.StorageError: 'a.safetensors' has no 'draws'. Choose another, or remove it.
    """
    try:
        yield
    except StorageError:
        raise
    except KeyError as error:
        raise StorageError(
            f"{str(path)!r} has no {error}. Choose another, or remove it."
        ) from error
    except (TypeError, ValueError, LookupError, AttributeError, RuntimeError) as error:
        raise StorageError(
            f"{str(path)!r} holds what cannot be used: {error} Choose another, or remove it."
        ) from error


def check_tensors(
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
    unbounded: tuple[str, ...] = (),
) -> None:
    """Refuse tensors of other names, dtypes or shapes, and numbers that are not finite.

    Parameters
    ----------
    tensors : dict of Tensor
    expected : dict of (dtype, shape)
    unbounded : tuple of str
        Names of the tensors that may hold NaN and infinity.

    Raises
    ------
    ValueError

    Examples
    --------
    >>> check_tensors({"a": torch.ones(2)}, {"a": (torch.float32, (3,))})
    Traceback (most recent call last):
        ...
    ValueError: The tensor 'a' must be torch.float32 (3,); got torch.float32 (2,).
    """
    if tensors.keys() != expected.keys():
        raise ValueError(f"The tensors must be {sorted(expected)}; got {sorted(tensors)}.")
    for name, (dtype, shape) in expected.items():
        tensor = tensors[name]
        if tensor.dtype != dtype or tuple(tensor.shape) != tuple(shape):
            raise ValueError(
                f"The tensor {name!r} must be {dtype} {tuple(shape)}; "
                f"got {tensor.dtype} {tuple(tensor.shape)}."
            )
        wrong = ~torch.isfinite(tensor)
        if name not in unbounded and bool(wrong.any()):
            raise ValueError(
                f"The tensor {name!r} must be finite; got {tensor[wrong][0].item()} at "
                f"{int(wrong.sum())} of {tensor.numel()} places."
            )


def like(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """What `check_tensors` expects, of an example."""
    return {name: (value.dtype, tuple(value.shape)) for name, value in tensors.items()}


def group(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as members of a group of a file: ``name.key`` for every key."""
    return {f"{name}.{key}": value for key, value in tensors.items()}


def members(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a group, by their own names; the inverse of `group`."""
    head = f"{name}."
    return {k.removeprefix(head): v for k, v in tensors.items() if k.startswith(head)}


def _digest(header: str, tensors: Mapping[str, Tensor]) -> str:
    """Of a header's text and of names, dtypes, shapes and bytes of tensors on the CPU."""
    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        digest.update(f"\0{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        if value.numel():  # the bytes of none cannot be viewed
            digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()

"""Files: tensors and a JSON header in one safetensors file, written whole or not at all.

Its metadata name what kind of content a file holds and which version of that kind. Nothing is
pickled.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

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

    content = save(
        {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
        {"kind": kind, "version": str(version), "header": json.dumps(header)},
    )
    target = Path(path)
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
        If the file is torn, of another kind or of another version.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
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
    try:
        header = json.loads(metadata["header"])
    except (KeyError, ValueError, RecursionError) as error:
        raise StorageError(f"{str(path)!r} has no header that can be read: {error!r}.") from error
    if not isinstance(header, dict):
        raise StorageError(f"The header of {str(path)!r} must be an object; got {header!r}.")
    return header, tensors


def group(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as members of a group of a file: ``name.key`` for every key."""
    return {f"{name}.{key}": value for key, value in tensors.items()}


def members(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a group, by their own names; the inverse of `group`."""
    head = f"{name}."
    return {k.removeprefix(head): v for k, v in tensors.items() if k.startswith(head)}

"""What commands ask in common, and how they refuse it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .. import UserError


class ProfileOption(StrEnum):
    """How large a run: from seconds to days."""

    smoke = "smoke"
    quick = "quick"
    paper = "paper"
    beyond = "beyond"


def folder(text: str | Path) -> Path:
    """The value of ``--out`` where it is a folder of all results."""
    path = Path(text)
    if not str(text):
        raise UserError("--out must name a folder; got an empty text")
    if path.exists() and not path.is_dir():
        raise UserError(f"--out must be a folder; {path} is a file")
    return path


Out = Annotated[Path, typer.Option(parser=folder, metavar="FOLDER", help="Folder of all results.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document; notes go to stderr.")]
Profile = Annotated[
    ProfileOption,
    typer.Option(
        metavar="NAME",
        help="How large a run: smoke (seconds), quick (minutes), paper (up to hours) or beyond "
        "(up to days).",
    ),
]
Seed = Annotated[int, typer.Option(metavar="INT", help="Of all random numbers.")]


@contextmanager
def as_user_errors() -> Iterator[None]:
    """What the library refuses is what the person can put right."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error

"""What commands print: tables and sentences for people, JSON for machines.

Results go to stdout. With ``--json`` stdout holds one JSON document and nothing else; progress and
notes then go to stderr.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from ..plain import plain

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console


def notes(as_json: bool = False) -> Console:
    """Where progress and notes go."""
    from rich.console import Console

    return Console(stderr=as_json)


def say(text: str, style: str | None = None, console: Console | None = None) -> None:
    """Print a sentence as it is, on stdout if no console is given."""
    (console or notes()).print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print a value as `plain` JSON."""
    typer.echo(json.dumps(plain(value), indent=1, allow_nan=False))


def records(table: pd.DataFrame) -> list[dict[Any, Any]]:
    """Rows of a table for `print_json`, None where a value is missing."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def print_frame(frame: pd.DataFrame) -> None:
    """Print a data frame by `print_table`, its floats to four digits."""
    print_table([str(name) for name in frame.columns], frame.map(_cell).values.tolist())


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]], lines: bool = False) -> None:
    """Print a table in full: text wraps, no word and no number is broken or cut.

    Where the terminal is too narrow for that, every row becomes a block of lines, one a column.
    What is not a terminal is as wide as the table, unless ``COLUMNS`` says otherwise.

    Parameters
    ----------
    lines : bool
        Whether lines part the rows.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    bounded = console.is_terminal or "COLUMNS" in os.environ
    room = console.width - 2 * len(head) + 1 if bounded else None
    widths = _widths([[name, *column] for name, *column in zip(head, *rows, strict=True)], room)
    if widths is None:
        console.print(_blocks(head, rows))
        return
    table = Table(box=SIMPLE_HEAD, show_edge=False, show_lines=lines, padding=(0, 1, 0, 0))
    for name, width in zip(head, widths, strict=True):
        table.add_column(name, width=width)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.width = max(console.width, sum(widths) + 2 * len(head))
    console.print(table)
    console.print()


def _widths(columns: Sequence[Sequence[str]], room: int | None) -> list[int] | None:
    """Widths of columns that break no word, where the widest give way; None where none fit."""
    from rich.cells import cell_len

    def longest(column: Sequence[str], at: str | None) -> int:
        return max((cell_len(part) for text in column for part in text.split(at)), default=0)

    widths = [longest(column, "\n") for column in columns]
    words = [longest(column, None) for column in columns]
    while room is not None and sum(widths) > room:
        wide = [i for i, width in enumerate(widths) if width > words[i]]
        if not wide:
            return None
        widths[max(wide, key=widths.__getitem__)] -= 1
    return widths


def _blocks(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for row in rows:
        for name, cell in zip(head, row, strict=True):
            grid.add_row(name, Text(cell))
        grid.add_row()
    return grid


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def listed(options: type[Any]) -> str:
    """The values of an enumeration as words.

    Examples
    --------
    >>> from enum import StrEnum
    >>> listed(StrEnum("Way", {"a": "by-air", "b": "by-sea", "c": "on-foot"}))
    'by-air, by-sea or on-foot'
    """
    *others, last = (str(option.value) for option in options)
    return f"{', '.join(others)} or {last}"


def examples(*commands: str) -> str:
    """The epilogue of a command's help."""
    return "\n".join(["Examples:", *(f"$ {command}" for command in commands)])


def duration(minutes: float) -> str:
    """A duration in words."""
    if minutes < 1:
        return f"{60 * minutes:.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"

"""What commands show: tables for people, JSON for programs; and the one-line failure of a command."""

from __future__ import annotations

import difflib
import json
import math
import time
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer

__all__ = [
    "AsJson",
    "CommandError",
    "ago",
    "finite",
    "local_time",
    "meant",
    "show_json",
    "show_table",
]

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]


class CommandError(Exception):
    """The command cannot do what was asked; each line says why and what to do."""


def meant(name: str, names: Sequence[str], what: str) -> str:
    """The advice behind a name that nobody knows: the nearest of `names`, or all of them."""
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"{what} are {', '.join(names)}"


def finite(value: float | None) -> float | None:
    """The callback of every option that is a number with a point: nan passes any minimum and maximum."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no finite number")
    return value


def show_json(document: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(document, indent=1, ensure_ascii=False))


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = "none") -> None:
    """A table; None is shown as a dash, and `empty` is said instead of a table without rows."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    listed = list(rows)
    if not listed:
        typer.echo(empty)
        return
    table = Table(box=None, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=True)
    for row in listed:
        # Text, not markup: names come from people and from the air.
        table.add_row(*(Text("-" if value is None else str(value)) for value in row))
    console = Console()
    if not console.is_terminal:
        console.width = 10_000  # nothing is cut for a program or a file
    console.print(table)


def ago(at_us: int | None, now_us: int) -> str | None:
    """How long ago something was, in the coarsest unit that says enough; None stays None."""
    if at_us is None:
        return None
    seconds = max(0, now_us - at_us) // 1_000_000
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def local_time(at_us: int | None) -> str | None:
    """A moment in the reader's time zone."""
    return None if at_us is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_us / 1e6))

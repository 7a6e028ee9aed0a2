"""Keys on their way into a command: typed without echo or read from a file, never among the arguments.

What stands on a command line can be read by every user of the machine, and stays in the shell's history.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from gateway.commands.output import CommandError

__all__ = ["may_be_key", "read_keys", "warn_of_open"]

FILE_SIZE_MAX = 10_000
_KEY = re.compile(r"(?:[0-9a-fA-F]{2}[-: ]?){16}")


def may_be_key(text: str) -> bool:
    """Whether a text holds 32 hexadecimal digits in a row: then no message repeats it."""
    return _KEY.search(text) is not None


def warn_of_open(file: Path) -> None:
    """Say on standard error if everybody on this machine may read a file with keys.

    The daemon refuses such files (`gateway.secret_files`), for nobody reads its log; here somebody does.
    """
    from gateway.secret_files import is_open

    if is_open(file):
        typer.echo(
            f"swarm: {file}: warning: everybody on this machine may read the keys in it; chmod o= {file}",
            err=True,
        )


def read_keys(names: Sequence[str], file: Path | None) -> dict[str, str]:
    """A value for each of `names`: from lines `name = value` of `file` ("-": standard input), or asked for.

    What a value has to look like is for others to judge.
    """
    if file is None and sys.stdin.isatty():
        return {name: typer.prompt(name, hide_input=True, err=True).strip() for name in names}
    wanted = ", ".join(f"{name} = ..." for name in names)
    if file is None:
        raise CommandError(f"give the keys with --keys-file FILE, or - for standard input: lines {wanted}")
    shown = "standard input" if str(file) == "-" else str(file)
    if shown == "standard input":
        text = sys.stdin.read(FILE_SIZE_MAX)
    else:
        with file.open(encoding="utf-8", errors="replace") as opened:
            text = opened.read(FILE_SIZE_MAX)
        warn_of_open(file)
    keys: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        name, equals, value = (part.strip() for part in line.partition("="))
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not equals or name not in names or name in keys:
            raise CommandError(f"{shown}:{number}: write each once, one a line: {wanted}")
        keys[name] = value
    missing = [name for name in names if name not in keys]
    if missing:
        raise CommandError(f"{shown}: {', '.join(missing)} is missing; write lines {wanted}")
    return keys

"""How a count is said in a line for people, and which cells of a stranger's file may be."""

import re
from collections.abc import Sequence

__all__ = ["column_names", "counted"]

NAME_MAX = 32
_NAME = re.compile(r"[^\W\d][\w .,()/%°²³-]*")
_KEY = re.compile(r"[0-9a-fA-F]{16,}")


def counted(count: int, what: str, plural: str | None = None) -> str:
    """`1 node`, `2 nodes`; `plural` where an s is not enough."""
    return f"{count} {what if count == 1 else plural or what + 's'}"


def column_names(cells: Sequence[str]) -> list[str]:
    """The cells of a first line if all of them look like names of columns, else none.

    A file that was given by mistake may begin with a key or a password, which nobody should repeat.
    """
    names = [cell.strip() for cell in cells]
    if len(names) < 2 or not all(  # one cell is a line of text; a table has more
        len(name) <= NAME_MAX and _NAME.fullmatch(name) and not _KEY.search(name) for name in names
    ):
        return []
    return names

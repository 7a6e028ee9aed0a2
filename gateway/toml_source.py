"""A TOML text whose mistakes are reported with the line they stand on, all of them in one reading."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = ["GIVEN_UP", "Source", "parse"]

REPAIRS_MAX = 50
GIVEN_UP = "__given_up_"
"""How the sections begin whose header could not be read; nothing in them is judged."""

_QUOTED_OR_COMMENT = re.compile(r"""\"(?:\\.|[^"\\])*\"|'[^']*'|#.*""")
_SYNTAX_LINE = re.compile(r"(.*) \(at line (\d+), column \d+\)")
_HEADER = re.compile(r"\s*\[+\s*([A-Za-z0-9_.\"' -]+?)\s*\]+\s*(#.*)?$")
_KEY = re.compile(r"\s*([A-Za-z0-9_.\"'-]+(?:\s*\.\s*[A-Za-z0-9_\"'-]+)*)\s*=")


@dataclass(slots=True)
class Source:
    """The file's text, where each key stands in it, and the mistakes found so far."""

    name: str
    text: str
    mistakes: list[tuple[int, str]] = field(default_factory=list)
    bad: set[tuple[str, ...]] = field(default_factory=set)
    from_environment: dict[tuple[str, ...], str] = field(default_factory=dict)
    _lines: dict[tuple[str, ...], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for path, line in _positions(self.text):
            self._lines.setdefault(path, line)  # of a key given twice, the first is the one in force

    def mistake(self, path: tuple[str, ...], problem: str, remedy: str) -> None:
        self.bad.add(path)
        key = ".".join(path)
        variable = self.from_environment.get(path[:2])
        if variable is not None:
            self.mistakes.append((1 << 30, f"environment {variable}: {key}: {problem}; {remedy}"))
            return
        line = next((self._lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self._lines), 1)
        self.mistakes.append((line, f"{self.name}:{line}: {key}: {problem}; {remedy}"))


def _positions(text: str) -> Iterator[tuple[tuple[str, ...], int]]:
    """Key path -> line number, for the TOML that people write (strings over many lines are skipped)."""
    section: tuple[str, ...] = ()
    inside: str | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if inside is None:
            if match := _HEADER.match(line):
                section = _path(match[1])
                yield section, number
            elif match := _KEY.match(line):
                path = (*section, *_path(match[1]))
                for depth in range(len(section) + 1, len(path) + 1):
                    yield path[:depth], number
        for quotes in ('"""', "'''"):
            if line.count(quotes) % 2 and inside in (None, quotes):
                inside = quotes if inside is None else None


def _path(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def parse(source: Source) -> dict[str, Any]:
    """The document; a line that is not TOML is reported and taken out, so that the rest is read too."""
    lines = source.text.splitlines()
    for attempt in range(REPAIRS_MAX):
        try:
            return tomllib.loads("\n".join(lines) + "\n")
        except (ValueError, RecursionError) as error:
            number, what = _mistake(lines, error)
            source.mistakes.append((number, f"{source.name}:{number}: not TOML: {what}"))
            if not lines[number - 1] or what == _ENDLESS_TEXT:
                break  # what follows cannot be told apart
            # A header stays a header, or the keys below it would seem to belong to the section above.
            header = lines[number - 1].lstrip().startswith("[")
            lines[number - 1] = f"[{GIVEN_UP}{attempt}]" if header else ""
            while what == _ENDLESS_LIST and number < len(lines) and not _begins(lines[number]):
                lines[number] = ""
                number += 1
    return {}


_ENDLESS_LIST = "the list that begins here has no end; close it with ]"
_ENDLESS_TEXT = 'a text over several lines has no end; close it with the three quotes (""") it began with'
_NO_QUOTE = "a quote is not closed; end the text with the quote it began with"


def _mistake(lines: list[str], error: Exception) -> tuple[int, str]:
    """The line to blame for what tomllib says, and what a person should know and do."""
    if not isinstance(error, tomllib.TOMLDecodeError):
        # A number of thousands of digits, arrays in arrays in arrays: the longest line.
        longest = 1 + max(range(len(lines)), key=lambda index: len(lines[index]))
        return longest, "a value is absurdly large; write a shorter one"
    match = _SYNTAX_LINE.match(str(error))
    number, why = (int(match[2]), match[1]) if match is not None else (len(lines), str(error))
    open_from = _open_list(lines[: number - 1] if match is not None else lines)
    if why.startswith("Unclosed array") or (open_from and _begins(lines[number - 1])):
        return open_from or number, _ENDLESS_LIST
    if why.startswith("Unterminated string") or "'''" in why:
        return number, _ENDLESS_TEXT
    if why.startswith('Expected "\'"'):
        return next((at for at, line in enumerate(lines, 1) if "'" in _bare(line)), number), _NO_QUOTE
    if why.startswith("Illegal character '\\n'"):
        return number, _NO_QUOTE
    if why.startswith("Cannot declare"):
        name = ".".join(re.findall(r"'([^']*)'", why))
        return number, f"[{name}] is there already; write its keys below the first [{name}]"
    if why.startswith("Cannot overwrite"):
        return number, "this key is there already; delete one of the two"
    return number, f"{why}; write `key = value`, texts in quotes"


def _open_list(lines: list[str]) -> int | None:
    """The number of the line that begins a list which is still open behind the last of `lines`."""
    depth, began = 0, 0
    for number, line in enumerate(lines, 1):
        bare = _bare(line)
        if not depth:
            if not _KEY.match(line):
                continue
            bare, began = bare.partition("=")[2], number
        depth = max(0, depth + bare.count("[") - bare.count("]"))
    return began if depth else None


def _begins(line: str) -> bool:
    """Whether a line looks like a header or a key, and not like the inside of a list."""
    return _HEADER.match(line) is not None or _KEY.match(line) is not None


def _bare(line: str) -> str:
    """A line without its texts and its comment."""
    return _QUOTED_OR_COMMENT.sub("", line)

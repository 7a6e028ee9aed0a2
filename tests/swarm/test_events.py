"""The kinds of events: every one that the code makes is in the one list, and people can read it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from swarm.effects import EVENT_KINDS

ROOT = Path(__file__).parents[2]


def made() -> set[str]:
    """The first argument of every `Event(...)` in the core and the gateway."""
    kinds = set()
    for path in [*(ROOT / "swarm").rglob("*.py"), *(ROOT / "gateway").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Event"
            if named and node.args and isinstance(node.args[0], ast.Constant):
                kinds.add(str(node.args[0].value))
    return kinds


def test_every_kind_that_is_made_is_listed_and_no_other() -> None:
    assert made() == set(EVENT_KINDS)
    assert list(EVENT_KINDS) == sorted(EVENT_KINDS)


def test_the_operators_table_is_the_list() -> None:
    text = (ROOT / "docs" / "OPERATING.md").read_text(encoding="utf-8")
    section = text.split("\n## Events\n")[1].split("\n## ")[0]
    assert dict(re.findall(r"^\| `([a-z_]+)` \| (.*) \|$", section, re.MULTILINE)) == EVENT_KINDS

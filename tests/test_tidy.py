"""The rules of the house, checked: sizes, purposes, names, and that no secret or data set is committed."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
FORBIDDEN_NAMES = re.compile(r"(^|[/_])(utils?|helpers?|common|misc|managers?|handlers?)(\.|/|_|$)")


def tracked(*suffixes: str) -> list[Path]:
    """Files git knows or would add, so that a new file is checked before its first commit."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    paths = [ROOT / line for line in listing.splitlines() if line.endswith(suffixes)]
    return sorted(path for path in set(paths) if path.is_file())


PYTHON = tracked(".py")
SOURCES = tracked(".py", ".c", ".h", ".js", ".mjs", ".css", ".html")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_file_is_longer_than_a_reader_bears(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= FILE_LINES_MAX, f"{relative(path)} has {lines} lines: split it along a seam"


@pytest.mark.parametrize("path", PYTHON, ids=relative)
def test_functions_fit_on_a_screen_and_modules_say_their_purpose(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if tree.body:
        assert ast.get_docstring(tree), f"{relative(path)} does not say what it is for in its first line"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            where = f"{relative(path)}:{node.lineno} {node.name}"
            assert length <= FUNCTION_LINES_MAX, f"{where} has {length} lines"


@pytest.mark.parametrize("path", tracked(".c"), ids=relative)
def test_c_functions_fit_on_a_screen(path: Path) -> None:
    """A function's body runs from a `{` in column 0 to a `}` in column 0."""
    start = 0
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("{"):
            start = number
        if line.startswith("}") and start:
            assert number - start <= FUNCTION_LINES_MAX, (
                f"{relative(path)}:{start} has {number - start} lines"
            )
            start = 0


def test_no_file_has_a_name_that_says_nothing() -> None:
    bad = [relative(path) for path in SOURCES if FORBIDDEN_NAMES.search(relative(path))]
    assert not bad, f"name these after what they do: {bad}"


CORE = [path for path in tracked(".c", ".h") if "node_firmware/core" in relative(path)]


@pytest.mark.parametrize("path", CORE, ids=relative)
def test_the_firmware_core_has_no_file_scope_state(path: Path) -> None:
    """`static` at the margin is allowed for functions and `const` tables only."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("static ") and "(" not in line and " const " not in line:
            pytest.fail(f"{relative(path)}:{number}: mutable state at file scope: {line.strip()}")


def test_no_data_set_and_no_secret_is_committed() -> None:
    for path in tracked(""):
        name = relative(path)
        size = path.stat().st_size
        assert not name.endswith((".csv.gz", ".db", ".sqlite", ".pem", ".key")), name
        assert size < 1_000_000 or name.endswith(".png"), f"{name} is {size} bytes"

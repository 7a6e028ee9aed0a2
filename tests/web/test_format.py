"""The page's pure functions, tested in their own language by node's test runner."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent
NODE = shutil.which("node")


@pytest.mark.skipif(NODE is None, reason="node is missing: apt-get install nodejs")
def test_the_pages_pure_functions_pass_their_own_tests() -> None:
    done = subprocess.run(
        [str(NODE), "--test", str(FOLDER / "format.test.mjs")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "# pass 0" not in done.stdout

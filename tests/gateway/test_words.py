"""How commands say counts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.cli import run
from swarm.words import counted


@pytest.mark.parametrize(
    ("count", "words", "said"),
    [(0, ("node",), "0 nodes"), (1, ("node",), "1 node"), (2, ("reply", "replies"), "2 replies")],
)
def test_a_count(count: int, words: tuple[str, ...], said: str) -> None:
    assert counted(count, *words) == said


def test_one_is_not_said_in_the_plural(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Goal: no command says `1 nodes`.  Method: one node is planned, provisioned and simulated for a day."""
    monkeypatch.chdir(tmp_path)
    Path("nodes.csv").write_text("id,lat,lon,height_m,crop\na1,47.0,8.0,2,grape\n")
    Path("gateways.csv").write_text("id,lat,lon,height_m\n00800000a000ffff,47.0,8.01,10\n")
    for command in (
        ("pilot", "plan", "nodes.csv", "gateways.csv"),
        ("pilot", "provision", "nodes.csv", "keys"),
        ("sim", "run", "smoke", "--nodes", "1", "--days", "1"),
        ("federation", "init", "farms", "--cells", "1"),
    ):
        assert run(command) == 0, capsys.readouterr().err
    text = " ".join(capsys.readouterr())
    assert "1 node was given keys" in text and "1 node, 1 day" in text and "1 cell;" in text
    assert not re.findall(r"(?<![\d.,-])1 (?!is\b|was\b|s\b|as\b|has\b)[a-z]+s\b", text)

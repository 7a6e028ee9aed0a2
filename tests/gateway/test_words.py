"""What commands say: counts, and help."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from typer.main import get_command

from gateway.cli import app, run
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


def parameters(command: click.Command, name: str = "") -> Iterator[tuple[str, str | None]]:
    """Every argument and option of every command below this one, with its help."""
    for parameter in command.params:
        yield f"{name} {parameter.name}", getattr(parameter, "help", None)
    for word, below in getattr(command, "commands", {}).items():
        yield from parameters(below, f"{name} {word}")


def test_every_argument_and_option_says_what_it_is() -> None:
    found = dict(parameters(get_command(app)))
    assert len(found) > 150
    without = [name for name, text in found.items() if not text]
    assert without == []
    assert all(text.endswith((".", ")")) for name, text in found.items() if text and " " in name.strip()), (
        found
    )


def test_help_shows_them(capsys: pytest.CaptureFixture[str]) -> None:
    """Typer and Click have to fit together: with some pairs the words behind arguments are lost."""
    assert run(("nodes", "show", "--help")) == 0
    assert "Its name or DevEUI." in capsys.readouterr().out

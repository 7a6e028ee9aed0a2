"""`swarm rounds advise` and `rounds list` in front of a real daemon."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.cli import run
from swarm.federation.modes import MODE_NAMES
from tests.web.served import Cell, Served, until


@pytest.fixture
def cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cell]:
    """Eight registered nodes; the commands find their daemon by the environment."""
    with Served(tmp_path) as served:
        monkeypatch.setenv("SWARM_URL", served.url)
        monkeypatch.setenv("SWARM_TOKEN", served.daemon.token)
        assert served.daemon.udp_address is not None
        made = Cell(served.daemon.udp_address, 8)
        assert served.http.post("/api/nodes", json=made.registration()).json()["added"] == 8
        made.pull()
        for node in made.nodes:
            made.uplink(node, 12, node.status())
        until(lambda: served.http.get("/api/state").json()["nodes_heard"] == 8, "the nodes to be heard")
        yield made
        made.close()


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(arguments) == 0
    out, errors = capsys.readouterr()
    assert errors == ""
    return out


def test_a_person_reads_costs_what_is_known_and_one_advice(
    cell: Cell, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [line.strip() for line in told(capsys, "rounds", "advise").splitlines()]
    assert [line.split()[0] for line in lines[1 : 1 + len(MODE_NAMES)]] == list(MODE_NAMES)
    assert lines[1].endswith("0, nothing is sent")
    assert lines[2].startswith("prototypes   1, 76") and "0.50 -> 0.83   unknown" in lines[2]
    assert lines[-1].startswith("take prototypes: 4 nodes watch what the model was shipped without; 2 rounds")
    known = next(line for line in lines if line.startswith("known:"))
    assert "8 of 8 nodes have reported" in known and "96 labels (median 12)" in known


def test_a_program_reads_the_same(cell: Cell, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(told(capsys, "rounds", "advise", "--json"))
    assert found["recommendation"]["mode"] == "prototypes"
    assert found["known"]["labels"] == 96
    none = found["modes"][0]["cost"]
    assert none.pop("mode") == "none" and not any(none.values())


def test_rounds_name_who_took_their_model(cell: Cell, capsys: pytest.CaptureFixture[str]) -> None:
    told(capsys, "rounds", "open")
    header, row = told(capsys, "rounds", "list").splitlines()
    assert header.split()[-3:-1] == ["taken", "refused"]
    assert row.split()[-3:-1] == ["-", "-"]  # it made no model yet


def test_without_a_daemon_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SWARM_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("SWARM_TOKEN", "x")
    assert run(["rounds", "advise"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no gateway answers there" in line

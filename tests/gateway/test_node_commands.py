"""`swarm nodes label` and `show` in front of a real daemon: what is typed reaches the node, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from gateway.cli import run
from swarm.wire import app
from tests.web.served import Cell, Served, until


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    with Served(tmp_path) as made:
        monkeypatch.setenv("SWARM_URL", made.url)
        monkeypatch.setenv("SWARM_TOKEN", made.daemon.token)
        yield made


def test_a_label_is_typed_kept_and_told(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    assert served.daemon.udp_address is not None
    cell = Cell(served.daemon.udp_address, 2)
    served.http.post("/api/nodes", json=cell.registration())
    cell.pull()
    name = cell.nodes[0].row["name"]
    earlier = (datetime.now() - timedelta(days=3)).date().isoformat()
    assert run(("nodes", "label", name, "high", "--date", earlier)) == 0
    assert capsys.readouterr().out == f"{name} is told when it is next heard (1 waiting)\n"
    assert run(("nodes", "label", name, "1", "--json")) == 0
    assert json.loads(capsys.readouterr().out) == {"waiting": 2}
    cell.uplink(cell.nodes[0], 12, cell.nodes[0].status())
    heard: list[object] = []

    def told() -> list[object]:
        heard.extend(app.decode_downlink(each.f_port, each.payload) for _, each in cell.hear() if each.f_port)
        return heard

    (label,) = until(told, "the first of them")
    assert isinstance(label, app.Label) and (label.label, label.value // 24) in ((2, 2), (2, 3))
    assert run(("nodes", "show", name)) == 0
    lines = [line.strip().split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    rows = {line[0]: line[1] for line in lines if len(line) == 2}
    assert (rows["temperature"], rows["humidity"], rows["rain"].split(" since")[0]) == (
        "18.3 °C",
        "75.5 %",
        "0.3 mm",
    )
    assert (rows["battery"], rows["risk"]) == ("79 %", "low")
    cell.close()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("sick",), "'sick' is no class: low, medium, high, or a number 0 to 9"),
        (("low", "--date", "3.6."), "--date: '3.6.' is no date; write it as 2026-06-03"),
        (("low", "--date", "2026-06-03", "--observation", "1"), "--date and --observation: give one of them"),
        (("low",), "no node has the name nobody"),
    ],
)
def test_mistakes_are_one_line(
    served: Served, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], line: str
) -> None:
    assert run(("nodes", "label", "nobody", *words)) == 2
    out, errors = capsys.readouterr()
    assert out == "" and line in errors and errors.count("\n") == 1

"""`swarm nodes send` and class C, against a real daemon over real sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.cli import run
from tests.web.served import Cell, Served, until


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    with Served(tmp_path) as made:
        monkeypatch.setenv("SWARM_URL", made.url)
        monkeypatch.setenv("SWARM_TOKEN", made.daemon.token)
        yield made


@pytest.fixture
def cell(served: Served) -> Iterator[Cell]:
    assert served.daemon.udp_address is not None
    made = Cell(served.daemon.udp_address, 2)
    nodes = made.registration()
    nodes["nodes"][1]["device_class"] = "c"
    assert served.http.post("/api/nodes", json=nodes).json()["added"] == 2
    made.pull()
    yield made
    made.close()


def states(served: Served) -> list[str]:
    past = served.http.get("/api/events/past", params={"kind": "operator_frame"}).json()["events"]
    return [event["data"]["state"] for event in past]


def test_a_class_a_node_gets_the_frame_after_its_next_uplink(served: Served, cell: Cell) -> None:
    node = cell.nodes[0]
    assert run(["nodes", "send", node.row["name"], "0a 0B", "--port", "42"]) == 0
    assert states(served) == ["queued"] and cell.hear() == []
    cell.uplink(node, 12, node.status())
    # A STATUS asks for the schedule, but what waits longer goes first.
    until(lambda: [d for _, d in cell.hear() if (d.f_port, d.payload) == (42, b"\x0a\x0b")], "the frame")
    assert states(served) == ["queued", "sent"]


def test_a_class_c_node_gets_the_frame_at_once(served: Served, cell: Cell) -> None:
    node = cell.nodes[1]
    assert served.http.get(f"/api/nodes/{node.row['dev_eui']}").json()["device_class"] == "c"
    cell.uplink(node, 12, node.status())
    until(lambda: served.http.get(f"/api/nodes/{node.row['dev_eui']}").json()["uplinks"], "the uplink")
    assert run(["nodes", "send", node.row["dev_eui"], "c0ffee", "--port", "42"]) == 0
    (heard,) = until(cell.hear, "the frame")
    assert heard[0] is node and heard[1].payload.hex() == "c0ffee"
    assert cell.downlinks[-1]["freq"] == 869.525


def test_frames_that_wait_are_listed_and_one_is_taken_back(
    served: Served, cell: Cell, capsys: pytest.CaptureFixture[str]
) -> None:
    node, name = cell.nodes[0], str(cell.nodes[0].row["name"])
    assert run(["nodes", "sends"]) == 0
    assert capsys.readouterr().out.startswith("no frame waits;")
    for digits in ("0a", "0b0b"):
        assert run(["nodes", "send", name, digits, "--port", "42", "--confirmed"]) == 0
    assert f"{node.row['dev_eui']}: frame 2 waits;" in capsys.readouterr().out
    assert run(["nodes", "sends"]) == 0
    lines = [line.split()[:6] for line in capsys.readouterr().out.splitlines()]
    assert lines[1:] == [["1", name, "42", "1", "yes", "0"], ["2", name, "42", "2", "yes", "0"]]
    assert run(["nodes", "sends", "--cancel", "1"]) == 0
    assert capsys.readouterr().out == "frame 1: cancelled\n"
    assert run(["nodes", "sends", "--cancel", "1"]) == 2
    assert "no frame 1 waits; `swarm nodes sends` shows those that do" in capsys.readouterr().err
    assert run(["nodes", "sends", "--json"]) == 0
    assert [each["number"] for each in json.loads(capsys.readouterr().out)] == [2]
    cell.uplink(node, 12, node.status())
    (heard,) = until(lambda: [d for _, d in cell.hear() if d.f_port == 42], "the frame")
    assert heard.payload == b"\x0b\x0b"
    assert states(served) == ["queued", "queued", "cancelled", "sent"]
    body = {"f_port": 1, "payload": "00" * 223}
    answer = served.http.post(f"/api/nodes/{node.row['dev_eui']}/downlink", json=body)
    assert answer.status_code == 422 and "at most 444 characters" in answer.json()["detail"][0]["msg"]
    assert served.http.delete("/api/downlinks/0").status_code == 422


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nobody", "00", "--port", "1"], "no node has the name nobody"),
        (["NODE", "0", "--port", "1"], "hexadecimal digits, two for a byte"),
        (["NODE", "xy", "--port", "1"], "hexadecimal digits, two for a byte"),
        (["NODE", "00" * 60, "--port", "1"], "at most 51"),
        (["NODE", "00" * 223, "--port", "1"], "the payload has 223 bytes; a frame carries at most 222"),
    ],
)
def test_what_cannot_be_sent_is_one_line(
    served: Served, cell: Cell, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = str(cell.nodes[0].row["name"])
    assert run(["nodes", "send", *(name if word == "NODE" else word for word in words)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line

"""Experts handed over from the command line: a running daemon, real HTTP, a real database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.cli import run
from gateway.signing_file import install
from gateway.store.sqlite import SqliteStore
from swarm.model import container
from swarm.model.subset import with_experts
from swarm.wire import app, expert
from tests.web.served import Cell, Served, until

FIRST, SECOND = 0b0000_1111, 0b0111_0000
LACKED = 7
"""No node holds it."""


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A daemon that signs, with two nodes that said what they hold and two that did not."""
    with Served(tmp_path / "data") as made:
        assert made.daemon.udp_address is not None
        cell = Cell(made.daemon.udp_address, 4)
        made.http.post("/api/nodes", json=cell.registration())
        install(made.daemon.config.data_dir, bytes(range(32)))
        made.http.post("/api/signing-key")
        generation = made.daemon.core.rounds.replica.generation
        for node, held in zip(cell.nodes, (FIRST, SECOND), strict=False):
            cell.uplink(node, 12, app.encode(expert.Experts(generation, 0, held, (32,) * 8)))
        until(lambda: len(list(made.daemon.core.expert_asking.holders)) == 2, "what nodes hold")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("SWARM_URL", made.url)
        monkeypatch.setenv("SWARM_TOKEN", made.daemon.token)
        yield made
        cell.close()


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, list[str]]:
    code = run(("experts", *arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err.splitlines()


def test_a_plan_costs_nothing_and_what_is_begun_is_shown(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    """Goal: the price stands before the sending; then blocks, list, events and the database know of it."""
    options = ("hand-over", "--room", "4", "--replicas", "1")
    code, out, _ = said(capsys, *options, "--dry-run")
    assert code == 0 and "about" in out and "s of the gateway's airtime" in out
    found = json.loads(said(capsys, *options, "--dry-run", "--json")[1])
    (step,) = found["steps"]
    assert (step["load"], step["way"], step["experts"]) == ([LACKED], "air", [4, 5, 6, 7])
    assert step["airtime_us"] == found["airtime_us"] > 0 and step["least_s"] > 0
    assert served.http.get("/api/blocks").json()["blocks"] == []

    code, _, err = said(capsys, *options, "--json")
    assert (code, len(err)) == (2, 1) and "--yes" in err[0]
    begun = json.loads(said(capsys, *options, "--yes", "--json")[1])
    assert begun["steps"] == found["steps"]
    (block,) = served.http.get("/api/blocks").json()["blocks"]
    assert block["descriptor"] == step["descriptor"] and block["size"] == step["size"]
    assert (block["nodes"], block["alone"], block["behind_server"]) == (1, 1, 0)
    _, out, _ = said(capsys, "list")
    assert "under way" in out and step["descriptor"] in out
    (event,) = served.daemon.past_events(kind="hand_over_begun")
    assert event.event.data["load"] == [LACKED]
    assert said(capsys, *options, "--yes")[0] == 0  # nothing is left to be sent
    (again,) = json.loads(said(capsys, *options, "--dry-run", "--json")[1])["steps"]
    assert again["way"] == "under way"
    rows = until(lambda: SqliteStore(served.daemon.config.data_dir).load()["hand_over"], "the row")
    assert list(rows) == [step["dev_eui"]]


def test_what_goes_by_cable_is_written_to_files(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Goal: where the air is no way, the plan names the file to flash, and it is what a node should run.

    The node claims to hold an expert too that the model does not have: it need not be kept.
    """
    core = served.daemon.core
    core.signer.key = None
    second = next(holder.dev_eui for holder in core.expert_asking.holders if holder.held == SECOND)
    lie = expert.Experts(core.rounds.replica.generation, 0, 1 << 15 | SECOND, (32,) * 8 + (0,) * 8)
    core.expert_asking.holders.report(served.daemon.now_us(), second, lie)
    folder = tmp_path / "flash"
    options = ("hand-over", "--room", "4", "--replicas", "1", "--files", str(folder))
    code, out, _ = said(capsys, *options, "--dry-run")
    name = "experts-4-5-6-7.swm"
    assert code == 0 and "no key to sign" in out and f"flash {folder / name}" in out.replace("\n", "")
    read = container.read((folder / name).read_bytes())
    assert isinstance(read, container.Container)
    assert read.generation == served.daemon.core.rounds.replica.generation
    (folder / name).write_bytes(b"somebody else's")
    code, _, err = said(capsys, *options, "--dry-run")
    assert (code, len(err)) == (2, 1) and name in err[0]


def test_a_model_with_fewer_experts_goes_to_named_nodes_alone(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Goal: nobody loses experts by what was meant for another node."""
    file = tmp_path / "few.swm"
    file.write_bytes(with_experts(served.daemon.core.rounds.replica.image, (4, 5)))
    name = served.http.get("/api/nodes").json()["nodes"][1]["name"]
    code = run(("blocks", "send", str(file), "--node", name))
    err = capsys.readouterr().err.splitlines()
    assert (code, len(err)) == (2, 1) and "--alone" in err[0]
    assert run(("blocks", "send", str(file), "--node", name, "--alone")) == 0
    assert "one by one" in capsys.readouterr().out
    (block,) = served.http.get("/api/blocks").json()["blocks"]
    assert (block["alone"], block["behind_server"]) == (1, 0)


def test_nothing_to_bring_is_said_with_its_reason(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: that nobody said what it holds is not taken for all being well; no advice comes twice."""
    core = served.daemon.core
    options = ("hand-over", "--room", "4", "--replicas", "1", "--dry-run")
    second = next(holder.dev_eui for holder in core.expert_asking.holders if holder.held == SECOND)
    rest = expert.Experts(core.rounds.replica.generation, 0, 0xF0, (32,) * 8)
    core.expert_asking.holders.report(served.daemon.now_us(), second, rest)
    assert "every expert has its holders, as far as they said; `--whole` also" in said(capsys, *options)[1]
    whole = said(capsys, *options, "--whole")[1]
    assert whole.strip() == "every expert has its holders, as far as they said"
    for each in served.http.get("/api/experts").json()["holders"]:
        assert served.http.delete(f"/api/nodes/{each['dev_eui']}").is_success
    assert "no node has said which experts it holds" in said(capsys, *options)[1]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--node", "nobody"), "no node is called nobody"),
        (("--loss", "nan"), "loss"),
        (("--room", "0"), "room"),
        (("--files", "/dev/null/x", "--dry-run"), "/dev/null/x"),
    ],
)
def test_refusals_are_one_line(
    served: Served, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], word: str
) -> None:
    if "--files" in arguments:
        served.daemon.core.signer.key = None
    code, _, err = said(capsys, "hand-over", "--room", "4", "--replicas", "1", *arguments)
    assert code == 2 and word in "".join(err)
    assert served.http.get("/api/experts/container?expert=99").status_code == 422
    assert served.http.get("/api/blocks").json()["blocks"] == []

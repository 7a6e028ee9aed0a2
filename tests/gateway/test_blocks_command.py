"""Large blocks from the command line to a running daemon: real HTTP, a real database, one-line refusals."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.cli import run
from gateway.config import NetworkSection
from gateway.pilot.keys import commands, provision
from gateway.signing_file import install
from swarm.commands import SetMulticast
from swarm.security.lorawan import AesKey, multicast_keys
from swarm.security.signatures import SIGNATURE_SIZE, SigningKey, is_genuine, sign_block
from tests.web.served import Cell, Served, until

BLOCK = bytes(range(256)) * 8


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A daemon with four nodes, which the environment names for commands."""
    with Served(tmp_path / "data") as made:
        assert made.daemon.udp_address is not None
        cell = Cell(made.daemon.udp_address, 4)
        made.http.post("/api/nodes", json=cell.registration())
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("SWARM_URL", made.url)
        monkeypatch.setenv("SWARM_TOKEN", made.daemon.token)
        yield made
        cell.close()


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, list[str]]:
    code = run(("blocks", *arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err.splitlines()


def test_a_block_is_sent_listed_shown_and_cancelled(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "model.swm"
    file.write_bytes(BLOCK)
    code, out, _ = said(capsys, "send", str(file), "--loss", ".3", "--json")
    made = json.loads(out)
    name = hashlib.sha512(BLOCK).hexdigest()[:8]
    assert (code, made["descriptor"], made["size"], made["nodes"]) == (0, name, len(BLOCK), 4)
    assert set(made["each"].values().__iter__().__next__()) == {"state", "reason"}
    code, out, _ = said(capsys, "list")
    assert code == 0 and name in out and "prepares" in out
    code, out, _ = said(capsys, "show", name)
    assert code == 0 and "created" in out
    assert said(capsys, "send", str(file))[2] == [f"swarm: block {name} is on its way already"]
    assert said(capsys, "cancel", name)[1] == f"block {name}: cancelled\n"
    (listed,) = json.loads(said(capsys, "list", "--json")[1])
    assert listed["state"] == "ended" and not listed["complete"]
    assert set(listed["left"].values()) == {"cancelled"}
    assert "cancelled" in said(capsys, "show", name)[1]
    (ended,) = served.daemon.past_events(kind="block_ended")
    assert ended.event.data["descriptor"] == name


def test_a_daemon_with_a_key_signs_what_it_sends_once(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Goal: no block leaves a signing cell without its signature, and none has two of them."""
    key = SigningKey(bytes(range(32)))
    install(served.daemon.config.data_dir, bytes(range(32)))
    assert served.http.post("/api/signing-key").json() == {"signing_key": key.public_key.hex()}
    file = tmp_path / "model.swm"
    file.write_bytes(BLOCK)
    made = json.loads(said(capsys, "send", str(file), "--json")[1])
    assert made["size"] == len(BLOCK) + SIGNATURE_SIZE
    whole = sign_block(key, body=BLOCK)
    assert is_genuine(key.public_key, whole)
    assert made["descriptor"] == hashlib.sha512(whole).hexdigest()[:8]
    file.write_bytes(whole)
    assert "is on its way already" in said(capsys, "send", str(file))[2][0]


def test_what_cannot_be_sent_is_refused_in_one_line(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty, large, file = tmp_path / "empty", tmp_path / "large", tmp_path / "block"
    empty.write_bytes(b"")
    large.write_bytes(bytes(65_537))
    file.write_bytes(b"x")
    for arguments, why in (
        (("send", str(empty)), "is empty"),
        (("send", str(large)), "is too large"),
        (("send", str(tmp_path / "nowhere")), "No such file"),
        (("send", str(file), "--node", "nobody"), "no node is called nobody"),
        (("send", str(file), "--loss", "nan"), "no finite number"),
        (("send", str(file), "--version", "3"), "is not in the range"),
        (("show", "abc"), "8 hexadecimal digits"),
        (("show", "00000000"), "no block has the descriptor"),
        (("cancel", "00000000"), "no block 00000000 is on its way"),
    ):
        code, out, lines = said(capsys, *arguments)
        assert (code, out, len(lines)) == (2, "", 1), arguments
        assert why in lines[0]


def test_nodes_behind_a_server_that_is_not_set_are_refused_by_name(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node = {"dev_eui": "70b3d57ed0000099", "name": "far", "crop": "grape", "activation": "network"}
    assert served.http.post("/api/nodes", json={"nodes": [node]}).status_code == 200
    file = tmp_path / "block"
    file.write_bytes(BLOCK)
    code, out, lines = said(capsys, "send", str(file), "--node", "far")
    assert (code, out, len(lines)) == (2, "", 1)
    assert "far is behind a network server, and none is set" in lines[0]
    body = {"data": base64.b64encode(BLOCK).decode(), "nodes": ["far"]}
    assert served.http.post("/api/blocks", json=body).status_code == 409
    made = json.loads(said(capsys, "send", str(file), "--json")[1])
    assert made["nodes"] == 4, "all that can be sent to"


def test_nodes_behind_a_server_are_sent_theirs_one_by_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: without a group and a gateway, what is typed and what is seen."""
    file, key = tmp_path / "block", tmp_path / "key"
    file.write_bytes(BLOCK)
    key.write_text("gen_app_key = 000102030405060708090a0b0c0d0e0f\n")
    key.chmod(0o600)
    section = NetworkSection(enabled=True, port=1, kind="chirpstack", application="17c82e96")
    with Served(tmp_path / "data", network=section) as made:
        monkeypatch.setenv("SWARM_URL", made.url)
        monkeypatch.setenv("SWARM_TOKEN", made.daemon.token)
        add = ("nodes", "add", "70b3d57ed0000099", "--name", "far", "--crop", "grape", "--behind-server")
        assert run((*add, "--gen-app-key-file", str(key))) == 0
        entry = made.daemon.core.registry.get("70b3d57ed0000099")
        assert entry is not None and entry.record.gen_app_key == bytes(range(16))
        capsys.readouterr()
        code, out, _ = said(capsys, "send", str(file))
        name = hashlib.sha512(BLOCK).hexdigest()[:8]
        assert code == 0
        assert out.startswith(
            f"block {name}: 2048 B in 43 pieces for 1 nodes, one by one through their network"
        )
        assert "0 frames" in said(capsys, "list")[1]
        until(lambda: "sends" in said(capsys, "show", name)[1], "the start")
        shown = said(capsys, "show", name)[1]
        assert "behind the server" in shown and "far" in shown and "version" in shown


def test_http_has_bounds_and_wants_a_token(served: Served) -> None:
    post = served.http.post
    data = base64.b64encode(BLOCK).decode()
    assert post("/api/blocks", json={"data": "%%%%"}).status_code == 422
    assert post("/api/blocks", json={"data": data, "loss": 1.5}).status_code == 422
    assert post("/api/blocks", json={"data": data, "nodes": []}).status_code == 422
    assert post("/api/blocks", json={"data": "A" * 200_000}).status_code == 422
    assert post("/api/blocks", json={"data": data, "more": 1}).status_code == 422
    assert served.http.get("/api/blocks", headers={"Authorization": "Bearer no"}).status_code == 401
    assert served.http.get("/api/blocks/xyz").status_code == 422


def test_one_mckey_makes_a_new_pilot_s_group_and_an_old_directory_works_without(tmp_path: Path) -> None:
    table = tmp_path / "nodes.csv"
    table.write_text("id,lat,lon,height_m,crop\na1,47.1,7.2,1.5,grape\n")
    provision(table, tmp_path / "keys")
    group = commands(tmp_path / "keys")[0]
    assert isinstance(group, SetMulticast) and group.mc_key is not None
    assert multicast_keys(AesKey(group.mc_key), group.mc_addr) == (group.nwk_s_key, group.app_s_key)
    file = tmp_path / "keys" / "multicast.csv"
    file.write_text("\n".join(_without(line, 3) for line in file.read_text().splitlines()) + "\n")
    old = commands(tmp_path / "keys")[0]
    assert isinstance(old, SetMulticast)
    assert (old.mc_key, old.nwk_s_key) == (None, group.nwk_s_key)


def _without(line: str, column: int) -> str:
    cells = line.split(",")
    return ",".join(cells[:column] + cells[column + 1 :])

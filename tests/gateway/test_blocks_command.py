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
from gateway.pilot.keys import provision
from gateway.signing_file import install
from swarm.commands import SetMulticast
from swarm.model.container import random_model
from swarm.security.lorawan import AesKey, multicast_keys
from swarm.security.signatures import SIGNATURE_SIZE, SigningKey, is_genuine, sign_block
from swarm.wire.fragmentation import FragSessionStatusAns, encode
from tests.gateway.provisioned import commands
from tests.web.served import Cell, Served, until

BLOCK = random_model(3, generation=1)
SEED = bytes(range(32))


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


def takes_key(served: Served) -> SigningKey:
    """The daemon signs from now on."""
    key = SigningKey(SEED)
    install(served.daemon.config.data_dir, SEED)
    assert served.http.post("/api/signing-key").json() == {"signing_key": key.public_key.hex()}
    return key


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, list[str]]:
    code = run(("blocks", *arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err.splitlines()


def test_a_block_is_sent_listed_shown_and_cancelled(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    takes_key(served)
    file = tmp_path / "model.swm"
    file.write_bytes(BLOCK)
    code, out, _ = said(capsys, "send", str(file), "--loss", ".3", "--json")
    made = json.loads(out)
    whole = sign_block(SigningKey(SEED), body=BLOCK)
    name = hashlib.sha512(whole).hexdigest()[:8]
    assert (code, made["descriptor"], made["size"], made["nodes"]) == (0, name, len(whole), 4)
    assert set(made["each"].values().__iter__().__next__()) == {"state", "reason", "missing"}
    code, out, _ = said(capsys, "list")
    assert code == 0 and name in out and "prepares" in out
    code, out, _ = said(capsys, "show", name)
    assert code == 0 and "created" in out
    assert [line.split() for line in out.splitlines()[-2:]] == [
        ["what", "is", "known", "nodes"],
        ["has", "said", "nothing", "yet", "4"],
    ]
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
    key = takes_key(served)
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
    takes_key(served)
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
        for shown in (("list",), ("show", "far")):
            assert run(("nodes", *shown)) == 0
            assert "unknown" in capsys.readouterr().out, "whether it has joined"
        code, out, _ = said(capsys, "send", str(file))
        name = hashlib.sha512(BLOCK).hexdigest()[:8]
        assert code == 0
        told = f"block {name}: {len(BLOCK)} B in {-(-len(BLOCK) // 48)} pieces for 1 node, one by one through"
        assert out.startswith(f"{told} their network server")
        assert "0 frames" in said(capsys, "list")[1]
        until(lambda: "sends" in said(capsys, "show", name)[1], "the start")
        shown = said(capsys, "show", name)[1]
        assert "behind the server" in shown and "far" in shown and "version" in shown
        rows = {line.split()[0] for line in shown.splitlines() if line.strip()}
        assert not rows & {"start", "until", "minimum"} and {"frames", "airtime", "created"} <= rows
        told = json.loads(said(capsys, "show", name, "--json")[1])
        assert (told["start_us"], told["until_us"], told["minimum_us"]) == (None, None, None)
        (listed,) = (line for line in said(capsys, "list")[1].splitlines() if name in line)
        assert listed.split()[-2:] == ["-", "-"]


def test_before_the_end_it_is_shown_what_nodes_said(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One has it from before, one misses three, one is removed, and one has said nothing."""
    takes_key(served)
    file = tmp_path / "model.swm"
    file.write_bytes(BLOCK)
    name = json.loads(said(capsys, "send", str(file), "--json")[1])["descriptor"]
    first, second, third = list(served.daemon.core.registry)[:3]
    delivery = served.daemon.core.blocks._jobs[0].delivery
    for entry, missing in ((first, 0), (second, 3)):
        status = FragSessionStatusAns(delivery.plan.index, delivery.nb_frag, missing)
        assert delivery.on_uplink(entry.record.dev_eui, encode(status, 2)) is None
    assert run(("nodes", "remove", "-y", third.record.dev_eui)) == 0
    capsys.readouterr()
    lines = [line.rsplit(maxsplit=1) for line in said(capsys, "show", name)[1].splitlines()]
    told = {words[0].strip(): words[1] for words in lines if len(words) == 2}
    for what in ("has it", "misses some", "has said nothing yet", "is left without it"):
        assert told[what] == "1"
    assert told[third.record.dev_eui] == "removed"
    assert json.loads(said(capsys, "show", name, "--json")[1])["each"][second.record.dev_eui]["missing"] == 3


def test_what_our_nodes_would_throw_away_is_refused_before_it_is_sent(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Goal: one line that says why; devices of another make take any file.  Method: four files, two makes."""
    file = tmp_path / "block"

    def refused(data: bytes, *options: str) -> str:
        file.write_bytes(data)
        code, out, lines = said(capsys, "send", str(file), *options)
        assert (code, out, len(lines)) == (2, "", 1)
        others = "has a GenAppKey" if options else "devices of another make take any file"
        assert others in lines[0]
        return lines[0]

    assert "there is no key to sign it with" in refused(BLOCK)
    text = b"a map of the field" * 20
    for options in ((), ("--node", next(iter(served.daemon.core.registry)).record.name)):
        assert "and this is none (magic: not a swarm model)" in refused(text, *options)
    assert "is none (truncated" in refused(BLOCK[:-1])
    assert "of generation 40000, theirs of 1" in refused(random_model(3, generation=40_000))
    file.write_bytes(sign_block(SigningKey(bytes(32)), body=BLOCK))
    assert said(capsys, "send", str(file))[0] == 0, "signed with a key that is kept elsewhere"
    rows = {"name": "bench", "crop": "grape", "activation": "abp", "dev_addr": "00010099"}
    keys = {"nwk_s_key": "0a" * 16, "app_s_key": "0b" * 16, "gen_app_key": "0c" * 16}
    other = {"dev_eui": "70b3d57ed0000999", **rows, **keys}
    mc_key = AesKey(bytes(range(16)))
    nwk, apps = multicast_keys(mc_key, 0x00FF0001)
    group = {"mc_addr": "00ff0001", "nwk_s_key": nwk.hex(), "app_s_key": apps.hex(), "replace": True}
    group["mc_key"] = mc_key.raw.hex()
    assert served.http.post("/api/nodes", json={"nodes": [other], "multicast": group}).json()["added"] == 1
    takes_key(served)
    file.write_bytes(text)
    made = json.loads(said(capsys, "send", str(file), "--node", "bench", "--json")[1])
    assert made["size"] == len(text), "others get the file as it is, whether the cell has a key or not"


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

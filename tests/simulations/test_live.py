"""The simulated packet forwarder: its datagrams, its refusals, and the cell that runs by the clock."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from simulations.cell import GATEWAY_ID
from simulations.forwarder import Acknowledged, Forwarder, Request
from simulations.live import LiveGateway, run
from simulations.provisioning import export, group, identities, provisioning
from simulations.scenario import Scenario, load
from swarm.commands import AddNode
from swarm.effects import Malformed, RxFrame
from swarm.phy.regions import region

RECORDED = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "gwmp_recorded.json"
EUI = bytes.fromhex(GATEWAY_ID)
RX = RxFrame(b"\x40\x01\x02\x03", GATEWAY_ID, 5_000_000, 5_000_000, 868_300_000, 4, -101.4, -3.25)
SECOND = 1_000_000


def small() -> Scenario:
    scenario = load("live_1000").override(nodes=6)
    return replace(scenario, live=replace(scenario.live, history_days=2))


def txpk(**changes: Any) -> dict[str, Any]:
    request: dict[str, Any] = {
        "imme": True, "rfch": 0, "powe": 14, "modu": "LORA", "datr": "SF9BW125", "codr": "4/5", "ipol": True,
        "freq": 869.525, "size": 4, "data": "YAECAw==", "ncrc": True,
    }  # fmt: skip
    request.update(changes)
    return {key: value for key, value in request.items() if value is not None}


def pull_resp(token: int, **changes: Any) -> bytes:
    return struct.pack("<BHB", 2, token, 3) + json.dumps({"txpk": txpk(**changes)}).encode()


def test_received_frames_travel_in_the_fields_of_a_real_forwarder() -> None:
    forwarder = Forwarder(GATEWAY_ID, region("eu868"))
    datagram = forwarder.push_data(RX)
    assert datagram[0] == 2
    assert datagram[3] == 0
    assert datagram[4:12] == EUI
    (packet,) = json.loads(datagram[12:])["rxpk"]
    assert packet["freq"] == 868.3
    assert packet["datr"] == "SF8BW125"
    assert packet["tmst"] == 5_000_000
    assert base64.b64decode(packet["data"]) == RX.payload
    assert (packet["size"], packet["stat"], packet["modu"]) == (4, 1, "LORA")
    if RECORDED.is_file():
        captured = json.loads(RECORDED.read_text())["captured"]
        real = next(each["json"]["rxpk"][0] for each in captured if "rxpk" in (each["json"] or {}))
        assert set(packet) == set(real)
        assert {type(packet[key]) for key in real} == {type(value) for value in real.values()}


def test_the_other_datagrams_are_what_the_protocol_says() -> None:
    forwarder = Forwarder(GATEWAY_ID, region("eu868"))
    pull = forwarder.pull_data()
    assert (pull[0], pull[3], pull[4:]) == (2, 2, EUI)
    assert forwarder.tx_ack(0x1234, None) == b"\x02\x34\x12\x05" + EUI
    assert json.loads(forwarder.tx_ack(7, "TOO_LATE")[12:]) == {"txpk_ack": {"error": "TOO_LATE"}}
    status = json.loads(forwarder.status("2026-11-22 06:01:56 GMT")[12:])["stat"]
    assert (status["dwnb"], status["txnb"]) == (2, 1)
    assert forwarder.pull_data()[1:3] != pull[1:3], "tokens move on"


def test_requests_and_acknowledgements_are_understood_and_rubbish_is_a_value() -> None:
    forwarder = Forwarder(GATEWAY_ID, region("eu868"))
    assert forwarder.on_datagram(b"\x02\x01\x00\x04") == Acknowledged("pull", 1)
    assert forwarder.on_datagram(b"\x02\x01\x00\x01") == Acknowledged("push", 1)
    request = forwarder.on_datagram(pull_resp(9, imme=None, tmst=77, datr="SF12BW125", powe=27))
    assert request == Request(9, b"\x60\x01\x02\x03", 77, 869_525_000, 12, 125_000, 27.0)
    bad: list[bytes] = [
        b"",
        b"\x02",
        b"\x01\x00\x00\x03{}",
        b"\x02\x00\x00\x09",
        b"\x02\x00\x00\x03",
        b"\x02\x00\x00\x03[]",
    ]
    bad += [pull_resp(1, **{key: None}) for key in ("freq", "data", "size", "datr", "modu", "imme", "powe")]
    bad += [pull_resp(1, **{key: "x"}) for key in ("freq", "data", "size", "datr", "modu")]
    bad += [pull_resp(1, datr=50_000), pull_resp(1, ipol=False), pull_resp(1, imme=None, tmst=1 << 32)]
    bad += [b"\x02\x00\x00\x03" + b"[" * 2_000, bytes(range(256)) * 20]
    assert all(isinstance(forwarder.on_datagram(each), Malformed) for each in bad)


@pytest.mark.skipif(not RECORDED.is_file(), reason="the recorded datagrams are not part of the repository")
def test_recorded_requests_are_answered_as_the_real_forwarder_answered_them() -> None:
    """Those whose answer does not depend on the recording's clock."""
    for case in json.loads(RECORDED.read_text())["tx_ack_behaviour"]:
        if case["name"] not in ("imme_ok", "tx_freq_out_of_range", "missing_freq"):
            continue
        sent: list[bytes] = []
        live = LiveGateway(small(), sent.append)
        live.on_datagram(live.cell.now_us, bytes.fromhex(case["pull_resp_hex"]))
        assert [each[12:].decode() for each in sent] == ([case["tx_ack_body"]] if case["got_tx_ack"] else [])


def test_the_radio_refuses_in_a_forwarders_words() -> None:
    sent: list[bytes] = []
    live = LiveGateway(small(), sent.append)
    now_us = live.cell.now_us
    counter = now_us % (1 << 32)

    def answer(**changes: Any) -> str | None:
        sent.clear()
        live.on_datagram(now_us, pull_resp(3, **changes))
        assert sent[0][:4] == b"\x02\x03\x00\x05"
        return json.loads(sent[0][12:])["txpk_ack"]["error"] if sent[0][12:] else None

    assert answer(imme=None, tmst=(counter + SECOND) % (1 << 32)) is None
    assert answer(imme=None, tmst=(counter + SECOND + 50_000) % (1 << 32)) == "COLLISION_PACKET"
    assert answer(imme=None, tmst=(counter - 500_000) % (1 << 32)) == "TOO_EARLY"
    assert answer(imme=None, tmst=(counter + 600 * SECOND) % (1 << 32)) == "TOO_EARLY"
    assert answer(imme=None, tmst=(counter + 20_000) % (1 << 32)) == "TOO_LATE"
    assert answer(freq=902.3) == "TX_FREQ"
    assert answer() is None
    assert live.refused == 5
    live.cell.run_until(now_us + 10 * SECOND)
    assert live.cell.traffic.downlinks_sent == 2


def test_a_multicast_where_no_node_listens_is_said_once() -> None:
    """The daemon's default rate is not the scenario's: one line says what to set."""
    said: list[str] = []
    live = LiveGateway(small(), lambda _: None, said.append)
    address = group(small()).mc_addr.to_bytes(4, "little")
    frames = [
        (address, "SF7BW125"),
        (b"\1\2\3\4", "SF12BW125"),
        (address, "SF12BW125"),
        (address, "SF9BW125"),
    ]
    for token, (receiver, rate) in enumerate(frames):
        data = base64.b64encode(b"\x60" + receiver + bytes(8)).decode()
        live.on_datagram(live.cell.now_us, pull_resp(token, datr=rate, data=data, size=13))
    assert said == [
        "the gateway sends to all nodes at DR0 on 869.525 MHz, but they listen at DR5 on 869.525 MHz: "
        "set [multicast] data_rate = 5 in its swarm.toml and start it again"
    ]


def test_uplinks_of_the_cell_become_datagrams_with_the_counter_of_their_end() -> None:
    sent: list[bytes] = []
    live = LiveGateway(small(), sent.append)
    live.cell.run_until(live.cell.start_us + 180 * SECOND)
    packets = [json.loads(each[12:])["rxpk"][0] for each in sent]
    assert len(packets) == live.cell.checkers.received >= 12
    ends = [(packet["tmst"] - live.cell.start_us) % (1 << 32) for packet in packets]
    assert ends == sorted(ends)
    assert 0 < ends[0] < ends[-1] <= 180 * SECOND
    known = {identity.dev_addr for identity in identities(small())}
    assert {int.from_bytes(base64.b64decode(packet["data"])[1:5], "little") for packet in packets} <= known


class Server(asyncio.DatagramProtocol):
    """A network server that acknowledges, once it is `awake`, and asks for one transmission."""

    def __init__(self) -> None:
        self.awake = asyncio.Event()
        self.heard: list[tuple[int, bytes]] = []
        self.transmitted = asyncio.Event()
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        kind = data[3]
        self.heard.append((kind, data))
        if not self.awake.is_set():
            return
        if kind in (0, 2):
            self._transport.sendto(data[:3] + bytes([1 if kind == 0 else 4]), addr)
        if kind == 0:
            self._transport.sendto(pull_resp(0x55AA), addr)
        if kind == 5:
            self.transmitted.set()


async def test_the_world_waits_for_the_gateway_and_then_runs_by_the_clock() -> None:
    """Over a real socket: knock until somebody answers, send frames, take a downlink, stop when told."""
    loop = asyncio.get_running_loop()
    server = Server()
    transport, _ = await loop.create_datagram_endpoint(lambda: server, local_addr=("127.0.0.1", 0))
    said: list[str] = []
    stop = asyncio.Event()
    told = asyncio.Event()

    def say(line: str) -> None:
        said.append(line)
        if line.startswith("waiting for a gateway"):
            told.set()

    address = transport.get_extra_info("sockname")
    playing = asyncio.create_task(run(small(), address, speed=200.0, say=say, stop=stop))
    async with asyncio.timeout(60):
        await told.wait()
        assert all(kind == 2 for kind, _ in server.heard), "before an answer it only knocks"
        server.awake.set()
        await server.transmitted.wait()
        stop.set()
        live = await playing
    transport.close()
    assert live.connected
    assert live.cell.checkers.sent > 0
    assert live.forwarder.downlinks > 0
    assert any("answers; the nodes wake up" in line for line in said)
    assert said[-1].endswith("0 violations")


async def test_nobody_at_the_port_is_no_reason_to_die() -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
    address = transport.get_extra_info("sockname")
    transport.close()
    stop = asyncio.Event()

    def say(line: str) -> None:
        if line.startswith("waiting for a gateway"):
            stop.set()

    async with asyncio.timeout(60):
        live = await run(small(), address, say=say, stop=stop)
    assert not live.connected
    assert live.cell.checkers.sent == 0


def test_identities_follow_from_the_seed_and_tell_no_secret_by_accident(tmp_path: Path) -> None:
    scenario = small()
    mine, again = identities(scenario), identities(scenario)
    assert mine == again
    assert len({each.dev_eui for each in mine}) == len({each.nwk_s_key for each in mine}) == 6
    assert identities(scenario.override(seed=2))[0].nwk_s_key != mine[0].nwk_s_key
    assert mine[0].nwk_s_key.hex() not in repr(mine[0])
    command = mine[3].add_node()
    assert isinstance(command, AddNode)
    assert (command.node_index, command.dev_addr, command.app_key) == (3, mine[3].dev_addr, None)
    otaa = identities(replace(scenario, activation="otaa"))[3].add_node()
    assert (otaa.dev_addr, otaa.nwk_s_key, len(otaa.app_key or b"")) == (None, None, 16)


def test_provisioning_files_hold_what_an_import_needs(tmp_path: Path) -> None:
    scenario = small()
    export(scenario, tmp_path / "nodes.json")
    made = json.loads((tmp_path / "nodes.json").read_text())
    assert made["nodes"] == provisioning(scenario)
    assert made["multicast"]["mc_addr"] == f"{group(scenario).mc_addr:08x}"
    listens = {key: made["multicast"][key] for key in ("region", "data_rate", "frequency_hz")}
    assert listens == {"region": "eu868", "data_rate": 5, "frequency_hz": 869_525_000}
    assert set(made["nodes"][0]) == {
        "dev_eui", "name", "node_index", "crop", "plot", "lat", "lon", "activation",
        "dev_addr", "nwk_s_key", "app_s_key",
    }  # fmt: skip
    export(scenario, tmp_path / "nodes.csv")
    lines = (tmp_path / "nodes.csv").read_text().splitlines()
    assert len(lines) == 7
    assert lines[0].split(",") == list(made["nodes"][0])

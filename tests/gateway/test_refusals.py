"""The table of refusals, through a real daemon: each is an event with words, a number, and nothing else.

Frames come over the daemon's UDP port, brokers are real ones.  For each case: the event that a person sees
with `swarm events`, the counter in `GET /api/state`, no row of the database changed, and right after it a
genuine frame of the same node accepted.
"""

from __future__ import annotations

import base64
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import run
from gateway.config import MqttSection
from gateway.mqtt import link
from gateway.radios.packet_forwarder import COUNTERS
from gateway.radios.radio import Refusal
from gateway.radios.refusals import EVERY_US, MEANINGS, Refusals
from swarm.mac import join, session
from swarm.mac.device import EndDevice, OtaaIdentity
from swarm.mac.session import seal_data
from swarm.prng import Prng
from swarm.security.lorawan import AesKey
from swarm.wire import app, lorawan
from swarm.wire.lorawan import encode_data
from tests.gateway.broker import Authority, Broker, Person, needs_mosquitto
from tests.web.served import EU868, Cell, Node, Served, until

ROOT = Path(__file__).parents[2]
OTAA = {"dev_eui": "70b3d57ed0abcdef", "join_eui": "70b3d57ed0ffffff", "app_key": "5a" * 16}
JOINER = {**OTAA, "name": "joiner", "crop": "apple", "activation": "otaa"}
KEPT = ("node", "session", "status", "airtime", "multicast", "retired")


class Farm:
    """A daemon with a node that has a session and one that joins, and a gateway's socket to it."""

    def __init__(self, served: Served) -> None:
        assert served.daemon.udp_address is not None
        self.served = served
        self.cell = Cell(served.daemon.udp_address, 1)
        self.node = self.cell.nodes[0]
        registration = self.cell.registration()
        registration["nodes"].append(JOINER)
        assert served.http.post("/api/nodes", json=registration).json()["refused"] == []
        who = OtaaIdentity(OTAA["dev_eui"], OTAA["join_eui"], bytes.fromhex(OTAA["app_key"]))
        self.joiner = EndDevice(EU868, who, Prng(5), data_rate=5)
        self.cell.pull()
        self.genuine()

    def genuine(self) -> None:
        """A frame of the node, which the daemon takes."""
        before = self.counted("counters", "uplink")
        self.cell.uplink(self.node, 12, self.node.status())
        until(lambda: self.counted("counters", "uplink") == before + 1, "a genuine frame is accepted")

    def join(self) -> bytes:
        """A join request, which the daemon takes."""
        before = self.counted("counters", "joined")
        request = self.joiner.join(time.time_ns() // 1000).payload
        self.cell.push(request)
        until(lambda: self.counted("counters", "joined") == before + 1, "the join is accepted")
        return request

    def counted(self, side: str, name: str) -> int:
        return int(self.served.http.get("/api/state").json()[side].get(name, 0))

    def events(self, kind: str) -> list[dict[str, Any]]:
        found = self.served.http.get(f"/api/events/past?kind={kind}").json()["events"]
        assert isinstance(found, list)
        return found

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """Everything that a refused frame must leave alone."""
        file = f"file:{self.served.daemon.config.data_dir}/swarm.db?mode=ro"
        with closing(sqlite3.connect(file, uri=True)) as db:
            return {table: db.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in KEPT}


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    with Served(tmp_path) as served:
        made = Farm(served)
        yield made
        made.cell.close()


def sealed(node: Node, f_cnt: int, *, key: bytes | None = None, **more: Any) -> bytes:
    """A frame as the node would make it with this counter, or with another key."""
    nwk = AesKey(key or bytes.fromhex(node.row["nwk_s_key"]))
    address = int(node.row["dev_addr"], 16)
    signed = encode_data(
        uplink=True,
        dev_addr=address,
        f_cnt=f_cnt & 0xFFFF,
        **{"f_port": 12, "frm_payload": b"x" * 17, **more},
    )
    return seal_data(nwk, signed, uplink=True, dev_addr=address, f_cnt=f_cnt)


def _packet(phy: bytes, **more: object) -> bytes:
    packet = {"tmst": time.monotonic_ns() // 1000 & 0xFFFFFFFF, "freq": 868.1, "stat": 1, "modu": "LORA"}
    packet |= {"datr": "SF7BW125", "codr": "4/5", "rssi": -97, "lsnr": 7.5, "size": len(phy)}
    packet |= {"data": base64.b64encode(phy).decode(), **more}
    return json.dumps({"rxpk": [packet]}).encode()


def _send(farm: Farm, phy: bytes, **more: object) -> None:
    farm.cell._send(0, _packet(phy, **more))


def _next(farm: Farm) -> int:
    return farm.node.device.f_cnt_up


def _foreign(farm: Farm) -> bytes:
    """A join request of a node that nobody registered."""
    who = OtaaIdentity("70b3d57ed0fffffe", OTAA["join_eui"], bytes(16))
    return EndDevice(EU868, who, Prng(6), data_rate=5).join(time.time_ns() // 1000).payload


def _wrong_app_key(farm: Farm) -> bytes:
    who = OtaaIdentity(OTAA["dev_eui"], OTAA["join_eui"], bytes(16))
    return EndDevice(EU868, who, Prng(6), data_rate=5).join(time.time_ns() // 1000).payload


def _long_silent(farm: Farm) -> bytes:
    """The node's own frame, 70,000 frames later."""
    return sealed(farm.node, _next(farm) + 70_000)


@dataclass(frozen=True)
class Case:
    """A frame, how it is reported, and what a person is to read of it."""

    frame: Callable[[Farm], bytes]
    reason: str
    detail: str
    side: str = "counters"
    report: tuple[tuple[str, object], ...] = ()


RADIO = "radio"
CASES = {
    "wrong region": Case(
        lambda farm: sealed(farm.node, _next(farm)),
        "region_frequency",
        "eu868: a signal of 125 kHz at 903.9000 MHz is not inside one sub-band",
        RADIO,
        (("freq", 903.9),),
    ),
    "wrong region's data rate": Case(
        lambda farm: sealed(farm.node, _next(farm)),
        "region_data_rate",
        "eu868 has no uplink data rate with SF8 at 500000 Hz",
        RADIO,
        (("datr", "SF8BW500"),),
    ),
    "unknown device": Case(
        lambda farm: sealed(farm.node, _next(farm)).replace(b"\x00\x00\x00\x26", b"\x07\x00\x00\x26", 1),
        "unknown_device",
        "DevAddr 26000007",
    ),
    "unknown device joins": Case(_foreign, "unknown_device", "DevEUI 70b3d57ed0fffffe"),
    "wrong key": Case(
        lambda farm: sealed(farm.node, _next(farm), key=b"k" * 16), "mic", "FCnt 1 of 26000000"
    ),
    "wrong key joins": Case(_wrong_app_key, "mic", "join request of 70b3d57ed0abcdef"),
    "replayed join": Case(lambda farm: farm.join(), "dev_nonce", "0 after 0"),
    "replayed frame": Case(lambda farm: sealed(farm.node, 0), "replay", "FCnt 0 again"),
    "older frame": Case(lambda farm: farm.genuine() or sealed(farm.node, 0), "replay", "FCnt 0 after 1"),
    "counter jump": Case(_long_silent, "counter_jump", "FCnt 70001 after 0"),
    "oversize frame": Case(
        lambda farm: bytes(300), "field_range", "data: a frame of 300 bytes, and 255 is the most", RADIO
    ),
    "undersize frame": Case(lambda farm: bytes(11), "size", "11 B"),
    "a downlink": Case(
        lambda farm: b"\x60" + sealed(farm.node, _next(farm))[1:],
        "direction",
        "a downlink where an uplink was expected",
    ),
    "cut report": Case(lambda farm: bytes(20), "size_mismatch", "", RADIO, (("size", 19),)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_refused_frame_is_told_counted_and_changes_nothing(
    name: str, farm: Farm, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    frame = case.frame(farm)
    counter = case.reason if case.side == RADIO else f"dropped:{case.reason}"
    # A frame that was just taken is first swallowed as a late copy of itself.
    until(lambda: _settled(farm), "all is quiet")
    before, rows = farm.counted(case.side, counter), farm.rows()
    _send(farm, frame, **dict(case.report))
    until(lambda: farm.events("dropped"), "the event")
    (event,) = farm.events("dropped")
    assert (event["data"]["reason"], event["data"]["gateway_id"]) == (case.reason, "aa555a0000000000")
    assert case.detail in event["data"]["detail"]
    assert event["meaning"] == MEANINGS[case.reason]
    assert farm.counted(case.side, counter) == before + 1
    assert farm.rows() == rows
    for variable, value in (("SWARM_URL", farm.served.url), ("SWARM_TOKEN", farm.served.daemon.token)):
        monkeypatch.setenv(variable, value)
    assert run(["events", "--kind", "dropped"]) == 0
    shown = capsys.readouterr().out
    assert case.reason in shown and case.detail in shown and MEANINGS[case.reason] in shown
    farm.genuine()


def _settled(farm: Farm) -> bool:
    """Whether the daemon has forgotten the copies that it waits for."""
    seen = farm.served.daemon.core._dedup._seen
    return all(until_us < farm.served.daemon.now_us() for until_us in list(seen.values()))


def test_class_b_is_not_offered_and_its_frames_are_not_lost(farm: Farm) -> None:
    """Goal: a node that says it is in class B is told of once; what it sends counts as from class A."""
    for _ in range(2):
        frame = sealed(farm.node, _next(farm), frm_payload=b"", f_port=None, bit4=True)
        farm.node.device.f_cnt_up += 1
        _send(farm, frame)
        until(lambda: farm.counted("counters", "uplink") == _next(farm), "the frame counts")
    (event,) = farm.events("class_refused")
    assert event["data"]["reason"] == "class_b" and "class A" in event["data"]["detail"]
    assert farm.counted("counters", "class_refused") == 1
    farm.genuine()


@needs_mosquitto
@pytest.mark.parametrize("reason", ["unreachable", "certificate"])
def test_a_broker_out_of_reach_or_trust_is_told_and_nothing_is_lost(
    reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: an event with what to do, a count; uplinks go on, and are told once the broker is there."""
    monkeypatch.setattr(link, "RETRY_MIN_S", 0.1)
    monkeypatch.setattr(link, "RETRY_MAX_S", 0.2)
    right, wrong = Authority(tmp_path / "right"), Authority(tmp_path / "wrong")
    broker = Broker(tmp_path / "broker", *right.lines())
    trusted = tmp_path / "trusted"
    trusted.write_bytes((wrong if reason == "certificate" else right).ca_file.read_bytes())
    mqtt = MqttSection(enabled=True, port=broker.port, name="farm", tls=True, ca_file=str(trusted))
    if reason == "certificate":
        broker.start()
    with Served(tmp_path / "daemon", mqtt=mqtt) as served:
        farm = Farm(served)
        until(lambda: farm.events("broker_failed"), "the event")
        event = farm.events("broker_failed")[0]
        assert event["data"]["broker"] == f"mqtt 127.0.0.1:{broker.port}"
        assert event["data"]["reason"] == reason
        words = {"unreachable": "refused", "certificate": "set [mqtt] ca_file and host"}
        assert words[reason] in event["data"]["detail"]
        until(lambda: farm.counted("radio", f"mqtt:{reason}") > 1, "the count goes on, the event does not")
        assert len(farm.events("broker_failed")) == 1
        farm.genuine()
        assert farm.counted("radio", "mqtt_lost") == 0
        farm.cell.close()
        if reason == "unreachable":
            broker.start()
            with Person(broker.port, ca_file=right.ca_file) as person:
                heard = f"swarm/farm/node/{farm.node.row['dev_eui']}/event/up"
                until(lambda: len(person.on(heard)) >= 2, "what happened while it was away")
            until(lambda: farm.events("broker_connected"), "the event of the connection")
    broker.kill()


def test_a_flood_of_refusals_is_one_event_in_ten_seconds() -> None:
    """Goal: every reason is told at once, then rarely, with how often it came; no other is held back."""
    refusals, refusal = Refusals(), Refusal("aa", "json", "not an object")
    told = [refusals.event(number * EVERY_US // 400, refusal) for number in range(1000)]
    assert [event.data.get("times") for event in told if event is not None] == [None, 400, 400]
    assert refusals.event(EVERY_US * 2, Refusal("aa", "crc", "")) is not None


def test_every_reason_has_its_words_and_the_operators_table_has_every_reason() -> None:
    reasons = {*lorawan.REASONS, *session.REASONS, *join.REASONS, *app.REASONS}
    at_the_radio = set(COUNTERS[: COUNTERS.index("tx_ack_unknown")])
    # An address or an EUI that is not the session's or the node's never comes so far.
    assert (reasons | at_the_radio) - {"dev_addr", "dev_eui"} <= set(MEANINGS)
    text = (ROOT / "docs" / "OPERATING.md").read_text("utf-8")
    table = text.split("\n## What is lost and why\n")[1].split("\n## ")[0]
    assert not [reason for reason in MEANINGS if f"`{reason}`" not in table]

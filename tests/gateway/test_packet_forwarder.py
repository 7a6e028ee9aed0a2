"""The packet forwarder's protocol: recorded datagrams of real forwarders, and hostile ones."""

from __future__ import annotations

import base64
import json
import random
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.radios import gwmp
from gateway.radios.counter import CounterMap
from gateway.radios.packet_forwarder import (
    COUNTERS,
    GATEWAYS_MAX,
    GatewayHeard,
    Output,
    PacketForwarder,
)
from gateway.radios.radio import Refusal
from swarm.effects import Malformed, Purpose, RxFrame, Transmit, TxAck
from swarm.phy.regions import region

VECTORS = Path(__file__).parents[2].parent / "shared" / "vectors"
EUI = "aa555a0000000000"
HERE = ("192.0.2.1", 40000)
S = 1_000_000
NOW = 1_790_000_000 * S

needs_vectors = pytest.mark.skipif(
    not VECTORS.is_dir(), reason="recorded datagrams are not at hand (../shared)"
)


def recorded(name: str) -> Any:
    return json.loads((VECTORS / name).read_text())


def datagram(kind: int, body: bytes = b"", *, eui: str = EUI, token: int = 0x1234, version: int = 2) -> bytes:
    return bytes((version, token >> 8, token & 255, kind)) + bytes.fromhex(eui) + body


def rxpk(**changes: Any) -> dict[str, Any]:
    packet: dict[str, Any] = {
        "tmst": 5_000_000,
        "freq": 868.1,
        "stat": 1,
        "modu": "LORA",
        "datr": "SF9BW125",
        "codr": "4/5",
        "rssi": -97,
        "lsnr": 3.5,
        "size": 4,
        "data": base64.b64encode(b"\x40\x01\x02\x03").decode(),
    }
    packet.update(changes)
    return {name: value for name, value in packet.items() if value is not ...}


def push(*packets: object, eui: str = EUI, **more: Any) -> bytes:
    return datagram(0, json.dumps({"rxpk": list(packets), **more}).encode(), eui=eui)


def forwarder(**options: Any) -> PacketForwarder:
    return PacketForwarder(region("eu868"), **options)


def transmit(at_us: int, tmst_us: int | None, transmit_id: int = 7, gateway_id: str = EUI) -> Transmit:
    return Transmit(
        transmit_id, gateway_id, b"\x60" * 20, at_us, tmst_us, 869_525_000, 3, 14.9, 200_000, Purpose.ACK
    )


def frames(output: Output) -> list[RxFrame]:
    return [one for one in output.inputs if isinstance(one, RxFrame)]


def acks(output: Output) -> list[TxAck]:
    return [one for one in output.inputs if isinstance(one, TxAck)]


def refusals(gateways: PacketForwarder) -> dict[str, int]:
    uncounted = ("datagrams", "packets", "pull_resp")
    return {name: count for name, count in gateways.counters.items() if count and name not in uncounted}


# -- recorded traffic --------------------------------------------------------------------------------


@needs_vectors
def test_every_recorded_datagram_is_accepted() -> None:
    gateways = forwarder()
    for index, captured in enumerate(recorded("gwmp_recorded.json")["captured"]):
        raw = bytes.fromhex(captured["hex"])
        message = gwmp.parse(raw)
        assert not isinstance(message, Malformed), captured["kind"]
        assert message.gateway_id == EUI
        output = gateways.on_datagram(NOW + index * S, raw, HERE)
        if captured["kind"] != "TX_ACK":
            assert output.datagrams[0][0] == raw[:3] + bytes((4 if captured["kind"] == "PULL_DATA" else 1,))
        for packet in (captured["json"] or {}).get("rxpk", []):
            (frame,) = frames(output)
            assert frame.payload == base64.b64decode(packet["data"])
            assert (frame.tmst_us, frame.frequency_hz, frame.data_rate) == (packet["tmst"], 868_100_000, 5)
            assert (frame.rssi_dbm, frame.snr_db) == (-82.0, 7.2)
    # The recording answers downlinks of another server: nothing here asked for them.
    assert refusals(gateways) == {"tx_ack_unknown": 3}
    (row,) = gateways.snapshot()
    assert row["status"] == {
        "time": "2026-11-22 06:02:06 GMT",
        "rxnb": 0,
        "rxok": 0,
        "rxfw": 0,
        "ackr": 100.0,
        "dwnb": 39,
        "txnb": 16,
        "temp": 25.0,
    }


@needs_vectors
def test_every_recorded_tx_ack_is_understood() -> None:
    """Each recorded PULL_RESP case is replayed: what the forwarder said becomes exactly one TxAck."""
    expected_errors = {
        "tmst_same_slot_collision": "COLLISION_PACKET",
        "too_late": "TOO_LATE",
        "too_early_10min": "TOO_LATE",
        "tx_freq_out_of_range": "TX_FREQ",
        "missing_freq": "NO_TX_ACK",
        "rfch_no_tx": "NO_TX_ACK",
        "tmms_without_gps": "GPS_UNLOCKED",
    }
    for case in recorded("gwmp_recorded.json")["tx_ack_behaviour"]:
        gateways = forwarder()
        gateways.on_datagram(NOW, datagram(2), HERE)
        gateways.on_datagram(NOW, push(rxpk(tmst=1000)), HERE)
        gateways.transmit(NOW, transmit(NOW + S, 1000 + S))
        ((sent, _),) = gateways.poll(NOW).datagrams
        token = int.from_bytes(sent[1:3], "big")
        if case["got_tx_ack"]:
            body = case["tx_ack_body"].encode()
            output = gateways.on_datagram(NOW + 1000, datagram(5, body, token=token), HERE)
        else:
            assert gateways.poll_at() == NOW + 2 * S
            output = gateways.poll(NOW + 2 * S)
        (ack,) = acks(output)
        assert ack.transmit_id == 7
        assert ack.error == expected_errors.get(case["name"]), case["name"]
        assert ack.warning == ("TX_POWER" if case["name"] == "tx_power_not_in_lut" else None)
        assert acks(gateways.poll(NOW + 100 * S)) == []


@needs_vectors
def test_every_example_of_the_protocol_documents_is_read() -> None:
    documents = recorded("gwmp_protocol_examples.json")
    examples = [case["json"] for part in ("PROTOCOL_TXT", "sx1302_PROTOCOL_md") for case in documents[part]]
    read = 0
    for example in filter(None, examples):
        if "rxpk" in example:
            message = gwmp.parse(datagram(0, json.dumps(example).encode()))
            assert isinstance(message, gwmp.PushData)
            # The FSK packet is the one that is not ours; data without padding and with "-" is read.
            assert [refusal.reason for refusal in message.refused] == ["modulation"]
            assert [len(packet.payload) for packet in message.packets] == [32, 32]
            assert message.packets[1].frequency_hz == 863_009_810
            read += 1
        elif "stat" in example:
            message = gwmp.parse(datagram(0, json.dumps(example).encode()))
            assert isinstance(message, gwmp.PushData)
            assert message.status is not None
            assert message.status["lati"] == 46.24
            read += 1
        elif "txpk_ack" in example:
            answer = gwmp.parse(datagram(5, json.dumps(example).encode()))
            assert isinstance(answer, gwmp.TxAcknowledged)
            assert (answer.error, answer.warning) in {("COLLISION_PACKET", None), (None, "TX_POWER")}
            read += 1
    assert read >= 6


# -- uplinks -----------------------------------------------------------------------------------------


def test_several_packets_and_a_status_in_one_datagram() -> None:
    gateways = forwarder()
    later = rxpk(tmst=5_400_000, datr="SF12BW125", rssi=..., rssis=-120)
    output = gateways.on_datagram(NOW, push(rxpk(), later, rxpk(stat=-1), stat={"rxnb": 3}), HERE)
    assert [frame.data_rate for frame in frames(output)] == [3, 0]
    assert frames(output)[1].rssi_dbm == -120.0
    # The packets' ends lie as far apart on the core's clock as on the gateway's counter.
    assert frames(output)[1].at_us - frames(output)[0].at_us == 0  # both are bounded by their arrival
    assert refusals(gateways) == {"crc": 1}
    assert [one for one in output.inputs if isinstance(one, GatewayHeard)] == [GatewayHeard(EUI, {"rxnb": 3})]


def test_data_is_read_without_padding_and_in_both_alphabets() -> None:
    payload = bytes((0xFB, 0xEF, 0xFF, 0x01))
    for text in ("++//AQ==", "++//AQ", "--__AQ", "-+_/AQ="):
        message = gwmp.parse(push(rxpk(data=text)))
        assert isinstance(message, gwmp.PushData)
        assert [packet.payload for packet in message.packets] == [payload], text


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"stat": -1}, "crc"),
        ({"stat": 0}, "crc"),
        ({"stat": True}, "crc"),
        ({"modu": "FSK", "datr": 50000}, "modulation"),
        ({"datr": 50000}, "modulation"),
        ({"modu": "LR_FHSS", "datr": "M0CW137"}, "modulation"),
        ({"datr": "SF13BW125"}, "data_rate"),
        ({"datr": "SF9BW100"}, "data_rate"),
        ({"datr": "SF9BW125 "}, "data_rate"),
        ({"datr": "SF٩BW125"}, "data_rate"),
        ({"datr": ["SF9BW125"]}, "data_rate"),
        ({"datr": ...}, "field_missing"),
        ({"tmst": ...}, "field_missing"),
        ({"freq": ...}, "field_missing"),
        ({"data": ...}, "field_missing"),
        ({"lsnr": ...}, "field_missing"),
        ({"rssi": ...}, "field_missing"),
        ({"tmst": 5e6}, "field_type"),
        ({"tmst": True}, "field_type"),
        ({"tmst": "5000000"}, "field_type"),
        ({"tmst": -1}, "field_range"),
        ({"tmst": 1 << 32}, "field_range"),
        ({"tmst": 10**4000}, "field_range"),
        ({"freq": "868.1"}, "field_type"),
        ({"freq": True}, "field_type"),
        ({"freq": 868_100_000}, "field_range"),
        ({"freq": 0}, "field_range"),
        ({"freq": -868.1}, "field_range"),
        ({"rssi": 10**400}, "field_range"),
        ({"rssi": {"a": 1}}, "field_type"),
        ({"lsnr": 1e6}, "field_range"),
        ({"data": 7}, "field_type"),
        ({"data": ""}, "field_range"),
        ({"data": "====", "size": 0}, "field_range"),
        ({"data": "A" * 344}, "field_range"),
        ({"data": "A" * 100_000}, "datagram_size"),
        ({"data": "QA=ECAw"}, "base64"),
        ({"data": "A"}, "base64"),
        ({"data": "AB CD"}, "base64"),
        ({"data": "é" * 8}, "base64"),
        ({"data": "\ud800AAA"}, "base64"),
        ({"size": 5}, "size_mismatch"),
        ({"size": 4.0}, "size_mismatch"),
        ({"size": "4"}, "size_mismatch"),
        ({"freq": 902.3}, "region_frequency"),
        ({"freq": 868.65}, "region_frequency"),
        ({"datr": "SF9BW500"}, "region_data_rate"),
    ],
)
def test_a_bad_packet_is_counted_and_costs_only_itself(changes: dict[str, Any], reason: str) -> None:
    gateways = forwarder()
    output = gateways.on_datagram(NOW, push(rxpk(**changes), rxpk()), HERE)
    assert refusals(gateways) == {reason: 1}
    assert len(frames(output)) == (0 if reason == "datagram_size" else 1)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "datagram_size"),
        (b"\x02\x00\x00", "datagram_size"),
        (b"\x02\x00\x00\x00\xaa\x55", "datagram_size"),
        (b"\x02" + bytes(gwmp.DATAGRAM_SIZE_MAX), "datagram_size"),
        (datagram(0, b"{}", version=1), "version"),
        (datagram(1), "kind"),
        (datagram(3, b"{}"), "kind"),
        (datagram(200), "kind"),
        (datagram(0), "json"),
        (datagram(0, b"[]"), "json"),
        (datagram(0, b"null"), "json"),
        (datagram(0, b'{"rxpk":[],"rxpk":[]}'), "json"),
        (datagram(0, b'{"rxpk":[{"tmst":1,"tmst":2}]}'), "json"),
        (datagram(0, b'{"stat":{"lati":NaN}}'), "json"),
        (datagram(0, b'{"stat":{"lati":-Infinity}}'), "json"),
        (datagram(0, b'{"rxpk":' + b"[" * 8000 + b"]" * 8000 + b"}"), "json"),
        (datagram(0, b'{"a":' * 2500), "json"),
        (datagram(0, b'{"stat":{"rxnb":' + b"9" * 10_000 + b"}}"), "json"),
        (datagram(0, '{"stat":{}}'.encode("utf-16")), "json"),
        (datagram(0, b'{"stat":"\xff"}'), "json"),
        (datagram(0, b'{"rxpk":{}}'), "rxpk_shape"),
        (datagram(0, b'{"rxpk":[7]}'), "rxpk_shape"),
        (datagram(0, b'{"stat":[]}'), "stat_shape"),
        (push(*[rxpk(data=...)] * 65), "rxpk_count"),
        (datagram(5, b"{"), "json"),
        (datagram(5, b'{"txpk_ack":7}'), "tx_ack_shape"),
        (datagram(5, b'{"txpk_ack":{"error":7}}'), "tx_ack_shape"),
        (datagram(5, b'{"txpk_ack":{"error":"<script>"}}'), "tx_ack_shape"),
    ],
)
def test_a_bad_datagram_is_counted_by_its_reason(raw: bytes, reason: str) -> None:
    gateways = forwarder()
    output = gateways.on_datagram(NOW, raw, HERE)
    assert refusals(gateways)[reason] == 1
    assert frames(output) == []
    assert acks(output) == []


def test_status_keeps_only_what_makes_sense() -> None:
    stat = {"rxnb": 2, "lati": 1e300, "temp": "hot", "ackr": True, "time": "\ud800<script>", "x": 1}
    message = gwmp.parse(datagram(0, json.dumps({"stat": stat}).encode()))
    assert isinstance(message, gwmp.PushData)
    assert message.status == {"rxnb": 2}


def test_a_hundred_thousand_hostile_datagrams_raise_nothing_and_grow_nothing() -> None:
    """Random bytes, and good datagrams with bytes flipped, cut, doubled; from ever new gateways."""
    rng = random.Random(20261122)
    good = [
        push(rxpk(), rxpk(tmst=9), stat={"rxnb": 1}),
        datagram(2),
        datagram(5, b'{"txpk_ack":{"error":"COLLISION_PACKET"}}'),
        datagram(5),
    ]
    gateways = forwarder()
    heard = 0

    def bombard(count: int) -> int:
        heard = 0
        for index in range(count):
            if index % 4 == 0:
                raw = rng.randbytes(rng.randrange(64))
                if index % 8 == 0:  # a valid header, so that the body is reached
                    raw = bytes((2, 0, 0, rng.choice((0, 2, 5)))) + raw
            else:
                body = bytearray(rng.choice(good))
                for _ in range(rng.randrange(1, 6)):
                    body[rng.randrange(len(body))] = rng.randrange(256)
                raw = bytes(body[: rng.randrange(len(body) + 1)] if index % 4 == 1 else body)
            heard += len(gateways.on_datagram(NOW + index * 1000, raw, HERE).inputs)
        return heard

    heard += bombard(50_000)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    heard += bombard(50_000)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 600_000
    assert heard > 0
    assert len(gateways.snapshot()) <= GATEWAYS_MAX
    assert tuple(gateways.counters) == COUNTERS
    assert gateways.counters["datagrams"] == 100_000


# -- the table of gateways ---------------------------------------------------------------------------


def test_the_gateway_silent_longest_is_evicted_but_never_a_proven_one() -> None:
    gateways = forwarder()
    gateways.on_datagram(NOW, push(rxpk()), HERE)
    gateways.accepted(EUI)
    for index in range(GATEWAYS_MAX + 10):
        gateways.on_datagram(NOW + index, datagram(2, eui=f"{index:016x}"), HERE)
    table = {str(row["gateway_id"]) for row in gateways.snapshot()}
    assert len(table) == GATEWAYS_MAX
    assert EUI in table
    assert f"{0:016x}" not in table
    assert f"{GATEWAYS_MAX + 9:016x}" in table
    assert gateways.counters["gateway_evicted"] == 11


def test_a_full_table_of_proven_gateways_takes_no_stranger() -> None:
    gateways = forwarder(known=[f"{index:016x}" for index in range(GATEWAYS_MAX)])
    for index in range(GATEWAYS_MAX):
        gateways.on_datagram(NOW + index, datagram(2, eui=f"{index:016x}"), HERE)
    refusal = Refusal(EUI, "gateway_table_full", "1000 gateways")
    assert gateways.on_datagram(NOW, push(rxpk()), HERE) == Output(refused=[refusal])
    assert refusals(gateways) == {"gateway_table_full": 1}


def test_only_allowed_gateways_are_heard_when_a_list_is_given() -> None:
    gateways = forwarder(allowed=["AA555A0000000000"])
    refusal = Refusal("00" * 8, "gateway_not_allowed", "gateway " + "00" * 8)
    assert gateways.on_datagram(NOW, push(rxpk(), eui="00" * 8), HERE) == Output(refused=[refusal])
    assert len(frames(gateways.on_datagram(NOW, push(rxpk()), HERE))) == 1
    assert refusals(gateways) == {"gateway_not_allowed": 1}


def test_signs_of_life_are_passed_on_sparingly() -> None:
    gateways = forwarder()
    reports = [
        len(gateways.on_datagram(NOW + second * S, datagram(2), HERE).inputs) for second in range(0, 30, 5)
    ]
    assert reports == [1, 0, 1, 0, 1, 0]


# -- downlinks ---------------------------------------------------------------------------------------


def sent_txpk(output: Output) -> dict[str, Any]:
    ((raw, _),) = output.datagrams
    assert raw[0] == 2
    assert raw[3] == 3
    txpk = json.loads(raw[4:])["txpk"]
    assert isinstance(txpk, dict)
    return txpk


def test_a_class_a_answer_leaves_at_once_by_the_gateways_counter() -> None:
    gateways = forwarder()
    gateways.on_datagram(NOW, datagram(2), HERE)
    gateways.transmit(NOW, transmit(NOW + S, 4_294_967_290))
    assert sent_txpk(gateways.poll(NOW)) == {
        "rfch": 0,
        "powe": 14,
        "modu": "LORA",
        "datr": "SF9BW125",
        "codr": "4/5",
        "ipol": True,
        "ncrc": True,
        "freq": 869.525,
        "size": 20,
        "data": base64.b64encode(b"\x60" * 20).decode(),
        "tmst": 4_294_967_290,
    }


def test_a_downlink_follows_the_newest_pull_data() -> None:
    gateways = forwarder()
    gateways.on_datagram(NOW, datagram(2), HERE)
    gateways.on_datagram(NOW + S, datagram(2), ("198.51.100.9", 1))
    gateways.on_datagram(NOW + 2 * S, push(rxpk()), HERE)  # its source is another socket: not a path
    gateways.transmit(NOW + 2 * S, transmit(NOW + 3 * S, 0))
    ((_, address),) = gateways.poll(NOW + 2 * S).datagrams
    assert address == ("198.51.100.9", 1)


def test_a_class_c_frame_is_held_until_shortly_before_and_sent_by_the_counter() -> None:
    gateways = forwarder()
    gateways.on_datagram(NOW, datagram(2), HERE)
    gateways.on_datagram(NOW, push(rxpk(tmst=0xFFFF_FF00)), HERE)
    start_us = NOW + 30 * S
    gateways.transmit(NOW, transmit(start_us, None))
    assert gateways.poll(NOW) == Output()
    due_us = gateways.poll_at()
    assert due_us is not None
    assert start_us - 500_000 <= due_us <= start_us - 100_000
    assert gateways.poll(due_us - 1) == Output()
    txpk = sent_txpk(gateways.poll(due_us))
    # 30 s on a counter that wraps 256 us after the packet, minus the allowance for drifting crystals.
    assert "imme" not in txpk
    assert abs(txpk["tmst"] - (30 * S - 256)) <= 3000


def test_without_a_counter_the_frame_is_sent_immediately_at_its_start() -> None:
    gateways = forwarder()
    gateways.on_datagram(NOW, datagram(2), HERE)
    gateways.transmit(NOW, transmit(NOW + 10 * S, None))
    due_us = gateways.poll_at()
    assert due_us is not None
    assert 0 <= NOW + 10 * S - due_us <= 10_000
    txpk = sent_txpk(gateways.poll(due_us))
    assert txpk["imme"] is True
    assert "tmst" not in txpk


@pytest.mark.parametrize(
    ("pulled_us", "at_us", "tmst_us", "error"),
    [
        (None, NOW + S, 0, "NO_PULL_DATA"),
        (NOW - 121 * S, NOW + S, 0, "UNREACHABLE"),
        (NOW, NOW, 0, "TOO_LATE"),
        (NOW, NOW - S, None, "TOO_LATE"),
    ],
)
def test_what_cannot_be_sent_is_answered_at_once(
    pulled_us: int | None, at_us: int, tmst_us: int | None, error: str
) -> None:
    gateways = forwarder()
    if pulled_us is not None:
        gateways.on_datagram(pulled_us, datagram(2), HERE)
    gateways.transmit(NOW, transmit(at_us, tmst_us))
    output = gateways.poll(NOW)
    assert output.datagrams == []
    assert acks(output) == [TxAck(7, error)]
    assert gateways.poll_at() is None


def test_every_transmit_gets_exactly_one_ack_even_when_far_too_many_come() -> None:
    gateways = forwarder()
    gateways.on_datagram(NOW, datagram(2), HERE)
    for index in range(3000):
        gateways.transmit(NOW, transmit(NOW + S, 0, transmit_id=index))
    output = gateways.poll(NOW)
    tokens = [int.from_bytes(raw[1:3], "big") for raw, _ in output.datagrams]
    assert len(set(tokens)) == len(tokens) == 256
    answered = acks(output)
    for token in tokens[:100]:
        answered += acks(gateways.on_datagram(NOW, datagram(5, token=token), HERE))
        assert acks(gateways.on_datagram(NOW, datagram(5, token=token), HERE)) == []
    answered += acks(gateways.poll(NOW + 2 * S))
    assert sorted(ack.transmit_id for ack in answered) == list(range(3000))
    assert sum(ack.error is None for ack in answered) == 100
    assert sum(ack.error == "NO_TX_ACK" for ack in answered) == 156
    assert gateways.poll_at() is None


def test_a_power_that_the_gateway_has_not_is_lowered_until_it_takes_the_frame() -> None:
    """Goal: the SX1301's forwarder, which refuses a power missing in its table, sends all the same.  Method:
    a table as Semtech ships it, with an antenna of 3 dBi; the second frame knows what the first one found."""
    table = {power + 3 for power in (-6, -3, 0, 3, 6, 10, 11, 12, 13, 14, 16, 20, 23, 25, 26, 27)}
    gateways = forwarder()
    gateways.on_datagram(NOW, datagram(2), HERE)
    asked: list[int] = []

    def answer(now_us: int, output: Output[Any]) -> list[TxAck]:
        """What the forwarder says to each offer, until it has nothing to say."""
        said = acks(output)
        for raw, _ in output.datagrams:
            power = json.loads(raw[4:])["txpk"]["powe"]
            asked.append(power)
            body = b"" if power in table else b'{"txpk_ack":{"error":"TX_POWER"}}'
            told = datagram(5, body, token=int.from_bytes(raw[1:3], "big"))
            said += answer(now_us + 5000, gateways.on_datagram(now_us + 5000, told, HERE))
        return said

    for at_us, number in ((NOW, 7), (NOW, 8), (NOW + 86_401 * S, 9)):  # a day later it is asked anew
        gateways.on_datagram(at_us, datagram(2), HERE)
        gateways.transmit(at_us, replace(transmit(at_us + S, 0, transmit_id=number), power_dbm=22.4))
        assert answer(at_us, gateways.poll(at_us)) == [TxAck(number)]
    assert asked == [22, 21, 20, 19, 19, 22, 21, 20, 19] and refusals(gateways) == {"power_lowered": 6}


def test_without_time_or_a_power_that_it_has_the_frame_is_refused() -> None:
    gateways = forwarder()
    gateways.on_datagram(NOW, datagram(2), HERE)
    refused = b'{"txpk_ack":{"error":"TX_POWER"}}'
    gateways.transmit(NOW, transmit(NOW + S, 0))
    output, offers = gateways.poll(NOW), 0
    while output.datagrams:
        ((raw, _),) = output.datagrams
        offers += 1
        told = datagram(5, refused, token=int.from_bytes(raw[1:3], "big"))
        output = gateways.on_datagram(NOW, told, HERE)
    assert (offers, acks(output)) == (13, [TxAck(7, "TX_POWER")])
    gateways.transmit(NOW, transmit(NOW + S, 0))
    ((raw, _),) = gateways.poll(NOW).datagrams
    late = datagram(5, refused, token=int.from_bytes(raw[1:3], "big"))
    assert acks(gateways.on_datagram(NOW + S - 70_000, late, HERE)) == [TxAck(7, "TX_POWER")]
    gateways.transmit(NOW, transmit(NOW + S, None))  # one that goes at once, for 100 ms behind its start
    output = gateways.poll(NOW + S)
    for late_us, offered in ((60_000, 1), (120_000, 0)):
        token = int.from_bytes(output.datagrams[0][0][1:3], "big")
        output = gateways.on_datagram(NOW + S + late_us, datagram(5, refused, token=token), HERE)
        assert len(output.datagrams) == offered
    assert acks(output) == [TxAck(7, "TX_POWER")]


def test_a_tx_ack_of_another_gateway_does_not_count() -> None:
    gateways = forwarder()
    gateways.on_datagram(NOW, datagram(2), HERE)
    gateways.transmit(NOW, transmit(NOW + S, 0))
    ((raw, _),) = gateways.poll(NOW).datagrams
    token = int.from_bytes(raw[1:3], "big")
    assert acks(gateways.on_datagram(NOW, datagram(5, eui="00" * 8, token=token), HERE)) == []
    assert acks(gateways.on_datagram(NOW, datagram(5, b"\0" * 4, token=token), HERE)) == [TxAck(7)]


# -- the counter -------------------------------------------------------------------------------------


@pytest.mark.parametrize("drift_ppm", [-50, 0, 50])
def test_the_counter_map_follows_wraps_drift_and_delays(drift_ppm: int) -> None:
    """Ten hours (8 wraps) of packets with delays of 2 to 80 ms: never more than 50 ms off."""
    rng = random.Random(drift_ppm)
    counter = CounterMap()
    worst_us = 0
    for index in range(600):
        true_us = index * 60 * S
        tmst_us = (3_000_000_000 + true_us + true_us * drift_ppm // 1_000_000) % (1 << 32)
        delay_us = rng.choice((2_000, 5_000, 80_000))
        at_us = counter.observe(NOW + true_us + delay_us, tmst_us)
        if index > 3:
            worst_us = max(worst_us, abs(at_us - NOW - true_us))
            error_us = (counter.counter_us(NOW + true_us) - tmst_us + (1 << 31)) % (1 << 32) - (1 << 31)
            worst_us = max(worst_us, abs(error_us))
    assert worst_us <= 50_000


def test_one_absurd_packet_does_not_move_the_map_but_a_restart_does() -> None:
    counter = CounterMap()
    counter.observe(NOW, 1_000_000_000)
    assert counter.observe(NOW + S, 42) == NOW + S
    assert abs(counter.counter_us(NOW + S) - 1_001_000_000) < 1000
    assert counter.observe(NOW + 2 * S, 1_002_000_000) == NOW + 2 * S
    counter.observe(NOW + 3 * S, 500)
    counter.observe(NOW + 4 * S, 500 + S)
    assert abs(counter.counter_us(NOW + 4 * S) - (500 + S)) < 1000

"""ChirpStack v4 and The Things Stack v3: their documented messages, fields that are absent, hostile JSON."""

from __future__ import annotations

import base64
import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.radios import chirpstack, things_stack
from gateway.radios.network_server import (
    REASONS,
    DownlinkFate,
    ServerJoin,
    unix_us,
)
from swarm.effects import ApplicationUplink, Malformed
from swarm.phy.regions import region

VECTORS = Path(__file__).parents[2].parent / "shared" / "vectors"
EU868 = region("eu868")
EUI = "0101010101010101"
CHIRPSTACK_UP = f"application/17c82e96/device/{EUI}/event/up"
THINGS_UP = "v3/app1@ttn/devices/dev1/up"


def recorded(name: str) -> Any:
    path = VECTORS / name
    if not path.is_file():
        pytest.skip("the documents' examples are not at hand (../shared)")
    return json.loads(path.read_text())


def chirpstack_up(**changes: Any) -> bytes:
    event: dict[str, Any] = {
        "time": "2026-07-18T09:34:15.775023242+00:00",
        "deviceInfo": {"devEui": EUI},
        "devAddr": "00189440",
        "fCnt": 7,
        "fPort": 12,
        "data": "qg==",
        "rxInfo": [{"gatewayId": "0016c001f153a14c", "rssi": -36, "snr": 10.5}],
        "txInfo": {
            "frequency": 867_100_000,
            "modulation": {"lora": {"bandwidth": 125_000, "spreadingFactor": 11}},
        },
    } | changes
    return json.dumps({name: value for name, value in event.items() if value is not ...}).encode()


def things_up(**changes: Any) -> bytes:
    uplink: dict[str, Any] = {
        "session_key_id": "AXA50",
        "f_cnt": 7,
        "f_port": 12,
        "frm_payload": "qg==",
        "rx_metadata": [
            {"gateway_ids": {"gateway_id": "g1", "eui": "9C5C8E00001A05C4"}, "rssi": -35, "snr": 5}
        ],
        "settings": {
            "data_rate": {"lora": {"bandwidth": 125_000, "spreading_factor": 7}},
            "frequency": "868300000",
        },
        "received_at": "2026-02-12T15:15:45.9Z",
    } | changes
    uplink = {name: value for name, value in uplink.items() if value is not ...}
    identifiers = {"device_id": "dev1", "dev_eui": EUI, "dev_addr": "00BCB929"}
    message = {"end_device_ids": identifiers, "received_at": "2026-02-12T15:15:46Z", "uplink_message": uplink}
    return json.dumps(message).encode()


def up(read: object) -> ApplicationUplink:
    assert isinstance(read, ApplicationUplink), read
    return read


# -- the documents' own examples ---------------------------------------------------------------------


def test_every_event_of_chirpstack_s_documentation_is_read() -> None:
    document, kinds = recorded("chirpstack_v4_json.json"), set()
    for example in document["events"]:
        kind = example["heading"].split("`")[1]
        for event in (example["json"], example.get("canonical_json_from_protobuf")):
            if event is None:
                continue
            eui = event["deviceInfo"]["devEui"]
            topic = document["topics"]["event"].format(APPLICATION_ID="17c8", DEV_EUI=eui, EVENT=kind)
            read = chirpstack.parse(EU868, topic, json.dumps(event).encode())
            assert not isinstance(read, Malformed), (kind, read)
            kinds.add(kind)
            if kind == "up":
                assert (up(read).dev_eui, up(read).device) == (eui, eui)
                assert up(read).payload == base64.b64decode(event.get("data", ""))
                assert (up(read).f_port, up(read).f_cnt) == (event.get("fPort", 0), event.get("fCnt", 0))
                assert up(read).gateway_id == event["rxInfo"][0]["gatewayId"]
                assert up(read).data_rate == event.get("dr", 0)
            elif kind == "join":
                assert read == ServerJoin(eui, eui)
            elif kind == "ack":
                assert read == DownlinkFate(event["queueItemId"], "ack")
            elif kind == "txack":
                assert read == DownlinkFate(event["queueItemId"], "sent")
    assert "up" in kinds or "join" in kinds
    for command in document["commands"]:
        _, ours = chirpstack.downlink("17c8", EUI, 1, f_port=10, payload=b"")
        assert set(json.loads(ours)) - {"id"} <= set(command["json"])


def test_every_message_of_the_things_stack_s_documentation_is_read() -> None:
    uplinks = 0
    for examples in recorded("tts_v3_json.json")["files"].values():
        for message in (example["json"] for example in examples):
            if not isinstance(message, dict) or "end_device_ids" not in message:
                continue
            device = message["end_device_ids"]["device_id"]
            kinds = {"uplink_message": "up", "join_accept": "join"}
            kinds |= {
                f"downlink_{stage}": f"down/{stage}" for stage in ("queued", "sent", "ack", "nack", "failed")
            }
            kind = next((kinds[name] for name in kinds if name in message), None)
            if kind is None or "dev_eui" not in message["end_device_ids"]:
                continue
            read = things_stack.parse(EU868, f"v3/app1/devices/{device}/{kind}", json.dumps(message).encode())
            assert not isinstance(read, Malformed), (message, read)
            if kind != "up":
                continue
            uplinks += 1
            said = message["uplink_message"]
            assert up(read).dev_eui == message["end_device_ids"]["dev_eui"].lower()
            assert up(read).payload == base64.b64decode(said.get("frm_payload", ""))
            assert (up(read).f_port, up(read).f_cnt) == (said.get("f_port", 0), said.get("f_cnt", 0))
            assert up(read).frequency_hz == int(said["settings"]["frequency"])
    assert uplinks > 0


# -- uplinks -----------------------------------------------------------------------------------------


def test_fields_that_are_zero_are_absent() -> None:
    gone = dict.fromkeys(("fCnt", "fPort", "data", "rxInfo"), ...)
    read = up(chirpstack.parse(EU868, CHIRPSTACK_UP, chirpstack_up(**gone, txInfo={})))
    assert (read.f_cnt, read.f_port, read.payload, read.data_rate, read.confirmed) == (0, 0, b"", 0, False)
    assert (read.gateway_id, read.rssi_dbm, read.snr_db, read.frequency_hz) == ("", 0.0, 0.0, None)
    gone = dict.fromkeys(("f_cnt", "f_port", "frm_payload", "rx_metadata", "settings", "session_key_id"), ...)
    read = up(things_stack.parse(EU868, THINGS_UP, things_up(**gone)))
    assert (read.f_cnt, read.f_port, read.payload, read.data_rate, read.session) == (
        0,
        0,
        b"",
        None,
        "00BCB929",
    )


def test_the_best_copy_speaks_for_the_signal_and_time_keeps_its_microseconds() -> None:
    copies = [
        {"gatewayId": "01" * 8, "rssi": -30, "snr": -3},
        {"gatewayId": "02" * 8, "rssi": -90, "snr": 9.5},
        {"gatewayId": "03" * 8, "snr": 1},
    ]
    read = up(chirpstack.parse(EU868, CHIRPSTACK_UP, chirpstack_up(rxInfo=copies)))
    assert (read.gateway_id, read.rssi_dbm, read.snr_db) == ("02" * 8, -90.0, 9.5)
    assert (read.at_us, read.data_rate, read.frequency_hz) == (1_784_367_255_775_023, 1, 867_100_000)
    read = up(things_stack.parse(EU868, THINGS_UP, things_up()))
    assert (read.gateway_id, read.data_rate, read.frequency_hz) == ("9c5c8e00001a05c4", 5, 868_300_000)
    assert read.at_us == unix_us("2026-02-12T15:15:45.900Z") == unix_us("2026-02-12T16:15:45.900000+01:00")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"deviceInfo": ...}, "field_missing"),
        ({"deviceInfo": {"devEui": "02" * 8}}, "identity"),
        ({"deviceInfo": {"devEui": "zz"}}, "identity"),
        ({"deviceInfo": []}, "field_type"),
        ({"fCnt": -1}, "field_range"),
        ({"fCnt": 1 << 32}, "field_range"),
        ({"fCnt": "7"}, "field_type"),
        ({"fCnt": 7.0}, "field_type"),
        ({"fPort": 256}, "field_range"),
        ({"data": "q"}, "base64"),
        ({"data": "qg=!"}, "base64"),
        ({"data": "AAAA" * 200}, "field_range"),
        ({"data": 5}, "field_type"),
        ({"time": "yesterday"}, "time"),
        ({"time": "0001-01-01T00:00:00Z"}, "time"),
        ({"time": "2026-02-31T00:00:00Z"}, "time"),
        ({"time": ...}, "field_missing"),
        ({"rxInfo": [1]}, "field_type"),
        ({"rxInfo": [{"rssi": 1e9}]}, "field_range"),
        ({"txInfo": {"modulation": {"lora": {"spreadingFactor": 12, "bandwidth": 500_000}}}}, "data_rate"),
        ({"txInfo": {}, "dr": 14}, "data_rate"),
        ({"confirmed": "yes"}, "field_type"),
        ({"devAddr": "\ud800"}, "field_range"),
    ],
)
def test_what_is_no_uplink_is_refused_with_a_reason(changes: dict[str, Any], reason: str) -> None:
    read = chirpstack.parse(EU868, CHIRPSTACK_UP, chirpstack_up(**changes))
    assert isinstance(read, Malformed) and read.reason == reason


def test_topics_and_simulated_uplinks_are_judged() -> None:
    for topic in ("", "application/x/device/1/event/up", CHIRPSTACK_UP + "/x", "a" * 70_000):
        read = chirpstack.parse(EU868, topic, chirpstack_up())
        assert isinstance(read, Malformed) and read.reason == "topic"
    read = things_stack.parse(EU868, "v3/app1/devices/dev2/up", things_up())
    assert isinstance(read, Malformed) and read.reason == "identity"
    simulated = json.dumps(json.loads(things_up()) | {"simulated": True}).encode()
    read = things_stack.parse(EU868, THINGS_UP, simulated)
    assert isinstance(read, Malformed) and read.reason == "simulated"
    assert chirpstack.parse(EU868, CHIRPSTACK_UP[:-2] + "status", b"{}") is None
    assert things_stack.parse(EU868, "v3/app1/devices/dev1/service/data", b"{}") is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["deviceInfo", "fCnt", "fPort", "data", "time", "rxInfo", "txInfo", "context"]), _JSON
    ),
    st.sampled_from(["up", "join", "ack", "txack", "log", "strange"]),
)
def test_no_json_makes_chirpstack_s_reader_raise(changes: dict[str, Any], kind: str) -> None:
    read = chirpstack.parse(EU868, CHIRPSTACK_UP[:-2] + kind, chirpstack_up(**changes))
    assert not isinstance(read, Malformed) or read.reason in REASONS


@given(
    st.dictionaries(
        st.sampled_from(["f_cnt", "f_port", "frm_payload", "received_at", "rx_metadata", "settings"]), _JSON
    ),
    st.binary(max_size=64),
    st.sampled_from(["up", "join", "down/ack", "down/failed"]),
)
def test_no_json_makes_the_things_stack_s_reader_raise(
    changes: dict[str, Any], data: bytes, kind: str
) -> None:
    topic = THINGS_UP[:-2] + kind
    for payload in (things_up(**changes), data, b'{"end_device_ids":{"device_id":"dev1"},"downlink_ack":3}'):
        read = things_stack.parse(EU868, topic, payload)
        assert not isinstance(read, Malformed) or read.reason in REASONS


# -- downlinks ---------------------------------------------------------------------------------------


def test_a_downlink_goes_to_its_device_and_its_fate_comes_back_under_our_reference() -> None:
    topic, message = chirpstack.downlink("17c8", EUI, 5, f_port=11, payload=b"\xbe\xef")
    command = json.loads(message)
    assert topic == f"application/17c8/device/{EUI}/command/down"
    assert (command["devEui"], command["fPort"], command["data"]) == (EUI, 11, "vu8=")
    assert command["confirmed"] is False and uuid.UUID(command["id"]).version == 8
    event = {"deviceInfo": {"devEui": EUI}, "queueItemId": command["id"]}
    read = chirpstack.parse(EU868, CHIRPSTACK_UP[:-2] + "txack", json.dumps(event).encode())
    assert read == DownlinkFate(chirpstack.reference_of(5), "sent")
    log = {
        "deviceInfo": {"devEui": EUI},
        "level": "ERROR",
        "code": "DOWNLINK_PAYLOAD_SIZE",
        "context": {"queue_item_id": command["id"]},
    }
    read = chirpstack.parse(EU868, CHIRPSTACK_UP[:-2] + "log", json.dumps(log).encode())
    assert read == DownlinkFate(command["id"], "failed", "DOWNLINK_PAYLOAD_SIZE")
    topic, message = things_stack.downlink("app1@ttn", "dev1", 5, f_port=11, payload=b"\xbe\xef")
    (told,) = json.loads(message)["downlinks"]
    assert topic == "v3/app1@ttn/devices/dev1/down/push"
    assert told == {"f_port": 11, "frm_payload": "vu8=", "priority": "NORMAL", "correlation_ids": ["swarm:5"]}
    failed = {
        "end_device_ids": {"device_id": "dev1"},
        "downlink_failed": {"downlink": told, "error": {"name": "application_downlink_too_long"}},
    }
    read = things_stack.parse(EU868, THINGS_UP[:-2] + "down/failed", json.dumps(failed).encode())
    assert read == DownlinkFate("swarm:5", "failed", "application_downlink_too_long")
    foreign = {"end_device_ids": {"device_id": "dev1"}, "downlink_ack": {"correlation_ids": ["as:1"]}}
    assert things_stack.parse(EU868, THINGS_UP[:-2] + "down/ack", json.dumps(foreign).encode()) is None


@given(st.integers(0, 2**122 - 1), st.integers(0, 2**122 - 1))
def test_references_are_uuids_and_differ(one: int, other: int) -> None:
    made = uuid.UUID(chirpstack.reference_of(one))
    assert (made.version, made.variant) == (8, uuid.RFC_4122)
    assert (one == other) == (chirpstack.reference_of(one) == chirpstack.reference_of(other))

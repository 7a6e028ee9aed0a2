"""LoRa Basics Station: texts recorded from the real one, hostile ones, its times and its silences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.radios import lns
from gateway.radios.basics_station import (
    COUNTERS,
    PENDING_MAX,
    STATIONS_MAX,
    BasicsStations,
    Connection,
)
from gateway.radios.radio import GatewayHeard, Output
from gateway.radios.router_config import channels_of, router_config
from swarm.effects import Malformed, Purpose, RxFrame, Transmit, TxAck
from swarm.phy.regions import REGION_NAMES, region
from swarm.wire import lorawan

VECTORS = Path(__file__).parents[2].parent / "shared" / "vectors" / "basicstation_recorded.json"
EUI = "0016c001f153a14c"
HERE = Connection(1, EUI)
S = 1_000_000
NOW = 1_790_000_000 * S
SESSION = 0x00DF << 48
XTIME = SESSION + 0xFFF0_0000  # the lower 32 bits wrap about a second later

needs_vectors = pytest.mark.skipif(not VECTORS.is_file(), reason="recorded texts are not at hand (../shared)")


def text(**fields: Any) -> bytes:
    return json.dumps({name: value for name, value in fields.items() if value is not ...}).encode()


def updf(xtime: int = XTIME, **changes: Any) -> bytes:
    upinfo = {"rctx": 3, "xtime": xtime, "gpstime": 0, "fts": -1, "rssi": -97, "snr": 7.25, "rxtime": 1.5}
    fields: dict[str, Any] = {
        "msgtype": "updf",
        "MHdr": 0x40,
        "DevAddr": -0x1234567,
        "FCtrl": 0x82,
        "FCnt": 0xBEEF,
        "FOpts": "0307",
        "FPort": 12,
        "FRMPayload": "0A0b",
        "MIC": -2,
        "RefTime": 0.0,
        "DR": 5,
        "Freq": 868_100_000,
        "upinfo": upinfo,
    }
    if isinstance(changes.get("upinfo"), dict):
        changes["upinfo"] = upinfo | changes["upinfo"]
    return text(**fields | changes)


def version(**changes: Any) -> bytes:
    return text(msgtype="version", station="2.0.6", protocol=2, features="rmtsh gps", **changes)


def stations(**options: Any) -> BasicsStations:
    return BasicsStations(region("eu868"), **options)


def connected(now_us: int = NOW, **options: Any) -> BasicsStations:
    made = stations(**options)
    assert made.on_datagram(now_us, version(), HERE).datagrams
    return made


def transmit(at_us: int, tmst_us: int | None, transmit_id: int = 7, gateway_id: str = EUI) -> Transmit:
    return Transmit(
        transmit_id, gateway_id, b"\x60" * 20, at_us, tmst_us, 869_525_000, 3, 14.9, 200_000, Purpose.ACK
    )


def sent(output: Output[Connection], kind: str = "dnmsg") -> list[dict[str, Any]]:
    texts = [json.loads(data) for data, _ in output.datagrams if data]
    return [each for each in texts if each.get("msgtype") == kind]


def acks(output: Output[Connection]) -> list[TxAck]:
    return [one for one in output.inputs if isinstance(one, TxAck)]


def frame(output: Output[Connection]) -> RxFrame:
    (found,) = [one for one in output.inputs if isinstance(one, RxFrame)]
    return found


# -- recorded texts ----------------------------------------------------------------------------------


@needs_vectors
def test_every_recorded_text_of_a_station_is_understood() -> None:
    made, heard, confirmed = connected(), 0, []
    for index, each in enumerate(json.loads(VECTORS.read_text())["messages"]):
        message = each["msg"]
        if each["dir"] != "station->lns":
            continue
        output = made.on_datagram(NOW + index * S, json.dumps(message).encode(), HERE)
        if message["msgtype"] == "updf":
            received = frame(output)
            parsed = lorawan.parse(received.payload)
            assert isinstance(parsed, lorawan.DataFrame)
            assert (parsed.dev_addr, parsed.f_cnt) == (message["DevAddr"] % 2**32, message["FCnt"])
            assert (parsed.f_port, parsed.frm_payload.hex()) == (message["FPort"], message["FRMPayload"])
            assert int.from_bytes(parsed.mic, "little") == message["MIC"] % 2**32
            assert (received.frequency_hz, received.data_rate) == (message["Freq"], message["DR"])
            assert received.tmst_us == message["upinfo"]["xtime"] % 2**32
            assert (received.rssi_dbm, received.snr_db) == (-50.0, 9.0)
            heard += 1
        elif message["msgtype"] == "dntxed":
            confirmed.append(lns.parse(json.dumps(message).encode()))
    assert heard > 0
    assert confirmed == [lns.Sent(number) for number in range(len(confirmed))]
    assert made.counters["dntxed_unknown"] == len(confirmed)  # they confirm another server's downlinks
    assert {made.counters[reason] for reason in lns.REASONS} == {0}


@needs_vectors
def test_our_plan_says_what_the_recorded_one_says() -> None:
    recorded = json.loads(VECTORS.read_text())["router_config"]
    ours = router_config(region("eu868"), channels_of(region("eu868")), 0.0)
    for name in ("msgtype", "DRs", "freq_range", "hwspec", "JoinEui", "NetID", "bcning", "protocol"):
        assert ours[name] == recorded[name], name
    (conf,) = ours["sx1301_conf"]  # type: ignore[misc]
    assert set(conf) == set(recorded["sx1301_conf"][0])


# -- the codec ---------------------------------------------------------------------------------------


def test_fields_become_the_frame_that_was_on_the_air() -> None:
    made = lns.parse(updf())
    assert isinstance(made, lns.Heard)
    assert made.payload.hex() == "40" + "99badcfe" + "82" + "efbe" + "0307" + "0c" + "0a0b" + "feffffff"
    empty = lns.parse(updf(FPort=-1, FRMPayload="", FCtrl=0, FOpts=""))
    assert isinstance(empty, lns.Heard) and len(empty.payload) == 12
    join = lns.parse(
        updf(
            msgtype="jreq",
            MHdr=0,
            JoinEui="01-02-03-04-05-06-07-08",
            DevEui="70-B3-D5-7E-D0-00-00-01",
            DevNonce=513,
            MIC=1,
        )
    )
    assert isinstance(join, lns.Heard)
    request = lorawan.parse(join.payload)
    assert isinstance(request, lorawan.JoinRequest)
    assert (request.join_eui, request.dev_eui) == ("0102030405060708", "70b3d57ed0000001")
    assert (request.dev_nonce, request.mic) == (513, b"\1\0\0\0")
    proprietary = lns.parse(updf(msgtype="propdf", FRMPayload="e0ff"))
    assert isinstance(proprietary, lns.Heard) and proprietary.payload == b"\xe0\xff"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"msgtype": "updff"}, "msgtype"),
        ({"msgtype": 7}, "field_type"),
        ({"msgtype": ...}, "field_missing"),
        ({"msgtype": "dndf"}, "dn_frame"),
        ({"msgtype": "jacc"}, "dn_frame"),
        ({"MHdr": 256}, "field_range"),
        ({"DevAddr": 1 << 32}, "field_range"),
        ({"DevAddr": 1.0}, "field_type"),
        ({"FCnt": True}, "field_type"),
        ({"FCnt": -1}, "field_range"),
        ({"FOpts": "03"}, "f_opts_size"),
        ({"FOpts": "030"}, "hex"),
        ({"FRMPayload": "0g"}, "hex"),
        ({"FRMPayload": "00" * 256}, "field_range"),
        ({"FRMPayload": "00" * 250}, "field_range"),
        ({"FPort": -1}, "field_missing"),
        ({"MIC": ...}, "field_missing"),
        ({"MIC": "1"}, "field_type"),
        ({"DR": 16}, "field_range"),
        ({"Freq": 868.1}, "field_type"),
        ({"upinfo": {"xtime": 0}}, "field_range"),
        ({"upinfo": {"snr": "9"}}, "field_type"),
        ({"msgtype": "jreq", "JoinEui": "01-02", "DevEui": "x", "DevNonce": 1}, "eui"),
    ],
)
def test_what_makes_no_frame_is_counted(changes: dict[str, Any], reason: str) -> None:
    made = connected()
    output = made.on_datagram(NOW, updf(**changes), HERE)
    assert (output.datagrams, output.inputs, made.counters[reason]) == ([], [], 1)
    assert [(refusal.gateway_id, refusal.reason) for refusal in output.refused] == [(HERE.gateway_id, reason)]


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_no_bytes_raise(data: bytes) -> None:
    message = lns.parse(data)
    assert not isinstance(message, Malformed) or message.reason in lns.REASONS


@given(
    st.dictionaries(
        st.sampled_from(
            ["msgtype", "MHdr", "DevAddr", "FCtrl", "FOpts", "FPort", "upinfo", "diid", "xtimes"]
        ),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
            ),
            max_leaves=6,
        ),
    ),
    st.sampled_from(["updf", "jreq", "propdf", "dntxed", "timesync", "getxtime", "version", "dndf"]),
)
def test_no_fields_raise(changes: dict[str, Any], kind: str) -> None:
    made = connected()
    made.on_datagram(NOW, updf(**{"msgtype": kind} | changes), HERE)
    made.on_datagram(NOW, updf(**changes | {"msgtype": kind}), HERE)
    assert set(made.counters) == set(COUNTERS)


def test_nesting_and_double_keys_are_refused() -> None:
    for data in (b'{"msgtype":"version","msgtype":"updf"}', b"[" * 5000, b'{"a":' * 3000, b"[]", b"NaN"):
        assert lns.parse(data) == Malformed("json", lns.parse(data).detail)  # type: ignore[union-attr]
    assert lns.parse(b" " * 20_000) == Malformed("text_size", "20000 bytes")


@pytest.mark.parametrize(
    ("router", "eui"),
    [
        ("16-C0-01-F1-53-A1-4C-00", "16c001f153a14c00"),
        ("0016c001f153a14c", "0016c001f153a14c"),
        ("16:c001:f153:a14c", "0016c001f153a14c"),
        ("::1", "0000000000000001"),
        ("b827:ebff::", "b827ebff00000000"),
        ("b827::1", "b827000000000001"),
        ("::", "0000000000000000"),
        ("1:2:3", None),
        ("1:2:3:4:5", None),
        ("1::2::3", None),
        ("1:2::3:4", None),
        ("12345::1", None),
        ("", None),
    ],
)
def test_a_station_finds_its_way(router: str, eui: str | None) -> None:
    answer, found = lns.discovery(text(router=router), "ws://gateway.lan:1887")
    assert found == eui
    if eui is None:
        assert "eui" in json.loads(answer)["error"]
    else:
        uri = json.loads(answer)["uri"]
        assert (json.loads(answer)["router"], uri) == (router, f"ws://gateway.lan:1887/router/{eui}")


# -- plans -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REGION_NAMES)
def test_every_region_has_a_plan_that_a_concentrator_can_do(name: str) -> None:
    area = region(name)
    channels = channels_of(area)
    plan: Any = router_config(area, channels, 0.0)
    (conf,) = plan["sx1301_conf"]
    radios = [conf["radio_0"], conf["radio_1"]]
    received = {
        radios[slot["radio"]]["freq"] + slot["if"]
        for key, slot in conf.items()
        if key.startswith("chan_") and slot["enable"] and radios[slot["radio"]]["enable"]
    }
    assert received == {channel.frequency_hz for channel in channels}
    assert all(abs(slot.get("if", 0)) <= 400_000 for key, slot in conf.items() if "multiSF" in key)
    assert 2 <= len(channels) <= 9 and sorted(each[0] for each in plan["upchannels"]) == sorted(received)
    assert len(plan["DRs"]) == 16
    for channel in channels:  # the station's data-rate numbers of uplinks are the region's
        for index in range(channel.data_rate_min, min(channel.data_rate_max, 7) + 1):
            rate = area.uplink_data_rates[index]
            assert plan["DRs"][index] == [rate.spreading_factor, rate.bandwidth_hz // 1000, 0]
    low, high = plan["freq_range"]
    assert low <= area.rx2_frequency_hz <= high
    assert plan["DRs"][area.rx2_data_rate][0] >= 7
    # A name that the station does not know would make it drop every downlink.
    assert plan["region"] in {"EU863", "US902", "AU915", "KR920", "AS923-1"}


def test_the_spreading_factors_5_and_6_are_not_taken_for_fsk() -> None:
    plan: Any = router_config(region("eu868"), channels_of(region("eu868")), 0.0)
    assert region("eu868").data_rates[12].spreading_factor == 6
    assert plan["DRs"][12] == [-1, 0, 0] and plan["DRs"][7] == [0, 0, 0]


def test_channels_can_be_chosen() -> None:
    us = region("us915")
    first = channels_of(us, [902_300_000 + 200_000 * number for number in range(8)] + [903_000_000])
    plan: Any = router_config(us, first, 0.0)
    assert plan["sx1301_conf"][0]["chan_Lora_std"]["bandwidth"] == 500_000
    with pytest.raises(ValueError, match="868100000 Hz is no uplink channel"):
        channels_of(us, [868_100_000])
    with pytest.raises(ValueError, match="8 channels"):
        channels_of(us, [902_300_000 + 200_000 * number for number in range(9)])
    with pytest.raises(ValueError, match="too far apart"):
        channels_of(us, [902_300_000, 904_300_000, 908_300_000])


# -- connections -------------------------------------------------------------------------------------


def test_a_version_is_answered_by_the_plan_and_makes_a_gateway() -> None:
    made = stations()
    output = made.on_datagram(NOW, version(), HERE)
    ((_, to),) = output.datagrams
    assert to == HERE and sent(output, "router_config")[0]["MuxTime"] == NOW / 1e6
    said = {"station": "2.0.6", "features": "rmtsh gps"}
    assert output.inputs == [GatewayHeard(EUI, said)]
    assert made.snapshot() == [
        {
            "gateway_id": EUI,
            "heard_us": NOW,
            "address": "connected",
            "packets": 0,
            "known": False,
            "status": said,
        }
    ]
    assert made.on_datagram(NOW, b"", HERE) == Output()
    assert made.snapshot()[0]["address"] is None and not made.serves(EUI)


@pytest.mark.parametrize(
    ("features", "blocks"), [("rmtsh prod gps", True), ("rmtsh gps", False), ("", False)]
)
def test_a_production_build_is_known_to_keep_a_duty_cycle_of_its_own(features: str, blocks: bool) -> None:
    made = stations()
    output = made.on_datagram(NOW, text(msgtype="version", station="2.0.6", features=features), HERE)
    assert [one.blocks for one in output.inputs if isinstance(one, GatewayHeard)] == [blocks]
    assert sent(output, "router_config")[0]["nodc"] is True  # heeded by test builds only


def test_a_station_before_2_0_6_is_not_asked_for_its_radio_s_time() -> None:
    made = stations()
    made.on_datagram(NOW, text(msgtype="version", station="2.0.5(linux/std)"), HERE)
    due_us = made.poll_at()
    assert due_us is not None
    output = made.poll(due_us)
    assert output.datagrams == [] and [type(one) for one in output.inputs] == [GatewayHeard]


def test_a_quiet_station_lives_as_long_as_its_connection() -> None:
    made = connected()
    for _ in range(3):
        due_us = made.poll_at()
        assert due_us is not None
        output = made.poll(due_us)
        assert [type(one) for one in output.inputs] == [GatewayHeard] and sent(output, "getxtime")
    made.on_datagram(NOW, b"", HERE)
    assert made.poll_at() is None


def test_nothing_is_taken_before_the_version_nor_from_an_older_connection() -> None:
    made = stations()
    assert made.on_datagram(NOW, updf(), HERE) == Output()
    made.on_datagram(NOW, version(), HERE)
    newer = Connection(2, EUI)
    output = made.on_datagram(NOW, version(), newer)
    assert (b"", HERE) in output.datagrams  # which is to be closed
    assert made.on_datagram(NOW, updf(), HERE) == Output()
    made.on_datagram(NOW, b"", HERE)  # and its end is not the newer one's
    assert frame(made.on_datagram(NOW, updf(), newer)).gateway_id == EUI
    assert (made.counters["stale"], made.counters["replaced"]) == (2, 1)


def test_strangers_are_kept_out_by_name_and_the_table_is_bounded() -> None:
    made = stations(allowed=["0016C001F153A14C"])
    other = Connection(9, "0000000000000009")
    assert made.on_datagram(NOW, version(), other).datagrams == [(b"", other)]
    assert made.on_datagram(NOW, version(), HERE).inputs
    made = stations()
    for number in range(STATIONS_MAX):
        made.on_datagram(NOW + number, version(), Connection(number, f"{number:016x}"))
    late = Connection(5000, "ffffffffffffffff")
    assert made.on_datagram(NOW + S, version(), late).datagrams == [(b"", late)]
    assert made.counters["table_full"] == 1
    for number in (3, 4):
        made.on_datagram(NOW + S, b"", Connection(number, f"{number:016x}"))
    made.accepted(f"{3:016x}")
    assert made.on_datagram(NOW + 2 * S, version(), late).inputs
    left = {row["gateway_id"] for row in made.snapshot()}
    assert f"{3:016x}" in left and f"{4:016x}" not in left


def test_time_is_told() -> None:
    made = connected()
    output = made.on_datagram(NOW, text(msgtype="timesync", txtime=123_456), HERE)
    (answer,) = sent(output, "timesync")
    # 1 September 2026, 18 leap seconds since 1980: 1 790 000 000 - 315 964 800 + 18.
    assert (answer["txtime"], answer["gpstime"]) == (123_456, 1_474_035_218 * S)


# -- downlinks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay_s", [1, 2, 5, 6, 15, 16])
def test_an_answer_goes_back_with_the_time_and_the_antenna_of_its_uplink(delay_s: int) -> None:
    made = connected()
    made.on_datagram(NOW, updf(XTIME - 500_000, upinfo={"rctx": 1}), HERE)
    heard = frame(made.on_datagram(NOW, updf(), HERE))
    made.on_datagram(NOW, updf(XTIME + 250_000, upinfo={"rctx": 2}), HERE)
    at_us = heard.at_us + delay_s * S
    made.transmit(NOW, transmit(at_us, (heard.tmst_us + delay_s * S) & 0xFFFF_FFFF))
    (message,) = sent(made.poll(max(NOW, at_us - 2 * S)))
    assert message["xtime"] + message["RxDelay"] * S == XTIME + delay_s * S
    assert 1 <= message["RxDelay"] <= 15 and message["rctx"] == 3
    assert (message["dC"], message["diid"], message["pdu"]) == (0, 7, "60" * 20)
    assert (message["RX1Freq"], message["RX1DR"]) == (869_525_000, 3)
    assert "RX2Freq" not in message and int(message["DevEui"].replace("-", ""), 16) != 0


def test_a_class_c_frame_is_given_its_instant_by_the_radio_s_time() -> None:
    made = connected()
    made.on_datagram(NOW, updf(), HERE)
    at_us = NOW + 50 * 60 * S  # 50 minutes on: the lower 32 bits alone would be ambiguous
    made.transmit(NOW, transmit(at_us, None))
    assert sent(made.poll(at_us - S)) == []
    (message,) = sent(made.poll(at_us - S // 2))
    exact_us = XTIME + 50 * 60 * S
    drift_us = 50 * 60 * 60  # 60 us a second
    assert exact_us - drift_us <= message["xtime"] + message["RxDelay"] * S <= exact_us
    made.on_datagram(at_us, text(msgtype="getxtime", xtimes=[XTIME + 51 * 60 * S, 0, 0, 0]), HERE)
    made.transmit(at_us, transmit(at_us + 60 * S, None, 8))
    (message,) = sent(made.poll(at_us + 60 * S - S // 2))
    assert message["diid"] == 8
    # The station's clock is a minute ahead of what was thought: one sample is not believed.
    assert abs(message["xtime"] + S - (exact_us + 60 * S)) < drift_us + 10_000


def test_without_a_known_time_a_frame_is_handed_over_just_before_its_start() -> None:
    made = connected()
    made.transmit(NOW, transmit(NOW + 10 * S, None))
    assert sent(made.poll(NOW + 9 * S)) == []
    due_us = NOW + 10 * S - 80_000
    (message,) = sent(made.poll(due_us))
    assert message["dC"] == 2 and "xtime" not in message
    assert (message["RX2Freq"], message["RX2DR"]) == (869_525_000, 3)
    assert made.counters["counter_unknown"] == 1


def test_dntxed_is_the_word_and_silence_is_one_too() -> None:
    made = connected()
    heard = frame(made.on_datagram(NOW, updf(), HERE))
    for diid in (7, 8):
        made.transmit(NOW, transmit(NOW + S, (heard.tmst_us + S) & 0xFFFF_FFFF, diid))
    made.poll(NOW)
    output = made.on_datagram(NOW + S + 5_000, text(msgtype="dntxed", seqno=7, diid=7), HERE)
    assert acks(output) == [TxAck(7)]
    assert acks(made.on_datagram(NOW + S, text(msgtype="dntxed", diid=7), HERE)) == []
    over_us = NOW + S + 200_000 + 2 * S
    assert acks(made.poll(over_us - 1)) == []
    assert acks(made.poll(over_us)) == [TxAck(8, "NO_DNTXED")]
    assert acks(made.on_datagram(over_us, text(msgtype="dntxed", diid=8), HERE)) == []
    assert (made.counters["dntxed_missing"], made.counters["dntxed_unknown"]) == (1, 2)


def test_a_connection_lost_in_between_leaves_the_frame_s_fate_unknown() -> None:
    made = connected()
    heard = frame(made.on_datagram(NOW, updf(), HERE))
    made.transmit(NOW, transmit(NOW + S, (heard.tmst_us + S) & 0xFFFF_FFFF))
    made.poll(NOW)
    made.on_datagram(NOW + 1, b"", HERE)
    made.on_datagram(NOW + 2, version(), Connection(2, EUI))
    assert acks(made.poll(NOW + 4 * S)) == [TxAck(7, "NO_TX_ACK")]


def test_what_cannot_be_sent_is_refused_once_with_its_reason() -> None:
    made = connected()
    heard = frame(made.on_datagram(NOW, updf(), HERE))
    made.transmit(NOW, transmit(NOW + S, heard.tmst_us + S + 1, 1))
    made.transmit(NOW, transmit(NOW + S, heard.tmst_us + S, 2, "00000000000000ff"))
    made.transmit(NOW, transmit(NOW - 1, heard.tmst_us + S, 3))
    output = made.poll(NOW)
    assert {(ack.transmit_id, ack.error) for ack in acks(output)} == {
        (1, "UPLINK_UNKNOWN"),
        (2, "UNREACHABLE"),
        (3, "TOO_LATE"),
    }
    for number in range(PENDING_MAX + 1):
        made.transmit(NOW, transmit(NOW + S, (heard.tmst_us + S) & 0xFFFF_FFFF, 100 + number))
    assert acks(made.poll(NOW)) == [TxAck(100 + PENDING_MAX, "QUEUE_FULL")]
    # A new session of the radio: what it heard before cannot be answered any more.
    made.on_datagram(NOW, version(), HERE)
    made.transmit(NOW, transmit(NOW + S, heard.tmst_us + S, 900))
    assert TxAck(900, "QUEUE_FULL") in acks(made.poll(NOW))

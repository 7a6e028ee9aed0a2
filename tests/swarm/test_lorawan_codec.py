"""The LoRaWAN codec: published frames both ways, hostile bytes, MAC commands, channel lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.effects import Malformed
from swarm.security.lorawan import (
    AesKey,
    cipher_payload,
    data_mic,
    open_join_accept,
    seal_join_accept,
    session_keys,
)
from swarm.wire import lorawan

VECTORS = json.loads(
    (Path(__file__).resolve().parent.parent / "vectors" / "lorawan_phy.json").read_text(encoding="utf-8")
)
DATA: list[dict[str, Any]] = VECTORS["data"]
JOINS: list[dict[str, Any]] = VECTORS["joins"]
FRAMES = [bytes.fromhex(v["phy_payload"]) for v in DATA] + [
    bytes.fromhex(j["join_request_phy"]) for j in JOINS
]
FRAMES += [bytes.fromhex(join["join_accept_phy_encrypted"]) for join in JOINS]


@pytest.mark.parametrize("vector", DATA, ids=lambda vector: vector["name"])
def test_data_vectors_are_read(vector: dict[str, Any]) -> None:
    """Goal: read what other stacks send.  Method: parse, check the MIC, decrypt; every field compared."""
    uplink = vector["direction"] == "up"
    frame = (lorawan.parse if uplink else lorawan.parse_downlink)(bytes.fromhex(vector["phy_payload"]))
    assert isinstance(frame, lorawan.DataFrame)
    flags = vector["fctrl"]
    assert (frame.dev_addr, frame.f_cnt) == (int(vector["dev_addr"], 16), vector["fcnt16"])
    assert frame.confirmed == vector["mtype"].startswith("Confirmed")
    assert (frame.adr, frame.adr_ack_req, frame.ack) == (flags["ADR"], flags["ADRACKReq"], flags["ACK"])
    assert frame.bit4 == flags["FPending"]
    assert (frame.f_opts.hex(), frame.f_port) == (vector["fopts"], vector["fport"])
    assert frame.frm_payload.hex() == vector["frm_payload_encrypted"]
    way: dict[str, Any] = {"uplink": uplink, "dev_addr": frame.dev_addr, "f_cnt": vector["fcnt32"]}
    nwk, app = (AesKey(bytes.fromhex(vector[name])) for name in ("nwk_s_key", "app_s_key"))
    assert data_mic(nwk, frame.signed, **way) == frame.mic == bytes.fromhex(vector["mic"])
    key = nwk if frame.f_port == 0 else app
    assert cipher_payload(key, frame.frm_payload, **way).hex() == vector["payload"]


@pytest.mark.parametrize("vector", DATA, ids=lambda vector: vector["name"])
def test_data_vectors_are_written(vector: dict[str, Any]) -> None:
    """Goal: other stacks read what we send.  Method: encrypt, encode, sign; every byte compared."""
    uplink = vector["direction"] == "up"
    way: dict[str, Any] = {
        "uplink": uplink,
        "dev_addr": int(vector["dev_addr"], 16),
        "f_cnt": vector["fcnt32"],
    }
    nwk, app = (AesKey(bytes.fromhex(vector[name])) for name in ("nwk_s_key", "app_s_key"))
    f_port = vector["fport"]
    flags = vector["fctrl"]
    signed = lorawan.encode_data(
        **way,
        f_port=f_port,
        frm_payload=cipher_payload(nwk if f_port == 0 else app, bytes.fromhex(vector["payload"]), **way),
        confirmed=vector["mtype"].startswith("Confirmed"),
        adr=flags["ADR"],
        adr_ack_req=flags["ADRACKReq"],
        ack=flags["ACK"],
        bit4=flags["FPending"],
        f_opts=bytes.fromhex(vector["fopts"]),
    )
    assert (signed + data_mic(nwk, signed, **way)).hex() == vector["phy_payload"]


@pytest.mark.parametrize("join", JOINS, ids=lambda join: join["name"])
def test_join_vectors_both_ways(join: dict[str, Any]) -> None:
    """Goal: the whole activation, as device and as network.  Method: both frames, both keys, all fields."""
    key = AesKey(bytes.fromhex(join["app_key"]))
    dev_nonce = int(join["dev_nonce"], 16)
    request = lorawan.parse(bytes.fromhex(join["join_request_phy"]))
    assert isinstance(request, lorawan.JoinRequest)
    assert (request.join_eui, request.dev_eui) == (join["join_eui"], join["dev_eui"])
    assert (request.dev_nonce, key.mic(request.signed)) == (dev_nonce, request.mic)
    signed = lorawan.encode_join_request(join["join_eui"], join["dev_eui"], dev_nonce)
    assert (signed + key.mic(signed)).hex() == join["join_request_phy"]

    sealed = lorawan.parse_downlink(bytes.fromhex(join["join_accept_phy_encrypted"]))
    assert isinstance(sealed, lorawan.SealedJoinAccept)
    plain = open_join_accept(key, sealed.sealed)
    assert plain is not None
    assert plain.hex() == join["join_accept_plain"][:-8]
    accept = lorawan.parse_join_accept(plain)
    assert isinstance(accept, lorawan.JoinAccept)
    assert (accept.join_nonce, accept.net_id) == (int(join["join_nonce"], 16), int(join["net_id"], 16))
    assert (accept.dev_addr, accept.cf_list.hex()) == (int(join["dev_addr"], 16), join["cf_list"])
    assert accept.rx1_dr_offset << 4 | accept.rx2_data_rate == int(join["dl_settings"], 16)
    assert accept.rx1_delay_s == int(join["rx_delay"], 16)
    assert lorawan.encode_join_accept(accept) == plain
    assert seal_join_accept(key, plain).hex() == join["join_accept_phy_encrypted"]
    keys = session_keys(key, join_nonce=accept.join_nonce, net_id=accept.net_id, dev_nonce=dev_nonce)
    assert [k.hex() for k in keys] == [join["nwk_s_key"], join["app_s_key"]]


HOSTILE = {
    "empty": ("", "size"),
    "eleven_bytes": ("40" + "00" * 10, "size"),
    "256_bytes": ("40" + "00" * 255, "size"),
    "major_1": ("41" + "00" * 20, "major"),
    "rejoin": ("c0" + "00" * 18, "rejoin"),
    "proprietary": ("e0" + "00" * 30, "proprietary"),
    "downlink": ("60" + "00" * 20, "direction"),
    "join_accept": ("20" + "00" * 16, "direction"),
    "join_request_short": ("00" + "00" * 21, "size"),
    "join_request_long": ("00" + "00" * 23, "size"),
    "f_opts_beyond_the_end": ("40" + "00000000" + "01" + "0000" + "00000000", "size"),
    "f_opts_into_the_mic": ("40" + "00000000" + "0f" + "0000" + "00" * 18, "size"),
    "port_0_with_f_opts": ("40" + "00000000" + "01" + "0000" + "02" + "00" + "02" + "00000000", "f_opts"),
}


@pytest.mark.parametrize(("text", "reason"), HOSTILE.values(), ids=HOSTILE.keys())
def test_bytes_that_are_no_uplink_get_their_reason(text: str, reason: str) -> None:
    """Goal: the gateway can say why it dropped a frame.  Method: one example of each refusal."""
    result = lorawan.parse(bytes.fromhex(text))
    assert isinstance(result, Malformed)
    assert result.reason == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [("40" + "00" * 20, "direction"), ("00" + "00" * 22, "direction"), ("20" + "00" * 17, "size")],
)
def test_bytes_that_are_no_downlink_get_their_reason(text: str, reason: str) -> None:
    """Goal: a device ignores other devices' uplinks and join accepts of a wrong length."""
    result = lorawan.parse_downlink(bytes.fromhex(text))
    assert isinstance(result, Malformed)
    assert result.reason == reason


def check_any(payload: bytes) -> None:
    """Whatever the bytes: a frame that encodes back, or one of the known reasons."""
    for parser in (lorawan.parse, lorawan.parse_downlink):
        result = parser(payload)
        if isinstance(result, Malformed):
            assert result.reason in lorawan.REASONS
        elif isinstance(result, lorawan.DataFrame):
            assert result.signed + result.mic == payload
            again = lorawan.encode_data(
                uplink=result.uplink,
                dev_addr=result.dev_addr,
                f_cnt=result.f_cnt,
                f_port=result.f_port,
                frm_payload=result.frm_payload,
                confirmed=result.confirmed,
                adr=result.adr,
                adr_ack_req=result.adr_ack_req,
                ack=result.ack,
                bit4=result.bit4,
                f_opts=result.f_opts,
            )
            reserved = payload[0] & 0x1C or (not result.uplink and payload[5] & 0x40)
            assert reserved or again == result.signed
        elif isinstance(result, lorawan.JoinRequest):
            again = lorawan.encode_join_request(result.join_eui, result.dev_eui, result.dev_nonce)
            assert payload[0] & 0x1C or again == result.signed


@given(st.binary(max_size=300))
def test_any_bytes_never_raise(payload: bytes) -> None:
    """Goal: the air cannot crash us.  Method: arbitrary bytes to both parsers."""
    check_any(payload)


@given(
    st.sampled_from(FRAMES),
    st.integers(0, 5000),
    st.integers(0, 255),
    st.sampled_from(["set", "cut", "grow"]),
)
def test_damaged_frames_never_raise(frame: bytes, at: int, value: int, how: str) -> None:
    """Goal: near-valid bytes cannot either.  Method: published frames with a byte set, cut, or grown."""
    raw = bytearray(frame)
    if how == "set":
        raw[at % len(raw)] = value
    elif how == "cut":
        del raw[at % len(raw) :]
    else:
        raw += bytes([value]) * (at % 40)
    check_any(bytes(raw))


def test_a_frame_without_f_port_carries_commands_only() -> None:
    """Goal: MAC-command-only frames are fine.  Method: FOpts 0..15 without FPort, both directions."""
    for size in range(16):
        signed = lorawan.encode_data(uplink=True, dev_addr=5, f_cnt=9, f_port=None, f_opts=bytes([2]) * size)
        frame = lorawan.parse(signed + b"mic!")
        assert isinstance(frame, lorawan.DataFrame)
        assert (frame.f_port, frame.frm_payload, len(frame.f_opts)) == (None, b"", size)


def test_an_empty_payload_behind_an_f_port_is_kept_apart_from_no_f_port() -> None:
    """Goal: FPort 1 with nothing behind is a payload of zero bytes, as other stacks have it."""
    frame = lorawan.parse(lorawan.encode_data(uplink=True, dev_addr=5, f_cnt=9, f_port=1) + b"mic!")
    assert isinstance(frame, lorawan.DataFrame)
    assert (frame.f_port, frame.frm_payload) == (1, b"")


@pytest.mark.parametrize(
    "wrong",
    [
        {"f_port": 1, "f_opts": bytes(16)},
        {"f_port": None, "frm_payload": b"x"},
        {"f_port": 0, "f_opts": b"\x02"},
        {"f_port": 1, "frm_payload": bytes(243)},
        {"f_port": 1, "frm_payload": bytes(240), "f_opts": bytes(3)},
    ],
    ids=repr,
)
def test_the_encoder_refuses_frames_that_do_not_exist(wrong: dict[str, Any]) -> None:
    """Goal: a programming error does not reach the air."""
    with pytest.raises(ValueError):
        lorawan.encode_data(uplink=True, dev_addr=1, f_cnt=1, **wrong)


def test_mac_commands_are_split_and_the_unknown_rest_is_counted() -> None:
    """Goal: unknown commands are skipped safely.  Method: known ones, a foreign one, a cut one."""
    known, skipped = lorawan.mac_commands(bytes.fromhex("0205010302aabbccdd06"), uplink=False)
    assert [(c.cid, c.payload.hex()) for c in known] == [(2, "0501"), (3, "02aabbcc")]
    assert skipped == 2  # 0xdd is no command, and what stands behind it cannot be known
    assert lorawan.mac_commands(b"\x02\x05", uplink=False) == ((), 2)
    assert lorawan.mac_commands(b"\x02\x0d", uplink=True)[1] == 0
    assert lorawan.mac_commands(b"", uplink=True) == ((), 0)


@given(st.binary(max_size=242), st.booleans())
def test_mac_commands_account_for_every_byte(data: bytes, uplink: bool) -> None:
    """Goal: no byte is lost or read twice.  Method: any bytes."""
    commands, skipped = lorawan.mac_commands(data, uplink=uplink)
    assert b"".join(bytes([c.cid]) + c.payload for c in commands) == data[: len(data) - skipped]


def test_cf_list_carries_the_european_channels() -> None:
    """Goal: five extra channels reach the device.  Method: the CFList of the published join, and our own."""
    published = bytes.fromhex(next(join["cf_list"] for join in JOINS if join["cf_list"]))
    channels = (867_100_000, 867_300_000, 867_500_000, 867_700_000, 867_900_000)
    assert lorawan.cf_list_channels(published) == channels
    assert lorawan.cf_list_of(channels) == published
    assert lorawan.cf_list_channels(lorawan.cf_list_of((868_800_000,))) == (868_800_000,)
    assert lorawan.cf_list_channels(b"\xff" * 15 + b"\x01") == ()
    with pytest.raises(ValueError):
        lorawan.cf_list_of((1,) * 6)


def test_join_accept_limits() -> None:
    """Goal: settings that have no place in the bits are refused; RxDelay 0 means one second."""
    accept = lorawan.JoinAccept(1, 2, 3, 0, 0, 0)
    assert lorawan.parse_join_accept(lorawan.encode_join_accept(accept)) == lorawan.JoinAccept(
        1, 2, 3, 0, 0, 1
    )
    for wrong in ((8, 0, 1), (0, 16, 1), (0, 0, 16)):
        with pytest.raises(ValueError):
            lorawan.encode_join_accept(lorawan.JoinAccept(1, 2, 3, *wrong))
    with pytest.raises(ValueError):
        lorawan.encode_join_accept(lorawan.JoinAccept(1, 2, 3, 0, 0, 1, b"short"))
    with pytest.raises(ValueError):
        lorawan.encode_join_request("abcd", "0" * 16, 1)
    assert isinstance(lorawan.parse_join_accept(b"\x20" * 14), Malformed)

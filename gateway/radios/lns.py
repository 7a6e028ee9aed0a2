"""LoRa Basics Station's LNS protocol: websocket texts to messages and back, no state, no I/O.

A station asks `/router-info` where its server is (`discovery`), connects there, says its `version`, is
configured by `router_config`, and then reports what it hears.  It takes frames apart into JSON fields, which
are put together here into the PHYPayload that was on the air: DevAddr and MIC are signed 32-bit numbers,
FPort -1 stands for none.

Texts from outside become a message or a `Malformed` whose reason is one of `REASONS`; nothing raises.

Source: the Station itself, version 2.0.6 (s2e.c, lora.c, tc.c), and texts recorded from it.  Its
`dntxed` comes only for downlinks whose DevEui is not zero, so each has one, the same made-up one: our
frames are known by `diid`.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.radios import json_object
from gateway.radios.json_object import JsonObject, Unreadable
from swarm.effects import Malformed

__all__ = [
    "REASONS",
    "TEXT_SIZE_MAX",
    "Counters",
    "Heard",
    "Sent",
    "TimeAsked",
    "Version",
    "discovery",
    "downlink",
    "encode",
    "get_xtime",
    "parse",
    "time_answer",
]

TEXT_SIZE_MAX = 16_384
"""A station's longest text is an uplink of 255 bytes: about 1 kB."""
REASONS = (*json_object.REASONS, "text_size", "msgtype", "dn_frame", "eui", "f_opts_size", "uri_size")
PAYLOAD_SIZE_MAX = 255
UNITS_MAX = 4
URI_SIZE_MAX = 127
DEV_EUI = "01-01-01-01-01-01-01-01"
GPS_EPOCH_UNIX_US = 315_964_800_000_000
GPS_LEAP_US = 18_000_000

_INT32 = (-(1 << 31), (1 << 32) - 1)  # signed as stations write it; unsigned is understood too
_INT64 = (-(1 << 63), (1 << 63) - 1)
_VERSION_TEXTS = ("station", "firmware", "package", "model", "features")
_PRINTABLE = re.compile(r"[ -~]{1,64}")
_EUI = re.compile(r"[0-9A-Fa-f]{2}(?:[-:][0-9A-Fa-f]{2}){7}|[0-9A-Fa-f]{16}")
_ID6_GROUP = re.compile(r"[0-9A-Fa-f]{0,4}")


@dataclass(frozen=True, slots=True)
class Version:
    """What a station is: the first thing it says; `said` is for people."""

    said: Mapping[str, float | str]
    protocol: int


@dataclass(frozen=True, slots=True)
class Heard:
    """One frame; `xtime_us` is its end on the radio's 64-bit time, whose upper 16 bits name radio and
    session.

    `rctx` is the antenna, to be given back with the answer.
    """

    payload: bytes
    xtime_us: int
    rctx: int
    frequency_hz: int
    data_rate: int
    rssi_dbm: float
    snr_db: float


@dataclass(frozen=True, slots=True)
class Sent:
    """The downlink with this `diid` is on the air."""

    diid: int


@dataclass(frozen=True, slots=True)
class TimeAsked:
    """The station wants GPS time; `txtime_us` is its own clock's, to be given back."""

    txtime_us: int


@dataclass(frozen=True, slots=True)
class Counters:
    """The radios' present times, in answer to `get_xtime`; 0 where one is not known."""

    xtimes_us: tuple[int, ...]


Message = Version | Heard | Sent | TimeAsked | Counters


def parse(text: bytes) -> Message | Malformed:
    """Read one text of a station; never raises."""
    if not 0 < len(text) <= TEXT_SIZE_MAX:
        return Malformed("text_size", f"{len(text)} bytes")
    try:
        message = JsonObject.parse(text)
        kind = message.text("msgtype", 64)
        match kind:
            case "updf":
                return _heard(message, _data_frame(message))
            case "jreq" | "rejoin":
                return _heard(message, _join_request(message))
            case "propdf":
                return _heard(message, message.hexadecimal("FRMPayload", PAYLOAD_SIZE_MAX))
            case "dntxed":
                # Stations of before 2.0 know it as seqno; later ones give both.
                return Sent(message.integer("diid" if "diid" in message else "seqno", *_INT64))
            case "timesync":
                return TimeAsked(message.integer("txtime", *_INT64))
            case "getxtime":
                return Counters(tuple(message.integers("xtimes", UNITS_MAX, *_INT64)))
            case "version":
                return Version(_said(message), message.integer("protocol", 0, 1000, 0))
            case "dndf" | "jacc":
                return Malformed("dn_frame", kind)  # another gateway's downlink
            case _:
                return Malformed("msgtype", f"{kind!r:.40}")
    except Unreadable as unreadable:
        return unreadable.malformed


def discovery(text: bytes, base_uri: str) -> tuple[bytes, str | None]:
    """The answer to what a station says on `/router-info`, and the station's EUI if it may go on.

    `base_uri` is `ws://HOST:PORT` or `wss://HOST:PORT`, as the station reached us; the station goes on to
    `/router/EUI` there.
    """
    try:
        if len(text) > TEXT_SIZE_MAX:
            raise Unreadable("text_size")
        router = JsonObject.parse(text).text("router", 64)
        eui = _router_eui(router)
        uri = f"{base_uri}/router/{eui}"
        if len(uri) > URI_SIZE_MAX:
            raise Unreadable("uri_size", "the station takes 127 bytes at most")
    except Unreadable as unreadable:
        why = unreadable.malformed
        return encode({"error": f"{why.reason} {why.detail}".strip()}), None
    return encode({"router": router, "muxs": "::0", "uri": uri}), eui


def downlink(
    diid: int,
    *,
    payload: bytes,
    frequency_hz: int,
    data_rate: int,
    uplink_xtime_us: int | None,
    rctx: int | None,
    delay_s: int,
    mux_time_s: float,
) -> bytes:
    """A `dnmsg` with one place to be sent at: `delay_s` (1..15) after `uplink_xtime_us`, or else at once.

    Only the place that our scheduler chose is named.  The station would move a frame of class C in steps of
    100 ms, and a second one of class A by a second, and our ledger and our other gateways would not know.
    """
    message: dict[str, object] = {
        "msgtype": "dnmsg",
        "DevEui": DEV_EUI,
        "diid": diid,
        "pdu": payload.hex(),
        "RxDelay": delay_s,
        "priority": 0,
        "MuxTime": mux_time_s,
    }
    if uplink_xtime_us is None:
        message |= {"dC": 2, "RX2DR": data_rate, "RX2Freq": frequency_hz}
    else:
        message |= {"dC": 0, "RX1DR": data_rate, "RX1Freq": frequency_hz, "xtime": uplink_xtime_us}
        if rctx is not None:
            message["rctx"] = rctx
    return encode(message)


def time_answer(asked: TimeAsked, unix_us: int) -> bytes:
    """The answer to `timesync`: GPS time in microseconds, and the same instant in Unix seconds."""
    gps_us = unix_us - GPS_EPOCH_UNIX_US + GPS_LEAP_US
    return encode(
        {"msgtype": "timesync", "txtime": asked.txtime_us, "gpstime": gps_us, "MuxTime": unix_us / 1e6}
    )


def get_xtime(unix_us: int) -> bytes:
    """Ask for the radios' present times; stations before 2.0.6 ignore it."""
    return encode({"msgtype": "getxtime", "MuxTime": unix_us / 1e6})


def encode(message: Mapping[str, object]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode("ascii")


def _heard(message: JsonObject, payload: bytes) -> Heard:
    if not 0 < len(payload) <= PAYLOAD_SIZE_MAX:
        raise Unreadable("field_range", "FRMPayload")
    upinfo = message.inner("upinfo")
    return Heard(
        payload=payload,
        xtime_us=upinfo.integer("xtime", 1, _INT64[1]),
        rctx=upinfo.integer("rctx", *_INT64, 0),
        frequency_hz=message.integer("Freq", 100_000_000, 3_000_000_000),
        data_rate=message.integer("DR", 0, 15),
        rssi_dbm=upinfo.number("rssi", -200, 50),
        snr_db=upinfo.number("snr", -50, 50),
    )


def _data_frame(message: JsonObject) -> bytes:
    f_ctrl = message.integer("FCtrl", 0, 255)
    f_opts = message.hexadecimal("FOpts", 15, "")
    if len(f_opts) != f_ctrl & 15:
        raise Unreadable("f_opts_size")
    f_port = message.integer("FPort", -1, 255, -1)
    frm_payload = message.hexadecimal("FRMPayload", PAYLOAD_SIZE_MAX, "")
    if f_port < 0 and frm_payload:
        raise Unreadable("field_missing", "FPort")
    head = struct.pack(
        "<BIBH",
        message.integer("MHdr", 0, 255),
        message.integer("DevAddr", *_INT32) & 0xFFFF_FFFF,
        f_ctrl,
        message.integer("FCnt", 0, 0xFFFF),
    )
    body = f_opts + (bytes((f_port,)) if f_port >= 0 else b"") + frm_payload
    return head + body + _mic(message)


def _join_request(message: JsonObject) -> bytes:
    euis = (_eui(message, name)[::-1] for name in ("JoinEui", "DevEui"))
    nonce = message.integer("DevNonce", 0, 0xFFFF).to_bytes(2, "little")
    return bytes((message.integer("MHdr", 0, 255),)) + b"".join(euis) + nonce + _mic(message)


def _mic(message: JsonObject) -> bytes:
    return (message.integer("MIC", *_INT32) & 0xFFFF_FFFF).to_bytes(4, "little")


def _eui(message: JsonObject, name: str) -> bytes:
    """An EUI in the order in which it is written, or as a station writes those: 01-02-03-04-05-06-07-08."""
    text = message.text(name if name in message else name.replace("Eui", "EUI"), 23)
    if _EUI.fullmatch(text) is None:
        raise Unreadable("eui", name)
    return bytes.fromhex(text.replace("-", "").replace(":", ""))


def _router_eui(text: str) -> str:
    """A station's own EUI as 16 digits; it may be written as ID6, four groups with `::` for zeros."""
    if _EUI.fullmatch(text):
        return text.replace("-", "").replace(":", "").lower()
    halves = text.split("::")
    groups = [half.split(":") if half else [] for half in halves]
    given = [group for half in groups for group in half]
    if len(halves) > 2 or not all(group and _ID6_GROUP.fullmatch(group) for group in given):
        raise Unreadable("eui", f"{text!r:.40}")
    missing = 4 - len(given)
    if missing < 0 or (missing > 0) != (len(halves) == 2):
        raise Unreadable("eui", f"{text!r:.40}")
    zeros = ["0"] * missing
    return "".join(group.zfill(4) for group in [*groups[0], *zeros, *(groups[1] if missing else [])]).lower()


def _said(message: JsonObject) -> dict[str, float | str]:
    """What a version says that can be shown; other things are left out, not refused."""
    said: dict[str, float | str] = {}
    for name in _VERSION_TEXTS:
        try:
            text = message.text(name, 64, "")
        except Unreadable:
            continue
        if _PRINTABLE.fullmatch(text):
            said[name] = text
    return said

"""Semtech's gateway message protocol, version 2: datagrams to messages and back, no state, no I/O.

Bytes from outside become a message or a `Malformed` whose reason is one of `REASONS`; nothing raises.
One bad packet in a datagram costs only itself: `PushData.refused` names it beside the good ones.

The documents (PROTOCOL.TXT, PROTOCOL.md) and the forwarders in the field differ.  What is accepted
here beyond the documents: base64 without padding and in either alphabet, unknown fields, a TX_ACK
without a body (that is how success is reported) or padded with NULs, `rssis` where `rssi` is missing.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from gateway.radios.json_object import Unreadable, parse_object
from swarm.effects import Malformed

__all__ = [
    "DATAGRAM_SIZE_MAX",
    "REASONS",
    "RXPK_MAX",
    "Kind",
    "Packet",
    "PullData",
    "PushData",
    "TxAcknowledged",
    "acknowledge",
    "parse",
    "pull_resp",
]

PROTOCOL_VERSION = 2
DATAGRAM_SIZE_MAX = 16_384  # 30 of the largest packets; a forwarder's own buffer is about 9 kB
RXPK_MAX = 64
HEADER_SIZE = 4
EUI_SIZE = 8
PAYLOAD_SIZE_MAX = 255
TMST_MAX = 0xFFFF_FFFF

REASONS = (
    "datagram_size",
    "version",
    "kind",
    "json",
    "rxpk_shape",
    "rxpk_count",
    "crc",
    "modulation",
    "field_missing",
    "field_type",
    "field_range",
    "data_rate",
    "base64",
    "size_mismatch",
    "stat_shape",
    "tx_ack_shape",
)

_DATR = re.compile(r"SF([0-9]{1,2})BW([0-9]{1,4})")
_ERROR_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,31}")
_TIME_TEXT = re.compile(r"[0-9A-Za-z:.+ -]{1,40}")
_STANDARD_ALPHABET = str.maketrans("-_", "+/")
_BANDWIDTHS_KHZ = (125, 250, 500)
_STAT_NUMBERS = ("lati", "long", "alti", "rxnb", "rxok", "rxfw", "ackr", "dwnb", "txnb", "temp")


class Kind(IntEnum):
    """The fourth byte of each datagram."""

    PUSH_DATA = 0
    PUSH_ACK = 1
    PULL_DATA = 2
    PULL_RESP = 3
    PULL_ACK = 4
    TX_ACK = 5


@dataclass(frozen=True, slots=True)
class Packet:
    """One LoRa packet with a good CRC; `tmst_us` is the end of the packet on the gateway's counter."""

    payload: bytes
    tmst_us: int
    frequency_hz: int
    spreading_factor: int
    bandwidth_hz: int
    rssi_dbm: float
    snr_db: float


@dataclass(frozen=True, slots=True)
class PushData:
    """Packets and/or a status report; `refused` are the parts that were not understood."""

    token: int
    gateway_id: str
    packets: tuple[Packet, ...] = ()
    status: Mapping[str, float | str] | None = None
    refused: tuple[Malformed, ...] = ()


@dataclass(frozen=True, slots=True)
class PullData:
    """The gateway's keep-alive: its source address is where downlinks go."""

    token: int
    gateway_id: str


@dataclass(frozen=True, slots=True)
class TxAcknowledged:
    """The gateway's word on a PULL_RESP of the same token: None means it was taken for sending."""

    token: int
    gateway_id: str
    error: str | None = None
    warning: str | None = None


@dataclass(slots=True)
class _Refusal(Exception):
    """Carries a `Malformed` out of the nested readers of this module; never leaves it."""

    malformed: Malformed = field(default_factory=lambda: Malformed("json"))


def parse(datagram: bytes) -> PushData | PullData | TxAcknowledged | Malformed:
    """Read one datagram of a gateway; never raises."""
    if not HEADER_SIZE <= len(datagram) <= DATAGRAM_SIZE_MAX:
        return Malformed("datagram_size", f"{len(datagram)} bytes")
    if datagram[0] != PROTOCOL_VERSION:
        return Malformed("version", f"version {datagram[0]}")
    kind = datagram[3]
    if kind not in (Kind.PUSH_DATA, Kind.PULL_DATA, Kind.TX_ACK):
        return Malformed("kind", f"type {kind}")
    if len(datagram) < HEADER_SIZE + EUI_SIZE:
        return Malformed("datagram_size", f"{len(datagram)} bytes")
    token = int.from_bytes(datagram[1:3], "big")
    gateway_id = datagram[HEADER_SIZE : HEADER_SIZE + EUI_SIZE].hex()
    body = datagram[HEADER_SIZE + EUI_SIZE :]
    if kind == Kind.PULL_DATA:
        return PullData(token, gateway_id)
    try:
        if kind == Kind.TX_ACK:
            return _tx_ack(token, gateway_id, body)
        return _push_data(token, gateway_id, body)
    except _Refusal as refusal:
        return refusal.malformed


def acknowledge(kind: Kind, token: int) -> bytes:
    """The PUSH_ACK or PULL_ACK that answers a datagram with this token."""
    return bytes((PROTOCOL_VERSION, token >> 8, token & 0xFF, kind))


def pull_resp(
    token: int,
    *,
    payload: bytes,
    tmst_us: int | None,
    frequency_hz: int,
    spreading_factor: int,
    bandwidth_hz: int,
    power_dbm: float,
) -> bytes:
    """A downlink datagram; `tmst_us` None asks for immediate sending.

    LoRaWAN downlinks have inverted IQ and no CRC (else nodes neither hear nor accept them); power is
    rounded down to whole dBm because forwarders read an integer, and never up beyond the limit.
    """
    txpk: dict[str, object] = {
        "rfch": 0,
        "powe": math.floor(power_dbm),
        "modu": "LORA",
        "datr": f"SF{spreading_factor}BW{bandwidth_hz // 1000}",
        "codr": "4/5",
        "ipol": True,
        "ncrc": True,
        "freq": frequency_hz / 1e6,
        "size": len(payload),
        "data": base64.b64encode(payload).decode("ascii"),
    }
    if tmst_us is None:
        txpk["imme"] = True
    else:
        txpk["tmst"] = tmst_us
    body = json.dumps({"txpk": txpk}, separators=(",", ":")).encode("ascii")
    return bytes((PROTOCOL_VERSION, token >> 8, token & 0xFF, Kind.PULL_RESP)) + body


def _refuse(reason: str, detail: str = "") -> _Refusal:
    return _Refusal(Malformed(reason, detail))


def _document(body: bytes) -> dict[str, object]:
    try:
        return parse_object(body)
    except Unreadable as unreadable:
        raise _Refusal(unreadable.malformed) from None


def _tx_ack(token: int, gateway_id: str, body: bytes) -> TxAcknowledged:
    body = body.strip(b"\0 \t\r\n")
    if not body:
        return TxAcknowledged(token, gateway_id)
    ack = _document(body).get("txpk_ack", {})
    if not isinstance(ack, dict):
        raise _refuse("tx_ack_shape")
    error, warning = _error_name(ack.get("error")), _error_name(ack.get("warn"))
    return TxAcknowledged(token, gateway_id, error, warning)


def _error_name(value: object) -> str | None:
    if value is None or value == "NONE":
        return None
    if not isinstance(value, str) or _ERROR_NAME.fullmatch(value) is None:
        raise _refuse("tx_ack_shape")
    return value


def _push_data(token: int, gateway_id: str, body: bytes) -> PushData:
    document = _document(body)
    entries = document.get("rxpk", [])
    if not isinstance(entries, list):
        raise _refuse("rxpk_shape")
    refused: list[Malformed] = []
    if len(entries) > RXPK_MAX:
        refused.append(Malformed("rxpk_count", f"{len(entries)} packets"))
    packets: list[Packet] = []
    for entry in entries[:RXPK_MAX]:
        try:
            packets.append(_packet(entry))
        except _Refusal as refusal:
            refused.append(refusal.malformed)
    status: dict[str, float | str] | None = None
    if "stat" in document:
        try:
            status = _status(document["stat"])
        except _Refusal as refusal:
            refused.append(refusal.malformed)
    return PushData(token, gateway_id, tuple(packets), status, tuple(refused))


def _packet(entry: object) -> Packet:
    if not isinstance(entry, dict):
        raise _refuse("rxpk_shape")
    crc = entry.get("stat", 1)
    if type(crc) is not int or crc != 1:
        raise _refuse("crc")
    datr = entry.get("datr")
    if entry.get("modu", "LORA") != "LORA" or type(datr) in (int, float):
        raise _refuse("modulation")  # FSK gives its bit rate as a number
    spreading_factor, bandwidth_hz = _lora_data_rate(datr)
    tmst_us = entry.get("tmst")
    if tmst_us is None:
        raise _refuse("field_missing", "tmst")
    if type(tmst_us) is not int:  # not isinstance: true is no counter value
        raise _refuse("field_type", "tmst")
    if not 0 <= tmst_us <= TMST_MAX:
        raise _refuse("field_range", "tmst")
    rssi = "rssi" if "rssi" in entry else "rssis"
    payload = _payload(entry)
    return Packet(
        payload=payload,
        tmst_us=tmst_us,
        frequency_hz=round(_number(entry, "freq", 100.0, 3000.0) * 1e6),
        spreading_factor=spreading_factor,
        bandwidth_hz=bandwidth_hz,
        rssi_dbm=_number(entry, rssi, -200.0, 50.0),
        snr_db=_number(entry, "lsnr", -50.0, 50.0),
    )


def _lora_data_rate(datr: object) -> tuple[int, int]:
    if datr is None:
        raise _refuse("field_missing", "datr")
    match = _DATR.fullmatch(datr) if isinstance(datr, str) else None
    if match is None:
        raise _refuse("data_rate")
    spreading_factor, bandwidth_khz = int(match[1]), int(match[2])
    if not 5 <= spreading_factor <= 12 or bandwidth_khz not in _BANDWIDTHS_KHZ:
        raise _refuse("data_rate", f"SF{spreading_factor}BW{bandwidth_khz}")
    return spreading_factor, bandwidth_khz * 1000


def _number(entry: dict[str, object], name: str, low: float, high: float) -> float:
    value = entry.get(name)
    if value is None:
        raise _refuse("field_missing", name)
    if type(value) is int or type(value) is float:
        # Compared before any conversion: a 4000-digit integer has no float.
        if low <= value <= high:
            return float(value)
        raise _refuse("field_range", name)
    raise _refuse("field_type", name)


def _payload(entry: dict[str, object]) -> bytes:
    data = entry.get("data")
    if data is None:
        raise _refuse("field_missing", "data")
    if not isinstance(data, str):
        raise _refuse("field_type", "data")
    text = data.rstrip("=")
    if not text:
        raise _refuse("field_range", "data")
    if len(text) > (PAYLOAD_SIZE_MAX * 4 + 2) // 3:
        what = f"a frame of {len(text) * 3 // 4} bytes, and {PAYLOAD_SIZE_MAX} is the most"
        raise _refuse("field_range", f"data: {what}")
    try:
        if "-" in text or "_" in text:
            text = text.translate(_STANDARD_ALPHABET)
        payload = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise _refuse("base64") from None
    size = entry.get("size", len(payload))
    if type(size) is not int or size != len(payload):
        raise _refuse("size_mismatch")
    return payload


def _status(stat: object) -> dict[str, float | str]:
    """The known fields of a status report that make sense; others are left out, not refused."""
    if not isinstance(stat, dict):
        raise _refuse("stat_shape")
    status: dict[str, float | str] = {}
    for name in _STAT_NUMBERS:
        value = stat.get(name)
        if (type(value) is int or type(value) is float) and -1e15 < value < 1e15:
            status[name] = value
    text = stat.get("time")
    if isinstance(text, str) and _TIME_TEXT.fullmatch(text):
        status["time"] = text
    return status

"""LoRaWAN 1.0.4 PHYPayloads: bytes to frames and back, without any cryptography.

`parse` reads what a gateway receives, `parse_downlink` what a device receives; neither raises on any
bytes.  The encoders give the part that is signed; whoever holds the key appends the MIC.

Data frame: MHDR 1 | DevAddr 4 | FCtrl 1 | FCnt 2 | FOpts 0..15 | [FPort 1 | FRMPayload] | MIC 4.
Join request: MHDR 1 | JoinEUI 8 | DevEUI 8 | DevNonce 2 | MIC 4.
Join accept, inside the encryption: JoinNonce 3 | NetID 3 | DevAddr 4 | DLSettings 1 | RxDelay 1 |
[CFList 16].  MAC commands stand in FOpts or, encrypted, in an FPort 0 payload.
All numbers little endian; an EUI is written as 16 hexadecimal digits, most significant first.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from swarm.effects import Malformed
from swarm.phy.airtime import FRAME_OVERHEAD, PHY_SIZE_MAX

__all__ = [
    "DATA_OVERHEAD",
    "FOPTS_MAX",
    "FRM_PAYLOAD_MAX",
    "PHY_MAX",
    "REASONS",
    "DataFrame",
    "JoinAccept",
    "JoinRequest",
    "MacCommand",
    "SealedJoinAccept",
    "cf_list_channels",
    "cf_list_of",
    "encode_data",
    "encode_join_accept",
    "encode_join_request",
    "mac_commands",
    "parse",
    "parse_downlink",
    "parse_join_accept",
]

DATA_OVERHEAD = FRAME_OVERHEAD
"""Bytes around an application payload when FOpts are empty: MHDR, FHDR, FPort, MIC."""
PHY_MAX = PHY_SIZE_MAX
FOPTS_MAX = 15
FRM_PAYLOAD_MAX = 242
_DATA_MIN = 12
_MIC = 4

REASONS = ("size", "major", "direction", "rejoin", "proprietary", "f_opts")
"""Why bytes are refused: a wrong length, an unknown Major version, a frame of the other direction, rejoin
requests (LoRaWAN 1.1) and proprietary frames, FPort 0 together with FOpts."""

_JOIN_REQUEST, _JOIN_ACCEPT, _DATA_UP, _DATA_DOWN, _CONFIRMED_UP, _CONFIRMED_DOWN, _REJOIN, _PROPRIETARY = (
    range(8)
)

_FHDR = struct.Struct("<BIBH")

# Payload sizes of the MAC commands by CID (TS001-1.0.4 section 5); the length of others is unknowable.
_UPLINK_COMMANDS = {0x02: 0, 0x03: 1, 0x04: 0, 0x05: 1, 0x06: 2, 0x07: 1, 0x08: 0, 0x09: 0, 0x0A: 1, 0x0D: 0}
_UPLINK_COMMANDS |= {0x10: 1, 0x11: 1, 0x13: 1}
_DOWNLINK_COMMANDS = {
    0x02: 2,
    0x03: 4,
    0x04: 1,
    0x05: 4,
    0x06: 0,
    0x07: 5,
    0x08: 1,
    0x09: 1,
    0x0A: 4,
    0x0D: 5,
}
_DOWNLINK_COMMANDS |= {0x10: 0, 0x11: 4, 0x12: 3, 0x13: 3}


@dataclass(frozen=True, slots=True)
class DataFrame:
    """A data frame of either direction, still encrypted.

    `f_cnt` holds the 16 bits of the air; `bit4` is FPending on downlinks and ClassB on uplinks;
    `f_port` None means that there is neither FPort nor FRMPayload; `signed` is all before `mic`.
    """

    uplink: bool
    confirmed: bool
    dev_addr: int
    f_cnt: int
    adr: bool
    adr_ack_req: bool
    ack: bool
    bit4: bool
    f_opts: bytes
    f_port: int | None
    frm_payload: bytes
    signed: bytes
    mic: bytes


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """A device asks for a session; `signed` is all before `mic`."""

    join_eui: str
    dev_eui: str
    dev_nonce: int
    signed: bytes
    mic: bytes


@dataclass(frozen=True, slots=True)
class SealedJoinAccept:
    """A join accept as received: only the device that asked can open it."""

    sealed: bytes


@dataclass(frozen=True, slots=True)
class JoinAccept:
    """What the network grants: address, receive windows (`rx1_delay_s` 1..15) and more channels."""

    join_nonce: int
    net_id: int
    dev_addr: int
    rx1_dr_offset: int
    rx2_data_rate: int
    rx1_delay_s: int
    cf_list: bytes = b""


@dataclass(frozen=True, slots=True)
class MacCommand:
    """One MAC command: its CID and the bytes behind it."""

    cid: int
    payload: bytes


def parse(payload: bytes) -> JoinRequest | DataFrame | Malformed:
    """What a device sent."""
    refusal = _refused(payload)
    if refusal is not None:
        return refusal
    kind = payload[0] >> 5
    if kind in (_DATA_UP, _CONFIRMED_UP):
        return _parse_data(payload, uplink=True, confirmed=kind == _CONFIRMED_UP)
    if kind == _JOIN_REQUEST:
        return _parse_join_request(payload)
    return Malformed("direction", "a downlink where an uplink was expected")


def parse_downlink(payload: bytes) -> SealedJoinAccept | DataFrame | Malformed:
    """What the network sent."""
    refusal = _refused(payload)
    if refusal is not None:
        return refusal
    kind = payload[0] >> 5
    if kind in (_DATA_DOWN, _CONFIRMED_DOWN):
        return _parse_data(payload, uplink=False, confirmed=kind == _CONFIRMED_DOWN)
    if kind == _JOIN_ACCEPT:
        return SealedJoinAccept(payload) if len(payload) in (17, 33) else Malformed("size", "join accept")
    return Malformed("direction", "an uplink where a downlink was expected")


def _refused(payload: bytes) -> Malformed | None:
    """What is wrong before the kind of frame matters."""
    if not _DATA_MIN <= len(payload) <= PHY_MAX:
        return Malformed("size", f"{len(payload)} B")
    if payload[0] & 3:
        return Malformed("major", f"Major {payload[0] & 3}")
    kind = payload[0] >> 5
    if kind == _PROPRIETARY:
        return Malformed("proprietary")
    return Malformed("rejoin") if kind == _REJOIN else None


def _parse_data(payload: bytes, *, uplink: bool, confirmed: bool) -> DataFrame | Malformed:
    _, dev_addr, control, f_cnt = _FHDR.unpack_from(payload)
    f_opts_end = 8 + (control & 0x0F)
    body_end = len(payload) - _MIC
    if f_opts_end > body_end:
        return Malformed("size", f"FOpts of {control & 0x0F} B do not fit")
    f_port = payload[f_opts_end] if f_opts_end < body_end else None
    if f_port == 0 and control & 0x0F:
        return Malformed("f_opts", "FPort 0 together with FOpts")
    return DataFrame(
        uplink,
        confirmed,
        dev_addr,
        f_cnt,
        bool(control & 0x80),
        uplink and bool(control & 0x40),
        bool(control & 0x20),
        bool(control & 0x10),
        payload[8:f_opts_end],
        f_port,
        payload[f_opts_end + 1 : body_end],
        payload[:body_end],
        payload[body_end:],
    )


def _parse_join_request(payload: bytes) -> JoinRequest | Malformed:
    if len(payload) != 23:
        return Malformed("size", "join request")
    join_eui, dev_eui = payload[8:0:-1].hex(), payload[16:8:-1].hex()
    return JoinRequest(join_eui, dev_eui, payload[17] | payload[18] << 8, payload[:19], payload[19:])


def encode_data(
    *,
    uplink: bool,
    dev_addr: int,
    f_cnt: int,
    f_port: int | None,
    frm_payload: bytes = b"",
    confirmed: bool = False,
    adr: bool = False,
    adr_ack_req: bool = False,
    ack: bool = False,
    bit4: bool = False,
    f_opts: bytes = b"",
) -> bytes:
    """A data frame without its MIC; `frm_payload` is encrypted already, `f_cnt` may have all 32 bits.

    ValueError for what the standard has no frame for.
    """
    size = len(f_opts)
    if size > FOPTS_MAX:
        raise ValueError(f"FOpts hold at most {FOPTS_MAX} B, not {size}")
    if f_port is None and frm_payload:
        raise ValueError("a payload needs an FPort")
    if f_port == 0 and size:
        raise ValueError("FPort 0 and FOpts exclude each other")
    if adr_ack_req and not uplink:
        raise ValueError("only uplinks ask for an ADR acknowledgement")
    if size + len(frm_payload) > FRM_PAYLOAD_MAX:
        raise ValueError(f"FOpts and payload hold at most {FRM_PAYLOAD_MAX} B")
    kind = (
        (_CONFIRMED_UP if uplink else _CONFIRMED_DOWN) if confirmed else (_DATA_UP if uplink else _DATA_DOWN)
    )
    control = adr << 7 | adr_ack_req << 6 | ack << 5 | bit4 << 4 | size
    header = _FHDR.pack(kind << 5, dev_addr, control, f_cnt & 0xFFFF) + f_opts
    return header if f_port is None else header + bytes((f_port,)) + frm_payload


def encode_join_request(join_eui: str, dev_eui: str, dev_nonce: int) -> bytes:
    """A join request without its MIC."""
    return b"\x00" + _eui(join_eui) + _eui(dev_eui) + dev_nonce.to_bytes(2, "little")


def encode_join_accept(accept: JoinAccept) -> bytes:
    """A join accept before it is sealed: MHDR and fields, without MIC (13 or 29 B)."""
    if not (
        0 <= accept.rx1_dr_offset <= 7 and 0 <= accept.rx2_data_rate <= 15 and 0 <= accept.rx1_delay_s <= 15
    ):
        raise ValueError("RX1DROffset is 0..7, the RX2 data rate 0..15, RxDelay 0..15 s")
    if len(accept.cf_list) not in (0, 16):
        raise ValueError("a CFList has 16 bytes")
    numbers = accept.join_nonce.to_bytes(3, "little") + accept.net_id.to_bytes(3, "little")
    windows = bytes((accept.rx1_dr_offset << 4 | accept.rx2_data_rate, accept.rx1_delay_s))
    return b"\x20" + numbers + accept.dev_addr.to_bytes(4, "little") + windows + accept.cf_list


def parse_join_accept(plain: bytes) -> JoinAccept | Malformed:
    """The fields of an opened join accept (MHDR and fields, without MIC)."""
    if len(plain) not in (13, 29):
        return Malformed("size", "join accept")
    return JoinAccept(
        int.from_bytes(plain[1:4], "little"),
        int.from_bytes(plain[4:7], "little"),
        int.from_bytes(plain[7:11], "little"),
        plain[11] >> 4 & 7,
        plain[11] & 15,
        max(1, plain[12] & 15),
        plain[13:],
    )


def cf_list_of(frequencies_hz: tuple[int, ...]) -> bytes:
    """A CFList (type 0) that adds up to five channels, given in Hz; the unused places are zero."""
    if len(frequencies_hz) > 5:
        raise ValueError("a CFList holds five frequencies")
    packed = b"".join((frequency // 100).to_bytes(3, "little") for frequency in frequencies_hz)
    return packed.ljust(16, b"\x00")


def cf_list_channels(cf_list: bytes) -> tuple[int, ...]:
    """The frequencies (Hz) that a CFList adds; none for channel masks (type 1) and unknown types."""
    if len(cf_list) != 16 or cf_list[15] != 0:
        return ()
    places = (int.from_bytes(cf_list[i : i + 3], "little") * 100 for i in range(0, 15, 3))
    return tuple(frequency for frequency in places if frequency)


def mac_commands(data: bytes, *, uplink: bool) -> tuple[tuple[MacCommand, ...], int]:
    """The MAC commands in FOpts or in an FPort 0 payload, and the number of bytes that had to be skipped.

    The length of an unknown command is unknowable, so everything from it on is skipped.
    """
    sizes = _UPLINK_COMMANDS if uplink else _DOWNLINK_COMMANDS
    found: list[MacCommand] = []
    at = 0
    while at < len(data):
        size = sizes.get(data[at])
        if size is None or at + 1 + size > len(data):
            break
        found.append(MacCommand(data[at], data[at + 1 : at + 1 + size]))
        at += 1 + size
    return tuple(found), len(data) - at


def _eui(text: str) -> bytes:
    raw = bytes.fromhex(text)
    if len(raw) != 8:
        raise ValueError(f"an EUI has 16 hexadecimal digits: {text!r}")
    return raw[::-1]

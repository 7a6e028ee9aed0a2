"""TS003 clock synchronisation, versions 1 and 2, FPort 202: the commands as values, bytes and back.

====  ===  ================================================================================
way   CID  body (sizes in bytes, numbers little endian, bits as high:low)
====  ===  ================================================================================
up    01   AppTimeReq: device time 4, param 1 (4 AnsRequired, 3:0 TokenReq)
down  01   AppTimeAns: time correction 4 (signed), param 1 (3:0 TokenAns)
down  02   DeviceAppTimePeriodicityReq: 3:0 period
up    02   DeviceAppTimePeriodicityAns: status 1 (0 NotSupported), device time 4
down  03   ForceDeviceResync (Req in version 1, Cmd in version 2): 2:0 NbTransmissions
====  ===  ================================================================================

Both versions have the same bytes.  Times are seconds since the GPS epoch (6 January 1980) modulo 2^32:
Unix time - 315 964 800 + the leap seconds since then (18 in 2017 and later).
"""

from __future__ import annotations

from dataclasses import dataclass

from swarm.effects import Malformed
from swarm.wire.packages import (
    PackageVersionAns,
    PackageVersionReq,
    Reader,
    at_bits,
    encode_version,
    fixed,
    number,
    read_commands,
    version_ans,
    version_req,
)

__all__ = [
    "GPS_LEAP_S",
    "GPS_UNIX_S",
    "AppTimeAns",
    "AppTimeReq",
    "DeviceAppTimePeriodicityAns",
    "DeviceAppTimePeriodicityReq",
    "Downlink",
    "ForceDeviceResync",
    "Uplink",
    "answer",
    "decode_downlink",
    "decode_uplink",
    "encode",
    "gps_s",
    "period_s",
]

GPS_UNIX_S = 315_964_800
GPS_LEAP_S = 18


@dataclass(frozen=True, slots=True)
class AppTimeReq:
    """Up 01: the device believes that it is `device_time_s`; with `ans_required` it wants an answer anyway.

    `token` (0..15) counts requests: an answer with another token is of another request.
    """

    device_time_s: int
    token: int
    ans_required: bool


@dataclass(frozen=True, slots=True)
class AppTimeAns:
    """Down 01: add `time_correction_s` (-2^31..2^31-1) to the clock."""

    time_correction_s: int
    token: int


@dataclass(frozen=True, slots=True)
class DeviceAppTimePeriodicityReq:
    """Down 02: send AppTimeReq every 128 * 2^`period` s (0..15), give or take 30 s."""

    period: int


@dataclass(frozen=True, slots=True)
class DeviceAppTimePeriodicityAns:
    """Up 02: taken, or `not_supported`; `device_time_s` is the device's clock."""

    not_supported: bool
    device_time_s: int


@dataclass(frozen=True, slots=True)
class ForceDeviceResync:
    """Down 03: send AppTimeReq up to `nb_transmissions` (0..7) times at once."""

    nb_transmissions: int


Uplink = PackageVersionAns | AppTimeReq | DeviceAppTimePeriodicityAns
Downlink = PackageVersionReq | AppTimeAns | DeviceAppTimePeriodicityReq | ForceDeviceResync


def gps_s(unix_us: int) -> int:
    """Seconds of the GPS clock, modulo 2^32, at a time of the Unix clock."""
    return (unix_us // 1_000_000 - GPS_UNIX_S + GPS_LEAP_S) % 2**32


def period_s(period: int) -> int:
    """Seconds between two requests of a DeviceAppTimePeriodicityReq."""
    return 128 << period


def answer(request: AppTimeReq, gps_now_s: int) -> AppTimeAns | None:
    """What the network answers: nothing when the clock is right and no answer is required.

    The correction is the shorter way round the 32-bit clock.
    """
    ahead = (gps_now_s - request.device_time_s + 2**31) % 2**32 - 2**31
    return AppTimeAns(ahead, request.token) if ahead or request.ans_required else None


def encode(command: Uplink | Downlink) -> bytes:
    """One command; ValueError when a field is out of range."""
    match command:
        case AppTimeReq(device_time_s, token, ans_required):
            param = at_bits(token, 4) | ans_required << 4
            return b"\x01" + number(device_time_s, 4) + bytes((param,))
        case AppTimeAns(correction_s, token):
            return b"\x01" + number(correction_s, 4, signed=True) + bytes((at_bits(token, 4),))
        case DeviceAppTimePeriodicityReq(period):
            return bytes((2, at_bits(period, 4)))
        case DeviceAppTimePeriodicityAns(not_supported, device_time_s):
            return bytes((2, not_supported)) + number(device_time_s, 4)
        case ForceDeviceResync(nb_transmissions):
            return bytes((3, at_bits(nb_transmissions, 3)))
        case _:
            return encode_version(command)


def _time_req(body: bytes) -> AppTimeReq:
    return AppTimeReq(int.from_bytes(body[:4], "little"), body[4] & 15, bool(body[4] & 16))


def _time_ans(body: bytes) -> AppTimeAns:
    return AppTimeAns(int.from_bytes(body[:4], "little", signed=True), body[4] & 15)


def _periodicity_ans(body: bytes) -> DeviceAppTimePeriodicityAns:
    return DeviceAppTimePeriodicityAns(bool(body[0] & 1), int.from_bytes(body[1:], "little"))


_UPLINK: dict[int, Reader[Uplink]] = {0: version_ans, 1: fixed(5, _time_req), 2: fixed(5, _periodicity_ans)}
_DOWNLINK: dict[int, Reader[Downlink]] = {
    0: version_req,
    1: fixed(5, _time_ans),
    2: fixed(1, lambda body: DeviceAppTimePeriodicityReq(body[0] & 15)),
    3: fixed(1, lambda body: ForceDeviceResync(body[0] & 7)),
}


def decode_uplink(payload: bytes) -> tuple[Uplink, ...] | Malformed:
    """The commands that a device sent."""
    return read_commands(payload, _UPLINK)


def decode_downlink(payload: bytes) -> tuple[Downlink, ...] | Malformed:
    """The commands that a device would read."""
    return read_commands(payload, _DOWNLINK)

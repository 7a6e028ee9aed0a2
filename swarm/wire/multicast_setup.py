"""TS005 remote multicast setup, versions 1 and 2, FPort 200: the commands as values, bytes and back.

====  ===  =====================================================================================
way   CID  body (sizes in bytes, numbers little endian, bits as high:low)
====  ===  =====================================================================================
down  01   McGroupStatusReq: 3:0 mask of groups asked about
up    01   McGroupStatusAns: 6:4 groups there are, 3:0 mask of groups told; for each: id 1, address 4
down  02   McGroupSetupReq: 1:0 id, address 4, encrypted key 16, first FCnt 4, last FCnt 4
up    02   McGroupSetupAns: 2 IDerror, 1:0 id
down  03   McGroupDeleteReq: 1:0 id
up    03   McGroupDeleteAns: 2 group undefined, 1:0 id
down  04   McClassCSessionReq: 1:0 id, session time 4, 3:0 time-out, frequency 3, data rate 1
up    04   McClassCSessionAns: 5 start missed (version 2), 4 group undefined, 3 frequency, 2 data rate,
           1:0 id; time to start 3 when none of these errors
down  05   McClassBSessionReq: as 04 with 6:4 periodicity beside the time-out
up    05   McClassBSessionAns: as 04
====  ===  =====================================================================================

The session time is GPS seconds (`swarm.wire.clock_sync.gps_s`); a session ends 2^time-out s (class C) or
2^time-out beacons of 128 s (class B) later.  Keys: `swarm.security.lorawan`.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    "GROUPS_MAX",
    "VERSIONS",
    "Downlink",
    "McClassBSessionAns",
    "McClassBSessionReq",
    "McClassCSessionAns",
    "McClassCSessionReq",
    "McGroupDeleteAns",
    "McGroupDeleteReq",
    "McGroupSetupAns",
    "McGroupSetupReq",
    "McGroupStatusAns",
    "McGroupStatusReq",
    "Uplink",
    "decode_downlink",
    "decode_uplink",
    "encode",
]

VERSIONS = (1, 2)
GROUPS_MAX = 4
_KEY_SIZE = 16


@dataclass(frozen=True, slots=True)
class McGroupStatusReq:
    """Down 01: which of the groups in `mask` (bit g: group g) do you have?"""

    mask: int


@dataclass(frozen=True, slots=True)
class McGroupStatusAns:
    """Up 01: the device has `total` groups (0..7); `groups` are (id, address) of those it tells of."""

    total: int
    groups: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class McGroupSetupReq:
    """Down 02: be in group `group` at address `mc_addr`; frames count from `f_cnt_min`, below `f_cnt_max`.

    `sealed_key` is what `swarm.security.lorawan.seal_mc_key` makes of McKey.
    """

    group: int
    mc_addr: int
    sealed_key: bytes
    f_cnt_min: int
    f_cnt_max: int


@dataclass(frozen=True, slots=True)
class McGroupSetupAns:
    """Up 02: done, or `id_error`: the device has no such group."""

    group: int
    id_error: bool


@dataclass(frozen=True, slots=True)
class McGroupDeleteReq:
    """Down 03: forget the group."""

    group: int


@dataclass(frozen=True, slots=True)
class McGroupDeleteAns:
    """Up 03: done, or `undefined`: there was none."""

    group: int
    undefined: bool


@dataclass(frozen=True, slots=True)
class McClassCSessionReq:
    """Down 04: listen all the time from `session_time_s` for at most 2^`time_out` s (0..15)."""

    group: int
    session_time_s: int
    time_out: int
    frequency_hz: int
    data_rate: int


@dataclass(frozen=True, slots=True)
class McClassBSessionReq:
    """Down 05: listen in ping slots from `session_time_s` for at most 2^`time_out` beacons."""

    group: int
    session_time_s: int
    time_out: int
    periodicity: int
    frequency_hz: int
    data_rate: int


@dataclass(frozen=True, slots=True)
class McClassCSessionAns:
    """Up 04: seconds until the session begins, or None and why not; `start_missed` is of version 2."""

    group: int
    time_to_start_s: int | None
    data_rate_error: bool = False
    frequency_error: bool = False
    undefined: bool = False
    start_missed: bool = False


@dataclass(frozen=True, slots=True)
class McClassBSessionAns:
    """Up 05: as McClassCSessionAns."""

    group: int
    time_to_start_s: int | None
    data_rate_error: bool = False
    frequency_error: bool = False
    undefined: bool = False
    start_missed: bool = False


SessionAns = McClassCSessionAns | McClassBSessionAns
Uplink = PackageVersionAns | McGroupStatusAns | McGroupSetupAns | McGroupDeleteAns | SessionAns
Downlink = (
    PackageVersionReq
    | McGroupStatusReq
    | McGroupSetupReq
    | McGroupDeleteReq
    | McClassCSessionReq
    | McClassBSessionReq
)


def encode(command: Uplink | Downlink, version: int) -> bytes:
    """One command; ValueError when a field is out of range or not in this version."""
    match command:
        case McGroupStatusReq(mask):
            return bytes((1, at_bits(mask, GROUPS_MAX)))
        case McGroupStatusAns():
            return _encode_status(command)
        case McGroupSetupReq(group, mc_addr, sealed_key, f_cnt_min, f_cnt_max):
            if len(sealed_key) != _KEY_SIZE:
                raise ValueError(f"a key has {_KEY_SIZE} bytes, not {len(sealed_key)}")
            counters = number(f_cnt_min, 4) + number(f_cnt_max, 4)
            return bytes((2, at_bits(group, 2))) + number(mc_addr, 4) + sealed_key + counters
        case McGroupSetupAns(group, error):
            return bytes((2, at_bits(group, 2) | error << 2))
        case McGroupDeleteReq(group):
            return bytes((3, at_bits(group, 2)))
        case McGroupDeleteAns(group, error):
            return bytes((3, at_bits(group, 2) | error << 2))
        case McClassCSessionReq():
            return _encode_session(4, command, at_bits(command.time_out, 4))
        case McClassBSessionReq():
            timing = at_bits(command.time_out, 4) | at_bits(command.periodicity, 3, 4)
            return _encode_session(5, command, timing)
        case McClassCSessionAns() | McClassBSessionAns():
            return _encode_session_ans(command, version)
        case _:
            return encode_version(command)


def _encode_status(command: McGroupStatusAns) -> bytes:
    ids = [group for group, _ in command.groups]
    if ids != sorted(set(ids)):
        raise ValueError("groups are told of once, in ascending order")
    mask = sum(1 << at_bits(group, 2) for group in ids)
    told = b"".join(bytes((group,)) + number(address, 4) for group, address in command.groups)
    return bytes((1, at_bits(command.total, 3, 4) | mask)) + told


def _encode_session(cid: int, command: McClassCSessionReq | McClassBSessionReq, timing: int) -> bytes:
    if command.frequency_hz % 100:
        raise ValueError("frequencies are told in steps of 100 Hz")
    start = bytes((cid, at_bits(command.group, 2))) + number(command.session_time_s, 4) + bytes((timing,))
    return start + number(command.frequency_hz // 100, 3) + number(command.data_rate, 1)


def _encode_session_ans(command: SessionAns, version: int) -> bytes:
    if command.start_missed and version < 2:
        raise ValueError("version 1 cannot say that the start was missed")
    errors = command.data_rate_error << 2 | command.frequency_error << 3 | command.undefined << 4
    errors |= command.start_missed << 5
    if bool(errors) == (command.time_to_start_s is not None):
        raise ValueError("a session answer holds either errors or the time to start")
    cid = 4 if isinstance(command, McClassCSessionAns) else 5
    head = bytes((cid, at_bits(command.group, 2) | errors))
    return head if command.time_to_start_s is None else head + number(command.time_to_start_s, 3)


def _little(body: bytes) -> int:
    return int.from_bytes(body, "little")


def _status_size(rest: bytes) -> int:
    return 1 + 5 * (rest[0] & 15).bit_count() if rest else 1


def _status_ans(body: bytes) -> McGroupStatusAns:
    told = tuple((body[at] & 3, _little(body[at + 1 : at + 5])) for at in range(1, len(body), 5))
    return McGroupStatusAns(body[0] >> 4 & 7, told)


def _setup_req(body: bytes) -> McGroupSetupReq:
    return McGroupSetupReq(
        body[0] & 3, _little(body[1:5]), body[5:21], _little(body[21:25]), _little(body[25:29])
    )


def _class_c_req(body: bytes) -> McClassCSessionReq:
    frequency_hz = 100 * _little(body[6:9])
    return McClassCSessionReq(body[0] & 3, _little(body[1:5]), body[5] & 15, frequency_hz, body[9])


def _class_b_req(body: bytes) -> McClassBSessionReq:
    timing = body[5]
    frequency_hz = 100 * _little(body[6:9])
    return McClassBSessionReq(
        body[0] & 3, _little(body[1:5]), timing & 15, timing >> 4 & 7, frequency_hz, body[9]
    )


def _session_readers(version: int) -> dict[int, Reader[Uplink]]:
    errors = 0b111100 if version >= 2 else 0b011100

    def size(rest: bytes) -> int:
        return 1 if not rest or rest[0] & errors else 4

    def told(body: bytes) -> tuple[int, int | None, bool, bool, bool, bool]:
        bits = body[0] & errors
        time_to_start_s = None if bits else _little(body[1:])
        return body[0] & 3, time_to_start_s, bool(bits & 4), bool(bits & 8), bool(bits & 16), bool(bits & 32)

    return {
        4: Reader(size, lambda body: McClassCSessionAns(*told(body))),
        5: Reader(size, lambda body: McClassBSessionAns(*told(body))),
    }


_UPLINK: Mapping[int, Reader[Uplink]] = {
    0: version_ans,
    1: Reader(_status_size, _status_ans),
    2: fixed(1, lambda body: McGroupSetupAns(body[0] & 3, bool(body[0] & 4))),
    3: fixed(1, lambda body: McGroupDeleteAns(body[0] & 3, bool(body[0] & 4))),
}
_UPLINKS = {version: {**_UPLINK, **_session_readers(version)} for version in VERSIONS}
_DOWNLINK: Mapping[int, Reader[Downlink]] = {
    0: version_req,
    1: fixed(1, lambda body: McGroupStatusReq(body[0] & 15)),
    2: fixed(29, _setup_req),
    3: fixed(1, lambda body: McGroupDeleteReq(body[0] & 3)),
    4: fixed(10, _class_c_req),
    5: fixed(10, _class_b_req),
}


def decode_uplink(payload: bytes, version: int) -> tuple[Uplink, ...] | Malformed:
    """The commands that a device of this version sent."""
    return read_commands(payload, _UPLINKS[version])


def decode_downlink(payload: bytes) -> tuple[Downlink, ...] | Malformed:
    """The commands that a device would read; both versions have the same."""
    return read_commands(payload, _DOWNLINK)

"""TS004 fragmented data block transport, versions 1 and 2, FPort 201: the commands as values, bytes and back.

====  ===  ======================================================================================
way   CID  body (sizes in bytes, numbers little endian, bits as high:low)
====  ===  ======================================================================================
down  01   FragSessionStatusReq: 2:1 index, 0 participants
up    01   FragSessionStatusAns, version 1: received 2 (15:14 index, 13:0 count), missing 1,
           status 1 (0 no matrix memory)
           version 2: status 1 (2 no session, 1 MIC error, 0 memory error), received 2, missing 1
down  02   FragSessionSetupReq: session 1 (5:4 index, 3:0 groups), NbFrag 2, FragSize 1,
           control 1 (6 AckReception (version 2), 5:3 algorithm, 2:0 BlockAckDelay), padding 1,
           descriptor 4; version 2: SessionCnt 2, MIC 4
up    02   FragSessionSetupAns: 7:6 index, 4 SessionCnt replay (version 2), 3 wrong descriptor,
           2 index unsupported, 1 not enough memory, 0 algorithm unsupported
down  03   FragSessionDeleteReq: 1:0 index
up    03   FragSessionDeleteAns: 2 no such session, 1:0 index
up    04   FragDataBlockReceivedReq (version 2): 2 MIC error, 1:0 index
down  04   FragDataBlockReceivedAns (version 2): 1:0 index
down  08   DataFragment: 2 (15:14 index, 13:0 N), the fragment; the only command in its payload
====  ===  ======================================================================================

The fragments themselves: `swarm.transport.erasure`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from swarm.effects import Malformed
from swarm.wire.packages import (
    PAYLOAD_MAX,
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
    "DATA_HEADER_SIZE",
    "N_MAX",
    "VERSIONS",
    "DataFragment",
    "Downlink",
    "FragDataBlockReceivedAns",
    "FragDataBlockReceivedReq",
    "FragSessionDeleteAns",
    "FragSessionDeleteReq",
    "FragSessionSetupAns",
    "FragSessionSetupReq",
    "FragSessionStatusAns",
    "FragSessionStatusReq",
    "Uplink",
    "ack_delay_s",
    "decode_downlink",
    "decode_uplink",
    "encode",
]

VERSIONS = (1, 2)
N_MAX = (1 << 14) - 1
"""The last number that a fragment can have."""
DATA_HEADER_SIZE = 3
"""Bytes of a DataFragment around the fragment."""
_WORD = 4


@dataclass(frozen=True, slots=True)
class FragSessionStatusReq:
    """Down 01: how far is session `index`?  Without `participants` only who misses something answers."""

    index: int
    participants: bool


@dataclass(frozen=True, slots=True)
class FragSessionStatusAns:
    """Up 01: `received` fragments came (0..16383), `missing` (at most 255) more are needed.

    `memory_error`: more fragments were lost than the device can repair.  `mic_error` and `no_session` are of
    version 2.
    """

    index: int
    received: int
    missing: int
    memory_error: bool = False
    mic_error: bool = False
    no_session: bool = False


@dataclass(frozen=True, slots=True)
class FragSessionSetupReq:
    """Down 02: a block of `nb_frag` fragments of `frag_size` bytes, the last `padding` of them no data.

    `groups` are the multicast groups (bit g) that may send it.  `descriptor` (4 B) is the application's.
    `ack_reception`, `session_cnt` and `mic` (4 B, `swarm.security.lorawan.data_block_mic`) are of version 2.
    """

    index: int
    groups: int
    nb_frag: int
    frag_size: int
    block_ack_delay: int
    padding: int
    descriptor: bytes
    algorithm: int = 0
    ack_reception: bool = False
    session_cnt: int = 0
    mic: bytes = bytes(_WORD)


@dataclass(frozen=True, slots=True)
class FragSessionSetupAns:
    """Up 02: taken, or why not; `session_cnt_replay` is of version 2."""

    index: int
    algorithm_unsupported: bool = False
    not_enough_memory: bool = False
    index_unsupported: bool = False
    wrong_descriptor: bool = False
    session_cnt_replay: bool = False


@dataclass(frozen=True, slots=True)
class FragSessionDeleteReq:
    """Down 03: forget the session."""

    index: int


@dataclass(frozen=True, slots=True)
class FragSessionDeleteAns:
    """Up 03: done, or `no_session`: there was none."""

    index: int
    no_session: bool


@dataclass(frozen=True, slots=True)
class FragDataBlockReceivedReq:
    """Up 04: the block is whole, and right unless `mic_error`."""

    index: int
    mic_error: bool


@dataclass(frozen=True, slots=True)
class FragDataBlockReceivedAns:
    """Down 04: understood."""

    index: int


@dataclass(frozen=True, slots=True)
class DataFragment:
    """Down 08: fragment number `n` (from 1: the first nb_frag are the block, further ones are parity)."""

    index: int
    n: int
    data: bytes


Uplink = (
    PackageVersionAns
    | FragSessionStatusAns
    | FragSessionSetupAns
    | FragSessionDeleteAns
    | FragDataBlockReceivedReq
)
Downlink = (
    PackageVersionReq
    | FragSessionStatusReq
    | FragSessionSetupReq
    | FragSessionDeleteReq
    | FragDataBlockReceivedAns
    | DataFragment
)


def ack_delay_s(block_ack_delay: int) -> int:
    """Devices answer what came by multicast at a random time within so many seconds."""
    return 1 << block_ack_delay + 4


def encode(command: Uplink | Downlink, version: int) -> bytes:
    """One command; ValueError when a field is out of range or not in this version."""
    match command:
        case FragSessionStatusReq(index, participants):
            return bytes((1, at_bits(index, 2, 1) | participants))
        case FragSessionStatusAns():
            return b"\x01" + _status_body(command, version)
        case FragSessionSetupReq():
            return b"\x02" + _setup_body(command, version)
        case FragSessionSetupAns():
            return bytes((2, _setup_errors(command, version)))
        case FragSessionDeleteReq(index):
            return bytes((3, at_bits(index, 2)))
        case FragSessionDeleteAns(index, no_session):
            return bytes((3, at_bits(index, 2) | no_session << 2))
        case FragDataBlockReceivedReq(index, mic_error):
            return bytes((4, at_bits(index, 2) | _version_2(mic_error << 2, version)))
        case FragDataBlockReceivedAns(index):
            return bytes((4, at_bits(index, 2)))
        case DataFragment(index, n, data):
            if len(data) > PAYLOAD_MAX - DATA_HEADER_SIZE:
                raise ValueError(f"a fragment has at most {PAYLOAD_MAX - DATA_HEADER_SIZE} bytes")
            return b"\x08" + _counted(index, n) + data
        case _:
            return encode_version(command)


def _version_2(bits: int, version: int) -> int:
    if bits and version < 2:
        raise ValueError("version 1 cannot say this")
    return bits


def _counted(index: int, count: int) -> bytes:
    return number(at_bits(count, 14) | at_bits(index, 2, 14), 2)


def _status_body(command: FragSessionStatusAns, version: int) -> bytes:
    status = command.memory_error | _version_2(command.mic_error << 1 | command.no_session << 2, version)
    counts = _counted(command.index, command.received) + number(command.missing, 1)
    return counts + bytes((status,)) if version < 2 else bytes((status,)) + counts


def _setup_body(command: FragSessionSetupReq, version: int) -> bytes:
    if len(command.descriptor) != _WORD or len(command.mic) != _WORD:
        raise ValueError(f"descriptor and MIC have {_WORD} bytes each")
    control = at_bits(command.block_ack_delay, 3) | at_bits(command.algorithm, 3, 3)
    control |= _version_2(command.ack_reception << 6, version)
    session = at_bits(command.groups, 4) | at_bits(command.index, 2, 4)
    sizes = number(command.nb_frag, 2) + number(command.frag_size, 1)
    body = bytes((session,)) + sizes + bytes((control,)) + number(command.padding, 1) + command.descriptor
    return body if version < 2 else body + number(command.session_cnt, 2) + command.mic


def _setup_errors(command: FragSessionSetupAns, version: int) -> int:
    errors = command.algorithm_unsupported | command.not_enough_memory << 1 | command.index_unsupported << 2
    errors |= command.wrong_descriptor << 3 | _version_2(command.session_cnt_replay << 4, version)
    return errors | at_bits(command.index, 2, 6)


def _little(body: bytes) -> int:
    return int.from_bytes(body, "little")


def _status_v1(body: bytes) -> FragSessionStatusAns:
    counted = _little(body[:2])
    return FragSessionStatusAns(counted >> 14, counted & N_MAX, body[2], bool(body[3] & 1))


def _status_v2(body: bytes) -> FragSessionStatusAns:
    status, counted = body[0], _little(body[1:3])
    errors = (bool(status & 1), bool(status & 2), bool(status & 4))
    return FragSessionStatusAns(counted >> 14, counted & N_MAX, body[3], *errors)


def _setup_v1(body: bytes) -> FragSessionSetupReq:
    session, control = body[0], body[4]
    return FragSessionSetupReq(
        session >> 4 & 3,
        session & 15,
        _little(body[1:3]),
        body[3],
        control & 7,
        body[5],
        body[6:10],
        control >> 3 & 7,
    )


def _setup_v2(body: bytes) -> FragSessionSetupReq:
    plain = _setup_v1(body)
    return FragSessionSetupReq(
        plain.index,
        plain.groups,
        plain.nb_frag,
        plain.frag_size,
        plain.block_ack_delay,
        plain.padding,
        plain.descriptor,
        plain.algorithm,
        bool(body[4] & 64),
        _little(body[10:12]),
        body[12:16],
    )


def _setup_ans(version: int) -> Reader[FragSessionSetupAns]:
    def decode(body: bytes) -> FragSessionSetupAns:
        bits = body[0]
        errors = [bool(bits >> place & 1) for place in range(5 if version >= 2 else 4)]
        return FragSessionSetupAns(bits >> 6, *errors)

    return fixed(1, decode)


def _data_fragment(body: bytes) -> DataFragment:
    counted = _little(body[:2])
    return DataFragment(counted >> 14, counted & N_MAX, body[2:])


def _uplink(version: int) -> Mapping[int, Reader[Uplink]]:
    readers: dict[int, Reader[Uplink]] = {
        0: version_ans,
        1: fixed(4, _status_v1 if version < 2 else _status_v2),
        2: _setup_ans(version),
        3: fixed(1, lambda body: FragSessionDeleteAns(body[0] & 3, bool(body[0] & 4))),
    }
    if version >= 2:
        readers[4] = fixed(1, lambda body: FragDataBlockReceivedReq(body[0] & 3, bool(body[0] & 4)))
    return readers


def _downlink(version: int) -> Mapping[int, Reader[Downlink]]:
    readers: dict[int, Reader[Downlink]] = {
        0: version_req,
        1: fixed(1, lambda body: FragSessionStatusReq(body[0] >> 1 & 3, bool(body[0] & 1))),
        2: fixed(10, _setup_v1) if version < 2 else fixed(16, _setup_v2),
        3: fixed(1, lambda body: FragSessionDeleteReq(body[0] & 3)),
        8: Reader(lambda rest: max(2, len(rest)), _data_fragment),
    }
    if version >= 2:
        readers[4] = fixed(1, lambda body: FragDataBlockReceivedAns(body[0] & 3))
    return readers


_UPLINK = {version: _uplink(version) for version in VERSIONS}
_DOWNLINK = {version: _downlink(version) for version in VERSIONS}


def decode_uplink(payload: bytes, version: int) -> tuple[Uplink, ...] | Malformed:
    """The commands that a device of this version sent."""
    return read_commands(payload, _UPLINK[version])


def decode_downlink(payload: bytes, version: int) -> tuple[Downlink, ...] | Malformed:
    """The commands that a device of this version would read; a DataFragment stands alone."""
    commands = read_commands(payload, _DOWNLINK[version])
    if isinstance(commands, tuple) and len(commands) > 1 and isinstance(commands[-1], DataFragment):
        return Malformed("fragment", "a DataFragment behind other commands")
    return commands

"""What LoRaWAN's application packages share: ports, identifiers, version negotiation, commands in a row.

A package owns an FPort; a payload there is a row of commands, each a CID (1 B) and its body, whose length
follows from the CID and, for a few, from its first byte.  A device says which version it speaks
(PackageVersionReq / PackageVersionAns); commands are read and written in that version.  Bits that the
standard reserves are sent as 0 and ignored when received.

==================  =====  ==  =============================================================
package             FPort  id  module
==================  =====  ==  =============================================================
TS003 clock sync      202   1  `swarm.wire.clock_sync`
TS005 multicast       200   2  `swarm.wire.multicast_setup`
TS004 fragmentation   201   3  `swarm.wire.fragmentation`
TS006 firmware        203   4  its version only (`decode_version_uplink`): no firmware is managed
==================  =====  ==  =============================================================

Every command is one CID and at most 241 B, so a payload of 242 B holds at most 242 of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, TypeVar

from swarm.effects import Malformed

__all__ = [
    "F_PORTS",
    "PAYLOAD_MAX",
    "Package",
    "PackageVersionAns",
    "PackageVersionReq",
    "Reader",
    "at_bits",
    "decode_version_uplink",
    "encode_version",
    "fixed",
    "number",
    "read_commands",
    "version_ans",
    "version_req",
]

PAYLOAD_MAX = 242
"""FRMPayload of the fastest data rates."""


class Package(IntEnum):
    """PackageIdentifier of each package."""

    CLOCK_SYNC = 1
    MULTICAST_SETUP = 2
    FRAGMENTATION = 3
    FIRMWARE = 4


F_PORTS = {
    Package.CLOCK_SYNC: 202,
    Package.MULTICAST_SETUP: 200,
    Package.FRAGMENTATION: 201,
    Package.FIRMWARE: 203,
}


@dataclass(frozen=True, slots=True)
class PackageVersionReq:
    """Down 00: which version of this port's package does the device speak?"""


@dataclass(frozen=True, slots=True)
class PackageVersionAns:
    """Up 00: package 1, version 1."""

    package: int
    version: int


_Command_co = TypeVar("_Command_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Reader(Generic[_Command_co]):
    """How one command is read: the length of its body, told by what follows the CID, and its meaning."""

    size: Callable[[bytes], int]
    decode: Callable[[bytes], _Command_co]


def fixed(size: int, decode: Callable[[bytes], _Command_co]) -> Reader[_Command_co]:
    """A command whose body always has `size` bytes."""
    return Reader(lambda _: size, decode)


def read_commands(
    payload: bytes, readers: Mapping[int, Reader[_Command_co]]
) -> tuple[_Command_co, ...] | Malformed:
    """All commands of a payload.

    An unknown CID makes the whole payload `Malformed`: where the next command would begin is unknowable,
    and half of a message must not be taken for all of it.
    """
    if not 1 <= len(payload) <= PAYLOAD_MAX:
        return Malformed("size", f"{len(payload)} B")
    found: list[_Command_co] = []
    at = 0
    while at < len(payload):
        cid, at = payload[at], at + 1
        reader = readers.get(cid)
        if reader is None:
            return Malformed("cid", f"{cid:#04x}")
        end = at + reader.size(payload[at:])
        if end > len(payload):
            return Malformed("size", f"command {cid:#04x} is cut off")
        found.append(reader.decode(payload[at:end]))
        at = end
    return tuple(found)


def at_bits(value: int, width: int, shift: int = 0) -> int:
    """`value` at its place in a byte; ValueError when it has more than `width` bits."""
    if not 0 <= value < 1 << width:
        raise ValueError(f"{value} does not fit into {width} bits")
    return value << shift


def number(value: int, size: int, *, signed: bool = False) -> bytes:
    """`value` in `size` bytes, little endian; ValueError when it does not fit."""
    try:
        return value.to_bytes(size, "little", signed=signed)
    except OverflowError as error:
        raise ValueError(f"{value} does not fit into {size} bytes") from error


def encode_version(command: PackageVersionReq | PackageVersionAns) -> bytes:
    """The version commands, the same in every package."""
    if isinstance(command, PackageVersionReq):
        return b"\x00"
    return b"\x00" + number(command.package, 1) + number(command.version, 1)


version_req: Reader[PackageVersionReq] = fixed(0, lambda _: PackageVersionReq())
version_ans: Reader[PackageVersionAns] = fixed(2, lambda body: PackageVersionAns(body[0], body[1]))


def decode_version_uplink(payload: bytes) -> tuple[PackageVersionAns, ...] | Malformed:
    """The answers of a package of which only the version matters (TS006)."""
    return read_commands(payload, {0: version_ans})

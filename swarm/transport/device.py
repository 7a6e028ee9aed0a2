"""The device's side of TS004 as a Python object: the firmware's own code, with a flash in memory.

The simulator's nodes and the tests receive blocks with it; there is no other receiver in Python.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from swarm._node import ffi, lib

__all__ = ["ERASURE_MEMORY", "Answer", "Device", "Heard"]

ERASURE_MEMORY = 8192
"""Bytes that a node has for lost pieces."""
_UNICAST = 255


class Heard(IntEnum):
    """What a payload did."""

    NOTHING = 0
    OPENED = 1
    CLOSED = 2
    PIECE = 3
    WHOLE = 4
    FORGED = 5


@dataclass(frozen=True, slots=True)
class Answer:
    """To be sent on FPort 201, `delay_us` later."""

    delay_us: int
    payload: bytes


class Device:
    """One node's session; `integrity_key` is its DataBlockIntKey (16 B), `version` that of TS004."""

    def __init__(
        self,
        integrity_key: bytes,
        *,
        version: int = 2,
        flash_size: int = 65_536,
        memory_size: int = ERASURE_MEMORY,
        seed: int = 1,
        session_cnt_next: tuple[int, ...] | None = None,
    ) -> None:
        self._bytes = ffi.new("uint8_t[]", flash_size)
        self._memory = ffi.new("uint8_t[]", memory_size)
        self._flash = ffi.new("swn_host_flash_t *")
        lib.swn_host_flash_init(self._flash, self._bytes, flash_size)
        config = ffi.new("swn_transport_config_t *")
        config.flash = ffi.addressof(self._flash, "port")
        config.memory, config.memory_size = self._memory, memory_size
        config.seed, config.version = seed, version
        ffi.memmove(config.integrity_key, integrity_key, 16)
        self._state = ffi.new("swn_transport_t *")
        counts = ffi.NULL if session_cnt_next is None else ffi.new("uint32_t[4]", session_cnt_next)
        lib.swn_transport_init(self._state, config, counts)
        self._answer = ffi.new("swn_transport_answer_t *")

    def rx(self, payload: bytes, group: int | None = None) -> tuple[Heard, Answer | None]:
        """A payload of FPort 201 came, by unicast or in a multicast group (0..3)."""
        where = _UNICAST if group is None else group
        heard = Heard(lib.swn_transport_rx(self._state, payload, len(payload), where, self._answer))
        answer = self._answer
        said = bytes(ffi.buffer(answer.data, answer.size))
        return heard, Answer(answer.delay_us, said) if said else None

    @property
    def missing(self) -> int:
        """Fragments that the session still needs; 0 without a session."""
        return int(lib.swn_erasure_missing(ffi.addressof(self._state, "erasure")))

    @property
    def memory_error(self) -> bool:
        """Whether more pieces are lost than there is memory for."""
        return bool(self._state.erasure.memory_error)

    @property
    def rewritten(self) -> int:
        """Bytes of flash that were written twice without being erased: none, in a node that works."""
        return int(self._flash.rewritten)

    @property
    def session_cnt_next(self) -> tuple[int, ...]:
        """What must outlive a reset."""
        return tuple(self._state.session_cnt_next)

    def fail_writes(self, count: int) -> None:
        """The next `count` writes to flash fail."""
        self._flash.failing = count

    def refuse(self, descriptor: bytes) -> None:
        """The node does not want blocks with this descriptor (4 B)."""
        ffi.memmove(self._flash.unwanted, descriptor, 4)

    def block(self) -> bytes:
        """What is in flash of the session's block, without padding."""
        return bytes(ffi.buffer(self._bytes, lib.swn_transport_size(self._state)))

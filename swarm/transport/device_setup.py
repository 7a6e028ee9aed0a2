"""The device's side of TS005 and TS003 as Python objects: the firmware's own code.

The simulator's nodes and the tests use them; there is no other device in Python.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from swarm._node import ffi, lib

__all__ = ["Clock", "Group", "Groups", "GroupsHeard"]

_NEVER_US = 2**63 - 1


class GroupsHeard(IntEnum):
    """What a payload of FPort 200 did."""

    NOTHING = 0
    SET = 1
    DELETED = 2
    SESSION = 3


@dataclass(frozen=True, slots=True)
class Group:
    """A group as the node has it; `session` is (start in GPS s, length in s, Hz, data rate)."""

    address: int
    f_cnt_min: int
    f_cnt_max: int
    nwk_s_key: bytes
    app_s_key: bytes
    session: tuple[int, int, int, int] | None


class Groups:
    """One node's multicast groups; `root` is its GenAppKey (with `version_1_1` its AppKey), 16 B."""

    def __init__(self, root: bytes, *, version: int = 2, version_1_1: bool = False) -> None:
        key = ffi.new("uint8_t[16]")
        lib.swn_groups_key(root, version_1_1, key)
        self._state = ffi.new("swn_groups_t *")
        lib.swn_groups_init(self._state, key, version)
        self._answer = ffi.new("swn_groups_answer_t *")

    def rx(self, payload: bytes, gps_now_s: int = 0) -> tuple[GroupsHeard, bytes]:
        """A payload of FPort 200 came by unicast; what is to be answered (empty: nothing)."""
        heard = lib.swn_groups_rx(
            self._state, gps_now_s, payload, len(payload), ffi.NULL, ffi.NULL, self._answer
        )
        return GroupsHeard(heard), bytes(ffi.buffer(self._answer.data, self._answer.size))

    def group(self, number: int) -> Group | None:
        """Group 0..3, if it is set."""
        group = self._state.groups[number]
        if not group.is_set:
            return None
        session = (
            group.session_start_s,
            group.session_length_s,
            group.session_frequency_hz,
            group.session_rate,
        )
        keys = bytes(group.nwk_s_key), bytes(group.app_s_key)
        counters = group.f_cnt_min, group.f_cnt_max
        return Group(group.address, *counters, *keys, session if group.has_session else None)


class Clock:
    """One node's clock; times are microseconds of its own, which begin anywhere."""

    def __init__(self, now_us: int = 0, *, seed: int = 1, version: int = 2) -> None:
        self._state = ffi.new("swn_clock_t *")
        lib.swn_clock_init(self._state, now_us, seed, version)
        self._message = ffi.new("swn_clock_message_t *")

    def gps_s(self, now_us: int) -> int:
        """What the node believes GPS time to be."""
        return int(lib.swn_clock_gps_s(self._state, now_us))

    @property
    def is_set(self) -> bool:
        """Whether the network has told the time."""
        return bool(self._state.is_set)

    def rx(self, now_us: int, payload: bytes, *, multicast: bool = False) -> tuple[bool, bytes]:
        """A payload of FPort 202 came: whether the clock was corrected, and what is to be answered."""
        corrected = lib.swn_clock_rx(self._state, now_us, payload, len(payload), multicast, self._message)
        return bool(corrected), self._said()

    def poll(self, now_us: int) -> tuple[bytes, int | None]:
        """The request that is due (empty: none), and when to poll again."""
        next_us = lib.swn_clock_poll(self._state, now_us, self._message)
        return self._said(), None if next_us == _NEVER_US else int(next_us)

    def _said(self) -> bytes:
        return bytes(ffi.buffer(self._message.data, self._message.size))

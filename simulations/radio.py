"""The gateway's radio as the core meets it: a queue of frames to send, with a packet forwarder's refusals.

The rules and the names of the errors are those of Semtech's just-in-time queue (`jitqueue.c` of the
packet forwarder): a frame must arrive a little before its start, not too long before it, and may not
come near another one.  What PROTOCOL.TXT does not say, a real forwarder does: the time is compared on
the 32-bit counter, so a frame that is late by less than half an hour is so early that the answer is
TOO_EARLY; and a full queue answers COLLISION_PACKET.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["COUNTER_WRAP_US", "GatewayRadio"]

COUNTER_WRAP_US = 1 << 32
"""The gateway's microsecond counter wraps every 71.6 minutes."""
LEAD_MIN_US = 42_500
"""TX_START_DELAY 1.5 ms + TX_MARGIN_DELAY 1 ms + TX_JIT_DELAY 40 ms."""
ADVANCE_MAX_US = 512_000_000
QUEUE_MAX = 32
_APART_US = 41_000
"""A frame may not start closer than this after another's end (the jitter allowance and a margin)."""


@dataclass(frozen=True, slots=True)
class _Queued:
    start_us: int
    end_us: int


class GatewayRadio:
    """One transmitter; times are the gateway's own clock, here the world's."""

    def __init__(self) -> None:
        self._queue: list[_Queued] = []

    def offer(self, now_us: int, start_us: int, airtime_us: int) -> str | None:
        """Queue a frame for `start_us`; None, or the forwarder's word for why not."""
        self._queue = [each for each in self._queue if each.end_us + _APART_US > now_us]
        ahead_us = start_us - now_us
        if ahead_us % COUNTER_WRAP_US > ADVANCE_MAX_US:
            return "TOO_EARLY"
        if ahead_us < LEAD_MIN_US:
            return "TOO_LATE"
        waiting = sum(each.start_us > now_us for each in self._queue)
        if waiting >= QUEUE_MAX:
            return "COLLISION_PACKET"
        end_us = start_us + airtime_us
        for each in self._queue:
            if start_us < each.end_us + _APART_US and each.start_us < end_us + _APART_US:
                return "COLLISION_PACKET"
        self._queue.append(_Queued(start_us, end_us))
        return None

    def soonest_us(self, now_us: int) -> int:
        """When a frame asked for "immediately" may start: behind all that is queued or being sent."""
        return max([now_us + LEAD_MIN_US, *(each.end_us + _APART_US for each in self._queue)])

    def clear(self) -> None:
        """The gateway lost its power: what was queued is gone."""
        self._queue.clear()

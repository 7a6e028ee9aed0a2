"""Frames that wait for their turn: for one node that will be heard, or for the group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from swarm.effects import Effect, Purpose

__all__ = ["BLOCK_TAG", "Payload", "Pending", "Programme", "payload_at", "spread"]

BLOCK_TAG = "block"
"""Of the frame of a large block that waits for a node."""
Payload = bytes | Callable[[int], bytes]
"""The application payload, or a function from the frame's start (us) to it."""


@dataclass(slots=True)
class Pending:
    """One frame waiting for its node to be heard."""

    f_port: int
    payload: Payload
    size: int
    purpose: Purpose
    expires_us: int
    tag: str = ""
    sent: Callable[[int, int], list[Effect]] | None = None
    """Called with start and airtime (us) when the frame has its slot; airtime is negative when it was given
    back."""
    acked: Callable[[int, bool], list[Effect]] | None = None
    """Makes it a confirmed frame; called when the node has acknowledged it, or with False when it was given
    up."""
    tries: int = 0
    taken: Callable[[int, int], list[Effect]] | None = None
    """Called with end and airtime (us) when a gateway took the frame, or may have."""
    streams: bool = False
    """Nobody answers it: a network server may have the next one as soon as it has sent this one."""
    more: bool = False
    """Whether another frame will wait for the node when this one has been answered."""


@dataclass(slots=True)
class Programme:
    """One multicast frame waiting for its turn; `last` marks the end of a window's programme."""

    f_port: int
    payload: Payload
    size: int
    purpose: Purpose
    last: bool = False
    tries: int = 0
    copies: int = 0
    """Gateways whose word on this frame is awaited."""
    fate: Callable[[int, bool], list[Effect]] | None = None
    """Of a frame of a large block: called once with the time (us) and whether any gateway took it, or may
    have."""
    end_us: int = 0
    airtime_us: int = 0
    """Of all its copies, when it has its slots."""


def spread(guests: list[Programme], frames: list[Programme]) -> list[Programme]:
    """Guests with gaps between them, none behind the last announcement: that closes receivers."""
    last = next((i for i, frame in enumerate(frames) if frame.purpose is Purpose.ROUND), len(frames))
    places = [last * i // max(1, len(guests)) for i in range(len(guests))]
    made: list[Programme] = []
    for index, frame in enumerate(frames):
        made += [guest for place, guest in zip(places, guests, strict=True) if place == index]
        made.append(frame)
    return made


def payload_at(payload: Payload, at_us: int) -> bytes:
    """The payload of a frame that starts then."""
    return payload if isinstance(payload, bytes) else payload(at_us)

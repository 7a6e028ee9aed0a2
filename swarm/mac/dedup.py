"""One uplink, many gateways: copies of a frame are gathered and handed on once, best copy first.

Theory of operation.  The first copy opens a window; copies with the same bytes that arrive before it
closes are collected, and `poll` then gives them out together.  Copies that come later than that (a slow
backhaul) are swallowed for `LATE_US` after the closing, so that they are not taken for a retransmission;
a real retransmission of the device comes after its receive windows, more than a second later.  Of one
gateway only the best copy counts: near a strong node it hears ghosts on neighbouring channels.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass

from swarm.effects import RxFrame

__all__ = ["COPIES_MAX", "FRAMES_MAX", "LATE_US", "Deduplicator", "Heard"]

LATE_US = 500_000
FRAMES_MAX = 4096
"""Open windows, and remembered frames: beyond that new frames are dropped, old memories forgotten."""
COPIES_MAX = 16
"""Copies kept of one frame; the best one is kept in any case."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One uplink: its best copy (highest SNR, then RSSI, then lowest gateway id) and all, by quality."""

    best: RxFrame
    copies: tuple[RxFrame, ...]


class Deduplicator:
    """Gathers copies for `window_us` (0: the first copy is handed on at once, later ones are swallowed).

    `late` counts copies that came after their window, `overflowed` frames for which there was no place.
    """

    __slots__ = ("_due", "_open", "_seen", "_window_us", "late", "overflowed")

    def __init__(self, window_us: int) -> None:
        if window_us < 0:
            raise ValueError(f"window_us {window_us} is negative")
        self._window_us = window_us
        self._open: dict[bytes, list[RxFrame]] = {}
        self._due: deque[tuple[int, bytes]] = deque()
        self._seen: OrderedDict[bytes, int] = OrderedDict()
        self.late = 0
        self.overflowed = 0

    def on_frame(self, now_us: int, rx: RxFrame) -> None:
        """A gateway reported a packet."""
        copies = self._open.get(rx.payload)
        if copies is not None:
            _add(copies, rx)
            return
        self._forget(now_us)
        if rx.payload in self._seen:
            self.late += 1
        elif len(self._due) >= FRAMES_MAX:
            self.overflowed += 1
        else:
            closes_us = now_us + self._window_us
            self._open[rx.payload] = [rx]
            self._due.append((closes_us, rx.payload))
            self._seen[rx.payload] = closes_us + LATE_US

    def poll(self, now_us: int) -> list[Heard]:
        """The uplinks whose window has closed, in the order in which they were first heard."""
        heard = []
        while self._due and self._due[0][0] <= now_us:
            copies = tuple(sorted(self._open.pop(self._due.popleft()[1]), key=_quality))
            heard.append(Heard(copies[0], copies))
        return heard

    def poll_at(self) -> int | None:
        """When the next window closes (us); None: nothing is open."""
        return self._due[0][0] if self._due else None

    def _forget(self, now_us: int) -> None:
        while self._seen:
            oldest, until_us = next(iter(self._seen.items()))
            if until_us > now_us and len(self._seen) < FRAMES_MAX:
                return
            del self._seen[oldest]


def _quality(rx: RxFrame) -> tuple[float, float, str]:
    return (-rx.snr_db, -rx.rssi_dbm, rx.gateway_id)


def _add(copies: list[RxFrame], rx: RxFrame) -> None:
    for index, copy in enumerate(copies):
        if copy.gateway_id == rx.gateway_id:
            copies[index] = min(copy, rx, key=_quality)
            return
    copies.append(rx)
    if len(copies) > COPIES_MAX:
        copies.remove(max(copies, key=_quality))

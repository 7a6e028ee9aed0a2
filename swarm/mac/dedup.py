"""One uplink, many gateways: copies of a frame are gathered and handed on once, best copy first.

Theory of operation.  The first copy opens a window; copies with the same bytes that arrive before it
closes are collected, and `poll` then gives them out together.  Copies that come later than that (a slow
backhaul) are swallowed for `LATE_US` after the closing, so that they are not taken for a retransmission;
a real retransmission of the device comes after its receive windows, more than a second later.  Of one
gateway only the best copy counts: near a strong node it hears ghosts on neighbouring channels.

A stranger (a gateway that has proved nothing yet) can claim any signal, so its copy comes behind those of the
others.  Where the windows run out, whoever fills most of them gives one up, and all strangers count as one.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from swarm.effects import RxFrame

__all__ = ["COPIES_MAX", "FRAMES_MAX", "LATE_US", "Deduplicator", "Heard"]

LATE_US = 500_000
FRAMES_MAX = 4096
"""Open windows, and remembered frames: beyond that frames are dropped, old memories forgotten."""
COPIES_MAX = 16
"""Copies kept of one frame; the best and the first one are kept in any case."""
STRANGERS = ""
"""What all strangers are called where windows are shared out."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One uplink: its best copy (highest SNR, then RSSI, then lowest gateway id; strangers' last), all copies
    by quality, and the one that came first."""

    best: RxFrame
    copies: tuple[RxFrame, ...]
    first: RxFrame


@dataclass(slots=True)
class _Window:
    closes_us: int
    share: str
    copies: list[tuple[bool, RxFrame]]
    first: RxFrame


class Deduplicator:
    """Gathers copies for `window_us` (0: the first copy is handed on at once, later ones are swallowed).

    `late` counts copies that came after their window, `overflowed` frames for which there was no place.
    """

    __slots__ = ("_open", "_seen", "_shares", "_window_us", "late", "overflowed")

    def __init__(self, window_us: int) -> None:
        if window_us < 0:
            raise ValueError(f"window_us {window_us} is negative")
        self._window_us = window_us
        self._open: OrderedDict[bytes, _Window] = OrderedDict()
        self._shares: dict[str, dict[bytes, None]] = {}
        self._seen: OrderedDict[bytes, int] = OrderedDict()
        self.late = 0
        self.overflowed = 0

    def on_frame(self, now_us: int, rx: RxFrame, *, stranger: bool = False) -> RxFrame | None:
        """A gateway reported a packet; the frame that is lost because there are too many, if one is."""
        window = self._open.get(rx.payload)
        if window is not None:
            _add(window, stranger, rx)
            return None
        self._forget(now_us)
        if rx.payload in self._seen:
            self.late += 1
            return None
        lost = None
        share = STRANGERS if stranger else rx.gateway_id
        if len(self._open) >= FRAMES_MAX:
            self.overflowed += 1
            lost = self._give_up(share)
            if lost is None:
                return rx
        closes_us = now_us + self._window_us
        self._open[rx.payload] = _Window(closes_us, share, [(stranger, rx)], rx)
        self._shares.setdefault(share, {})[rx.payload] = None
        self._seen[rx.payload] = closes_us + LATE_US
        return lost

    def poll(self, now_us: int) -> list[Heard]:
        """The uplinks whose window has closed, in the order in which they were first heard."""
        heard = []
        while self._open and next(iter(self._open.values())).closes_us <= now_us:
            payload, window = self._open.popitem(last=False)
            self._leave(window.share, payload)
            copies = tuple(rx for _, rx in sorted(window.copies, key=_quality))
            heard.append(Heard(copies[0], copies, window.first))
        return heard

    def poll_at(self) -> int | None:
        """When the next window closes (us); None: nothing is open."""
        return next(iter(self._open.values())).closes_us if self._open else None

    def _give_up(self, share: str) -> RxFrame | None:
        """Make room for `share` with the newest frame of the fullest one; None: that is `share` itself."""
        fullest = max(self._shares, key=lambda each: len(self._shares[each]))
        if len(self._shares[fullest]) <= len(self._shares.get(share, ())) + 1:
            return None
        payload = next(reversed(self._shares[fullest]))
        self._leave(fullest, payload)
        self._seen.pop(payload, None)
        return self._open.pop(payload).first

    def _leave(self, share: str, payload: bytes) -> None:
        del self._shares[share][payload]
        if not self._shares[share]:
            del self._shares[share]

    def _forget(self, now_us: int) -> None:
        while self._seen:
            oldest, until_us = next(iter(self._seen.items()))
            if until_us > now_us and len(self._seen) < FRAMES_MAX:
                return
            del self._seen[oldest]


def _quality(copy: tuple[bool, RxFrame]) -> tuple[bool, float, float, str]:
    stranger, rx = copy
    return (stranger, -rx.snr_db, -rx.rssi_dbm, rx.gateway_id)


def _add(window: _Window, stranger: bool, rx: RxFrame) -> None:
    copies = window.copies
    for index, (_, copy) in enumerate(copies):
        if copy.gateway_id == rx.gateway_id:
            copies[index] = min(copies[index], (stranger, rx), key=_quality)
            return
    copies.append((stranger, rx))
    if len(copies) > COPIES_MAX:
        first = window.first.gateway_id
        copies.remove(max((each for each in copies if each[1].gateway_id != first), key=_quality))

"""Downlinks that a backend keeps until their time, and the fates that it found out meanwhile.

A backend gives every `Transmit` back as one `TxAck`: what is refused, by the backend or for want of room, is
told with the next `poll`.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from gateway.radios.radio import Input
from swarm.effects import Transmit, TxAck

__all__ = ["HELD_MAX", "HeldDownlinks"]

HELD_MAX = 1024


class HeldDownlinks:
    """By release time, equal ones in their order; refusals count in `counters["downlink_refused"]`."""

    def __init__(self, counters: dict[str, int]) -> None:
        self._counters = counters
        self._heap: list[tuple[int, int, Transmit]] = []
        self._fates: list[Input] = []
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._heap)

    def hold(self, transmit: Transmit, release_us: int) -> None:
        """Keep a downlink until then; without room it is refused."""
        if len(self._heap) >= HELD_MAX:
            self.refuse(transmit, "QUEUE_FULL")
            return
        self._sequence += 1
        heapq.heappush(self._heap, (release_us, self._sequence, transmit))

    def due(self, now_us: int) -> Iterator[Transmit]:
        """Those whose time has come, each taken out."""
        while self._heap and self._heap[0][0] <= now_us:
            yield heapq.heappop(self._heap)[2]

    def refuse(self, transmit: Transmit, error: str) -> None:
        """It will not be sent."""
        self._counters["downlink_refused"] += 1
        self.tell(transmit.transmit_id, error)

    def tell(self, transmit_id: int, error: str) -> None:
        """What became of a downlink that was handed on."""
        self._fates.append(TxAck(transmit_id, error))

    def fates(self) -> list[Input]:
        """All that was found out since the last call."""
        found, self._fates = self._fates, []
        return found

    def at(self) -> int | None:
        """When there is something to do (us; 0: now); None: nothing."""
        if self._fates:
            return 0
        return self._heap[0][0] if self._heap else None

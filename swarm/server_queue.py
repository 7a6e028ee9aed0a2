"""What a network server holds for each of its devices: how deep its queue is, and what became of each frame.

Theory of operation.  A server sends the frames of one device in order: to one in class A one after each
uplink, to one in class C when it can.  It says of each when it went out (ChirpStack `txack`, The Things
Stack `down/sent`) or that it could not (`log`, `down/failed`); that word may get lost, and a join may empty
the queue without any.  So a frame counts as *open* until its word came, or that of a later one, or its node
was heard `UPLINKS_MAX` times since, or joined again.  At most `OPEN_MAX` frames of a node are open: what is
beyond waits here, where it can still be withdrawn.  Of a large block one frame is open: one more there
would be one uplink that a question waits longer.  The word on a block's frame is not waited for beyond
`BLOCK_UPLINKS_MAX` uplinks, and to a device in class C not beyond `BLOCK_WAIT_US`.

Nothing of this is stored: after a restart the queue counts as empty.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from swarm.downlinks import BLOCK_TAG, Pending

__all__ = ["BLOCK_WAIT_US", "HANDED_MAX", "OPEN_MAX", "Handed", "ServerQueue"]

OPEN_MAX = 4
UPLINKS_MAX = 8
BLOCK_UPLINKS_MAX = 2
BLOCK_WAIT_US = 120_000_000
HANDED_MAX = 4096
"""Frames whose fate is awaited, of all nodes."""


@dataclass(slots=True)
class Handed:
    """A frame that the server has; `uplinks` of its node came since."""

    reference: int
    dev_eui: str
    pending: Pending
    at_us: int
    airtime_us: int
    uplinks: int = 0
    is_open: bool = True

    @property
    def of_block(self) -> bool:
        """Whether it belongs to a large block."""
        return self.pending.tag == BLOCK_TAG


class ServerQueue:
    """Frames by the reference under which the server has them, and by node, oldest first."""

    def __init__(self) -> None:
        self._handed: dict[int, Handed] = {}
        self._open: dict[str, deque[Handed]] = {}

    def put(self, handed: Handed) -> None:
        """The server is given a frame."""
        while len(self._handed) >= HANDED_MAX:
            self._close(self._handed.pop(next(iter(self._handed))))
        self._handed[handed.reference] = handed
        self._open.setdefault(handed.dev_eui, deque()).append(handed)

    def take(self, reference: int) -> Handed | None:
        """The server said what became of a frame: those before it are out of its queue too.  The frame is
        `is_open` when that word was still waited for."""
        handed = self._handed.pop(reference, None)
        if handed is None or not handed.is_open:
            return handed
        waiting = self._open[handed.dev_eui]
        for earlier in list(waiting)[: waiting.index(handed) + 1]:
            self._close(earlier)
        handed.is_open = True
        return handed

    def on_uplink(self, dev_eui: str) -> None:
        """The node was heard: the server could send it one frame."""
        for handed in list(self._open.get(dev_eui, ())):
            handed.uplinks += 1
            if handed.uplinks >= (BLOCK_UPLINKS_MAX if handed.of_block else UPLINKS_MAX):
                self._close(handed)

    def on_silence(self, now_us: int, dev_eui: str) -> None:
        """What was handed over long ago for a node that is always on has gone out, or never will."""
        for handed in list(self._open.get(dev_eui, ())):
            if now_us - handed.at_us >= BLOCK_WAIT_US:
                self._close(handed)

    def clear(self, dev_eui: str) -> None:
        """The node joined again: its queue may be empty now."""
        for handed in list(self._open.get(dev_eui, ())):
            self._close(handed)

    def forget(self, dev_eui: str) -> None:
        """The node is gone: no word on its frames matters."""
        self.clear(dev_eui)
        for reference in [number for number, each in self._handed.items() if each.dev_eui == dev_eui]:
            del self._handed[reference]

    def has_room(self, dev_eui: str, *, block: bool = False) -> bool:
        """Whether the server may have one more frame for the node; `block`: one of a large block."""
        waiting = self._open.get(dev_eui, ())
        return len(waiting) < OPEN_MAX and not (block and any(each.of_block for each in waiting))

    def _close(self, handed: Handed) -> None:
        if not handed.is_open:
            return
        handed.is_open = False
        waiting = self._open[handed.dev_eui]
        waiting.remove(handed)
        if not waiting:
            del self._open[handed.dev_eui]

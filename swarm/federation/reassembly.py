"""Updates that are larger than a frame: fragments in, the whole update out.

Theory of operation.  A node cuts an update into `count` slices and sends them one after another within its
round.  A slice is kept under (node, index) until all are there, in any order and with repetitions; the last
one gives the whole, which is then an update like any other.  What is not whole when the round ends is
forgotten, and was never acknowledged: the node keeps it for its next update.

A node that sends another count starts anew (it composed a second update after a reset).  Slices are
rows of table `fragment`; the last one is never stored, because the update that it completes is.

Bounds: `FRAGMENTS_MAX` slices of a node, `SLICES_MAX` of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from swarm.effects import Row, Store
from swarm.wire.app import Fragment

__all__ = ["SLICES_MAX", "Reassembly"]

SLICES_MAX = 65_536
"""Slices kept at a time, of all nodes: 15 MB at most."""

TABLE = "fragment"


class Reassembly:
    """The incomplete updates of the open round, `number`."""

    def __init__(self, number: int, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self.number = number
        self._slices: dict[str, dict[int, bytes]] = {}
        self._counts: dict[str, int] = {}
        self._kept = 0
        for row in rows:
            if row["round"] == number:
                self._keep(row["dev_eui"], row["index"], row["count"], bytes(row["slice"]))

    def __len__(self) -> int:
        """Slices kept."""
        return self._kept

    def take(self, dev_eui: str, message: Fragment) -> tuple[bytes | None, list[Store]]:
        """One fragment of this round: the whole update if it was the last one missing, and what to store."""
        stores: list[Store] = []
        if self._counts.get(dev_eui, message.count) != message.count:
            stores += self.forget(dev_eui)
        slices = self._slices.get(dev_eui, {})
        if message.index in slices:
            return None, stores
        if len(slices) + 1 == message.count:
            whole = {**slices, message.index: message.slice}
            return b"".join(whole[index] for index in range(message.count)), stores + self.forget(dev_eui)
        if self._kept >= SLICES_MAX:
            return None, stores
        self._keep(dev_eui, message.index, message.count, message.slice)
        row: Row = {
            "round": self.number,
            "dev_eui": dev_eui,
            "index": message.index,
            "count": message.count,
            "slice": message.slice,
        }
        return None, [*stores, Store(TABLE, self._key(dev_eui, message.index), row)]

    def forget(self, dev_eui: str) -> list[Store]:
        """Drop what a node sent so far."""
        slices = self._slices.pop(dev_eui, {})
        self._counts.pop(dev_eui, None)
        self._kept -= len(slices)
        return [Store(TABLE, self._key(dev_eui, index), None) for index in sorted(slices)]

    def expire(self) -> list[Store]:
        """The round is over: drop everything."""
        return [store for dev_eui in sorted(self._slices) for store in self.forget(dev_eui)]

    def incomplete(self) -> int:
        """Nodes whose update is not whole yet."""
        return len(self._slices)

    def _keep(self, dev_eui: str, index: int, count: int, data: bytes) -> None:
        self._slices.setdefault(dev_eui, {})[index] = data
        self._counts[dev_eui] = count
        self._kept += 1

    def _key(self, dev_eui: str, index: int) -> str:
        return f"{self.number}/{dev_eui}/{index}"

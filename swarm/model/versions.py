"""The versions of the cell's model, one after another: what nodes have, and the block that brings them there.

Theory of operation.  `master` is the vector that strategies work on; `move_to` makes the next version of it:
`mirror`, the integers that nodes will have, and `block`, which every window sends until the version after.
`sent` is told of each window, because only what a window sent may be the base of a block.

What is sent again and what is not: HEADS are sent whole in every window, so a node that missed a window
is whole after the next; DELTA blocks need their base, so every `FULL_EVERY`-th version is a FULL one.

Rows: table `model`, one row a version, the last `KEPT` of them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from swarm.effects import Row, Store
from swarm.model import block, stored
from swarm.model.vector import Float64, Mirror
from swarm.wire.app import BlockKind

__all__ = ["FULL_EVERY", "KEPT", "Versions"]

KEPT = 8
FULL_EVERY = 4
TABLE = "model"


class Versions:
    """`base` is what was shipped: version 0, which needs no block.

    `mirror`: the nodes' parameters after the next window, bit for bit.  `master`: float64[d], real units.
    `block`: what takes the nodes to the mirror; None while they have what was shipped.
    """

    def __init__(self, base: Mirror, rows: Mapping[str, Row]) -> None:
        """ValueError for rows that are damaged or hold a model of another shape."""
        self._base = base
        self._rows = rows
        self.mirror, self.master = base, base.master()
        self.block: block.Encoded | None = None
        self._sent: tuple[Mirror, block.Encoded | None] = (base, None)
        if not rows:
            return
        newest = max(rows.values(), key=lambda row: int(row["made_us"]))  # type: ignore[arg-type]
        self.mirror, self.master, self.block = stored.from_row(newest)
        if self.mirror.classes != base.classes:
            raise ValueError(
                f"the stored model has {self.mirror.classes} classes, the shipped one "
                f"{base.classes}; use the model that this data directory began with, "
                "or a new directory"
            )

    def restore_sent(self, version: int) -> None:
        """The last window before the restart sent this version."""
        row = self._rows.get(str(version))
        if row is not None:
            mirror, _, encoded = stored.from_row(row)
            self._sent = (mirror, encoded)

    def sent(self) -> None:
        """A window sends mirror and block as they are now."""
        self._sent = (self.mirror, self.block)

    def step_back(self) -> list[Store]:
        """Give up a version that no window has sent.

        A successor of it would need it as its base, and no node has that.
        """
        unsent = self.mirror.version
        if unsent == self._sent[0].version:
            return []
        self.mirror, self.block = self._sent
        return [Store(TABLE, str(unsent), None)]

    def move_to(self, master: Float64, now_us: int, number: int) -> list[Store]:
        """The next version comes from this vector, which round `number` made or takes up."""
        self.master = master
        kind = block.choose(self.mirror, master)
        if kind is None:
            # Steps below one bit of the integers: no new version, but the next step starts from them.
            return [self._row(now_us, number)]
        contexts = None
        if kind is BlockKind.HEADS and not np.array_equal(self.mirror.adapter, self._base.adapter):
            # HEADS needs no base: a node that missed the adapter's DELTA would take it for the whole.
            kind = BlockKind.FULL
        if kind is BlockKind.HEADS:
            # Every head that ever moved, so that a node that missed earlier windows is whole after this one.
            moved = [
                c
                for c in range(self.mirror.contexts)
                if not np.array_equal(self.mirror.heads[c], self._base.heads[c])
            ]
            contexts = sorted({*moved, *block.changed_contexts(self.mirror, master)})
        elif (self.mirror.version + 1) % FULL_EVERY == 0:
            kind = BlockKind.FULL
        self.block = block.encode(self.mirror, master, kind, contexts)
        self.mirror = self.block.mirror
        obsolete = str(self.mirror.version - KEPT)
        return [self._row(now_us, number), Store(TABLE, obsolete, None)]

    def _row(self, now_us: int, number: int) -> Store:
        row = stored.to_row(self.mirror, self.master, self.block, made_us=now_us, number=number)
        return Store(TABLE, str(self.mirror.version), row)

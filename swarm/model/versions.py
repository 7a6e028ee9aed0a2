"""The versions of the cell's model, one after another: what nodes have, and the block that brings them there.

Theory of operation.  `master` is the vector that strategies work on; `move_to` makes the next version of it:
`mirror`, the integers that nodes will have, and `block`, which every window sends until the version after.
`sent` is told of each window, because only what a window sent may be the base of a block.  `frames` are
the block's, signed: a version that was stored under one key goes out under the key of today.

What is sent again and what is not: HEADS are sent whole in every window, so a node that missed a window
is whole after the next; DELTA blocks need their base, so every `FULL_EVERY`-th version is a FULL one.

An earlier version comes back as the next one (`earlier`, then `move_to`): numbers never go back, and nodes
take no signed block whose number is behind theirs.  A gateway that lost its rows, or got old ones from a
backup, would be refused by all: `catch_up` goes on from the number that its nodes report.

Rows: table `model`, one row a version, the last `KEPT` of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from swarm.effects import Event, Row, Store
from swarm.model import block, stored
from swarm.model.layout import ADAPTER_SIZE
from swarm.model.vector import VERSIONS, Float64, Mirror
from swarm.security.signatures import Signer
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

    def __init__(self, base: Mirror, rows: Mapping[str, Row], signer: Signer | None = None) -> None:
        """ValueError for rows that are damaged or hold a model of another shape."""
        self._base = base
        self._signer = signer
        self._rows = rows
        self.mirror, self.master = base, base.master()
        self.block: block.Encoded | None = None
        self._sent: tuple[Mirror, block.Encoded | None] = (base, None)
        self._past: dict[int, tuple[Mirror, Float64]] = {base.version: (base, self.master)}
        """By version, oldest first: what was shipped, and the last `KEPT`, as in the rows."""
        if not rows:
            return
        for row in sorted(rows.values(), key=lambda row: int(row["made_us"])):  # type: ignore[arg-type]
            self.mirror, self.master, self.block = stored.from_row(row)
            self._remember()
        if self.mirror.classes != base.classes:
            raise ValueError(
                f"the stored model has {self.mirror.classes} classes, the shipped one "
                f"{base.classes}; use the model that this data directory began with, "
                "or a new directory"
            )

    def frames(self, payload_max: int) -> list[bytes]:
        """The block's FPort 10 payloads; none while nodes have what was shipped."""
        return [] if self.block is None else self.block.frames(payload_max, self._signer)

    def restore_sent(self, version: int) -> None:
        """The last window before the restart sent this version."""
        row = self._rows.get(str(version))
        if row is not None:
            mirror, _, encoded = stored.from_row(row)
            self._sent = (mirror, encoded)

    def sent(self) -> None:
        """A window sends mirror and block as they are now."""
        self._sent = (self.mirror, self.block)

    def earlier(self, version: int | None = None) -> tuple[int, Float64] | None:
        """`version` and its vector, or the one before what the last window sent; None: it is not kept."""
        if version is None:
            before = [known for known in self._past if self._is_before_sent(known)]
            version = before[-1] if before else None
        return None if version not in self._past else (version, self._past[version][1])

    def kept(self) -> list[int]:
        """The versions that `earlier` knows, oldest first."""
        return list(self._past)

    @property
    def sent_version(self) -> int:
        """What the last window sent."""
        return self._sent[0].version

    def oldest_from(self, version: int) -> int:
        """This version, or the oldest kept beside what was shipped; if none, what the last window sent.

        What was shipped is kept for ever, but gives way like others once its successor is gone.
        """
        known = [each for each in self._past if each != self._base.version and self._is_before_sent(each)]
        is_old = version == self._base.version and bool(known) and version + 1 not in self._past
        return version if version in self._past and not is_old else known[0] if known else self.sent_version

    def changed_since(self, versions: Sequence[int]) -> frozenset[int]:
        """The contexts whose head, as the last window sent it, is another than in versions[context].

        Not those whose head came back with it: it is that of an earlier version.  The adapter does not count,
        for nodes compare heads under the adapter that they have now.
        """
        sent = self._sent[0]
        older = [self._heads(version) for version in self._past if self._is_before_sent(version)]
        if not older:
            return frozenset()
        heads = self._heads(sent.version)
        returned = np.any([(heads == each).all(axis=1) for each in older], axis=0)
        changed = [
            not returned[context]
            and not np.array_equal(self._past[version][0].heads[context], sent.heads[context])
            for context, version in enumerate(versions)
        ]
        return frozenset(np.flatnonzero(changed).tolist())

    def with_heads_of(self, version: int, contexts: Collection[int], vector: Float64) -> Float64:
        """A vector like this, but for these contexts' heads: those of a version that `kept` knows."""
        made, chosen = vector.copy(), sorted(contexts)
        made[ADAPTER_SIZE:].reshape(self._base.contexts, -1)[chosen] = self._heads(version)[chosen]
        return made

    def _heads(self, version: int) -> Float64:
        """float64[contexts, head], real units."""
        return self._past[version][1][ADAPTER_SIZE:].reshape(self._base.contexts, -1)

    def _is_before_sent(self, version: int) -> bool:
        order = list(self._past)
        sent = self._sent[0].version
        return sent in self._past and order.index(version) < order.index(sent)

    def _remember(self) -> None:
        obsolete = self.mirror.version - KEPT
        self._past[self.mirror.version] = (self.mirror, self.master)
        if obsolete != self._base.version:
            self._past.pop(obsolete, None)
        else:
            self._past[obsolete] = (self._base, self._base.master())

    def step_back(self) -> list[Store]:
        """Give up a version that no window has sent.

        A successor of it would need it as its base, and no node has that.
        """
        unsent = self.mirror.version
        if unsent == self._sent[0].version:
            return []
        self.mirror, self.block = self._sent
        self._past.pop(unsent, None)
        return [Store(TABLE, str(unsent), None)]

    def move_to(self, master: Float64, now_us: int, number: int) -> list[Store]:
        """The next version comes from this vector, which round `number` made or takes up."""
        self.master = master
        kind = block.choose(self.mirror, master)
        if kind is None:
            # Steps below one bit of the integers: no new version, but the next step starts from them.
            self._remember()
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
        self._remember()
        obsolete = str(self.mirror.version - KEPT)
        return [self._row(now_us, number), Store(TABLE, obsolete, None)]

    def catch_up(self, told: Sequence[int], now_us: int, number: int) -> list[Store | Event]:
        """If a quarter of the nodes that said theirs have versions ahead, a whole block goes out above them.

        A quarter: few that lie, or that somebody took apart, cannot use the numbers up.
        """
        ahead = sorted(((version - self.mirror.version) % VERSIONS for version in told), reverse=True)
        ahead = [steps for steps in ahead if 0 < steps <= VERSIONS // 2]
        needed = -(-len(told) // 4)
        if self._signer is None or self._signer.key is None or not ahead or len(ahead) < needed:
            return []
        before = self.mirror
        theirs = (before.version + ahead[needed - 1]) % VERSIONS
        kept = [version for version in self._past if version != self._base.version]
        obsolete = [Store(TABLE, str(version), None) for version in kept]
        self._past = {self._base.version: (self._base, self._base.master())}
        self.block = block.encode(replace(before, version=theirs), self.master, BlockKind.FULL)
        self.mirror = self.block.mirror
        self._remember()
        data = {"from_version": before.version, "to_version": self.mirror.version, "nodes": len(ahead)}
        return [*obsolete, self._row(now_us, number), Event("versions_skipped", now_us, data)]

    def _row(self, now_us: int, number: int) -> Store:
        row = stored.to_row(self.mirror, self.master, self.block, made_us=now_us, number=number)
        return Store(TABLE, str(self.mirror.version), row)

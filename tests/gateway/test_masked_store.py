"""What a thief of the gateway's disk gets under masked sums: whole groups, at every moment, and nothing less.

Twelve real nodes in three groups send to the real coordinator, whose effects go through the real SQLite
store.  From the first request for seeds on, the bytes of the database and of its log are read after every
commit, and everything that can be put together from them is: `derived` knows all keys, so it recognises
every seed and every piece of a vector wherever it lies, free pages included.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from gateway.store.backup import backup, restore
from gateway.store.sqlite import SqliteStore
from swarm.effects import Effect, Event, Store
from swarm.federation.strategy import FlowerStrategy
from swarm.wire import app
from tests.swarm.cell import CONTEXTS, Cell
from tests.swarm.masked_cell import MaskedCell

SIZE, GROUPS = 4, 3
WINDOW = 16
"""Bytes by which a piece of a vector is known again: eleven values."""


class _OnDisk(Cell):
    """The cell of the tests with its rows in SQLite, as the daemon has them: committed, then sent."""

    folder: Path
    watched = False

    def _build(self) -> None:
        if self.restarts:
            self.store.close()
        self.store = SqliteStore(self.folder)
        self.disks: list[bytes] = getattr(self, "disks", [])
        self.rows = self.store.load()
        super()._build()

    def perform(self, effects: Iterable[Effect]) -> None:
        done = list(effects)
        stores = [effect for effect in done if isinstance(effect, Store)]
        events = [effect for effect in done if isinstance(effect, Event)]
        if stores or events:
            self.store.commit(stores, events, now_us=self.now_us)
            self.watched = self.watched or any(event.kind == "round_repair" for event in events)
            if self.watched:
                self.disks.append(self.disk())
        super().perform(done)

    def disk(self) -> bytes:
        """All bytes of the database, its log and its index of the log."""
        return b"".join(path.read_bytes() for path in sorted(self.folder.glob("swarm.db*")))


@pytest.fixture
def cell(tmp_path: Path) -> MaskedCell:
    _OnDisk.folder = tmp_path
    made = MaskedCell(SIZE, groups=GROUPS, make=_OnDisk)
    made.observe()
    return made


def wholes(cell: MaskedCell) -> dict[int, bytes]:
    """Each node's masked vector, as it left the node in fragments."""
    parts: dict[int, dict[int, bytes]] = {}
    for node, message in cell.decoded():
        if isinstance(message, app.Fragment):
            parts.setdefault(node, {})[message.index] = message.slice
    return {node: b"".join(own[i] for i in sorted(own)) for node, own in parts.items()}


def seed(cell: MaskedCell, number: int, first: int, second: int) -> bytes:
    """The seed of a pair, by the keys that no gateway has."""
    key = cell.masks[first].keys[second % SIZE]
    cipher = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return cipher.update(b"M" + number.to_bytes(2, "little") + bytes(13))


def derived(cell: MaskedCell, number: int, disk: bytes) -> list[frozenset[int]]:
    """The sets of nodes whose common sum, or any eleven values of it, these bytes give away.

    Masks that are not on the disk bind their two members together: only the sum over all who are bound, one
    to the next, is free of them, and only where the same piece of each one's vector is there.
    """
    vectors, found = wholes(cell), []
    for start in range(0, SIZE * GROUPS, SIZE):
        left = set(range(start, start + SIZE))
        while left:
            bound, new = set(), {min(left)}
            while new:
                bound |= new
                reached = {
                    other
                    for other in left - bound
                    for one in new
                    if seed(cell, number, one, other) not in disk
                }
                new = reached
            left -= bound
            pieces = range(11, len(vectors[start]) - WINDOW, WINDOW)
            if any(all(vectors[node][at : at + WINDOW] in disk for node in bound) for at in pieces):
                found.append(frozenset(bound))
    return found


def test_a_backup_holds_no_part_of_a_vector_and_a_restored_round_repairs_nothing(
    cell: MaskedCell, tmp_path: Path
) -> None:
    """Goal: a backup and the disk of later give no more than each alone.

    Method: a backup is made when half of the nodes were heard and one of node 5's fragments is here; the
    round restored from it must not ask for the masks of those who were heard after it.
    """
    number = cell.open()

    def half(node: int, payload: bytes) -> bool:
        return node not in (0, 1, 2, 4, 5, 6, 7) or (node == 5 and payload[0] == 3 and payload[4] == 1)

    cell.step(700, half)
    assert cell.cell.store.load()["fragment"]
    file = tmp_path / "elsewhere" / "backup.db"
    file.parent.mkdir()
    backup(tmp_path, file)
    kept = file.read_bytes()
    whole = wholes(cell)
    assert whole[4][11:27] in kept and whole[5][11:27] not in kept
    cell.cell.store.close()
    restore(tmp_path, file)
    cell.cell.restart()
    assert not cell.cell.rows["fragment"] and len(cell.cell.rows["update"]) == 6
    cell.step(700)
    assert not cell.cell.told("round_repair")
    assert cell.cell.told("round_closed")[-1].data["failure"] == "no replies"
    cell.open()
    assert "restored" not in cell.cell.store.load()["meta"]
    cell.step(1300)
    assert cell.cell.told("round_closed")[-1].data["updates"] == 12
    assert cell.cell.core.rounds.last_round == number + 1


def loses(node: int, payload: bytes) -> bool:
    """Of node 5 the second fragment, of node 9 all."""
    return payload[0] == 3 and (node == 9 or (node == 5 and payload[4] == 1))


def test_no_single_nodes_sums_are_on_the_disk_at_any_moment(cell: MaskedCell) -> None:
    """A part of one vector came, another vector came late, seeds came: what is derived is groups, whole."""
    number = cell.open()
    cell.step(1300, loses)
    assert cell.cell.told("round_repair")
    late = [payload for node, payload in cell.sent if node in (5, 9)]
    for node, payload in zip((5, 5, 9, 9), late, strict=True):
        cell.cell.uplink(CONTEXTS * node, 10, payload)
        assert cell.cell.told("update_refused")[-1].data["reason"] == "repairing"
    cell.cell.restart()
    cell.wake([4, 6, 7, 8])
    cell.step(30)
    cell.cell.restart()
    cell.wake([10, 11])
    cell.step(60)
    assert cell.cell.told("round_closed")[-1].data["updates"] == 10
    allowed = {frozenset(range(4)), frozenset({4, 6, 7}), frozenset({8, 10, 11})}
    seen = {group for disk in cell.cell.disks for group in derived(cell, number, disk)}
    assert frozenset({4, 6, 7}) in seen <= allowed  # it is found where it may be, and nothing else is
    assert derived(cell, number, cell.cell.disk()) == [frozenset(range(4))]  # the seeds are gone again
    strategy = FlowerStrategy("masked_sums", cell.model.shape)
    strategy.restore(bytes(cell.cell.store.load()["strategy"]["masked_sums"]["state"]))  # type: ignore[arg-type]
    arrays = strategy._capture()
    assert arrays["totals"].shape == (CONTEXTS, 273) and arrays["members"].tolist() == [10, 0, 0, 0]
    assert strategy.samples == 6 * 10
    events = {logged.event.kind: set(logged.event.data) for logged in cell.cell.store.events(limit=1000)}
    assert events["update"] == {"round", "dev_eui", "num_examples", "staleness", "late"}
    assert events["seeds"] == {"round", "dev_eui", "missing"}
    assert events["fragment"] == {"dev_eui", "round", "index", "count"}

"""Updates in fragments: joined once and whole, bounded, forgotten with their round, kept in a restart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.effects import Store
from swarm.federation import reassembly
from swarm.federation.reassembly import Reassembly
from swarm.wire import app
from swarm.wire.app import Fragment, RoundMode
from tests.swarm.cell import Cell, dense, means, messages, open_round, settings, signs

DENSE = RoundMode.DENSE_INT8


def pieces(data: bytes, count: int) -> list[Fragment]:
    size = -(-len(data) // count)
    return [Fragment(1, DENSE, i, count, data[i * size : (i + 1) * size]) for i in range(count)]


def perform(rows: dict[str, Any], stores: list[Store]) -> None:
    for store in stores:
        assert store.table == "fragment"
        if store.row is None:
            del rows[store.key]
        else:
            rows[store.key] = store.row


@given(st.data())
def test_any_order_any_repetition_any_restart_gives_the_whole_once(data: st.DataObject) -> None:
    """Slices of three nodes mixed and repeated; now and then all is made again from the rows."""
    wholes = {f"{node:016x}": bytes([node]) * data.draw(st.integers(64, 200)) for node in range(3)}
    todo = [
        (dev_eui, piece)
        for dev_eui, whole in wholes.items()
        for piece in pieces(whole, data.draw(st.integers(2, 8)))
    ]
    order = data.draw(st.permutations(todo))
    rows: dict[str, Any] = {}
    made = Reassembly(1)
    joined: dict[str, bytes] = {}
    for dev_eui, piece in order:
        for _ in range(data.draw(st.integers(1, 2))):
            if dev_eui in joined:
                continue  # the round holds the update: it asks no more
            whole, stores = made.take(dev_eui, piece)
            perform(rows, stores)
            if whole is not None:
                joined[dev_eui] = whole
        if data.draw(st.booleans()):
            made = Reassembly(1, rows.values())
        assert len(made) == len(rows)
    assert joined == wholes
    assert len(made) == 0 and not rows


def test_another_count_starts_anew() -> None:
    """A node that was reset in mid-update composes a new one: old slices do not mix with it."""
    made, rows = Reassembly(1), {}
    old, new = pieces(b"old update", 5), pieces(b"the new one", 3)
    for piece in (*old[:4], *new):
        whole, stores = made.take("00", piece)
        perform(rows, stores)
    assert whole == b"the new one" and not rows


def test_the_table_is_bounded_and_forgets_with_the_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reassembly, "SLICES_MAX", 3)
    made, rows = Reassembly(1), {}
    for node in range(5):
        perform(rows, made.take(f"{node}", pieces(b"ab", 2)[0])[1])
    assert len(made) == 3 and made.incomplete() == 3
    assert made.take("0", pieces(b"ab", 2)[1])[0] == b"ab"  # what was begun can still be finished
    perform(rows, [Store("fragment", "1/0/0", None), *made.expire()])
    assert not rows and len(made) == 0
    assert len(Reassembly(2, [{"round": 1, "dev_eui": "0", "index": 0, "count": 2, "slice": b"a"}])) == 0


def refusals(cell: Cell) -> list[object]:
    return [event.data["reason"] for event in cell.told("update_refused")]


def test_whole_updates_count_and_are_acknowledged_incomplete_ones_are_not() -> None:
    """Nodes 0..2 send all three fragments, one of them twice; node 3 stops after two."""
    cell = Cell(config=settings("dense_int8"))
    number = open_round(cell)
    for node in range(4):
        frames = dense(node, number)
        assert len(frames) == 3 and max(map(len, frames)) <= 222
        for frame in (*frames[:2], *([] if node == 3 else [frames[1], frames[2]])):
            cell.uplink(node, 10, frame)
    assert len(cell.rows["update"]) == 3 and len(cell.rows["fragment"]) == 2
    assert refusals(cell) == []
    cell.run_for(1300)
    (closed,) = cell.told("round_closed")
    assert (closed.data["updates"], closed.data["incomplete"], closed.data["failure"]) == (3, 1, None)
    assert not cell.rows["fragment"]
    cell.receive()
    open_round(cell)
    acks = [m for m in messages(cell.receive()[0]) if isinstance(m, app.RoundAck)]
    assert {(ack.round, ack.first_index, ack.bitmap) for ack in acks} == {(number, 0, b"\x07")}


def test_fragments_that_cannot_count_are_refused_with_a_reason() -> None:
    cell = Cell(config=settings("dense_int8"))
    first, second, third = dense(0, 1)
    cell.uplink(0, 10, first)
    number = open_round(cell)
    cell.uplink(0, 10, first.replace(b"\x03\x01\x00", b"\x03\x00\x00", 1))  # round 0
    cell.uplink(0, 10, first.replace(b"\x03\x01\x00", b"\x03\x02\x00", 1))  # round 2
    cell.uplink(0, 10, app.encode(Fragment(number, RoundMode.PROTOTYPES, 0, 2, b"x")))
    cell.uplink(0, 10, means(0, number))
    cell.uplink(0, 10, signs(0, number))
    for frame in (first, second, third, first):
        cell.uplink(0, 10, frame)
    for index, data in enumerate((b"\x05 what is this", b"?")):
        cell.uplink(1, 10, app.encode(Fragment(number, DENSE, index, 2, data)))
    nested = app.encode(Fragment(number, DENSE, 0, 2, b"z"))
    for index, data in enumerate((nested[:3], nested[3:])):
        cell.uplink(2, 10, app.encode(Fragment(number, DENSE, index, 2, data)))
    other_size = dense(3, number, classes=4)
    for frame in other_size:
        cell.uplink(3, 10, frame)
    wrong = ["closed", "stale", "wrong_round", "wrong_mode", "wrong_mode", "wrong_mode", "duplicate"]
    assert refusals(cell) == [*wrong, "implausible", "implausible", "implausible"]
    assert len(cell.rows["update"]) == 1 and not cell.rows["fragment"]


def test_only_the_invited_cohort_sends_fragments() -> None:
    cell = Cell(config=settings("dense_int8", cohort=0.3))
    number = open_round(cell)
    out = [node for node in range(4) if app.hash8(node, number) > 76]
    assert out
    for node in out:
        cell.uplink(node, 10, dense(node, number)[0])
    assert refusals(cell) == ["not_in_cohort"] * len(out) and not cell.rows.get("fragment")


def test_a_dense_round_changes_the_model_by_the_mean_of_what_was_sent() -> None:
    """FedAvg of four int8 changes of one context each: adapter the mean, each head its own node's change."""
    cell = Cell(config=settings("dense_int8", strategy="FedAvg"))
    before = cell.core.rounds._versions.master.copy()
    number = open_round(cell)
    sent = []
    for node in range(4):
        frames = dense(node, number)
        for frame in frames:
            cell.uplink(node, 10, frame)
        sent.append(app.decode_uplink(10, b"".join(frame[6:] for frame in frames)))
    moved = cell.core.rounds._versions.master - before
    steps = [np.array(m.steps) * 1.0 for m in sent if isinstance(m, app.DenseInt8)]
    assert moved[:512] == pytest.approx(np.mean([s[:512] * 2 / 4096 for s in steps], axis=0))
    for node in range(4):
        own = slice(512 + 99 * node, 611 + 99 * node)
        assert moved[own] == pytest.approx(steps[node][512:] * 3 / 256)

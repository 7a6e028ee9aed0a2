"""Masked sums from end to end: real nodes, real frames, the real coordinator, every way to lose a member."""

from __future__ import annotations

import numpy as np
import pytest

from swarm.federation.round import RoundState
from swarm.federation.sums_plan import plan_of
from swarm.wire import app
from tests.swarm.cell import CONTEXTS
from tests.swarm.masked_cell import MaskedCell

ALL = list(range(8))


def is_sum_of(cell: MaskedCell, members: list[int]) -> None:
    """The gateway has these members' sum, up to the rounding of each of them."""
    plan = plan_of(cell.cell.config.learning.privacy)
    off = np.abs(cell.totals() - cell.truth(members))
    assert (off[:3] == 0).all()
    assert off[3:63].max() <= len(members) << plan.shift_linear
    assert off[63:].max() <= len(members) << plan.shift_square


def closed(cell: MaskedCell) -> dict[str, object]:
    return dict(cell.cell.told("round_closed")[-1].data)


def loses(*members: int) -> object:
    """All learning frames of these nodes are lost."""
    return lambda node, payload: node in members and payload[0] in (3, 8)


def test_a_whole_group_gives_its_sum_and_nothing_else() -> None:
    cell = MaskedCell()
    cell.observe()
    cell.open()
    cell.step(1300)
    assert closed(cell)["updates"] == 8 and not cell.cell.told("round_repair")
    is_sum_of(cell, ALL)


@pytest.mark.parametrize("missing", [[0], [7], [2, 5], [0, 1, 2, 3, 4], [3, 4, 6, 7]], ids=str)
def test_members_that_are_missing_are_repaired(missing: list[int]) -> None:
    """Any who are lost: those who remain tell the seeds, and the sum is exactly theirs."""
    cell = MaskedCell()
    cell.observe()
    cell.open()
    cell.step(1300, loses(*missing))
    survivors = [node for node in ALL if node not in missing]
    assert cell.cell.core.rounds.current.state is RoundState.REPAIR  # type: ignore[union-attr]
    cell.wake(survivors)
    cell.step(60)
    assert closed(cell)["updates"] == len(survivors)
    is_sum_of(cell, survivors)
    assert not cell.cell.rows.get("seeds") and not cell.cell.rows.get("fragment")


def test_fewer_than_three_are_left_out_and_keep_their_samples() -> None:
    """Two survivors would tell each other's sums: the group is dropped, and the next round has all of it."""
    cell = MaskedCell()
    cell.observe()
    cell.open()
    cell.step(1300, loses(*range(6)))
    assert closed(cell)["failure"] == "no replies"
    cell.open()
    cell.step(1300)
    is_sum_of(cell, ALL)


def test_a_restart_between_request_and_seeds_changes_nothing() -> None:
    """Killed after the request, and again with half of the seeds: the same sum."""
    cell = MaskedCell()
    cell.observe()
    cell.open()
    cell.step(1300, loses(6))
    cell.cell.restart()
    survivors = [node for node in ALL if node != 6]
    cell.wake(survivors[:4])
    cell.step(30)
    assert len(cell.cell.rows["seeds"]) >= 3
    cell.cell.restart()
    cell.wake(survivors)
    cell.step(60)
    is_sum_of(cell, survivors)
    assert closed(cell)["updates"] == 7


def test_seeds_that_never_come_leave_the_group_out() -> None:
    """One survivor stays silent until the next window: nothing of the group is used or acknowledged."""
    cell = MaskedCell()
    cell.observe()
    cell.open()
    cell.step(1300, loses(6))
    cell.wake([0, 1, 2])
    cell.step(3600, lambda node, payload: node == 4)
    assert closed(cell)["failure"] == "no replies"
    assert cell.cell.core.rounds.current is not None  # the next round is open all the same


def test_wrong_seeds_are_noticed() -> None:
    """A survivor sends other seeds: no samples have such a sum, so the group is left out."""
    cell = MaskedCell()
    cell.observe()
    number = cell.open()
    cell.step(1300, loses(6))
    false = app.Seeds(number, 3, 0, 1 << 6, (b"0123456789abcdef",))
    cell.cell.uplink(0, 10, app.encode(false))
    cell.wake([node for node in ALL if node not in (0, 6)])
    cell.step(60)
    assert closed(cell)["failure"] == "no replies"


@pytest.mark.parametrize(
    "forged",
    [
        lambda number: app.Seeds(number, 3, 1, 1 << 6, (bytes(16),)),  # another's position
        lambda number: app.Seeds(number, 3, 0, 1 << 5, (bytes(16),)),  # of a member that was heard
        lambda number: app.Seeds(number + 1, 3, 0, 1 << 6, (bytes(16),)),
        lambda number: app.Seeds(number, 4, 0, 1 << 6, (bytes(16),)),
    ],
)
def test_seeds_that_nobody_asked_for_are_refused(forged: object) -> None:
    cell = MaskedCell()
    cell.observe()
    number = cell.open()
    cell.step(1300, loses(6))
    cell.cell.uplink(0, 10, app.encode(forged(number)))  # type: ignore[operator]
    assert cell.cell.told("update_refused")[-1].data["reason"] == "seeds"
    assert not cell.cell.rows.get("seeds")


def test_seeds_told_twice_count_once_and_leave_no_row() -> None:
    """Which of two seeds counts must not depend on whether the gateway was restarted between them."""
    cell = MaskedCell()
    cell.observe()
    number = cell.open()
    cell.step(1300, loses(6))
    for seed in (b"0123456789abcdef", b"fedcba9876543210"):
        cell.cell.uplink(0, 10, app.encode(app.Seeds(number, 3, 0, 1 << 6, (seed,))))
    assert cell.cell.told("update_refused")[-1].data["reason"] == "seeds"
    (row,) = cell.cell.rows["seeds"].values()
    assert b"0123456789abcdef" in bytes(row["payload"])


def test_a_vector_that_comes_once_repair_began_is_refused() -> None:
    """Its masks are being told: it must not be stored, whole or in part."""
    cell = MaskedCell()
    cell.observe()
    cell.open()
    cell.step(1300, loses(6))
    late = [payload for node, payload in cell.sent if node == 6]
    assert len(late) == 2
    before = {table: dict(rows) for table, rows in cell.cell.rows.items() if table in ("update", "fragment")}
    for payload in late:
        cell.cell.uplink(CONTEXTS * 6, 10, payload)
        assert cell.cell.told("update_refused")[-1].data["reason"] == "repairing"
    for table, rows in before.items():
        assert cell.cell.rows[table] == rows


def test_a_part_of_a_vector_is_forgotten_before_seeds_are_asked_for() -> None:
    cell = MaskedCell()
    cell.observe()
    cell.open()
    cell.step(1300, lambda node, payload: node == 6 and payload[0] == 3 and payload[4] == 1)
    assert cell.cell.told("round_repair") and not cell.cell.rows.get("fragment")


def test_the_gateways_data_hold_no_single_nodes_sums() -> None:
    """Rows, events and memory of a repaired round: group sums, and masked vectors that are noise."""
    cell = MaskedCell()
    cell.observe()
    cell.open()
    cell.step(1300, loses(6))
    kept = list(cell.cell.rows["update"].values())
    survivors = [node for node in ALL if node != 6]
    cell.wake(survivors)
    cell.step(60)
    plan = plan_of(cell.cell.config.learning.privacy)
    for row in kept:
        message = app.decode_uplink(10, bytes(row["payload"]))
        assert isinstance(message, app.MaskedSums)
        own = cell.truth([int(str(row["node_index"])) // CONTEXTS])
        clear = np.concatenate([own[:3], own[3:63] >> plan.shift_linear, own[63:] >> plan.shift_square])
        near = (np.array(message.values) - clear + 2048) % 4096 - 2048
        # Of 273 uniform values about 3 lie within 20 of anything; all would if a mask were missing.
        assert (np.abs(near) <= 20).sum() <= 12
        values = np.array(message.values)
        assert abs(values.mean() - 2047.5) < 4 * 4096 / np.sqrt(12 * len(values))
    strategy = cell.cell.core.rounds.strategies["masked_sums"]
    arrays = strategy._capture()
    assert arrays["totals"].shape == (CONTEXTS, 273)  # one sum a context, whoever took part
    said = {key for event in cell.cell.events if event.kind == "update" for key in event.data}
    assert said == {"round", "dev_eui", "num_examples", "staleness", "late"}
    assert {event.data["num_examples"] for event in cell.cell.told("update")} == {1}


def test_a_node_never_masks_two_vectors_for_one_round() -> None:
    """Reset in mid-round, or asked for an old round: it stays silent, for the masks are used up."""
    cell = MaskedCell()
    cell.observe()
    number = cell.open()
    cell.step(700)
    first = len(cell.sent)
    cell.nodes.reset(0, cell.cell.now_us)
    plan = plan_of(cell.cell.config.learning.privacy)
    for again in (number, number - 1):
        frame = app.encode(app.RoundAnnounce(again, 0, 8, 255, 0, 500, 0, 0, plan))
        cell.nodes.rx(0, cell.cell.now_us, 10, frame, multicast=True)
        cell.step(60)
    assert len(cell.sent) == first
    frame = app.encode(app.RoundAnnounce(number + 1, 0, 8, 255, 0, 500, 0, 0, plan))
    cell.nodes.rx(0, cell.cell.now_us, 10, frame, multicast=True)
    cell.step(60)
    assert len(cell.sent) > first


def test_a_node_answers_one_request_and_not_for_too_few() -> None:
    """Another set of members, two survivors, a group or round that is not its own: no seeds."""
    cell = MaskedCell()
    cell.observe()
    number = cell.open()
    cell.step(700)
    for repair in (
        app.Repair(number, 3, 0b11),
        app.Repair(number, 2, 0x7F),
        app.Repair(number - 1, 3, 0x7F),
        app.Repair(number, 3, 0x107F),
    ):
        cell.nodes.rx(0, cell.cell.now_us, 10, app.encode(repair))
        cell.nodes.poll(cell.cell.now_us + 5_000_000)
        assert not [payload for _, port, payload in cell.nodes.outbox() if port == 10]
    told = []
    for received in (0x7F, 0x7F, 0xBF):
        cell.nodes.rx(0, cell.cell.now_us, 10, app.encode(app.Repair(number, 3, received)))
        cell.cell.run_for(5)
        cell.nodes.poll(cell.cell.now_us)
        told += [app.decode_uplink(10, payload) for _, port, payload in cell.nodes.outbox() if port == 10]
    assert [seeds.missing for seeds in told] == [1 << 7, 1 << 7]  # type: ignore[union-attr]
    assert told[0] == told[1]


def test_a_node_that_sees_itself_missing_forgets_its_vector() -> None:
    """Between two of its fragments: the rest is never sent, and its samples wait for the next round."""
    cell = MaskedCell(payload_max=51)
    cell.observe()
    number = cell.open()
    while not any(node == 2 for node, _ in cell.sent):
        cell.step(7)
    before = sum(node == 2 for node, _ in cell.sent)
    cell.nodes.rx(2, cell.cell.now_us, 10, app.encode(app.Repair(number, 3, 0xFB)))
    cell.step(400)
    assert 0 < before < 10 and sum(node == 2 for node, _ in cell.sent) == before


def test_seeds_go_in_several_frames_where_one_is_small() -> None:
    cell = MaskedCell(payload_max=51)
    cell.observe()
    cell.open()
    cell.step(1300, loses(0, 1, 2, 3, 4))
    cell.wake([5, 6, 7])
    cell.step(120)
    assert closed(cell)["updates"] == 3
    is_sum_of(cell, [5, 6, 7])
    frames = [message for _, message in cell.decoded() if isinstance(message, app.Seeds)]
    assert len(frames) == 9 and all(len(frame.seeds) <= 2 for frame in frames)

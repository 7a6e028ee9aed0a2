"""ROUND is not signed: what somebody with the group's key can announce, and what it costs masked sums."""

from __future__ import annotations

import pytest

from swarm.federation.sums_plan import plan_of
from swarm.wire import app
from tests.swarm.cell import CONTEXTS, add_node
from tests.swarm.masked_cell import MaskedCell
from tests.swarm.test_mask_places import is_sum_of

ALL = list(range(8))
WANTS_SCHEDULE = 4


def forge(cell: MaskedCell, number: int, *, next_window_s: int = 0, window_s: int = 0) -> None:
    """All nodes hear a round of this number, under the group's session."""
    plan = plan_of(cell.cell.config.learning.privacy)
    announced = app.RoundAnnounce(number, 0, 8, 255, 1, 300, next_window_s, window_s, plan)
    cell.nodes.rx_many(ALL, cell.cell.now_us, 10, app.encode(announced), multicast=True)
    cell.step(400)


def heads_of_vectors(cell: MaskedCell) -> list[tuple[int, int]]:
    """Node and round of each vector that went on the air."""
    messages = [(node, message) for node, message in cell.decoded() if isinstance(message, app.Fragment)]
    return [(node, message.round) for node, message in messages if message.index == 0]


@pytest.mark.parametrize("number", [65_535, 1000, 130])
def test_a_far_number_is_not_answered_and_ends_nothing(number: int) -> None:
    """Once all lower ones were refused for good; now the next honest round has everybody's sums."""
    cell = MaskedCell()
    cell.observe()
    forge(cell, number)
    assert not heads_of_vectors(cell)
    cell.open()
    cell.step(1300)
    assert is_sum_of(cell, ALL)
    assert {node for node, _ in heads_of_vectors(cell)} == set(ALL)


def test_a_near_number_costs_its_own_round_and_no_other() -> None:
    """Round 2 is forged before the gateway comes to it: nobody makes a second vector, the others count."""
    cell = MaskedCell()
    cell.observe()
    forge(cell, 2)
    cell.cell.run_for(600)
    updates = []
    for _ in range(3):
        cell.open()
        cell.step(1300)
        updates.append(cell.cell.told("round_closed")[-1].data["updates"])
    assert updates == [8, 0, 8]
    assert sorted(heads_of_vectors(cell)) == [(node, number) for node in ALL for number in (1, 2, 3)]


def asked(cell: MaskedCell) -> set[object]:
    """The nodes that asked for a SCHEDULE in a report."""
    told = cell.cell.told("status")
    return {event.data["dev_eui"] for event in told if int(str(event.data["flags"])) & WANTS_SCHEDULE}


EVERYBODY = {add_node(CONTEXTS * node).dev_eui for node in ALL}


def report_often(cell: MaskedCell, window_s: int) -> None:
    """They report every ten minutes, and know of a window to come unless it is of 0 s."""
    for node in ALL:
        cell.nodes.rx(node, cell.cell.now_us, 12, app.encode(app.Schedule(7200, window_s, 10)))


def test_a_node_that_is_far_behind_is_told_the_number_and_takes_part() -> None:
    """The cell is at round 5000: one is refused, the report asks, SCHEDULE says, the next counts."""
    cell = MaskedCell()
    cell.observe()
    cell.cell.core.rounds.last_round = 5000
    report_often(cell, 60)
    cell.open()
    cell.step(1300)
    assert not heads_of_vectors(cell) and asked(cell) == EVERYBODY
    cell.open()
    cell.step(1300)
    assert {node for node, _ in heads_of_vectors(cell)} == set(ALL)
    assert is_sum_of(cell, ALL)


def test_schedule_says_the_number_in_this_mode_alone() -> None:
    cell = MaskedCell()
    rounds = cell.cell.core.rounds
    assert rounds.schedule(cell.cell.now_us, 60).round == 0
    number = cell.open()
    assert rounds.schedule(cell.cell.now_us, 60).round == number
    assert len(app.encode(rounds.schedule(cell.cell.now_us, 60))) == 11


def test_a_window_that_is_forged_far_away_does_not_keep_a_node_from_asking() -> None:
    """Nobody's windows are 136 years apart: what such a ROUND says of the next one is not believed."""
    cell = MaskedCell()
    report_often(cell, 0)
    forge(cell, 1, next_window_s=2**32 - 1, window_s=60)
    cell.step(700)
    assert asked(cell) == EVERYBODY

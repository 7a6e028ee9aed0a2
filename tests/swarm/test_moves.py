"""From placement to hand-over: what is brought to whom, and that no expert loses its last holder."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from swarm.inference.hand_over import Move, moves
from swarm.inference.placement import SILENT_MAX, Place, place
from tests.swarm.test_placement import EXPERTS, fleets

ROOM = 4


def roomy(fleet: list[Place]) -> list[Place]:
    """The same with room for `ROOM` experts, of which each holds no more."""
    return [
        Place(p.dev_eui, p.node_index, ROOM, p.seen, frozenset(sorted(p.held)[:ROOM]), p.link, p.battery,
              p.always_on, p.silent)
        for p in fleet
    ]  # fmt: skip


@given(fleets(), st.integers(1, 3), st.booleans(), st.randoms(use_true_random=False))
def test_no_expert_loses_its_last_holder_in_whatever_order_blocks_arrive(
    fleet: list[Place], replicas: int, whole: bool, order: object
) -> None:
    fleet = roomy(fleet)
    made = moves(place(fleet, EXPERTS, replicas=replicas), ROOM, None if whole else replicas)
    holds = {node.dev_eui: set(node.held) for node in fleet if node.present}
    before = set[int]().union(*holds.values())
    going = [move for move in made if not move.blocked_by]
    order.shuffle(going)  # type: ignore[attr-defined]
    for move in going:
        assert len(move.experts) <= ROOM
        assert set(move.experts) == (holds[move.dev_eui] | set(move.load)) - set(move.drop)
        assert not set(move.load) & holds[move.dev_eui]
        holds[move.dev_eui] = set(move.experts)
        assert before <= set[int]().union(*holds.values())


@given(fleets(), st.lists(st.tuples(st.integers(1, 3), st.booleans()), min_size=2, max_size=2))
def test_nor_by_two_plans_that_are_under_way_at_once(
    fleet: list[Place], wanted: list[tuple[int, bool]]
) -> None:
    """Goal: what the first plan takes from a node, the second does not count on.

    Method: both are made of what nodes said before either arrived; then all blocks arrive.
    """
    fleet = roomy(fleet)
    holds = {node.dev_eui: set(node.held) for node in fleet if node.present}
    before = set[int]().union(*holds.values())
    coming: dict[str, tuple[int, ...]] = {}
    for (replicas, whole), room in zip(wanted, (ROOM - 1, ROOM), strict=True):
        plan = place([replace(node, room=room) for node in fleet], EXPERTS, replicas=replicas)
        for move in moves(plan, room, None if whole else replicas, coming):
            if not move.blocked_by:
                coming.setdefault(move.dev_eui, move.experts)
    assert before <= set[int]().union(*(coming.get(dev_eui, mine) for dev_eui, mine in holds.items()))


@given(fleets(), st.integers(1, 3))
def test_only_what_is_scarce_travels_and_not_to_more_than_lack_it(fleet: list[Place], replicas: int) -> None:
    fleet = roomy(fleet)
    made = moves(place(fleet, EXPERTS, replicas=replicas), ROOM, replicas)
    for expert in range(EXPERTS):
        holders = sum(node.present and expert in node.held for node in fleet)
        travels = sum(expert in move.load for move in made if not move.blocked_by)
        assert travels <= max(0, replicas - holders)


def only(made: list[Move]) -> Move:
    (move,) = made
    return move


def test_a_node_that_is_gone_or_low_is_relieved() -> None:
    """Goal: silence, a report period without a word, and an empty battery each let another take over."""
    seen = (1.0,) * EXPERTS
    holder = {"room": ROOM, "seen": seen}
    for trouble in ({"silent": SILENT_MAX}, {"gone": True}, {"battery": 0.02}):
        fleet = [
            Place("0", 0, held=frozenset({7}), **holder, **trouble),  # type: ignore[arg-type]
            Place("1", 1, held=frozenset({0, 1, 2}), **holder),  # type: ignore[arg-type]
            Place("2", 2, held=frozenset({3, 4, 5, 6}), **holder),  # type: ignore[arg-type]
        ]
        move = only(moves(place(fleet, EXPERTS, replicas=1), ROOM, 1))
        assert (move.dev_eui, move.load, move.experts) == ("1", (7,), (0, 1, 2, 7))

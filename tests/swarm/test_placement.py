"""Placement of experts: properties that hold for every fleet, and what a handover does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarm.inference.placement import SILENT_MAX, Place, coverage, place

EXPERTS = 8


@st.composite
def fleets(draw: st.DrawFn) -> list[Place]:
    count = draw(st.integers(1, 12))
    share = st.lists(st.integers(0, 255), min_size=EXPERTS, max_size=EXPERTS)
    return [
        Place(
            dev_eui=f"{index:016x}",
            node_index=index,
            room=draw(st.integers(0, EXPERTS)),
            seen=tuple(map(float, draw(share))),
            held=frozenset(draw(st.sets(st.integers(0, EXPERTS - 1)))),
            link=draw(st.floats(0, 1)),
            battery=draw(st.floats(0, 1)),
            always_on=draw(st.booleans()),
            silent=draw(st.integers(0, 5)),
        )
        for index in range(count)
    ]


@given(fleets(), st.integers(1, 4), st.randoms(use_true_random=False))
def test_room_is_kept_replicas_are_met_and_order_does_not_matter(
    fleet: list[Place], replicas: int, order: object
) -> None:
    plan = place(fleet, EXPERTS, replicas=replicas)
    by_node = {each.dev_eui: each for each in plan}
    present = [node for node in fleet if node.present]
    for node in fleet:
        mine = by_node[node.dev_eui]
        assert set(mine.load) == set(mine.experts) - node.held
        assert set(mine.drop) == node.held - set(mine.experts)
        if node in present:
            assert len(mine.experts) == min(node.room, EXPERTS)
        else:
            assert set(mine.experts) == node.held
    total = sum(min(node.room, EXPERTS) for node in present)
    counts = coverage([by_node[node.dev_eui] for node in present], EXPERTS)
    # With room for all replicas, and no node asked to hold one twice, every expert has its holders.
    if total >= EXPERTS * replicas * len(present) and len(present) >= replicas:
        assert min(counts) >= replicas
    if sum(node.room > 0 for node in present) >= EXPERTS and total >= EXPERTS:
        assert min(counts) >= 1
    shuffled = list(fleet)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert place(shuffled, EXPERTS, replicas=replicas) == plan


def site(index: int, favourite: int, **fields: object) -> Place:
    seen = [1.0] * EXPERTS
    seen[favourite] = 50.0
    seen[(favourite + 1) % EXPERTS] = 30.0
    return Place(f"{index}", index, 2, tuple(seen), **fields)  # type: ignore[arg-type]


def test_nodes_hold_what_their_site_chooses() -> None:
    fleet = [site(i, i % EXPERTS) for i in range(24)]
    for index, each in enumerate(place(fleet, EXPERTS, replicas=1)):
        assert set(each.experts) == {index % EXPERTS, (index + 1) % EXPERTS}


def test_a_silent_holder_is_replaced_and_held_experts_stay_on_a_tie() -> None:
    """Handover: the expert that one silent node alone held comes to another."""
    fleet = [site(i, 0, held=frozenset({0, 1})) for i in range(6)]
    fleet.append(site(6, 5, held=frozenset({5, 6})))
    before = place(fleet, EXPERTS, replicas=1)
    assert not before[6].load and 5 in before[6].experts
    fleet[6] = site(6, 5, held=frozenset({5, 6}), silent=SILENT_MAX)
    after = place(fleet, EXPERTS, replicas=1)
    assert any(5 in each.experts for each in after[:6]) and after[6].experts == (5, 6)
    even = [Place("0", 0, 1, (1.0,) * EXPERTS, frozenset({3}))]
    assert place(even, EXPERTS, replicas=0)[0].experts == (3,)


def test_good_holders_serve_the_experts_that_nobody_chooses() -> None:
    seen = (50.0, 50.0, *[0.0] * 6)
    fleet = [Place(f"{i}", i, 2, seen, always_on=i == 3, link=1.0 if i == 3 else 0.2) for i in range(8)]
    plan = place(fleet, EXPERTS, replicas=1)
    assert set(plan[3].experts) & set(range(2, EXPERTS))

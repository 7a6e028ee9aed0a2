"""A version that enough nodes leave for the one before it goes; one that they keep stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.field import Field
from simulations.scenario import load
from simulations.world import World
from swarm.commands import RollBack, SetModel
from swarm.federation.verdict import ALONE_MIN, Verdict, verdict, worse
from swarm.model.layout import ADAPTER_SIZE, WEATHER, context_name
from swarm.model.vector import Float64
from swarm.model.versions import KEPT
from swarm.wire import app
from tests.swarm.cell import Cell, open_round, settings, signs

NODES = 16
DAY_US = 86_400_000_000


def status(version: int, serves: int) -> bytes:
    return app.encode(app.Status(version, 1, 200, 3, 0, 1520, 160, 0, 0, 0, serves))


def learned(cell: Cell, number: int) -> Float64:
    """One round of signs by all nodes, until its deadline; the vector that it made."""
    assert open_round(cell) == number
    for node in range(cell.nodes):
        cell.uplink(node, 10, signs(node, number, cell.core.rounds.version))
    cell.run_for(1200)
    assert cell.core.rounds.current is None
    return cell.core.rounds.master()


def report(cell: Cell, version: int, before: int, *, newest: int | None = None) -> None:
    """`before` nodes serve the version before this one, `newest` of the others (None: all) this one."""
    heard = cell.nodes if newest is None else before + newest
    for node in range(heard):
        cell.uplink(node, 12, status(version, 1 if node < before else 0))


def cell_with_two_versions(**learning: object) -> tuple[Cell, list[Float64]]:
    """Version 2 was sent; the vectors of version 1, 2, and of 3, which no window has sent yet."""
    chosen = {"strategy": "FedAvg", "period_s": 7200, **learning}
    cell = Cell(settings("top_k_sign", **chosen), nodes=NODES)
    made = [learned(cell, number) for number in (1, 2, 3)]
    assert cell.core.rounds.version == 3
    return cell, made


@pytest.mark.parametrize("restarts", [False, True])
def test_a_version_that_nodes_leave_goes_with_the_next_window(restarts: bool) -> None:
    cell, made = cell_with_two_versions()
    report(cell, 2, 9)
    if restarts:
        cell.restart()
    open_round(cell)
    (event,) = cell.told("rolled_back")
    assert (event.data["from_version"], event.data["to_version"]) == (2, 1)
    assert event.data["reason"] == "9 of 16 nodes serve the version before"
    rounds = cell.core.rounds
    assert rounds.version == 3 and np.array_equal(rounds.master(), made[0])
    assert cell.told("round_opened")[-1].data["round"] == 4
    # What came back is not judged again, whatever nodes serve.
    report(cell, 3, 16)
    open_round_later(cell)
    assert len(cell.told("rolled_back")) == 1


def open_round_later(cell: Cell) -> None:
    """After the running round's deadline."""
    cell.run_for(1300)
    open_round(cell)


@pytest.mark.parametrize(
    ("version", "before", "learning"),
    [(2, 3, {}), (1, 16, {}), (2, 16, {"roll_back": False})],
    ids=["kept by most", "of an older version", "switched off"],
)
def test_a_version_stays(version: int, before: int, learning: dict[str, object]) -> None:
    cell, made = cell_with_two_versions(**learning)
    report(cell, version, before)
    open_round(cell)
    assert not cell.told("rolled_back")
    assert np.array_equal(cell.core.rounds.master(), made[2])


def test_the_strategy_forgets_what_led_away() -> None:
    """FedAdam's momentum would go on in the direction of the wrong step."""
    cell, _ = cell_with_two_versions(strategy="FedAdam")
    before = cell.rows["strategy"]["FedAdam"]["state"]
    report(cell, 2, 16)
    open_round(cell)
    after = cell.rows["strategy"]["FedAdam"]["state"]
    assert isinstance(before, bytes) and isinstance(after, bytes) and len(after) < len(before) / 4


def test_an_operator_may_go_back_to_any_kept_version() -> None:
    cell, made = cell_with_two_versions()
    refused = cell.command(RollBack(9))
    assert refused is not None and "[0, 1, 2, 3]" in refused.reason
    assert cell.command(RollBack(1)) is None
    cell.restart()
    open_round(cell)
    assert np.array_equal(cell.core.rounds.master(), made[0])
    (event,) = cell.told("rolled_back")
    assert event.data["reason"] == "operator"
    cell.run_for(1300)
    assert cell.command(RollBack(0)) is None
    open_round(cell)
    base = cell.core.rounds.replica
    shipped = np.stack([base.base_head(context) for context in range(4)])
    # Heads travel in int8: the way back to the shipped int16 ones ends within half a step of it.
    assert (
        np.abs(cell.core.rounds.mirror().heads[:4].astype(int) - shipped).max() <= np.abs(shipped).max() / 127
    )


@given(st.integers(0, 400), st.integers(0, 400))
def test_verdict_needs_more_than_noise_and_a_quarter(newest: int, before: int) -> None:
    invited = 2 * (newest + before)
    said = Verdict(newest, before, invited)
    assert verdict([0] * newest + [1] * before + [2, 3, 4, 5], invited) == said
    if said.worse:
        assert before >= 4 and before >= (newest + before) / 4
        assert not Verdict(newest, before, 6 * (newest + before)).worse, "too few have spoken"
        assert Verdict(newest, before + 1, invited).worse
    assert not Verdict(newest, newest // 4, invited).worse or newest // 4 < 4 or before > newest


def test_a_poisoned_step_is_undone_in_the_next_window_and_good_ones_never_are() -> None:
    """The firmware's own nodes: 120 of them, two weeks of honest rounds, then heads of the wrong sign."""
    world = World(load("farm_1000").override(nodes=120, days=17, seed=1))
    events = []
    original = world._on_event
    world._on_event = lambda now_us, event: (events.append(event), original(now_us, event))[1]  # type: ignore[method-assign]
    world.run_until(world.start_us + 14 * DAY_US)
    assert not [event for event in events if event.kind == "rolled_back"]
    good = world.coordinator.rounds.master()
    bad = good.copy()
    bad[ADAPTER_SIZE:] *= -1.0
    world.command(SetModel(bad.astype("<f8").tobytes()))
    world.run_until(world.end_us - DAY_US)
    (undone,) = [event for event in events if event.kind == "rolled_back"]
    opened = [event for event in events if event.kind == "round_opened" and event.at_us <= undone.at_us]
    taken_up = [event for event in opened if event.at_us > world.start_us + 14 * DAY_US]
    assert len(taken_up) <= 2
    assert serve_the_one_before(world) == 0, "what came back is what they had left the bad one for"
    world.finish()
    assert world.checkers.violations.count == 0


def serve_the_one_before(world: World) -> int:
    """Of the nodes that hold what the last window sent, seven hours later."""
    world.run_until(world.end_us - DAY_US + 7 * DAY_US // 24)
    rounds = world.coordinator.rounds
    assert rounds.current is None and rounds._last is not None
    said = world.coordinator.registry.choices(rounds._last.model_version).values()
    assert sum(map(len, said)) >= 20
    return sum(each.count(1) for each in said)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_head_that_a_tenth_of_the_nodes_have_is_undone_alone(seed: int) -> None:
    """Nine fields of potatoes, one of grapes, whose head is spoilt on top of a round's honest step."""
    made = load("farm_1000").override(nodes=160, days=17, seed=seed)
    grown = Field(160, 17, seed, spin_up_days=3, test_days=15, told_share=0.33, contexts=(2,) * 9 + (3,))
    assert (grown.context == 3).sum() == 16
    world = World(made, field=grown)
    undone = []
    original = world._on_event
    world._on_event = lambda now_us, event: (  # type: ignore[method-assign]
        undone.append(event) if event.kind == "rolled_back" else None,
        original(now_us, event),
    )[1]
    world.run_until(world.start_us + 14 * DAY_US + 7 * DAY_US // 24)
    assert not undone
    good = world.coordinator.rounds.master()
    bad = good.copy()
    heads(bad)[3] *= -1.0
    world.command(SetModel(bad.astype("<f8").tobytes()))
    world.run_until(world.end_us - DAY_US)
    (event,) = undone
    assert event.data["contexts"] == ["grape"]
    assert serve_the_one_before(world) <= 1
    assert np.vdot(heads(world.coordinator.rounds.master())[3], heads(good)[3]) > 0.0


def crowd(**learning: object) -> tuple[Cell, list[Float64]]:
    """As `cell_with_two_versions`, with twelve nodes of each of the four crops."""
    cell = Cell(settings("top_k_sign", strategy="FedAvg", period_s=7200, **learning), nodes=48)
    return cell, [learned(cell, number) for number in (1, 2, 3)]


def leave(cell: Cell, version: int, leaving: dict[int, int], *, labelled: int = 3, heard: int = 12) -> None:
    """Of each context `heard` nodes report, of which so many serve the head before."""
    for node in range(4 * heard):
        said = app.Status(version, 1, 200, labelled, 0, 1520, 160, 0, 0, 0)
        serves = int(node // 4 < leaving.get(node % 4, 0))
        cell.uplink(node, 12, app.encode(replace(said, serves=serves)))


def heads(vector: Float64) -> Float64:
    return vector[ADAPTER_SIZE:].reshape(4, -1)


@pytest.mark.parametrize("restarts", [False, True])
def test_only_the_head_goes_back_whose_nodes_leave_it(restarts: bool) -> None:
    """A fifth of the fleet: too few for a verdict on all, enough for one on their own head."""
    cell, made = crowd()
    leave(cell, 2, {3: 9})
    assert not verdict([1] * 9 + [0] * 39, 48).worse
    if restarts:
        cell.restart()
    open_round(cell)
    (event,) = cell.told("rolled_back")
    assert (event.data["from_version"], event.data["to_version"]) == (2, 1)
    assert event.data["contexts"] == ["grape"]
    assert event.data["reason"] == "9 of 12 nodes serve the version before"
    now = cell.core.rounds.master()
    assert np.array_equal(heads(now)[3], heads(made[0])[3])
    assert not np.array_equal(heads(now)[3], heads(made[2])[3])
    # What the others learned in the round that had just closed is not lost.
    assert np.array_equal(heads(now)[:3], heads(made[2])[:3])
    assert np.array_equal(now[:ADAPTER_SIZE], made[2][:ADAPTER_SIZE])
    # What came back is not judged again, whatever nodes serve.
    leave(cell, 3, {3: 12})
    open_round_later(cell)
    assert len(cell.told("rolled_back")) == 1


@pytest.mark.parametrize("restarts", [False, True])
def test_nobody_goes_back_to_a_version_that_was_doubted(restarts: bool) -> None:
    """Too few spoke against version 2 before 3 was made of it; those who leave 3 still serve 1."""
    cell, made = crowd()
    leave(cell, 2, {3: 2}, heard=2)
    open_round(cell)
    assert not cell.told("rolled_back")
    for node in range(48):
        cell.uplink(node, 10, signs(node, 4, 3))
    cell.run_for(1200)
    if restarts:
        cell.restart()
    leave(cell, 3, {3: 9})
    open_round(cell)
    (event,) = cell.told("rolled_back")
    assert (event.data["from_version"], event.data["to_version"]) == (3, 1)
    assert np.array_equal(heads(cell.core.rounds.master())[3], heads(made[0])[3])


def test_a_node_that_always_doubts_brings_nobody_back_to_what_was_shipped() -> None:
    """Goal: a head goes back eight versions at most.

    Method: of three nodes that speak one says of every version that it serves the one before; then a version
    is as bad for all as it says.
    """
    cell = Cell(settings("top_k_sign", strategy="FedAvg", period_s=7200), nodes=48)
    for number in range(1, 13):
        learned(cell, number)
        for node in (3, 7, 11):
            cell.uplink(node, 12, status(cell.core.rounds._versions.sent_version, int(node == 3)))
    leave(cell, 11, {3: 12})
    open_round(cell)
    (event,) = cell.told("rolled_back")
    assert event.data["contexts"] == [context_name(3)] and event.data["to_version"] >= 11 - KEPT
    assert event.data["from_version"] == 11 and event.data["to_version"] > 0


def test_nodes_that_have_too_few_labels_to_compare_have_no_say() -> None:
    """One that knows its crop keeps the head before until it has three labels, whatever comes."""
    cell, _ = crowd()
    leave(cell, 2, {0: 12, 1: 12, 2: 12, 3: 12}, labelled=2)
    open_round(cell)
    assert not cell.told("rolled_back")


@pytest.mark.parametrize(("strategy", "mode"), [("FedAdam", "top_k_sign"), ("FedAvgM", "top_k_sign")])
def test_the_strategy_forgets_that_head_alone(strategy: str, mode: str) -> None:
    options = {"server_momentum": 0.9} if strategy == "FedAvgM" else {}
    cell = Cell(settings(mode, strategy=strategy, options=options, period_s=7200), nodes=48)
    for number in (1, 2, 3):
        learned(cell, number)
    memory = cell.core.rounds.strategies[strategy]
    part = WEATHER.head_slice(3)
    before = memory._capture()  # type: ignore[attr-defined]
    assert before and all(np.any(array[part]) for array in before.values())
    leave(cell, 2, {3: 12})
    open_round(cell)
    for name, array in memory._capture().items():  # type: ignore[attr-defined]
        expected = before[name].copy()
        expected[part] = 0.0
        assert np.array_equal(array, expected)
    cell.restart()
    assert cell.core.rounds.strategies[strategy].state() == memory.state()


@given(
    st.dictionaries(st.integers(0, 7), st.tuples(st.integers(0, 120), st.integers(0, 120)), min_size=1),
)
def test_contexts_are_judged_by_their_own_nodes(said: dict[int, tuple[int, int]]) -> None:
    choices = {context: [0] * newest + [1] * before for context, (newest, before) in said.items()}
    invited = {context: len(each) for context, each in choices.items()}
    found = worse(choices, invited)
    assert sum(len(group) for group in found) == len(frozenset().union(*found)), "each is judged once"
    for context, (newest, before) in said.items():
        alone = [group for group in found if group == {context}]
        if newest + before >= ALONE_MIN and Verdict(newest, before, newest + before, passed=9).worse:
            assert alone, "enough nodes of its own say so"
        if before < max(4.0, (newest + before) / 4):
            assert not alone


def test_small_contexts_are_judged_together_and_a_little_worse_for_all_is_found() -> None:
    few = {0: [0] * 200, 1: [1, 1, 1, 0], 2: [1, 1, 0], 3: [1, 1, 1]}
    assert set(worse(few, {context: len(said) for context, said in few.items()})) == {frozenset({1, 2, 3})}
    all_of_it = {context: [0] * 13 + [1] * 7 for context in range(4)}
    invited = dict.fromkeys(range(4), 20)
    assert set(worse(all_of_it, invited)) == {frozenset(range(4))}
    assert not worse({0: all_of_it[0]}, {0: 101}), "of those it was made for, too few have spoken"

"""Models from outside, rounds aggregated outside: the same bits as inside, also after restarts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.cell import HOUR_US
from simulations.scenario import Scenario, load
from simulations.world import World
from swarm.commands import SetModel
from swarm.effects import Event, Malformed
from swarm.federation.outside import CLOSE_MIN_S, VALUE_MAX, Gathered, HandedIn
from swarm.federation.reply import Reply
from swarm.federation.strategy import FlowerStrategy
from swarm.model.layout import WEATHER
from swarm.model.vector import Float64
from swarm.registry import Refused

SMOKE = load("smoke").override(nodes=8, days=4)
HISTORY_DAYS = 10
MINUTE_US = 60_000_000


def scenario(**learning: Any) -> Scenario:
    """Signs by FedAvg, no questions, no losses: what differs is what the test makes different."""
    chosen = {"mode": "top_k_sign", "strategy": "FedAvg", **learning}
    return replace(
        SMOKE,
        learning=replace(SMOKE.learning, **chosen),
        queries=replace(SMOKE.queries, per_day=0.0),
        hardship=replace(SMOKE.hardship, gateway_restarts=0, loss_probability=0.0),
    )


def hand_in(world: World, vector: Float64, *, gather: bool = False, close_s: int | None = None) -> int:
    result = world.command(SetModel(vector.astype("<f8").tobytes(), gather, close_s))
    assert not isinstance(result, Refused), result.reason
    (event,) = [effect for effect in result if isinstance(effect, Event)]
    return int(str(event.data["round"]))


def refusal(world: World, vector: bytes, **what: Any) -> str:
    result = world.command(SetModel(vector, **what))
    assert isinstance(result, Refused)
    return result.reason


def await_gathered(world: World, number: int, restart_every_us: int | None = None) -> Gathered:
    restart_us = world.cell.now_us
    while (found := world.coordinator.rounds.gathered(number)) is None:
        world.run_until(world.cell.now_us + MINUTE_US)
        assert world.cell.now_us < world.end_us
        if restart_every_us is not None and world.cell.now_us >= restart_us:
            restart_us += restart_every_us
            world.restart_gateway()
    return found


def await_open(world: World) -> int:
    while world.coordinator.rounds.current is None:
        world.run_until(world.cell.now_us + MINUTE_US)
    return world.coordinator.rounds.current.number


def replies(world: World, vector: Float64, found: Gathered) -> list[Reply]:
    index = {entry.record.dev_eui: entry.record.node_index for entry in world.coordinator.registry}
    return [
        Reply(index[change.dev_eui], vector + change.delta, change.num_examples) for change in found.changes
    ]


@pytest.mark.parametrize("mode", ["top_k_sign", "top_k_int4"])
def test_aggregating_outside_gives_the_same_model_as_inside(mode: str) -> None:
    """Two rounds of FedAvg in the cell, and the same two with the strategy outside: the same digest."""
    inside = World(scenario(mode=mode), history_days=HISTORY_DAYS)
    while len(inside.rounds) < 2:
        inside.run_until(inside.cell.now_us + MINUTE_US)
    outside = World(scenario(mode=mode), history_days=HISTORY_DAYS)
    strategy = FlowerStrategy("FedAvg", WEATHER)
    vector = outside.coordinator.rounds.master()
    for turn in (1, 2):
        number = hand_in(outside, vector, gather=True)
        found = await_gathered(outside, number)
        done = strategy.aggregate(turn, vector, replies(outside, vector, found))
        assert done.vector is not None and len(found.changes) == 8
        vector = done.vector
    assert [each["mode"] for each in outside.rounds] == [mode] * 2
    assert np.array_equal(vector, inside.coordinator.rounds.master())


def test_a_claimed_round_survives_restarts_and_keeps_the_model() -> None:
    vectors = []
    for every_us in (None, HOUR_US // 2):
        world = World(scenario(mode="prototypes"), history_days=HISTORY_DAYS)
        given_vector = world.coordinator.rounds.master() + 0.5
        number = hand_in(world, given_vector, gather=True)
        if every_us is not None:
            world.restart_gateway()
            assert world.coordinator.rounds.waiting is not None
        found = await_gathered(world, number, every_us)
        assert found.round == number and world.rounds[-1]["mode"] == "top_k_sign"
        assert [change.num_examples > 0 for change in found.changes] == [True] * 8
        assert np.array_equal(world.coordinator.rounds.master(), given_vector)
        vectors.append(
            [(change.dev_eui, change.num_examples, change.delta.tobytes()) for change in found.changes]
        )
    assert vectors[0] == vectors[1]


def test_handed_in_models_reach_the_nodes_bit_for_bit() -> None:
    """Hand in while the cell's own rounds go on: each own version that no window sent gives way."""
    world = World(scenario(), history_days=HISTORY_DAYS)
    for turn in range(3):
        await_open(world)
        hand_in(world, world.coordinator.rounds.master() + 0.01 * (turn + 1))
        while world.coordinator.rounds.current is not None:
            world.run_until(world.cell.now_us + MINUTE_US)
        if turn == 1:
            world.restart_gateway()
    number = await_open(world)
    world.run_until(world.cell.now_us + 15 * MINUTE_US)
    world.finish()
    assert world.checkers.violations.explained == []
    current = world.coordinator.rounds.current
    assert current is not None and current.number == number
    assert set(world.cell.nodes.firmware.model_version.tolist()) == {current.model_version}
    assert current.model_version == world.coordinator.rounds.version == 3


def test_the_deadline_may_be_handed_in_and_is_bounded_by_the_period() -> None:
    for close_s, expected_s in ((1200, 1200), (10**6, 28_800), (None, 7200)):
        world = World(scenario(), history_days=HISTORY_DAYS)
        hand_in(world, world.coordinator.rounds.master(), gather=True, close_s=close_s)
        await_open(world)
        current = world.coordinator.rounds.current
        assert current is not None and current.close_us - current.opened_us == expected_s * 1_000_000


def test_what_is_no_model_of_this_cell_is_refused_with_the_reason() -> None:
    world = World(scenario())
    vector = world.coordinator.rounds.master()
    assert (
        refusal(world, vector.tobytes()[8:])
        == f"this cell's model has {len(vector)} parameters, not {len(vector) - 1}"
    )
    for bad in (np.nan, np.inf, -2 * VALUE_MAX):
        wrong = vector.copy()
        wrong[7] = bad
        assert "not finite or beyond" in refusal(world, wrong.tobytes())
    assert f"at least {CLOSE_MIN_S} s" in refusal(world, vector.tobytes(), close_s=CLOSE_MIN_S - 1)
    assert world.coordinator.rounds.waiting is None and "handed_in" not in world.rows.get("meta", {})
    silent = World(scenario(mode="none"))
    assert "learning.mode is none" in refusal(silent, vector.tobytes(), gather=True)


def test_own_rounds_and_forgotten_rounds_hand_nothing_out() -> None:
    world = World(scenario(), history_days=HISTORY_DAYS)
    number = hand_in(world, world.coordinator.rounds.master(), gather=True)
    await_gathered(world, number)
    rounds = world.coordinator.rounds
    assert rounds.gathered(number - 1) is None and rounds.gathered(number + 1) is None
    while len(world.rounds) < 2:
        world.run_until(world.cell.now_us + MINUTE_US)
    assert rounds.gathered(number) is None and rounds.gathered(number + 1) is None


@given(
    st.lists(st.floats(-VALUE_MAX, VALUE_MAX), max_size=20), st.booleans(), st.none() | st.integers(30, 10**6)
)
def test_what_waits_comes_back_from_its_row(values: list[float], gather: bool, close_s: int | None) -> None:
    made = HandedIn(np.array(values), gather, close_s)
    back = HandedIn.from_value(made.to_value(), len(values))
    assert isinstance(back, HandedIn)
    assert (back.vector.tolist(), back.gather, back.close_s) == (values, gather, close_s)
    assert isinstance(HandedIn.from_value(made.to_value(), len(values) + 1), Malformed)


@pytest.mark.parametrize("value", [None, "text", 7, b"", b"SWH1", b"XXXX\0\0\0\0\0" + bytes(8)])
def test_a_damaged_row_is_a_value(value: Any) -> None:
    assert isinstance(HandedIn.from_value(value, 1), Malformed)


@pytest.mark.parametrize(("mode", "why"), [("masked_sums", "no node's own"), ("none", "no node would")])
def test_a_round_cannot_be_claimed_where_nodes_must_not_answer(mode: str, why: str) -> None:
    world = World(scenario(mode=mode, prototype_rounds=0), history_days=HISTORY_DAYS)
    vector = world.coordinator.rounds.master() + 0.5
    refused = world.coordinator.rounds.hand_in(0, SetModel(vector, gather=True))
    assert isinstance(refused, Refused) and f"learning.mode is {mode}: {why}" in refused.reason

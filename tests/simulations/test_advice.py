"""Advice against a simulated cell: what was predicted of a round is what rounds of the real parts spent."""

from __future__ import annotations

import pytest

from gateway.api.advice import advice
from gateway.api.views import rounds
from simulations import scenario
from simulations.world import World

DAY_US = 86_400_000_000


@pytest.fixture(scope="module")
def world() -> World:
    """Sixty nodes for four days, three rounds of signs a day for the two new crops."""
    return World(scenario.load("farm_1000").override(nodes=60, days=5, seed=5))


def spent_s(world: World) -> tuple[float, float, int]:
    """Airtime of updates and of multicast windows so far, and updates that counted."""
    up_us, down_us = world.cell.traffic.up_us, world.cell.traffic.down_us
    updates = sum(each["updates"] for each in world.coordinator.rounds.history())
    return up_us["update"] / 1e6, sum(down_us[name] for name in ("model", "ack", "round")) / 1e6, updates


def test_rounds_spend_what_was_predicted(world: World) -> None:
    """Of the last day's three windows.  Up at most as much: sizes are the largest, few were lost."""
    world.run_until(world.end_us - DAY_US)
    up_s, down_s, updates = spent_s(world)
    world.run_until(world.end_us)
    up_s, down_s, updates = (b - a for a, b in zip((up_s, down_s, updates), spent_s(world), strict=True))
    found = advice(world.coordinator)
    cost = next(each["cost"] for each in found["modes"] if each["cost"]["mode"] == "top_k_sign")
    assert down_s == pytest.approx(3 * cost["downlink_s"], rel=0.05)
    assert 0.5 < up_s / (cost["airtime_s"] / cost["nodes"] * updates) < 1.05
    assert cost["nodes"] == found["takers"] == sum(e.record.context > 1 for e in world.coordinator.registry)


def test_what_the_cell_knows_is_counted_from_its_nodes(world: World) -> None:
    world.run_until(world.end_us)
    known = advice(world.coordinator)["known"]
    registry = list(world.coordinator.registry)
    assert known["reported"] == sum(entry.status.reported_us is not None for entry in registry) > 50
    assert known["labels"] == sum(e.status.labelled or 0 for e in registry if e.record.context > 1) > 0
    assert known["new"] == sum(entry.record.context > 1 for entry in registry)
    closed = [each for each in world.coordinator.rounds.history() if each["state"] == "closed"]
    assert known["rounds"] == {"top_k_sign": sum(each["updates"] > 0 for each in closed)}


def test_rounds_say_who_took_and_who_refused_their_model(world: World) -> None:
    """Nodes of the crops that learned, by the model they hold; the others hold it too and have no say."""
    world.run_until(world.end_us)
    shown = rounds(world.coordinator)
    versions = [each["model_version"] for each in shown]
    for place, each in enumerate(shown):
        makes_none = each["model_version"] == (versions[place - 1] if place else 0)
        assert (each["taken"] is None) == (each["refused"] is None) == makes_none
    counted = sum((each["taken"] or 0) + (each["refused"] or 0) for each in shown)
    new = [entry.status for entry in world.coordinator.registry if entry.record.context > 1]
    said = [status.serves & 15 for status in new if status.model_version and status.serves is not None]
    assert 0 < counted == sum(byte in (0, 9, 10, 12, 13) for byte in said)


def test_advice_survives_a_restart() -> None:
    """Verdicts of the judge are in the rows of the rounds."""
    made = World(scenario.load("smoke").override(nodes=24, days=5, seed=2))
    made.run_until(made.end_us)
    before = advice(made.coordinator)
    bases = {each["cost"]["mode"]: each["expected"]["basis"] for each in before["modes"]}
    assert bases["prototypes"] in ("measured", "no_gain")
    made.restart_gateway()
    assert advice(made.coordinator) == before

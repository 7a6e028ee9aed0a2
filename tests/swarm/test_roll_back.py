"""A version that enough nodes leave for the one before it goes; one that they keep stays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.scenario import load
from simulations.world import World
from swarm.commands import RollBack, SetModel
from swarm.federation.verdict import Verdict, verdict
from swarm.model.layout import ADAPTER_SIZE
from swarm.model.vector import Float64
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
    world.finish()
    assert world.checkers.violations.count == 0

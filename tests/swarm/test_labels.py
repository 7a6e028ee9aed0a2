"""What people saw reaches the node: kept in rows, told thrice, bounded, and the firmware learns from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gateway.store.sqlite import SqliteStore
from swarm.commands import RemoveNode, TellLabel
from swarm.effects import Store, Transmit
from swarm.labels import KEPT_DAYS, PER_NODE_MAX, TELLS
from swarm.model.container import random_model
from swarm.node import NodeConfig, Nodes
from swarm.wire import app
from tests.swarm.cell import HOUR_US, Cell, dev_eui, messages, settings, status

DAY_US = 24 * HOUR_US
PORT = app.F_PORT_STATUS


def cell(**changes: object) -> Cell:
    return Cell(config=settings(mode="none", dedup_us=0), **changes)  # type: ignore[arg-type]


def heard(made: Cell, node: int = 0) -> list[app.Label]:
    """The node reports; the labels that it is told on this."""
    made.uplink(node, PORT, status())
    return [each for each in messages(made.receive()[node]) if isinstance(each, app.Label)]


def test_a_label_is_told_at_three_uplinks_and_counts_its_hours_when_it_leaves() -> None:
    made = cell()
    noon_us = made.now_us - 5 * HOUR_US
    assert made.command(TellLabel(dev_eui(0), 2, noon_us)) is None
    made.run_for(3600 * 20)
    assert heard(made, 1) == [], "another node's"
    (first,) = heard(made)
    assert (first.label, first.by_id, first.value) == (2, False, 25)
    made.restart()
    made.run_for(3600)
    (second,) = heard(made)
    assert second.value == 26, "a restart keeps it"
    assert len(heard(made)) == TELLS - 2
    assert heard(made) == [] and made.rows["label"] == {}
    assert [event.data["noon_us"] for event in made.told("label_told")] == [noon_us]


def test_of_several_each_has_its_turn_and_a_correction_replaces() -> None:
    made = cell()
    days = [made.now_us - day * DAY_US for day in (1, 2, 3)]
    for label, noon_us in enumerate(days):
        made.command(TellLabel(dev_eui(0), label, noon_us))
    made.command(TellLabel(dev_eui(0), 2, days[0]))
    made.command(TellLabel(dev_eui(0), 1, observation=65_535))
    told = [heard(made)[0] for _ in range(4 * TELLS)]
    assert heard(made) == []
    by_day = {(each.by_id, 0 if each.by_id else each.value): each.label for each in told}
    assert sorted(by_day.items()) == [
        ((False, 24), 2),
        ((False, 48), 1),
        ((False, 72), 2),
        ((True, 0), 1),
    ]
    assert len({(each.by_id, each.value) for each in told[:4]}) == 4, "none waits for another's second time"


def test_a_frame_that_no_gateway_sent_was_not_told() -> None:
    refusing: list[Transmit] = []

    def verdict(transmit: Transmit) -> str | None:
        refusing.append(transmit)
        return "TOO_LATE" if len(refusing) <= 2 else None

    made = cell(verdict=verdict)
    made.command(TellLabel(dev_eui(0), 1, made.now_us))
    assert sum(len(heard(made)) for _ in range(2 + TELLS)) == TELLS
    assert made.rows["label"] == {}


def test_what_cannot_be_told_is_refused_in_words() -> None:
    made = cell()
    for command, why in (
        (TellLabel("00" * 8, 1, made.now_us), "no node has the DevEUI"),
        (TellLabel(dev_eui(0), 3, made.now_us), "no class 3: 0 to 2"),
        (TellLabel(dev_eui(0), 1, made.now_us - (KEPT_DAYS + 1) * DAY_US), "the last 60 days"),
        (TellLabel(dev_eui(0), 1, made.now_us + DAY_US), "has not closed yet"),
    ):
        refused = made.command(command)
        assert refused is not None and why in refused.reason
    for number in range(PER_NODE_MAX):
        assert made.command(TellLabel(dev_eui(0), 1, observation=number)) is None
    refused = made.command(TellLabel(dev_eui(0), 1, observation=PER_NODE_MAX))
    assert refused is not None and "16 labels wait" in refused.reason
    assert made.command(TellLabel(dev_eui(0), 2, observation=3)) is None, "a correction has its place"
    assert made.command(RemoveNode(dev_eui(0))) is None
    assert made.rows["label"] == {}


def test_a_label_that_nobody_comes_for_ends() -> None:
    made = cell()
    made.command(TellLabel(dev_eui(0), 1, made.now_us))
    made.now_us += KEPT_DAYS * DAY_US
    assert heard(made) == [] and made.told("label_unheard") and made.rows["label"] == {}


def test_the_database_gives_back_what_the_core_stored(tmp_path: Path) -> None:
    made = cell()
    made.command(TellLabel(dev_eui(0), 1, made.now_us))
    made.command(TellLabel(dev_eui(0), 2, observation=0))
    store = SqliteStore(tmp_path)
    store.commit([Store("label", key, row) for key, row in made.rows["label"].items()])
    store.close()
    made.rows["label"] = SqliteStore(tmp_path).load()["label"]
    made.restart()
    assert sorted(heard(made)[0].label for _ in range(2)) == [1, 2]


@pytest.mark.parametrize(("slip", "taken"), [(0, True), (11, True), (-11, True), (13, False)])
def test_the_firmware_labels_the_day_whose_noon_is_nearest(slip: int, taken: bool) -> None:
    """Goal: a clock or time zone half a day wrong is harmless.  Method: five days, one told later."""
    nodes = Nodes(1, [NodeConfig(0, 0, seed=1)], random_model(1, contexts=range(4)))
    humidity, hours, reading_hour = 90, 5 * 24 + 7, 13
    for hour in range(hours):
        nodes.sense(
            (hour + 1) * HOUR_US,
            np.full(1, 2000, np.int16),
            np.full(1, humidity - hour % 7, np.uint8),
            np.zeros(1, np.uint16),
            (hour + reading_hour) % 24,
        )
    closed_day = 2  # the third: its noon was after 72 hours
    value = hours - 72 + slip
    frame = app.encode(app.Label(1, False, value))
    nodes.rx(0, hours * HOUR_US, PORT, frame)
    assert nodes.labelled[0] == 1
    again = nodes.label(closed_day, np.full(1, 1, np.uint8))
    assert again == (0 if taken else 1), "that day, or another"
    nodes.rx(0, hours * HOUR_US, PORT, app.encode(app.Label(1, False, 65_535)))
    nodes.rx(0, hours * HOUR_US, PORT, app.encode(app.Label(9, False, 0)))
    nodes.rx(0, hours * HOUR_US, PORT, app.encode(app.Label(1, True, 4)))
    assert nodes.labelled[0] == 2 + (not taken), "too old, no such class; the fifth day by its number"

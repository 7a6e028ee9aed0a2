"""A world whose rounds are for new crops: who speaks, who learns, what is told, how long nodes listen."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from simulations.cell import DAY_US
from simulations.evaluation import Evaluation
from simulations.scenario import Scenario, load
from simulations.swarm_of_nodes import LABEL_NONE
from simulations.world import World
from swarm.model.layout import ADAPTER_SIZE, CONTEXTS_PUBLIC
from swarm.wire import app

TOLD_SHARE = 0.6


def scenario(contexts: Literal["all", "new"]) -> Scenario:
    """Sixteen nodes, four crops, four days without questions or restarts."""
    small = load("smoke").override(nodes=16, days=4)
    learning = replace(
        small.learning, mode="top_k_sign", strategy="FedAvg", options={}, contexts=contexts, quorum=0.8
    )
    return replace(
        small,
        learning=learning,
        told_share=TOLD_SHARE,
        status_period_min=1440,
        queries=replace(small.queries, per_day=0.0),
        hardship=replace(small.hardship, gateway_restarts=0, loss_probability=0.0),
    )


@pytest.fixture(scope="module")
def world() -> World:
    made = World(scenario("new"))
    made.run_until(made.end_us)
    made.finish()
    return made


def updates(world: World) -> list[tuple[int, int]]:
    """(node index, context) of the updates that the gateway keeps."""
    found = []
    for row in world.rows["update"].values():
        assert isinstance(row["payload"], bytes) and isinstance(row["node_index"], int)
        message = app.decode_uplink(app.F_PORT_LEARNING, row["payload"])
        assert isinstance(message, app.TopKSign)
        found.append((row["node_index"], message.context))
    return found


def test_only_nodes_with_new_crops_take_part_and_nothing_is_violated(world: World) -> None:
    new = {i for i in range(16) if world.field.context[i] not in CONTEXTS_PUBLIC}
    assert 4 <= len(new) <= 12
    assert world.events.get("update_refused", 0) == 0
    assert world.checkers.violations.explained == []
    kept = updates(world)
    assert kept and {index for index, _ in kept} <= new
    assert all(context == world.field.context[index] for index, context in kept)
    full = [row for row in world.rounds if row["updates"] >= 0.8 * len(new)]
    assert full, "a round that heard from four new crops in five"
    assert all(row["closed_s"] - row["opened_s"] < world.scenario.learning.close_s for row in full), (
        "it need not wait for the others"
    )


def test_the_shared_adapter_and_the_shipped_heads_stay_as_they_are(world: World) -> None:
    firmware = world.cell.nodes.firmware
    assert (firmware.model_version > 0).any()
    fresh = World(scenario("new")).cell.nodes.firmware
    assert (firmware.adapters == fresh.adapters).all()
    for context in CONTEXTS_PUBLIC:
        assert (firmware.heads[:, context] == fresh.heads[:, context]).all()
    assert (firmware.heads[:, 2:4] != fresh.heads[:, 2:4]).any()
    assert (firmware.residuals[:, :ADAPTER_SIZE] == 0).all()


def test_nodes_are_told_their_share_of_labels_and_the_scores_know_all(world: World) -> None:
    field, data = world.field, Evaluation(world.scenario, world.field, world.model).data
    days = field.training_days
    told = np.stack([field.label(day) for day in days[:-1]], axis=1)
    assert (data.labels_train[:, :-1] == told).all()
    assert (data.labels_train[:, -1] == LABEL_NONE).all()
    share = (told != LABEL_NONE).mean()
    assert 0.35 < share < 0.85
    assert (data.labels_test == field.labels[field.test_days.start :].T).all()
    assert (world.cell.nodes.firmware.labelled == (told != LABEL_NONE).sum(axis=1)).all()


def test_the_baseline_rule_is_each_crops_own_known_to_the_model_or_not(world: World) -> None:
    evaluation = Evaluation(world.scenario, world.field, world.model)
    own = world.field.rule_classes().T
    assert (evaluation.data.rule_test == own[:, world.field.test_days.start :]).all()
    inputs = evaluation._x[:, 3:, 48:51].argmax(axis=-1)
    known = np.isin(world.field.context, CONTEXTS_PUBLIC)
    assert (inputs[known] == own[known, 3:]).mean() > 0.99
    assert (inputs[~known] == own[~known, 3:]).mean() < 0.97, "the firmware has the general rule only"


def test_receivers_close_after_the_announcement(world: World) -> None:
    """A window lasts 30 s and begins a second early; the programme of a HEADS block takes a few seconds."""
    listened_s = world.cell.windows.listened_us / 1e6
    windows = len(world.rounds)
    assert windows >= 10
    assert (listened_s > 0).all()
    whole_s = windows * (world.scenario.learning.window_s + 1)
    assert listened_s.mean() < 0.6 * whole_s, (listened_s, whole_s)


def test_with_all_contexts_known_crops_speak_too() -> None:
    made = World(scenario("all"))
    made.run_until(made.start_us + 3 * DAY_US)
    assert {context for _, context in updates(made)} & set(CONTEXTS_PUBLIC)

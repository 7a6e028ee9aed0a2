"""Each mode from end to end: the firmware's frames, the round, a Flower strategy, the block back."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from swarm.federation.modes import MODES
from swarm.federation.strategy import FlowerStrategy
from swarm.model import container
from swarm.model.layout import ADAPTER_SIZE, Shape
from swarm.node import NodeConfig, Nodes
from swarm.wire import app
from swarm.wire.app import BlockKind, RoundMode
from tests.firmware.fleet import SECOND_US, Fleet

HEADER = Path(__file__).parents[2] / "node_firmware" / "core" / "swn_frame.h"
SHAPE = Shape(classes=4, features=40)


def test_the_firmware_knows_the_modes_of_the_table() -> None:
    """Numbers on the air: SWN_MODE_* of swn_frame.h, the enum, and the rows."""
    found = {name: int(value) for name, value in re.findall(r"SWN_MODE_(\w+) = (\d+)", HEADER.read_text())}
    assert {name: found[name] for name in RoundMode.__members__} == {row.name: row.value for row in RoundMode}
    assert set(MODES) == set(RoundMode) - {RoundMode.NONE}
    assert len({row.message for row in MODES.values()}) == len(MODES)
    additive = [row.name for row in MODES.values() if row.additive]
    assert additive == ["prototypes", "features", "masked_sums"]


@pytest.mark.parametrize("payload_max", [51, 222])
@pytest.mark.parametrize("mode", [RoundMode.TOP_K_SIGN, RoundMode.TOP_K_INT4, RoundMode.DENSE_INT8], ids=str)
def test_changes_teach_the_fleet_and_the_frames_fit(mode: RoundMode, payload_max: int) -> None:
    """Three rounds of FedAvg raise the accuracy on fresh samples; no frame exceeds the payload's limit."""
    fleet = Fleet(SHAPE, payload_max=payload_max)
    fleet.observe(50)
    before = fleet.accuracy()
    strategy = FlowerStrategy("FedAvg", SHAPE)
    for number in range(1, 4):
        fleet.close(fleet.round(number, mode), strategy, BlockKind.FULL)
    assert fleet.accuracy() > before + 0.3
    assert max(len(payload) for _, payload in fleet.frames) <= payload_max
    per_round = len(fleet.frames) / fleet.nodes.count / 3
    whole = 11 + SHAPE.local_size
    assert per_round == (-(-whole // (payload_max - 6)) if mode == RoundMode.DENSE_INT8 else 1)


@pytest.mark.parametrize("mode", sorted(set(MODES) - {RoundMode.MASKED_SUMS}), ids=str)
def test_a_node_answers_no_mode_that_it_refuses(mode: RoundMode) -> None:
    """Whatever a gateway announces: node 0 refuses this mode, node 1 all others."""
    image = container.random_model(11, shape=SHAPE, contexts=(0,))
    refused = [1 << mode, 0xFFFF & ~(1 << mode)]
    nodes = Nodes(2, [NodeConfig(i, 0, payload_max=222, refuses=refused[i]) for i in range(2)], image)
    nodes.observe(0, 0, np.full((2, SHAPE.features), 7, np.int8))
    assert nodes.label(0, np.ones(2, np.uint8)) == 2
    announced = app.encode(app.RoundAnnounce(1, 0, mode, 255, 0, 300, 0, 0))
    nodes.rx_many(range(2), 0, app.F_PORT_LEARNING, announced)
    nodes.poll(200 * SECOND_US)
    senders = {index for index, f_port, _ in nodes.outbox() if f_port == app.F_PORT_LEARNING}
    assert senders == {1}


@pytest.mark.parametrize("mode", [RoundMode.TOP_K_INT4, RoundMode.DENSE_INT8], ids=str)
def test_what_was_counted_leaves_the_residual(mode: RoundMode) -> None:
    """Error feedback: the ACK takes the steps times their scale from the residual, bit for bit."""
    fleet = Fleet(SHAPE, count=6, payload_max=222)
    fleet.observe(20)
    made = fleet.round(1, mode)
    before = fleet.nodes.residuals.astype(int)
    kept = {held.node_index: held.message for held in made._held.values()}
    made.close(made.close_us, FlowerStrategy("FedAvg", SHAPE), fleet.mirror.master())
    (ack,) = made.ack_frames(51)
    fleet.nodes.rx_many(range(3), made.close_us, 10, ack)  # the others miss it
    for index, after in enumerate(fleet.nodes.residuals.astype(int)):
        message, said = kept[index], np.zeros(SHAPE.local_size, int)
        if isinstance(message, app.TopKInt4):
            said[list(message.indices)] = np.array(message.levels) * message.scale
            assert abs(said).max() >= abs(before[index]).max() - message.scale // 2
        else:
            assert isinstance(message, app.DenseInt8)
            said[:ADAPTER_SIZE] = np.array(message.steps[:ADAPTER_SIZE]) * message.scale_adapter
            said[ADAPTER_SIZE:] = np.array(message.steps[ADAPTER_SIZE:]) * message.scale_head
        assert np.array_equal(after, before[index] - said if index < 3 else before[index])
        assert index >= 3 or abs(after).sum() < abs(before[index]).sum()


def test_dense_changes_survive_any_flower_strategy() -> None:
    """Whole vectors: robust strategies, for which sparse frames are useless, learn from dense ones."""
    for name in ("FedMedian", "FedTrimmedAvg", "Krum", "FedAvgM"):
        fleet = Fleet(Shape(3, 20), count=20, payload_max=222)
        fleet.observe(40)
        before = fleet.accuracy()
        for number in (1, 2, 3):
            made = fleet.round(number, RoundMode.DENSE_INT8)
            fleet.close(made, FlowerStrategy(name, fleet.shape), BlockKind.FULL)
        assert fleet.accuracy() > before, name


def test_a_round_for_new_contexts_sends_the_head_alone() -> None:
    """Bit 7 of the mode: DENSE_INT8 leaves the adapter out, 512 bytes less on the air."""
    fleet = Fleet(SHAPE, count=4, payload_max=222)
    fleet.observe(20)
    frame = app.encode(
        app.RoundAnnounce(1, 0, RoundMode.DENSE_INT8 | app.ROUND_NEW_CONTEXTS, 255, 0, 100, 0, 0)
    )
    fleet.nodes.rx_many(range(4), 0, 10, frame)
    fleet.nodes.poll(6_000_000)
    sent = [
        (index, app.decode_uplink(10, payload)) for index, port, payload in fleet.nodes.outbox() if port == 10
    ]
    assert [index for index, _ in sent] == [1, 3]  # context 0 was shipped with a head
    for _, message in sent:
        assert isinstance(message, app.DenseInt8)
        assert message.scale_adapter == 0 and len(message.steps) == SHAPE.head_size

"""Modes `features` and `blocks` through the firmware: what travels, what is learnt, what an ACK takes."""

from __future__ import annotations

import numpy as np
import pytest

from swarm.federation import chunks, features
from swarm.federation.blockwise import Blockwise
from swarm.federation.reply import PER_BLOCK
from swarm.federation.strategy import FlowerStrategy
from swarm.model.layout import ADAPTER_SIZE, Shape
from swarm.model.vector import Float64
from swarm.wire import app
from swarm.wire.app import BlockKind, RoundMode
from swarm.wire.messages import CHUNK
from tests.firmware.fleet import Fleet

SHAPE = Shape(classes=4, features=40)
AT_ONCE = {"gain_min": 0.0}


def sent(fleet: Fleet) -> list[tuple[int, app.Message]]:
    found = [(index, app.decode_uplink(10, payload)) for index, payload in fleet.frames]
    fleet.frames.clear()
    return found


@pytest.mark.parametrize(("payload_max", "each"), [(51, 2), (222, 12)])
def test_the_gateway_learns_from_samples(payload_max: int, each: int) -> None:
    """As many samples as fit, none twice once acknowledged; the heads that come back are better."""
    fleet = Fleet(SHAPE, payload_max=payload_max)
    fleet.observe(50)
    before = fleet.accuracy()
    strategy = FlowerStrategy("features", SHAPE, AT_ONCE)
    seen: dict[int, set[tuple[int, ...]]] = {}
    for number in range(1, 5):
        made = fleet.round(number, RoundMode.FEATURES)
        assert max(len(payload) for _, payload in fleet.frames) <= payload_max
        for index, message in sent(fleet):
            assert isinstance(message, app.Features) and message.num_examples == each
            own = {message.q[i : i + 32] for i in range(0, len(message.q), 32)}
            assert not own & seen.setdefault(index, set())
            seen[index] |= own
        fleet.close(made, strategy, BlockKind.FULL)
    assert fleet.accuracy() > before + 0.2


def test_samples_are_what_the_node_saw_within_half_a_step() -> None:
    """Quantiser and labels against z as the firmware computes it and the rule that made the labels."""
    fleet = Fleet(SHAPE, count=2, payload_max=222)
    x, labels = fleet.draw(2)
    fleet.nodes.observe(0, 0, x)
    fleet.nodes.label(0, labels)
    fleet.round(1, RoundMode.FEATURES)
    for (index, message), z in zip(sorted(sent(fleet), key=lambda at: at[0]), fleet.model.z(x), strict=True):
        assert isinstance(message, app.Features) and message.labels == (labels[index],)
        error = np.array(message.q) * message.scale - 8.0 * z
        assert np.abs(error).max() <= message.scale / 2


def test_unacknowledged_samples_are_sent_again() -> None:
    fleet = Fleet(SHAPE, count=4, payload_max=222)
    fleet.observe(12)
    made = fleet.round(1, RoundMode.FEATURES)
    first = dict(sent(fleet))
    made.close(made.close_us, FlowerStrategy("features", SHAPE, AT_ONCE), fleet.mirror.master())
    (ack,) = made.ack_frames(51)
    fleet.nodes.rx_many(range(2), made.close_us, 10, ack)  # the others miss it
    fleet.round(2, RoundMode.FEATURES)
    again = dict(sent(fleet))
    assert sorted(again) == [2, 3]
    for index, message in again.items():
        assert isinstance(message, app.Features)
        assert (message.labels, message.q) == (first[index].labels, first[index].q)  # type: ignore[union-attr]


def test_the_memory_of_samples_is_bounded_and_survives_a_restart() -> None:
    """The newest 64 of a node; a strategy restored between all rounds comes to the same bits."""

    def season(restart: bool) -> FlowerStrategy:
        fleet = Fleet(SHAPE, count=6, payload_max=222)
        strategy = FlowerStrategy("features", SHAPE)
        for number in range(1, 8):
            fleet.observe(12)
            fleet.close(fleet.round(number, RoundMode.FEATURES), strategy, BlockKind.FULL)
            if restart:
                state = strategy.state()
                strategy = FlowerStrategy("features", SHAPE)
                strategy.restore(state)
        return strategy

    one, two = season(False), season(True)
    assert one.state() == two.state()
    assert len(one._capture()["samples"]) == 6 * features.PER_NODE


@pytest.mark.parametrize(
    "name",
    [
        *("FedAvg", "FedMedian", "FedTrimmedAvg", "Krum", "MultiKrum"),
        pytest.param("Bulyan", marks=pytest.mark.slow),  # a minute of Flower's own arithmetic
    ],
)
def test_blocks_teach_the_fleet_with_any_strategy(name: str) -> None:
    """One frame a node and round; after some turns round the vector the fleet knows more."""
    fleet = Fleet(SHAPE, payload_max=222)
    fleet.observe(50)
    before = fleet.accuracy()
    strategy = Blockwise(name, SHAPE)
    for number in range(1, 7):
        fleet.close(fleet.round(number, RoundMode.BLOCKS), strategy, BlockKind.FULL)
    assert fleet.accuracy() > before + 0.3
    assert {len(payload) for _, payload in fleet.frames} == {12 + 6 * CHUNK // 2}
    assert len(fleet.frames) == 6 * fleet.nodes.count


def test_all_nodes_of_a_group_say_the_same_block_and_every_block_has_its_turn() -> None:
    fleet = Fleet(SHAPE, count=40, payload_max=51)
    fleet.observe(10)
    turns: dict[int, list[int]] = {0: [], 1: []}
    places = -(-SHAPE.local_size // CHUNK)
    for number in range(places):
        fleet.round(number, RoundMode.BLOCKS)
        firsts = {index: message.first for index, message in sent(fleet) if isinstance(message, app.Blocks)}
        for group, own in ((0, range(32)), (1, range(32, 40))):
            said = {firsts[index] for index in own if index in firsts}
            assert len(said) <= 1  # the adapter's first turns may have nothing to say
            turns[group] += said
    for group in (0, 1):
        assert len(set(turns[group])) == len(turns[group])
        assert set(turns[group]) >= set(range(ADAPTER_SIZE // CHUNK, places))


def test_the_ack_takes_what_travelled_from_the_residual() -> None:
    fleet = Fleet(SHAPE, count=4, payload_max=222)
    fleet.observe(20)
    made = fleet.round(2, RoundMode.BLOCKS)
    before = fleet.nodes.residuals.astype(int)
    said = dict(sent(fleet))
    made.close(made.close_us, Blockwise("FedAvg", SHAPE), fleet.mirror.master())
    (ack,) = made.ack_frames(51)
    fleet.nodes.rx_many(range(2), made.close_us, 10, ack)
    for index, message in said.items():
        assert isinstance(message, app.Blocks)
        steps = np.zeros(SHAPE.local_size, int)
        part = np.array(message.steps[: SHAPE.local_size - CHUNK * message.first])
        steps[CHUNK * message.first : CHUNK * message.first + len(part)] = part
        steps[:ADAPTER_SIZE] *= message.scale_adapter
        steps[ADAPTER_SIZE:] *= message.scale_head
        after = fleet.nodes.residuals[index].astype(int)
        assert np.array_equal(after, before[index] - (steps if index < 2 else 0))


def test_a_round_for_new_contexts_sends_blocks_of_the_head() -> None:
    fleet = Fleet(SHAPE, count=4, payload_max=51)
    fleet.observe(20)
    mode = RoundMode.BLOCKS | app.ROUND_NEW_CONTEXTS
    for number in (1, 2, 3):
        fleet.nodes.rx_many(
            range(4), number * 10**9, 10, app.encode(app.RoundAnnounce(number, 0, mode, 255, 0, 100, 0, 0))
        )
        fleet.nodes.poll(number * 10**9 + 6_000_000)
        messages = [app.decode_uplink(10, payload) for _, port, payload in fleet.nodes.outbox() if port == 10]
        assert len(messages) == 2
        for message in messages:
            assert isinstance(message, app.Blocks)
            assert message.first >= ADAPTER_SIZE // CHUNK and message.scale_adapter == 0


def test_nodes_of_a_failing_block_are_left_out_whole_and_the_others_count() -> None:
    """Bulyan needs more than one reply when it has to stand one liar: the lonely node keeps its update."""
    fleet = Fleet(SHAPE, count=36, payload_max=51)
    fleet.observe(20)
    strategy = Blockwise("Bulyan", SHAPE, {"num_malicious_nodes": 1})
    made = fleet.round(8, RoundMode.BLOCKS)
    state = strategy.state()
    done = made.close(made.close_us, strategy, fleet.mirror.master())
    left_out = {error.node_index for error in done.errors}
    assert (done.vector is None) == (len(left_out) == len(sent(fleet)))
    assert not left_out & made.accepted
    assert done.vector is not None or strategy.state() == state


def test_blocks_forget_one_head_alone() -> None:
    """FedAdam's momentum of the chunks of context 0's head goes, that of all others stays."""
    fleet = Fleet(SHAPE, count=8, payload_max=222)
    fleet.observe(20)
    strategy = Blockwise("FedAdam", SHAPE)
    for number in range(1, 9):
        fleet.close(fleet.round(number, RoundMode.BLOCKS), strategy, BlockKind.FULL)
    parts = chunks.parts(SHAPE, 8)
    head = SHAPE.head_slice(0)
    before = {number: made.state() for number, made in strategy._blocks.items()}
    strategy.forget(head)
    after = {number: made.state() for number, made in strategy._blocks.items()}
    own = {n for n in before if head.start <= parts[n].start and parts[n].stop <= head.stop}
    assert after == {number: state for number, state in before.items() if number not in own}
    assert 0 < len(after) < len(before)


def test_blocks_survive_a_restart() -> None:
    """A strategy with momentum, restored between rounds, makes the same bits; a foreign state is refused."""

    def season(restart: bool) -> Float64:
        fleet = Fleet(SHAPE, count=8, payload_max=222)
        fleet.observe(20)
        strategy = Blockwise("FedAdam", SHAPE)
        for number in (1, 2, 3):
            fleet.close(fleet.round(number, RoundMode.BLOCKS), strategy, BlockKind.FULL)
            if restart:
                state = strategy.state()
                strategy = Blockwise("FedAdam", SHAPE)
                strategy.restore(state)
        return fleet.mirror.master()

    assert np.array_equal(season(False), season(True))
    with pytest.raises(ValueError, match=f"FedAvg{PER_BLOCK}"):
        Blockwise("FedAvg", SHAPE).restore(Blockwise("FedAdam", SHAPE).state())

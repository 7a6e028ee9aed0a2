"""A node goes on with its own model's other experts: what it takes up, what it keeps, and what it says."""

from __future__ import annotations

import numpy as np
import pytest

from swarm.model.container import random_model
from swarm.model.subset import with_experts
from swarm.node import HOLDER, NodeConfig, Nodes
from swarm.prng import Prng
from swarm.receiver import BlockState, Receivers
from swarm.wire import app, expert
from tests.firmware.large_block import FLASH_SIZE, SIGNER, Bench, offered

SECOND_US = 1_000_000
HOUR_US = 3600 * SECOND_US
FULL = random_model(9, generation=4)
SMALL = with_experts(FULL, (0, 1))
INPUTS = Prng(4).child("inputs").numpy().integers(-60, 61, (60, 56)).astype(np.int8)
EXPERTS = (12, 4)
"""FPort and type."""


def bench_of(image: bytes = SMALL, **changes: int) -> Bench:
    config = NodeConfig(0, 0, seed=1, guard_us=0, signer=SIGNER, payload_max=222, **changes)
    return Bench(Nodes(1, [config], image, flash_size=FLASH_SIZE))


def deliver(bench: Bench, body: bytes) -> None:
    sent = offered(body)
    bench.learning(sent.offer())
    bench.send(sent, until=sent.nb_frag)
    assert bench.state == BlockState.VERIFIED


def said(bench: Bench, seconds: int) -> list[tuple[int, expert.Experts]]:
    """The EXPERTS that the node sends meanwhile, and when (s from now)."""
    start_us, until_us, found = bench.now_us, bench.now_us + seconds * SECOND_US, []
    while bench.now_us < until_us:
        due_us = int(bench.nodes.poll(bench.now_us)[0])
        for _, port, payload in bench.nodes.outbox():
            if (port, payload[0]) == EXPERTS:
                message = app.decode_uplink(port, payload)
                assert isinstance(message, expert.Experts)
                found.append(((bench.now_us - start_us) // SECOND_US, message))
        bench.now_us = min(due_us, until_us)
    return found


@pytest.mark.parametrize("experts", [(2, 5), (0, 1, 2, 3, 4, 5, 6, 7), ()])
def test_it_computes_with_the_new_experts_and_says_so_three_times(experts: tuple[int, ...]) -> None:
    bench = bench_of()
    said(bench, 2 * 3600)
    deliver(bench, with_experts(FULL, experts))
    assert bench.receivers.install(0, bench.now_us)
    told = said(bench, 3 * 3600)
    assert [message.held for _, message in told] == [sum(1 << e for e in experts)] * 3
    assert told[0][0] < 60 and told[-1][0] < 3600
    fresh = Nodes(1, [NodeConfig(0, 0, seed=1)], with_experts(FULL, experts))
    for x in INPUTS:
        assert np.array_equal(bench.nodes.infer(x[None]), fresh.infer(x[None]))
    assert not bench.receivers.install(0, bench.now_us)  # it runs it


def test_what_was_learned_stays() -> None:
    """Goal: unlike a restart, samples and labels of a node outlive the change."""
    bench = bench_of()
    for number, x in enumerate(INPUTS[:20]):
        bench.nodes.observe(0, number, x[None])
        bench.nodes.label(number, np.array([number % 3], np.uint8))
    kept = bench.nodes.labelled.tolist(), bench.nodes.adapters.copy(), bench.nodes.heads.copy()
    assert kept[0] == [20]
    deliver(bench, with_experts(FULL, (2, 5)))
    assert bench.receivers.install(0, bench.now_us)
    assert bench.nodes.labelled.tolist() == kept[0]
    assert np.array_equal(bench.nodes.adapters, kept[1]) and np.array_equal(bench.nodes.heads, kept[2])


@pytest.mark.parametrize(
    "body",
    [
        random_model(9, generation=5, remote=(0, 1)),  # a newer one: its hidden vectors mean something else
        random_model(10, generation=4, remote=(0, 1)),  # other weights under the same generation
        random_model(9, generation=4, remote=(0, 1), contexts=(0, 2)),  # other heads
        SMALL,  # what it runs
    ],
)
def test_another_model_waits_for_the_restart(body: bytes) -> None:
    bench = bench_of()
    deliver(bench, body)
    before = bench.nodes.infer(INPUTS, np.zeros(len(INPUTS), np.int64))
    assert not bench.receivers.install(0, bench.now_us)
    assert np.array_equal(bench.nodes.infer(INPUTS, np.zeros(len(INPUTS), np.int64)), before)
    assert not said(bench_of(FULL), 3600)


def test_nothing_is_taken_up_that_is_not_there_or_not_whole() -> None:
    bench = bench_of()
    assert not bench.receivers.install(0, 0)
    sent = offered(with_experts(FULL, (2, 5)))
    bench.learning(sent.offer())
    bench.send(sent, until=10)
    assert not bench.receivers.install(0, bench.now_us)
    assert not Receivers(Nodes(1, [NodeConfig(0, 0)], SMALL)).install(0, 0)


def test_a_snapshot_and_a_reset_keep_what_it_runs() -> None:
    bench = bench_of(flags=HOLDER)
    deliver(bench, with_experts(FULL, (2, 5)))
    assert bench.receivers.install(0, bench.now_us)
    after = bench.nodes.infer(INPUTS, np.zeros(len(INPUTS), np.int64))
    kept = bench.nodes.snapshot()
    bench.nodes.reset(0, bench.now_us)
    assert np.array_equal(bench.nodes.infer(INPUTS, np.zeros(len(INPUTS), np.int64)), after)
    assert {message.held for _, message in said(bench, 7200)} == {1 << 2 | 1 << 5}
    other = bench_of(flags=HOLDER)
    other.nodes.restore(kept)
    assert np.array_equal(other.nodes.infer(INPUTS, np.zeros(len(INPUTS), np.int64)), after)

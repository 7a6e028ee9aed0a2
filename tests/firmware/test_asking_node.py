"""Nodes that lack experts: what they ask, what they make of a reply, and what holders compute."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from swarm._node import ffi, lib

from swarm.model.container import random_model
from swarm.node import ALWAYS_ON, HOLDER, Judged, Judgement, Model, NodeConfig, Nodes
from swarm.prng import Prng
from swarm.wire import app, expert

SECOND_US = 1_000_000
GENERATION = 5
HELD = (0, 3)
WITHHELD = sum(1 << e for e in range(8) if e not in HELD)
IMAGE = random_model(3, generation=GENERATION)
REDUCED = random_model(3, generation=GENERATION, remote=[e for e in range(8) if e not in HELD])
MODEL = Model(IMAGE)
INPUTS = Prng(9).child("asking").numpy().integers(-60, 61, (400, 56)).astype(np.int8)


def config(**fields: int) -> NodeConfig:
    return NodeConfig(**{"node_index": 1, "context": 0, "seed": 4, "ask_below": 255, **fields})


def lacking(x: np.ndarray) -> np.ndarray:
    """A mask of the picks that the node of `WITHHELD` lacks, per row."""
    return (~np.isin(MODEL.experts(x), HELD) * np.array([1, 2])).sum(axis=1)


def ask_of(nodes: Nodes, now_us: int = 1) -> expert.Ask:
    """The one ASK that node 0 sends now."""
    nodes.poll(now_us)
    sent = [app.decode_uplink(f_port, payload) for _, f_port, payload in nodes.outbox() if f_port == 11]
    (message,) = sent
    assert isinstance(message, expert.Ask)
    return message


def first_with(missing: int) -> np.ndarray:
    """An input of which the node that lacks those picks is not certain."""
    alone = Model(REDUCED).infer(INPUTS, MODEL.base_head(0)).max(axis=1)
    return INPUTS[np.flatnonzero((lacking(INPUTS) == missing) & (alone < 240))[0]]


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_an_ask_names_what_is_missing_and_the_reply_completes_it(missing: int) -> None:
    """Goal: with the reply the node judges as the whole model does, up to the coarse vectors."""
    x = first_with(missing)
    nodes = Nodes(1, [config(withheld=WITHHELD)], IMAGE)
    before = nodes.judge(0, 0, x, deadline_s=60)
    assert (before.state, before.missing) == (Judged.ASKING, missing)
    ask = ask_of(nodes)
    assert (ask.generation, ask.picks) == (GENERATION, tuple(MODEL.experts(x[None])[0]))
    assert ask.missing == missing and ask.label == int(np.argmax(before.probabilities))
    done, contribution = MODEL.contribution(ask)
    assert done == missing
    nodes.rx(0, 2, 11, app.encode(expert.Reply(ask.ask_id, done, contribution)))
    after = nodes.judgement(0)
    assert (after.state, after.missing) == (Judged.TOGETHER, 0)
    # The same sum in numpy: what the reduced node had, plus what came, through its own head.
    partial = Model(REDUCED).hidden(x[None])[0].astype(int)
    hidden = np.clip(partial + np.array(expert.fine(contribution)), -128, 127).astype(np.int8)
    assert after.probabilities == tuple(_head(hidden))
    exact = MODEL.hidden(x[None])[0].astype(int)
    assert np.abs(hidden - exact).max() <= 16


def _head(hidden: np.ndarray) -> list[int]:
    z = MODEL.project(hidden[None], MODEL.adapter())
    out = np.empty(3, np.uint8)
    weights = np.ascontiguousarray(MODEL.base_head(0))
    lib.swn_host_heads(
        MODEL._view,
        ffi.from_buffer("int16_t[]", weights),
        1,
        ffi.from_buffer("int8_t[]", np.ascontiguousarray(z)),
        ffi.from_buffer("uint8_t[]", out),
    )
    return [int(share) for share in out]


def test_a_reduced_image_and_a_withheld_expert_are_the_same_node() -> None:
    """Goal: the simulator's mask stands for an image with remote experts.  Method: frames and judgements."""
    withheld = Nodes(1, [config(withheld=WITHHELD)], IMAGE)
    reduced = Nodes(1, [config()], REDUCED)
    assert len(REDUCED) < len(IMAGE) - 6 * 2048  # an expert is 64 x 64 int4
    for number, x in enumerate(INPUTS[:60]):
        now_us = number * 100 * SECOND_US
        one, other = (nodes.judge(0, now_us, x, deadline_s=60) for nodes in (withheld, reduced))
        assert one == other
        sent = [nodes.poll(now_us) is not None and nodes.outbox() for nodes in (withheld, reduced)]
        assert [frame for frame in sent[0] if frame[1] == 11] == [f for f in sent[1] if f[1] == 11]
        withheld.poll(now_us + 90 * SECOND_US), reduced.poll(now_us + 90 * SECOND_US)
        withheld.outbox(), reduced.outbox()


def test_who_is_sure_or_complete_does_not_ask() -> None:
    x = first_with(1)
    complete = Nodes(1, [config()], IMAGE)
    assert complete.judge(0, 0, x, deadline_s=60).state == Judged.ALONE
    sure = Nodes(1, [config(withheld=WITHHELD, ask_below=1)], IMAGE)
    judged = sure.judge(0, 0, x, deadline_s=60)
    assert (judged.state, judged.missing) == (Judged.ALONE, 1)
    never = Nodes(1, [config(withheld=WITHHELD)], IMAGE)
    assert never.judge(0, 0, x, deadline_s=0).state == Judged.ALONE
    for nodes in (complete, sure, never):
        nodes.poll(1)
        assert not [frame for frame in nodes.outbox() if frame[1] == 11]


def test_an_ask_is_repeated_with_growing_pauses_until_the_deadline() -> None:
    nodes = Nodes(1, [config(withheld=WITHHELD, ask_retry_s=3)], IMAGE)
    alone = nodes.judge(0, 0, first_with(2), deadline_s=60)
    sent_s = []
    for second in range(70):
        nodes.poll(second * SECOND_US)
        sent_s += [second for _, f_port, payload in nodes.outbox() if (f_port, payload[0]) == (11, 2)]
    assert sent_s == [0, 3, 9, 21]
    after = nodes.judgement(0)
    assert (after.state, after.probabilities) == (Judged.ALONE, alone.probabilities)


@pytest.mark.parametrize(
    "reply",
    [
        expert.Reply(77, 1, expert.coarse([0] * 64)),  # another question's
        expert.Reply(1, 2, expert.coarse([9] * 64)),  # what was not missing
        expert.Reply(1, 0, expert.coarse([9] * 64)),  # nobody could help
    ],
)
def test_a_reply_that_does_not_fit_changes_no_judgement(reply: expert.Reply) -> None:
    nodes = Nodes(1, [config(withheld=WITHHELD)], IMAGE)
    before = nodes.judge(0, 0, first_with(1), deadline_s=60)
    nodes.poll(1)
    nodes.rx(0, 2, 11, app.encode(reply))
    after = nodes.judgement(0)
    assert after.probabilities == before.probabilities
    assert after.state == (Judged.ASKING if reply.ask_id == 77 else Judged.ALONE)


def test_one_question_at_a_time_and_a_late_reply_is_nothing() -> None:
    nodes = Nodes(1, [config(withheld=WITHHELD)], IMAGE)
    nodes.judge(0, 0, first_with(1), deadline_s=60)
    second: Judgement = nodes.judge(0, 1, first_with(2), deadline_s=60)
    assert second.state == Judged.ALONE
    ask = ask_of(nodes)
    nodes.poll(61 * SECOND_US)
    done, contribution = MODEL.contribution(ask)
    before = nodes.judgement(0)
    nodes.rx(0, 62 * SECOND_US, 11, app.encode(expert.Reply(ask.ask_id, done, contribution)))
    assert nodes.judgement(0) == before and before.state == Judged.ALONE


def test_a_holder_computes_what_the_gateway_would_and_refuses_what_it_lacks() -> None:
    """Goal: two honest holders send the same bytes as the replica."""
    x = first_with(3)
    asking = Nodes(1, [config(withheld=WITHHELD)], IMAGE)
    asking.judge(0, 0, x, deadline_s=60)
    ask = ask_of(asking)
    query = expert.ExpertQuery(40_000, GENERATION, ask.picks, ask.weight, 3, 0, ask.input)
    lacks_first = 1 << ask.picks[0]
    holders = Nodes(3, [config(), config(withheld=WITHHELD), config(withheld=lacks_first)], IMAGE)
    holders.rx_many((0, 1, 2), 5, 11, app.encode(query), multicast=False)
    holders.poll(6)
    sent = {index: app.decode_uplink(11, data) for index, f_port, data in holders.outbox() if f_port == 11}
    assert sent[0] == expert.Output(40_000, GENERATION, 3, MODEL.contribution(ask)[1])
    assert 1 not in sent and holders.refused[1] == 1
    partial = sent[2]
    assert isinstance(partial, expert.Output) and partial.done == 2
    holders.rx(0, 7, 11, app.encode(expert.ExpertQuery(40_001, 4, ask.picks, ask.weight, 3, 0, ask.input)))
    assert holders.refused[0] == 1  # another generation's expert is another expert


def test_experts_are_reported_by_those_who_lack_some_or_serve_others() -> None:
    fleet = [
        config(withheld=WITHHELD),
        config(),
        config(flags=HOLDER),
        config(flags=ALWAYS_ON, withheld=1),
    ]
    nodes = Nodes(4, fleet, IMAGE)
    for x in INPUTS:
        nodes.judge(0, 0, x, deadline_s=0)
    said: dict[int, expert.Experts] = {}
    for hour in range(3):
        nodes.poll(hour * 3600 * SECOND_US)
        for index, f_port, payload in nodes.outbox():
            message = app.decode_uplink(f_port, payload)
            if isinstance(message, expert.Experts):
                said[index] = message
    assert sorted(said) == [0, 2, 3]
    assert said[0].held == sum(1 << e for e in HELD) and said[2].held == 255 and said[3].held == 254
    assert [message.flags for _, message in sorted(said.items())] == [0, 0, expert.ALWAYS_ON]
    counts = np.bincount(MODEL.experts(INPUTS).ravel(), minlength=8)
    assert said[0].seen == tuple(counts * 255 // counts.sum())


def test_a_snapshot_keeps_what_is_withheld_and_asked() -> None:
    nodes = Nodes(2, [config(withheld=WITHHELD), config()], IMAGE)
    nodes.judge(0, 0, first_with(1), deadline_s=60)
    state, judged = nodes.snapshot(), nodes.judgement(0)
    other = Nodes(2, [config(), config()], IMAGE)
    other.restore(state)
    assert other.judgement(0) == judged
    x = np.stack([first_with(3)] * 2)
    assert (other.infer(x) == nodes.infer(x)).all()


@given(st.lists(st.integers(-128, 127), min_size=64, max_size=64))
def test_coarse_vectors_agree_and_err_by_half_a_step(values: list[int]) -> None:
    """Goal: C and Python write the same 34 bytes, and read the same 64 values from them."""
    array = np.array(values, np.int8)
    packed = bytearray(expert.COARSE_SIZE)
    lib.swn_coarse_put(ffi.from_buffer("int8_t[]", array), ffi.from_buffer("uint8_t[]", packed))
    assert bytes(packed) == expert.coarse(values)
    back = np.empty(64, np.int8)
    lib.swn_coarse_get(ffi.from_buffer("uint8_t[]", packed), ffi.from_buffer("int8_t[]", back))
    assert tuple(back.tolist()) == expert.fine(bytes(packed))
    assert max(abs(a - b) for a, b in zip(values, back.tolist(), strict=True)) <= (packed[1] + 1) // 2


@given(st.binary(min_size=34, max_size=34))
def test_any_coarse_bytes_are_read_alike(packed: bytes) -> None:
    back = np.empty(64, np.int8)
    lib.swn_coarse_get(ffi.from_buffer("uint8_t[]", packed), ffi.from_buffer("int8_t[]", back))
    assert tuple(back.tolist()) == expert.fine(packed)

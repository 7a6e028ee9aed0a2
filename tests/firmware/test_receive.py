"""Large blocks on the C node: offers, fragments, the receiver, the signature, what hostile frames change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.model.container import random_model
from swarm.node import NodeConfig, Nodes
from swarm.prng import Prng
from swarm.receiver import BlockState
from swarm.security.lorawan import AesKey, data_block_key, data_block_mic
from swarm.security.signatures import SigningKey
from swarm.wire import fragmentation as ts004
from tests.firmware.large_block import (
    BODY,
    F_PORT,
    FLASH_SIZE,
    SECOND_US,
    SIGNER,
    Bench,
    Offered,
    nodes_with_flash,
    offered,
    signed,
)
from tests.firmware.model_image import IMAGE

OTHER_BODY = random_model(10, generation=3, remote=(0, 1, 2, 3, 4, 5, 6, 7))
HOUR_US = 3600 * SECOND_US
DAY_US = 24 * HOUR_US


# What is taken, and what is not. ---------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
def test_a_signed_container_is_taken(version: int) -> None:
    """Goal: an OFFER and enough fragments make a verified block in flash.  Method: a fifth is lost."""
    bench, sent = Bench(), offered(version=version)
    lost = frozenset(n for n in range(1, sent.nb_frag + 1) if n % 5 == 0)
    bench.learning(sent.offer())
    assert bench.state == BlockState.RECEIVING
    bench.send(sent, lost)
    assert bench.state == BlockState.VERIFIED
    assert bench.receivers.block(0) == BODY
    assert bench.receivers.rewritten()[0] == 0
    assert bench.nodes.refused[0] == 0


@pytest.mark.parametrize("flipped", [0, 100, len(BODY) - 1, len(BODY), len(BODY) + 63])
def test_one_wrong_bit_is_a_forgery(flipped: int) -> None:
    """Goal: nothing counts but what the signer signed, and the status says so as a wrong MIC."""
    block = bytearray(signed(BODY))
    block[flipped] ^= 4
    bench, sent = Bench(), Offered(bytes(block))
    bench.learning(sent.offer())
    bench.send(sent)
    assert bench.state == BlockState.FORGED
    assert (bench.receivers.block(0), bench.receivers.sizes()[0]) == (b"", 0)
    assert bench.nodes.refused[0] == 1
    bench.tell(sent.poll(everybody=True))
    answers = statuses(bench.pass_time(60))
    assert len(answers) == 3  # it says so twice by itself
    assert {(answer.mic_error, answer.missing) for answer in answers} == {(True, 0)}


def test_another_signer_is_nobody() -> None:
    bench, sent = Bench(), Offered(signed(BODY, SigningKey(bytes(32))))
    bench.learning(sent.offer())
    bench.send(sent)
    assert bench.state == BlockState.FORGED


def test_what_is_signed_but_no_container_is_not_taken() -> None:
    bench, sent = Bench(), Offered(signed(BODY[:64] + bytes(64) + BODY[128:]))
    bench.learning(sent.offer())
    bench.send(sent)
    assert (bench.state, bench.nodes.refused[0]) == (BlockState.FORGED, 1)


def test_an_older_model_is_not_taken() -> None:
    """Goal: who records a signed block cannot bring it back years later."""
    running = random_model(11, generation=7)
    for generation, state in ((6, BlockState.FORGED), (7, BlockState.VERIFIED), (8, BlockState.VERIFIED)):
        bench = Bench(nodes_with_flash(1, running))
        sent = offered(random_model(9, generation=generation, remote=tuple(range(8))))
        bench.learning(sent.offer())
        bench.send(sent)
        assert bench.state == state


def test_after_a_forgery_the_next_delivery_succeeds() -> None:
    """Goal: who has the group's key spoils one delivery, no more.  Method: a piece is replaced, in the first
    session and in one under another index; the third, when that is over, is left alone."""
    bench, sent = Bench(), offered()
    bench.learning(sent.offer(length_s=1000))
    evil = ts004.encode(ts004.DataFragment(0, 3, bytes(sent.frag_size)), 2)
    bench.tell(evil)
    bench.send(sent)
    assert bench.state == BlockState.FORGED
    bench.learning(sent.offer(length_s=1000))
    assert bench.state == BlockState.FORGED  # the session that was spoilt
    again = offered(index=1)
    bench.learning(again.offer(length_s=1000))
    bench.tell(ts004.encode(ts004.DataFragment(1, 3, bytes(sent.frag_size)), 2))
    bench.send(again)
    assert bench.state == BlockState.FORGED
    bench.now_us += 1000 * SECOND_US
    bench.learning(again.offer())
    bench.send(again)
    assert bench.receivers.block(0) == BODY
    assert (bench.nodes.refused[0], bench.receivers.rewritten()[0]) == (2, 0)


@pytest.mark.parametrize("without", ["flash", "signer"])
def test_without_a_flash_or_a_signer_nothing_is_taken(without: str) -> None:
    """Goal: such a node does what it did before there were large blocks."""
    made = nodes_with_flash(1, IMAGE, signer=None)
    if without == "flash":
        made = Nodes(1, [NodeConfig(0, 0, signer=SIGNER)], IMAGE)
    bench, sent = Bench(made), offered()
    bench.learning(sent.offer())
    bench.tell(ts004.encode(ts004.FragSessionStatusReq(0, True), 2))
    assert bench.pass_time(600) == []
    assert not bench.listens()
    assert bench.nodes.refused[0] == 1  # FPort 201 is none of its ports


# Hostile offers and fragments. ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"nb_frag": 0},
        {"frag_size": 0, "padding": 0},
        {"nb_frag": 1025},
        {"frag_size": 240},
        {"nb_frag": 1, "padding": 47},
        {"padding": 48},
        {"nb_frag": 1000, "frag_size": 230},
        {"length_s": 0},
    ],
)
def test_impossible_offers_change_nothing(changes: dict[str, int]) -> None:
    bench, sent = Bench(), offered()
    bench.learning(sent.offer(**changes))
    assert (bench.state, bench.listens(), bench.nodes.refused[0]) == (BlockState.NONE, False, 1)


def test_offers_are_of_one_size() -> None:
    bench, sent = Bench(), offered()
    frame = sent.offer()
    for size in (*range(1, len(frame)), len(frame) + 1):
        bench.learning((frame + b"\0")[:size])
    assert (bench.state, bench.nodes.refused[0]) == (BlockState.NONE, len(frame))


def test_reserved_bits_are_ignored() -> None:
    bench, sent = Bench(), offered()
    frame = bytearray(sent.offer())
    frame[1] |= 0xC0
    frame[14] = 0xFF
    bench.learning(bytes(frame))
    assert bench.state == BlockState.RECEIVING


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_any_order_of_hostile_frames_never_makes_a_block(data: st.DataObject) -> None:
    """Goal: duplicates, replays, unknown indices, cut frames, strangers' fragments at worst spoil a session.
    Method: they are mixed into a delivery by hypothesis; the outcome is the block, or nothing."""
    bench, sent = Bench(), offered()
    bench.learning(sent.offer())
    hostile = st.one_of(
        st.binary(max_size=60),
        st.integers(1, 2 * sent.nb_frag).map(sent.fragment),
        st.integers(1, 2 * sent.nb_frag).map(lambda n: sent.fragment(n)[:-1]),
        st.integers(1, 3).map(lambda index: bytes((8, 1, index << 6)) + bytes(sent.frag_size)),
        st.just(sent.poll(everybody=True)),
    )
    for n in range(1, sent.nb_frag + 1):
        if n % 8 == 0:
            for payload in data.draw(st.lists(hostile, max_size=3)):
                bench.tell(payload, multicast=data.draw(st.booleans()))
        bench.tell(sent.fragment(n))
    assert bench.state in (BlockState.VERIFIED, BlockState.FORGED, BlockState.RECEIVING, BlockState.NONE)
    assert bench.receivers.block(0) in (b"", BODY)
    assert bench.receivers.rewritten()[0] == 0


def test_what_strangers_cost_is_bounded_by_the_day() -> None:
    """Goal: offers of somebody with the group's key erase the flash sixteen times a day and keep the receiver
    on for eight hours, no more; the next day a delivery goes through."""
    bench = Bench()
    draw = Prng(3).numpy()
    listened_us = 0
    for _ in range(1000):
        block = draw.bytes(500)
        bench.learning(Offered(block).offer(length_s=65_535))
        listened_us += 60 * SECOND_US * bench.listens()
        bench.now_us += 60 * SECOND_US
    assert bench.nodes.refused[0] == 1000 - 16
    assert 7 * HOUR_US < listened_us <= 8 * HOUR_US
    bench.now_us = DAY_US + SECOND_US
    sent = offered()
    bench.learning(sent.offer())
    bench.send(sent)
    assert bench.state == BlockState.VERIFIED


# What is said. ---------------------------------------------------------------------------------------


def statuses(said: list[tuple[int, bytes]]) -> list[ts004.FragSessionStatusAns]:
    answers = [ts004.decode_uplink(payload, 2) for _, payload in said]
    assert all(isinstance(answer, tuple) and len(answer) == 1 for answer in answers)
    return [answer[0] for answer in answers]  # type: ignore[index,misc]


def test_whoever_has_the_block_says_so_twice() -> None:
    bench, sent = Bench(), offered(index=2)
    bench.learning(sent.offer(ack_delay=3))
    bench.send(sent, until=sent.nb_frag)
    said = bench.pass_time(2 * 128 + 64)
    assert statuses(said) == [ts004.FragSessionStatusAns(2, sent.nb_frag, 0)] * 2
    assert 0 <= said[0][0] < 128 * SECOND_US and said[1][0] - said[0][0] >= 64 * SECOND_US
    bench.learning(sent.offer())
    assert bench.pass_time(300) == []
    bench.now_us += HOUR_US
    bench.learning(sent.offer(ack_delay=3))  # who offers it later does not know
    assert len(bench.pass_time(400)) == 2
    assert not bench.listens()


def test_polls_are_answered_at_random_and_again_when_the_air_is_taken() -> None:
    nodes = nodes_with_flash(200, IMAGE)
    sent = offered()
    everybody = range(nodes.count)
    nodes.rx_many(everybody, 0, 10, sent.offer(ack_delay=4))
    nodes.rx_many(everybody, 0, F_PORT, sent.fragment(1), multicast=True)
    nodes.rx_many(everybody, 0, F_PORT, sent.poll(), multicast=True)
    nodes.busy[:] = 7
    due_us = nodes.poll(300 * SECOND_US)
    assert nodes.outbox() == []
    assert due_us.min() >= 307 * SECOND_US
    nodes.busy[:] = 0
    nodes.poll(315 * SECOND_US)
    answers = statuses([(index, payload) for index, port, payload in nodes.outbox() if port == F_PORT])
    assert answers == [ts004.FragSessionStatusAns(0, 1, min(255, sent.nb_frag - 1))] * 200
    first = nodes_with_flash(200, IMAGE)
    first.rx_many(everybody, 0, 10, sent.offer(ack_delay=4))
    first.rx_many(everybody, 0, F_PORT, sent.poll(), multicast=True)
    delays_s = first.poll(0) / SECOND_US
    assert 110 < np.mean(delays_s) < 146 and delays_s.max() < 256
    first.busy[:] = 200
    first.poll(256 * SECOND_US)
    first.poll(2000 * SECOND_US)
    assert first.outbox() == [] and set(first.dropped.tolist()) == {1}


def test_after_a_reset_the_block_is_still_there() -> None:
    """Goal: a node that was reset does not fetch a block that it has, nor forget that it may install it."""
    bench, sent = Bench(), offered()
    bench.learning(sent.offer())
    bench.send(sent, until=sent.nb_frag)
    bench.pass_time(100)
    bench.nodes.reset(0, bench.now_us)
    assert (bench.state, bench.receivers.block(0)) == (BlockState.VERIFIED, BODY)
    bench.learning(sent.offer())
    assert bench.receivers.block(0) == BODY and not bench.listens()
    assert statuses(bench.pass_time(60)) == [ts004.FragSessionStatusAns(0, sent.nb_frag, 0)] * 2


def test_a_snapshot_keeps_what_the_board_does() -> None:
    """Goal: a copy is the same flash: it wants no more blocks than before, and fails as before."""
    bench, sent = Bench(), offered()
    bench.receivers.refuse(0, sent.descriptor)
    bench.nodes.restore(bench.nodes.snapshot())
    bench.learning(sent.offer())
    assert bench.state == BlockState.NONE
    bench.receivers.refuse(0, bytes(4))
    bench.learning(sent.offer())
    bench.receivers.fail_writes(0, 1)
    bench.nodes.restore(bench.nodes.snapshot())
    left = bench.receivers.missing(0)
    bench.tell(sent.fragment(1))
    assert bench.receivers.missing(0) == left
    bench.tell(sent.fragment(1))
    assert bench.receivers.missing(0) == left - 1


def test_the_newest_offer_wins() -> None:
    """Goal: another block takes the place of the running session, and of a verified one."""
    bench, first, second = Bench(), offered(), offered(OTHER_BODY)
    bench.learning(first.offer())
    bench.send(first, until=20)
    bench.learning(second.offer())
    bench.send(first)  # same index and sizes: it is signed, and not what was offered
    assert (bench.state, bench.receivers.sizes()[0]) == (BlockState.FORGED, 0)
    bench.now_us += HOUR_US
    bench.learning(second.offer())
    bench.send(second)
    assert bench.receivers.block(0) == OTHER_BODY
    bench.learning(first.offer())
    assert (bench.state, bench.receivers.sizes()[0]) == (BlockState.RECEIVING, 0)
    bench.send(first)
    assert bench.receivers.block(0) == BODY


# Set up by unicast, as other servers do. --------------------------------------------------------------


@pytest.mark.parametrize("mic_right", [True, False])
def test_a_foreign_server_sets_it_up(mic_right: bool) -> None:
    """Goal: a plain TS004 server delivers to our node; MIC and signature both have to be right."""
    root = AesKey(bytes(range(16)))
    config = NodeConfig(0, 0, signer=SIGNER, block_key=data_block_key(root).raw)
    bench = Bench(Nodes(1, [config], IMAGE, flash_size=FLASH_SIZE))
    sent = offered()
    mic = data_block_mic(data_block_key(root), sent.block, session_cnt=4, index=0, descriptor=sent.descriptor)
    request = ts004.FragSessionSetupReq(
        0,
        1,
        sent.nb_frag,
        sent.frag_size,
        0,
        sent.encoder.padding,
        sent.descriptor,
        ack_reception=True,
        session_cnt=4,
        mic=mic if mic_right else bytes(4),
    )
    bench.tell(ts004.encode(request, 2), multicast=False)
    ((at_us, said),) = bench.pass_time(1)
    assert at_us == 0 and ts004.decode_uplink(said, 2) == (ts004.FragSessionSetupAns(0),)
    bench.send(sent, until=sent.nb_frag)
    said_later = bench.pass_time(60)
    received = ts004.decode_uplink(min(said_later)[1], 2)
    assert bench.state == (BlockState.VERIFIED if mic_right else BlockState.FORGED)
    if not mic_right:
        assert received == (ts004.FragDataBlockReceivedReq(0, mic_error=True),)
    bench.nodes.reset(0, bench.now_us)
    bench.tell(ts004.encode(request, 2), multicast=False)
    ((_, said),) = bench.pass_time(1)
    (answer,) = ts004.decode_uplink(said, 2)  # type: ignore[misc]
    assert isinstance(answer, ts004.FragSessionSetupAns) and answer.session_cnt_replay


def test_who_is_helped_alone_asks_for_the_next_one() -> None:
    """Goal: a class A node is not helped one frame a report.  Method: pieces by unicast, each after what the
    node said behind the one before."""
    bench, sent = Bench(), offered()
    bench.learning(sent.offer())
    bench.send(sent, frozenset((3, 4, 5)), until=sent.nb_frag)
    for n, missing in ((3, 2), (4, 1)):
        bench.tell(sent.fragment(n), multicast=False)
        ((after_us, said),) = bench.pass_time(30)
        assert 10 * SECOND_US <= after_us < 20 * SECOND_US
        assert statuses([(0, said)])[0].missing == missing
    bench.tell(sent.fragment(5), multicast=False)
    assert bench.state == BlockState.VERIFIED


def test_who_is_helped_alone_asks_again_when_nothing_follows() -> None:
    """Goal: a lost frame costs minutes, not a report period.  Method: nothing follows a set-up, a piece."""
    bench, sent = Bench(), offered()
    sizes = (sent.nb_frag, sent.frag_size, 0, sent.encoder.padding, sent.descriptor)
    request = ts004.FragSessionSetupReq(0, 0, *sizes, ack_reception=False, session_cnt=4, mic=bytes(4))
    bench.tell(ts004.encode(request, 2), multicast=False)
    said = bench.pass_time(3600)
    assert {payload for _, payload in said} == {said[0][1]}
    assert ts004.decode_uplink(said[0][1], 2) == (ts004.FragSessionSetupAns(0),)
    gaps_s = np.diff([at_us for at_us, _ in said]) // SECOND_US
    assert (
        [30 <= gaps_s[0] < 60, 60 <= gaps_s[1] < 120, 120 <= gaps_s[2] < 240]
        == [True] * 3
        == [True] * len(gaps_s)
    )

    bench.tell(sent.fragment(1), multicast=False)
    assert [each.received for each in statuses(bench.pass_time(85))] == [1, 1]
    bench.tell(sent.fragment(2), multicast=False)
    assert [each.received for each in statuses(bench.pass_time(3600))] == [2] * 4
    for n in range(3, sent.nb_frag + 1):
        bench.tell(sent.fragment(n), multicast=False)
    assert bench.state == BlockState.VERIFIED
    assert {each.missing for each in statuses(bench.pass_time(3600))} == {0}

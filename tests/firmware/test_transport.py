"""TS004 on the C node: every loss pattern against the Python encoder, other stacks' blocks, sessions, hostile
bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.prng import Prng
from swarm.security.lorawan import AesKey, data_block_key, data_block_mic
from swarm.transport.device import Device, Heard
from swarm.transport.erasure import Decoder, Encoder
from swarm.wire import fragmentation as ts004
from swarm.wire.packages import Package, PackageVersionAns, PackageVersionReq

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "vectors" / "fragmentation_ts004.json"
BLOCKS: list[dict[str, Any]] = (
    json.loads(SHARED.read_text(encoding="utf-8"))["vectors"] if SHARED.is_file() else []
)
KEY = data_block_key(AesKey(bytes(range(16))))


def setup_of(encoder: Encoder, block: bytes, frag_size: int, **fields: Any) -> ts004.FragSessionSetupReq:
    fields = {
        "index": 0,
        "groups": 1,
        "block_ack_delay": 0,
        "session_cnt": 0,
        "descriptor": b"swrm",
        **fields,
    }
    mic = data_block_mic(
        KEY, block, session_cnt=fields["session_cnt"], index=fields["index"], descriptor=fields["descriptor"]
    )
    fields.setdefault("mic", mic)
    return ts004.FragSessionSetupReq(
        nb_frag=encoder.nb_frag, frag_size=frag_size, padding=encoder.padding, **fields
    )


class Session:
    """A block, its encoder, and a device to which it is sent."""

    def __init__(self, block: bytes, frag_size: int, version: int = 2, **fields: Any) -> None:
        self.version = version
        self.block = block
        self.encoder = Encoder(block, frag_size, version)
        self.setup = setup_of(self.encoder, block, frag_size, **fields)
        self.device = Device(KEY.raw, version=version)

    def tell(self, command: ts004.Downlink, group: int | None = None) -> tuple[Heard, Any, int]:
        """What the device makes of a command: event, answers, their delay."""
        heard, answer = self.device.rx(ts004.encode(command, self.version), group)
        if answer is None:
            return heard, (), 0
        return heard, ts004.decode_uplink(answer.payload, self.version), answer.delay_us

    def open(self) -> None:
        heard, answers, _ = self.tell(self.setup)
        assert answers == (ts004.FragSessionSetupAns(self.setup.index),)
        assert heard == Heard.OPENED

    def send(self, n: int, group: int | None = 0) -> Heard:
        fragment = ts004.DataFragment(self.setup.index, n, self.encoder.fragment(n))
        return self.tell(fragment, group)[0]

    def status(self) -> ts004.FragSessionStatusAns:
        _, (answer,), _ = self.tell(ts004.FragSessionStatusReq(self.setup.index, True))
        assert isinstance(answer, ts004.FragSessionStatusAns)
        return answer


@settings(deadline=None)
@given(
    block=st.binary(min_size=1, max_size=900),
    frag_size=st.integers(1, 60),
    version=st.sampled_from([1, 2]),
    seed=st.integers(0, 2**32 - 1),
    loss=st.floats(0, 0.7),
)
def test_any_loss_and_any_order(block: bytes, frag_size: int, version: int, seed: int, loss: float) -> None:
    """Goal: the node has the block as soon as anybody could.  Method: fragments at random, shuffled, some
    twice; the Python decoder, which has no limits, says when; no byte of flash is written twice."""
    draw = Prng(seed).child("loss").numpy()
    session = Session(block, frag_size, version)
    if session.encoder.nb_frag > 256:
        return
    session.device = Device(KEY.raw, version=version, memory_size=40_000)
    session.open()
    nb_frag = session.encoder.nb_frag
    numbers = [n for n in range(1, 2 * nb_frag + 10) if draw.random() >= loss]
    numbers += numbers[: nb_frag // 3]
    draw.shuffle(numbers)
    decoder = Decoder(nb_frag, frag_size, version, nb_frag)
    whole = False
    for n in numbers:
        before = whole
        whole = decoder.take(n, session.encoder.fragment(n))
        expected = Heard.NOTHING if before else Heard.WHOLE if whole else Heard.PIECE
        assert session.send(n) == expected
        if session.device.missing != decoder.missing:
            # Before the first parity nothing is solved; after it both count alike.
            pytest.fail(f"{session.device.missing} missing, not {decoder.missing}")
    assert session.device.rewritten == 0
    if whole:
        assert session.device.block() == block


@pytest.mark.parametrize("case", BLOCKS, ids=lambda case: case["data_seed"])
def test_blocks_of_another_stack(case: dict[str, Any]) -> None:
    """Goal: what another server fragments our node has, as soon as theirs.  Method: all loss cases."""
    for losses in case["loss_cases"]:
        session = Session(bytes.fromhex(case["data"]), case["frag_size"], 1)
        session.open()
        done_at = None
        for n in losses["received"]:
            fragment = ts004.DataFragment(0, n, bytes.fromhex(case["fragments"][n - 1]))
            if session.tell(fragment, 0)[0] == Heard.WHOLE:
                done_at = n
        assert (done_at is not None) == losses["recoverable_by_rank"], losses["name"]
        if losses["semtech_decoder_recovers"]:
            assert done_at == losses["semtech_done_at_counter"], losses["name"]
            assert session.device.block().hex() == case["data"]


@pytest.mark.parametrize("frag_size", [48, 112, 219])
def test_twenty_thousand_bytes_at_a_fifth_lost(frag_size: int) -> None:
    """Goal: a 20 kB model is received in the memory a node has, at any data rate.  Method: 20 losses each."""
    block = Prng(1).child("model").numpy().bytes(20_000)
    session = Session(block, frag_size)
    for trial in range(20):
        draw = Prng(trial).child("air").numpy()
        session.device = Device(KEY.raw)
        session.open()
        n = 0
        while session.device.missing:
            n += 1
            if draw.random() >= 0.2:
                session.send(n)
        assert session.device.block() == block
        assert session.device.rewritten == 0
        assert n <= session.encoder.nb_frag / 0.8 * 1.15 + 10


def test_a_session_as_the_standard_tells_it() -> None:
    """Goal: version, setup, status, end.  Method: each command and its answer."""
    session = Session(bytes(range(100)), 10, index=2, ack_reception=True, block_ack_delay=3)
    _, version, _ = session.tell(PackageVersionReq())
    assert version == (PackageVersionAns(Package.FRAGMENTATION, 2),)
    _, none, _ = session.tell(ts004.FragSessionStatusReq(2, True))
    assert none == (ts004.FragSessionStatusAns(2, 0, 0, no_session=True),)
    assert session.tell(ts004.FragSessionDeleteReq(2))[1] == (ts004.FragSessionDeleteAns(2, True),)
    session.open()
    for n in (1, 2, 4):
        assert session.send(n) == Heard.PIECE
    assert session.status() == ts004.FragSessionStatusAns(2, 3, 7)
    for n in range(5, 11):
        session.send(n)
    delays = set()
    for _ in range(30):
        _, (answer,), delay_us = session.tell(ts004.FragSessionStatusReq(2, False), group=0)
        assert answer == ts004.FragSessionStatusAns(2, 9, 1)
        assert 0 <= delay_us < ts004.ack_delay_s(3) * 1_000_000
        delays.add(delay_us * 8 // (ts004.ack_delay_s(3) * 1_000_000))
    assert len(delays) >= 6  # spread over the whole time
    fragment = ts004.DataFragment(2, 3, session.encoder.fragment(3))
    heard, received, delay_us = session.tell(fragment, 0)
    assert heard == Heard.WHOLE
    assert received == (ts004.FragDataBlockReceivedReq(2, mic_error=False),)
    assert delay_us > 0
    assert session.tell(ts004.FragSessionStatusReq(2, False), group=0)[1] == ()
    assert session.status() == ts004.FragSessionStatusAns(2, 10, 0)
    assert session.device.block() == session.block
    heard, deleted, _ = session.tell(ts004.FragSessionDeleteReq(2))
    assert (heard, deleted) == (Heard.CLOSED, (ts004.FragSessionDeleteAns(2, False),))


def test_a_group_alone_cannot_open_end_or_ask_the_version() -> None:
    session = Session(bytes(40), 10)
    assert session.tell(session.setup, group=0)[1] == ()
    session.open()
    for command in (PackageVersionReq(), ts004.FragSessionDeleteReq(0)):
        assert session.tell(command, group=0) == (Heard.NOTHING, (), 0)
    assert session.status().missing == 4


def test_only_the_groups_named_may_send() -> None:
    session = Session(bytes(40), 10, groups=0b0101)
    session.open()
    assert [session.send(1, group) for group in (1, 3, 2)] == [Heard.NOTHING, Heard.NOTHING, Heard.PIECE]
    assert session.send(2, None) == Heard.PIECE
    assert session.status().missing == 2


def test_a_forged_block_is_not_taken() -> None:
    """Goal: whoever knows the group's key cannot install a model.  Method: flip one bit."""
    session = Session(bytes(40), 10, ack_reception=True)
    session.open()
    for n in (1, 2, 3):
        session.send(n)
    heard, told, _ = session.tell(ts004.DataFragment(0, 4, b"\x01" + bytes(9)), 0)
    assert heard == Heard.FORGED
    assert told == (ts004.FragDataBlockReceivedReq(0, mic_error=True),)
    assert session.status() == ts004.FragSessionStatusAns(0, 4, 0, mic_error=True)


@pytest.mark.parametrize("changed", ["descriptor", "session_cnt", "index", "mic"])
def test_the_mic_covers_the_request(changed: str) -> None:
    """Goal: a block cannot be passed off as another one.  Method: each field that the MIC covers, changed."""
    encoder = Encoder(bytes(40), 10, 2)
    mic = setup_of(encoder, bytes(40), 10).mic
    other: dict[str, Any] = {"descriptor": b"else", "session_cnt": 1, "index": 1, "mic": bytes(4)}
    session = Session(bytes(40), 10, **{"mic": mic, changed: other[changed]})
    session.open()
    assert [session.send(n) for n in range(1, 5)][-1] == Heard.FORGED


def test_a_replayed_request_is_refused_across_a_reset_but_a_repeated_one_is_not() -> None:
    session = Session(bytes(40), 10, session_cnt=7)
    session.open()
    session.send(1)
    assert session.tell(session.setup)[:2] == (Heard.NOTHING, (ts004.FragSessionSetupAns(0),))
    assert session.device.missing == 3  # nothing began anew
    kept = session.device.session_cnt_next
    assert kept == (8, 0, 0, 0)
    session.device = Device(KEY.raw, session_cnt_next=kept)
    assert session.tell(session.setup)[1] == (ts004.FragSessionSetupAns(0, session_cnt_replay=True),)
    assert session.status().no_session
    session.setup = setup_of(session.encoder, session.block, 10, session_cnt=8)
    session.open()


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"algorithm": 1}, {"algorithm_unsupported": True}),
        ({"nb_frag": 0}, {"not_enough_memory": True}),
        ({"nb_frag": 1025}, {"not_enough_memory": True}),
        ({"frag_size": 240}, {"not_enough_memory": True}),
        ({"nb_frag": 1, "frag_size": 10, "padding": 10}, {"not_enough_memory": True}),
        ({"nb_frag": 1000, "frag_size": 200}, {"not_enough_memory": True}),
        ({"descriptor": b"none"}, {"wrong_descriptor": True}),
    ],
)
def test_what_cannot_be_served_is_refused_and_the_old_session_stays(
    changed: dict[str, Any], why: dict[str, bool]
) -> None:
    session = Session(bytes(40), 10)
    session.device.refuse(b"none")
    session.open()
    session.send(1)
    fields = {name: getattr(session.setup, name) for name in ts004.FragSessionSetupReq.__slots__}
    request = ts004.FragSessionSetupReq(**{**fields, "session_cnt": 1, **changed})
    assert session.tell(request)[1] == (ts004.FragSessionSetupAns(0, **why),)
    assert [session.send(n) for n in (2, 3, 4)][-1] == Heard.WHOLE


def test_too_many_losses_are_said_and_repaired_by_the_pieces() -> None:
    """Goal: a node with little memory says so instead of pretending, and is helped.  Method: 10 lost, room
    for about four; parity does nothing; pieces again until few enough are lost."""
    block = Prng(2).child("block").numpy().bytes(400)
    session = Session(block, 20)
    session.device = Device(KEY.raw, memory_size=100)
    session.open()
    for n in (*range(11, 21), *range(21, 40)):
        session.send(n)
    assert session.status() == ts004.FragSessionStatusAns(0, 29, 10, memory_error=True)
    for n in range(1, 7):
        session.send(n, None)
    for n in range(40, 60):
        session.send(n)
    assert session.status().missing == 0
    assert not session.status().memory_error
    assert session.device.block() == block


@pytest.mark.parametrize("failing", [1, 3])
def test_a_flash_that_fails_is_tried_again(failing: int) -> None:
    block = Prng(3).child("block").numpy().bytes(200)
    session = Session(block, 10)
    session.open()
    for n in range(6, 21):
        session.send(n)
    session.device.fail_writes(failing)
    n = 21
    while session.device.missing:
        session.send(n)
        n += 1
    assert session.device.block() == block
    assert n < 40


def test_a_second_block_with_the_same_request_is_another_one_in_version_1() -> None:
    """Goal: without a SessionCnt an old block is never taken for a new one."""
    session = Session(bytes(40), 10, 1)
    session.open()
    for n in range(1, 5):
        session.send(n)
    session.open()
    assert session.status() == ts004.FragSessionStatusAns(0, 0, 4)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.binary(max_size=60) | st.lists(st.integers(0, 9), max_size=30).map(bytes),
            st.sampled_from([None, 0, 1, 3]),
        ),
        max_size=30,
    ),
    st.sampled_from([1, 2]),
)
def test_any_bytes_leave_a_node_that_works(payloads: list[tuple[bytes, int | None]], version: int) -> None:
    """Goal: hostile bytes never stop a node; answers are of the protocol.  Method: then a true session."""
    session = Session(bytes(range(30)), 10, version, session_cnt=0xFFFF)
    for payload, group in payloads:
        _, answer = session.device.rx(payload, group)
        if answer is not None:
            assert isinstance(ts004.decode_uplink(answer.payload, version), tuple)
    if session.device.session_cnt_next[0] <= 0xFFFF:
        session.open()
        assert [session.send(n) for n in (1, 2, 4, 5, 6, 7, 3)].count(Heard.WHOLE) == 1

"""The network's sessions: counters move only for genuine new frames, replays die, downlinks never repeat."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from swarm.effects import Malformed
from swarm.mac import session as mac
from swarm.mac.session import Accepted, MulticastGroup, Session, accept, downlink
from swarm.security.lorawan import AesKey, cipher_payload, data_mic
from swarm.wire import lorawan

VECTORS = json.loads(
    (Path(__file__).resolve().parent.parent / "vectors" / "lorawan_phy.json").read_text(encoding="utf-8")
)["data"]
NWK = AesKey(bytes(range(16)))
APP = AesKey(bytes(range(16, 32)))
ADDR = 0x2600_1234


def new_session(**fields: Any) -> Session:
    return Session("0011223344556677", ADDR, NWK.raw, APP.raw, **fields)


def frame_of(f_cnt: int, payload: bytes = b"hello", *, nwk: AesKey = NWK, **fields: Any) -> lorawan.DataFrame:
    """An uplink as the gateway parses it."""
    f_port = fields.pop("f_port", 10)
    key = nwk if f_port == 0 else APP
    cipher = cipher_payload(key, payload, uplink=True, dev_addr=ADDR, f_cnt=f_cnt)
    signed = lorawan.encode_data(
        uplink=True, dev_addr=ADDR, f_cnt=f_cnt, f_port=f_port, frm_payload=cipher, **fields
    )
    frame = lorawan.parse(signed + data_mic(nwk, signed, uplink=True, dev_addr=ADDR, f_cnt=f_cnt))
    assert isinstance(frame, lorawan.DataFrame)
    return frame


def refused(session: Session, frame: lorawan.DataFrame) -> str:
    """The reason; the session must not have changed."""
    before = session.to_row()
    result = accept(session, frame)
    assert isinstance(result, Malformed)
    assert session.to_row() == before
    assert result.reason in mac.REASONS
    return result.reason


def accepted(session: Session, frame: lorawan.DataFrame) -> Accepted:
    result = accept(session, frame)
    assert isinstance(result, Accepted), result
    return result


@pytest.mark.parametrize("vector", [v for v in VECTORS if v["direction"] == "up"], ids=lambda v: v["name"])
def test_published_uplinks_are_accepted(vector: dict[str, Any]) -> None:
    """Goal: frames of another stack pass.  Method: a session one counter behind each published uplink."""
    keys = (bytes.fromhex(vector["nwk_s_key"]), bytes.fromhex(vector["app_s_key"]))
    last = vector["fcnt32"] - 1
    session = Session("0" * 16, int(vector["dev_addr"], 16), *keys, f_cnt_up=last)
    frame = lorawan.parse(bytes.fromhex(vector["phy_payload"]))
    assert isinstance(frame, lorawan.DataFrame)
    result = accepted(session, frame)
    assert (result.f_cnt, result.f_port) == (vector["fcnt32"], vector["fport"])
    assert result.payload.hex() == vector["payload"]
    assert session.f_cnt_up == vector["fcnt32"]


@pytest.mark.parametrize("vector", [v for v in VECTORS if v["direction"] == "down"], ids=lambda v: v["name"])
def test_published_downlinks_are_built(vector: dict[str, Any]) -> None:
    """Goal: our downlinks are those of another stack.  Method: the same counter and fields, all bytes."""
    keys = (bytes.fromhex(vector["nwk_s_key"]), bytes.fromhex(vector["app_s_key"]))
    flags = vector["fctrl"]
    session = Session("0" * 16, int(vector["dev_addr"], 16), *keys, f_cnt_down=vector["fcnt32"])
    phy = downlink(
        session,
        f_port=vector["fport"],
        payload=bytes.fromhex(vector["payload"]),
        ack=flags["ACK"],
        confirmed=vector["mtype"].startswith("Confirmed"),
        f_pending=flags["FPending"],
        adr=flags["ADR"],
        f_opts=bytes.fromhex(vector["fopts"]),
    )
    assert phy.hex() == vector["phy_payload"]
    assert session.f_cnt_down == vector["fcnt32"] + 1


def test_first_frame_may_be_zero_and_gaps_are_allowed() -> None:
    """Goal: 1.0.4 has no MAX_FCNT_GAP.  Method: 0, 1, 60000, then across the turn of the 16 bits."""
    session = new_session()
    for f_cnt in (0, 1, 60_000, 65_535, 65_536, 130_000, 195_000):
        result = accepted(session, frame_of(f_cnt))
        assert (result.f_cnt, result.payload, result.retransmission) == (f_cnt, b"hello", False)
    assert session.f_cnt_up == 195_000


def test_a_forged_frame_does_not_move_the_counter() -> None:
    """Goal: an attacker cannot push the counter ahead.  Method: right address, wrong key, huge counter."""
    session = new_session(f_cnt_up=10)
    assert refused(session, frame_of(60_000, nwk=AesKey(bytes(16)))) == "mic"
    assert accepted(session, frame_of(11)).f_cnt == 11


def test_foreign_address_is_refused_before_any_cryptography() -> None:
    """Goal: the reason tells a foreign device from a broken one."""
    assert refused(replace(new_session(), dev_addr=ADDR + 1), frame_of(1)) == "dev_addr"


def test_retransmission_is_recognised_and_limited() -> None:
    """Goal: answer a device that missed us, but not for ever.  Method: the same bytes again and again."""
    session = new_session()
    frame = frame_of(7, confirmed=True)
    assert not accepted(session, frame).retransmission
    for _ in range(mac.RETRANSMISSIONS_MAX):
        again = accepted(session, frame)
        assert (again.retransmission, again.f_cnt, again.confirmed) == (True, 7, True)
    assert refused(session, frame) == "replay"
    assert accepted(session, frame_of(8)).f_cnt == 8
    assert accepted(session, frame_of(8)).retransmission


def test_same_counter_with_other_bytes_is_a_replay() -> None:
    """Goal: a counter means one frame.  Method: two genuine frames with the same counter."""
    session = new_session()
    accepted(session, frame_of(7))
    assert refused(session, frame_of(7, b"other")) == "replay"


def test_an_older_frame_is_a_replay_even_across_the_turn() -> None:
    """Goal: recorded frames are worthless.  Method: replay from before, and from before the turn."""
    session = new_session(f_cnt_up=65_540)
    assert refused(session, frame_of(65_539)) == "replay"
    assert refused(session, frame_of(65_000)) == "replay"
    assert refused(session, frame_of(4)) == "mic"  # a whole turn old: not told apart from a forgery


def test_a_device_that_was_away_for_exactly_one_turn_is_heard() -> None:
    """Goal: equal low bits do not lock a device out.  Method: the counter 65536 later."""
    session = new_session(f_cnt_up=5)
    assert accepted(session, frame_of(5 + 65_536)).f_cnt == 5 + 65_536


def test_retransmission_after_a_restart() -> None:
    """Goal: a restarted gateway recognises the last frame.  Method: through the row, as stored."""
    session = new_session()
    accepted(session, frame_of(7))
    again = Session.from_row(session.dev_eui, session.to_row())
    assert again == session
    assert accepted(again, frame_of(7)).retransmission
    assert refused(again, frame_of(6)) == "replay"


def test_the_last_counter_of_all() -> None:
    """Goal: nothing wraps.  Method: the counter 2^32 - 1, then any frame; the same for downlinks."""
    session = new_session(f_cnt_up=0xFFFFFFFE, f_cnt_down=0xFFFFFFFF)
    assert accepted(session, frame_of(0xFFFFFFFF)).f_cnt == 0xFFFFFFFF
    assert refused(session, frame_of(0)) == "mic"
    downlink(session, f_port=1, payload=b"x")
    with pytest.raises(ValueError, match="used up"):
        downlink(session, f_port=1, payload=b"x")


def test_mac_commands_in_f_opts_and_on_port_0() -> None:
    """Goal: commands arrive either way, decrypted with the right key; unknown ones are counted."""
    session = new_session()
    result = accepted(session, frame_of(1, f_opts=b"\x02\x0d\x99\x00"))
    assert [command.cid for command in result.commands] == [0x02, 0x0D]
    assert (result.skipped, result.payload) == (2, b"hello")
    result = accepted(session, frame_of(2, b"\x0d", f_port=0))
    assert (result.f_port, [command.cid for command in result.commands]) == (0, [0x0D])
    result = accepted(session, frame_of(3, b"", f_port=None, f_opts=b"\x02"))
    assert (result.f_port, result.payload, len(result.commands)) == (None, b"", 1)


def test_link_check_and_device_time_are_answered() -> None:
    """Goal: real devices that ask for margin and time get them.  Method: the bytes of TS001 section 5."""
    result = accepted(new_session(), frame_of(1, f_opts=b"\x02\x0d"))
    gps_epoch_us = 315_964_800 * 1_000_000
    answers = mac.mac_answers(
        result, margin_db=300, gateways=2, heard_unix_us=gps_epoch_us + 82_500_000 - 18_000_000 + 0
    )
    assert answers.hex() == "02fe02" + "0d" + "52000000" + "80"
    assert (
        mac.mac_answers(accepted(new_session(), frame_of(1)), margin_db=1, gateways=1, heard_unix_us=0) == b""
    )


def test_bad_downlinks_do_not_use_up_a_counter() -> None:
    """Goal: a programming error costs nothing on the air.  Method: FOpts too long."""
    session = new_session()
    with pytest.raises(ValueError):
        downlink(session, f_port=1, f_opts=bytes(16))
    assert session.f_cnt_down == 0


def test_keys_stay_out_of_repr() -> None:
    """Goal: no key in logs.  Method: repr of everything that holds one."""
    group = MulticastGroup(1, NWK.raw, APP.raw, 0, 869_525_000, 0)
    for holder in (new_session(), group):
        assert "key" not in repr(holder)
        assert "\\x01\\x02" not in repr(holder)


def test_multicast_frames_count_up_and_match_the_published_one() -> None:
    """Goal: class C groups interoperate.  Method: the published multicast frame, then the counter and row."""
    vector = next(v for v in VECTORS if v["name"] == "mcast_down_class_c")
    keys = (bytes.fromhex(vector["nwk_s_key"]), bytes.fromhex(vector["app_s_key"]))
    group = MulticastGroup(int(vector["dev_addr"], 16), *keys, vector["fcnt32"], 869_525_000, 3)
    assert group.frame(vector["fport"], bytes.fromhex(vector["payload"])).hex() == vector["phy_payload"]
    assert group.f_cnt == vector["fcnt32"] + 1
    assert MulticastGroup.from_row(group.to_row()) == group
    assert replace(group, f_cnt=9).frame(10, b"") != group.frame(10, b"")
    with pytest.raises(ValueError):
        group.frame(0, b"\x02")
    group.f_cnt = 0x1_0000_0000
    with pytest.raises(ValueError, match="used up"):
        group.frame(10, b"")


@pytest.mark.parametrize("column", ["dev_addr", "nwk_s_key", "f_cnt_down"])
def test_a_damaged_row_is_named(column: str) -> None:
    """Goal: a broken database is told, not guessed at."""
    row = new_session().to_row() | {column: "text"}
    with pytest.raises(ValueError, match=column):
        Session.from_row("0" * 16, row)


@given(st.binary(max_size=255), st.one_of(st.none(), st.integers(0, 2**32 - 1)))
def test_hostile_bytes_are_never_accepted(payload: bytes, last: int | None) -> None:
    """Goal: no random frame passes, raises or changes the session.  Method: any bytes, our address."""
    payload = b"\x40" + ADDR.to_bytes(4, "little") + payload
    frame = lorawan.parse(payload)
    if isinstance(frame, lorawan.DataFrame):
        assert refused(new_session(f_cnt_up=last), frame) == "mic"


class Replays(RuleBasedStateMachine):
    """A device, a loss-prone air and an attacker who records everything and sends it again."""

    def __init__(self) -> None:
        super().__init__()
        self.session = new_session()
        self.next = 0
        self.recorded: list[tuple[int, lorawan.DataFrame]] = []
        self.delivered: list[int] = []

    @rule(skip=st.sampled_from([0, 0, 0, 1, 100, 30_000]), heard=st.booleans())
    def send(self, skip: int, heard: bool) -> None:
        self.next += skip
        frame = frame_of(self.next)
        self.recorded.append((self.next, frame))
        if heard:
            self.hear(self.next, frame)
        self.next += 1

    @precondition(lambda self: self.recorded)
    @rule(pick=st.integers(0, 10_000))
    def replay(self, pick: int) -> None:
        self.hear(*self.recorded[pick % len(self.recorded)])

    def hear(self, f_cnt: int, frame: lorawan.DataFrame) -> None:
        result = accept(self.session, frame)
        if isinstance(result, Accepted):
            assert result.f_cnt == f_cnt
            if not result.retransmission:
                self.delivered.append(f_cnt)

    @rule()
    def restart(self) -> None:
        self.session = Session.from_row(self.session.dev_eui, self.session.to_row())

    @invariant()
    def every_counter_is_delivered_at_most_once_and_in_order(self) -> None:
        assert self.delivered == sorted(set(self.delivered))
        assert self.session.f_cnt_up == (self.delivered[-1] if self.delivered else None)


TestReplays = Replays.TestCase
TestReplays.settings = settings(max_examples=40, stateful_step_count=30)

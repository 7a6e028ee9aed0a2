"""Joins again and again: nonces on both sides, the old session until the new one is used, class C,
confirmed."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from swarm.commands import RemoveNode, SendFrame
from swarm.config import Mac
from swarm.downlinks import Pending
from swarm.effects import Effect, Event, Purpose
from swarm.mac.device import Joined
from tests.swarm.cell import air_is_legal, counters_never_repeat, dev_eui
from tests.swarm.mac_cell import MacCell

QUIET = Mac(dev_status_h=0)


def joined(**options: Any) -> MacCell:
    pair = MacCell("eu868", QUIET, data_rate=5, adr=False, **options)
    assert isinstance(pair.join(), Joined)
    return pair


def frame(size: int = 3, *, acked: list[bool] | None = None, tag: str = "") -> Pending:
    """A frame for a node; `acked` makes it confirmed and hears of its fate."""

    def fate(now_us: int, ok: bool) -> list[Effect]:
        assert acked is not None
        acked.append(ok)
        return [Event("mac_set", 0, {"text": f"fate {ok}"})]

    far = 1 << 62
    return Pending(42, bytes(size), size, Purpose.QUERY, far, tag, acked=None if acked is None else fate)


# -- joining ---------------------------------------------------------------------------------------


def test_the_old_session_lives_until_the_new_one_is_used() -> None:
    """Goal: a lost join accept costs no session.  Method: the device does not hear the second accept."""
    pair = joined()
    pair.up()
    old = pair.device.to_row()
    pair.deaf = True
    assert pair.join() is None
    pair.cell.restart()
    pair.cell.keep_alive()
    assert pair.cell.rows.get("session_next")
    pair.deaf = False
    pair.up(confirmed=True)  # still in the old session
    assert pair.heard[-1].ack and pair.device.to_row()["nwk_s_key"] == old["nwk_s_key"]
    assert pair.told("rejoined") == []
    assert isinstance(pair.join(), Joined)
    assert pair.told("rejoined") == []
    pair.up(confirmed=True)
    assert pair.heard[-1].ack and len(pair.told("rejoined")) == 1
    assert not pair.cell.rows["session_next"]
    assert pair.device.f_cnt_up == 1 and pair.device.f_cnt_down == 0
    assert "mic" not in pair.cell.dropped() and "replay" not in pair.cell.dropped()


def test_what_waits_for_a_node_survives_its_rejoin() -> None:
    pair = joined()
    pair.up()
    pair.cell.core.downlinks.enqueue(dev_eui(0), frame())
    assert isinstance(pair.join(), Joined)
    pair.up()
    assert pair.heard[-1].payload == bytes(3)


def test_frames_of_the_old_session_are_no_good_any_more() -> None:
    pair = joined()
    old = pair.up()
    assert isinstance(pair.join(), Joined)
    pair.up()
    pair.cell.run_for(5)
    pair.cell.hear(old.payload, old)
    pair.cell.run_for(1)
    assert pair.cell.dropped()[-1] == "mic"


def test_nonces_count_up_on_both_sides_over_restarts() -> None:
    pair = joined()
    for expected in range(2, 6):
        row = pair.device.to_row()
        pair.cell.restart()
        pair.cell.keep_alive()
        pair.device.restore(row)
        assert isinstance(pair.join(), Joined)
        assert (pair.device.dev_nonce, pair.device.join_nonce) == (expected, expected)
        pair.up()
    assert pair.cell.rows["node"][dev_eui(0)]["dev_nonce"] == 4
    assert pair.cell.rows["node"][dev_eui(0)]["join_nonce"] == 5


def test_a_device_that_lost_its_nonces_is_refused_until_they_are_new() -> None:
    pair = joined()
    for _ in range(3):
        assert isinstance(pair.join(), Joined)
    pair.device.dev_nonce = 0
    results = [pair.join() for _ in range(5)]
    assert pair.cell.dropped() == ["dev_nonce"] * 4
    assert [isinstance(each, Joined) for each in results] == [False] * 4 + [True]


def test_a_node_that_is_removed_while_it_joins_leaves_nothing() -> None:
    pair = joined()
    pair.up()
    pair.deaf = True
    pair.join()
    assert pair.cell.command(RemoveNode(dev_eui(0))) is None
    assert not pair.cell.rows["session_next"] and not pair.cell.rows["session"]
    assert pair.cell.core.registry.by_addr(0) == []


# -- class C ---------------------------------------------------------------------------------------


def test_a_class_c_node_is_sent_to_at_once_after_its_first_uplink() -> None:
    pair = joined(device_class="c")
    down = pair.cell.core.downlinks
    down.enqueue(dev_eui(0), frame())
    pair.cell.run_for(30)
    assert pair.new() == [], "nobody knows yet whether it has heard the join accept"
    pair.up()
    assert pair.heard[-1].payload == bytes(3)
    for size in (4, 5, 6):
        assert down.enqueue(dev_eui(0), frame(size))
    pair.cell.run_for(30)
    sent = pair.new()
    assert [len(each.payload) for each in sent] == [17, 18, 19]
    assert {(each.frequency_hz, each.data_rate, each.tmst_us) for each in sent} == {(869_525_000, 0, None)}
    for each in sent:
        pair.device.receive(each.at_us + each.airtime_us, each.payload)
    assert pair.device.f_cnt_down == 3
    assert pair.cell.core.poll_at() is None or pair.cell.core.poll_at() > pair.cell.now_us  # type: ignore[operator]
    air_is_legal(pair.cell)
    counters_never_repeat(pair.cell.on_air)


def test_nothing_is_sent_between_an_uplink_and_the_end_of_its_windows() -> None:
    pair = joined(device_class="c")
    pair.up()
    frame_up = pair.device.uplink(pair.cell.now_us, 99)
    pair.cell.run_until(frame_up.end_us)
    pair._hear(frame_up)
    pair.new()
    pair.cell.core.downlinks.enqueue(dev_eui(0), frame())
    pair.cell.run_for(30)
    (sent,) = pair.new()
    assert sent.at_us >= frame_up.end_us + 4_000_000


def test_without_a_gateway_frames_of_a_class_c_node_keep_their_order() -> None:
    pair = joined(device_class="c")
    pair.up()
    pair.cell.run_for(30)
    gateways, pair.cell.gateways = pair.cell.gateways, ()
    pair.cell.run_for(900)
    for size in (4, 5, 6):
        assert pair.cell.core.downlinks.enqueue(dev_eui(0), frame(size))
    pair.cell.poll()
    pair.new()
    pair.cell.gateways = gateways
    pair.cell.keep_alive()
    pair.cell.run_for(300)
    assert [len(each.payload) for each in pair.new()] == [17, 18, 19]


def test_class_c_is_kept_over_restarts_and_rejoins_and_taken_back() -> None:
    pair = joined(device_class="c")
    pair.up()
    assert isinstance(pair.join(), Joined)
    pair.up()
    pair.cell.restart()
    pair.cell.keep_alive()
    pair.new()
    pair.cell.core.downlinks.enqueue(dev_eui(0), frame())
    pair.cell.run_for(10)
    (sent,) = pair.new()
    assert pair.device.receive(sent.at_us + sent.airtime_us, sent.payload)
    assert pair.device.f_cnt_down == 0


# -- confirmed downlinks ---------------------------------------------------------------------------


def test_a_confirmed_downlink_is_said_again_with_new_counters_until_it_is_acknowledged() -> None:
    pair = joined()
    pair.up()
    fate: list[bool] = []
    pair.cell.core.downlinks.enqueue(dev_eui(0), frame(acked=fate))
    pair.deaf = True
    pair.up()
    pair.up()
    pair.deaf = False
    pair.up()
    assert pair.heard[-1].confirmed and fate == []
    pair.up()
    assert fate == [True] and pair.heard[-1].f_cnt == 2
    counters_never_repeat(pair.cell.on_air)


def test_a_confirmed_downlink_is_given_up_and_the_next_frame_has_its_turn() -> None:
    pair = joined()
    pair.up()
    fate: list[bool] = []
    down = pair.cell.core.downlinks
    down.enqueue(dev_eui(0), frame(3, acked=fate))
    down.enqueue(dev_eui(0), frame(4))
    pair.deaf = True
    sizes = []
    for _ in range(6):
        pair.up()
        sizes += [len(each.payload) - 13 for each in pair.cell.on_air[-1:]]
    assert fate == [False]
    assert sizes == [3, 3, 3, 3, 4, 4] and down.waiting(dev_eui(0)) == 0


def test_a_class_c_node_that_does_not_acknowledge_hears_it_again_ten_seconds_apart() -> None:
    pair = joined(device_class="c")
    pair.up()
    pair.new()
    fate: list[bool] = []
    pair.cell.core.downlinks.enqueue(dev_eui(0), frame(acked=fate))
    pair.cell.run_for(120)
    sent = pair.new()
    assert len(sent) == 4 and fate == [False]
    for before, after in pairwise(sent):
        assert after.at_us - before.at_us >= 10_000_000


# -- frames sent by hand ---------------------------------------------------------------------------


def states(pair: MacCell) -> list[object]:
    return [event["state"] for event in pair.told("operator_frame")]


def test_a_frame_sent_by_hand_waits_over_a_restart_and_is_acknowledged() -> None:
    pair = joined()
    pair.up()
    assert pair.cell.command(SendFrame(dev_eui(0), 10, b"abc", confirmed=True)) is None
    pair.cell.restart()
    pair.cell.keep_alive()
    pair.deaf = True
    pair.up()
    pair.cell.restart()
    pair.cell.keep_alive()
    pair.deaf = False
    pair.up()
    assert (pair.heard[-1].f_port, pair.heard[-1].payload, pair.heard[-1].confirmed) == (10, b"abc", True)
    pair.up()
    assert states(pair) == ["queued", "sent", "sent", "acknowledged"]
    assert not pair.cell.rows["operator_frame"] and len(pair.cell.core.operator_frames) == 0
    pair.up()
    assert states(pair)[-1] == "acknowledged"


def test_a_frame_sent_by_hand_that_nobody_fetches_is_given_up() -> None:
    pair = joined()
    pair.up()
    assert pair.cell.command(SendFrame(dev_eui(0), 10, b"abc", within_s=60)) is None
    pair.cell.run_for(61)
    assert states(pair) == ["queued", "given_up"] and not pair.cell.rows["operator_frame"]
    before = len(pair.cell.on_air)
    pair.up()
    assert len(pair.cell.on_air) == before


def test_a_frame_that_no_radio_sends_is_tried_with_the_next_uplink() -> None:
    pair = joined()
    pair.up()
    assert pair.cell.command(SendFrame(dev_eui(0), 10, b"abc")) is None
    pair.cell.verdict = lambda transmit: "TOO_LATE"
    pair.up()
    assert pair.cell.rows["operator_frame"]
    pair.cell.verdict = lambda transmit: None
    pair.up()
    assert pair.heard[-1].payload == b"abc" and not pair.cell.rows["operator_frame"]


def test_frames_sent_by_hand_that_cannot_go_are_refused_with_the_reason() -> None:
    pair = MacCell("eu868", QUIET, data_rate=5, adr=False)

    def refused(**change: Any) -> str:
        spec: dict[str, Any] = {"dev_eui": dev_eui(0), "f_port": 10, "payload": b"abc", **change}
        answer = pair.cell.command(SendFrame(**spec))
        assert answer is not None
        return answer.reason

    assert refused() == "the node has not joined yet"
    pair.join()
    assert "at most 51" in refused(payload=bytes(52))
    pair.up()
    assert "at most 222" in refused(payload=bytes(223))
    assert "no node" in refused(dev_eui="0" * 16)
    assert "FPort 0" in refused(f_port=0) and "FPort 224" in refused(f_port=224)
    for _ in range(8):
        assert pair.cell.command(SendFrame(dev_eui(0), 10, b"abc")) is None
    assert "too many frames wait for this node" in refused()

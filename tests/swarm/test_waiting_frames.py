"""Frames that wait for one node: the removed leave nothing, long ones block nobody, each has its own fate."""

from __future__ import annotations

from dataclasses import replace

from swarm.commands import CancelFrame, RemoveNode, SendFrame
from swarm.config import Mac
from swarm.effects import Effect, Transmit, TxAck
from swarm.registry import Refused
from tests.swarm.cell import Cell, add_node, counters_never_repeat, dev_eui, device_of, settings, status
from tests.swarm.mac_cell import MacCell

QUIET = Mac(dev_status_h=0, adr=False)
DAY_S = 86_400


def frame(text: bytes, *, confirmed: bool = False) -> SendFrame:
    return SendFrame(dev_eui(0), 99, text, confirmed, DAY_S)


def a_device() -> MacCell:
    made = MacCell("eu868", QUIET, data_rate=5, adr=False)
    made.join()
    made.up()
    return made


def texts(made: MacCell) -> list[bytes]:
    return [each.payload for each in made.heard if each.f_port == 99]


def test_a_node_removed_in_mid_transmission_gets_nothing_and_leaves_nothing() -> None:
    """Goal: no counter twice when it comes back.  Method: the gateway's refusal comes behind the removal."""
    for device_class in ("a", "c"):
        cell = Cell(config=settings(mode="none"), nodes=0)
        node = replace(add_node(0), device_class=device_class)
        assert cell.command(node) is None
        cell.devices, cell.nodes = [device_of(0, cell.region, None)], 1
        cell.uplink(0, 12, status())
        cell.run_for(20)
        held: list[Transmit] = []
        perform = cell.perform

        def hold(effects: list[Effect], perform: object = perform, held: list[Transmit] = held) -> None:
            held += [each for each in effects if isinstance(each, Transmit)]
            perform([each for each in effects if not isinstance(each, Transmit)])  # type: ignore[operator]

        cell.perform = hold  # type: ignore[assignment]
        cell.command(frame(b"first"))
        cell.uplink(0, 12, status()) if device_class == "a" else cell.poll()
        (sent,) = held
        assert cell.command(RemoveNode(dev_eui(0))) is None
        cell.perform(cell.core.on_tx_ack(cell.now_us, TxAck(sent.transmit_id, "COLLISION_PACKET")))
        cell.run_for(120)
        assert held == [sent] and cell.rows["session"] == cell.rows["operator_frame"] == {}
        cell.command(node)
        cell.uplink(0, 12, status())
        cell.command(frame(b"other"))
        cell.run_for(20)
        cell.uplink(0, 12, status())
        counters_never_repeat(held)


def test_a_frame_too_long_for_the_rate_of_now_silences_nobody() -> None:
    made = a_device()
    made.cell.command(frame(bytes(200)))
    made.device.data_rate = 0
    for _ in range(5):
        made.cell.run_for(600)
        made.up(b"z", confirmed=True)
    assert sum(each.ack for each in made.heard) == 5
    made.cell.command(frame(b"small"))
    made.up()
    made.up()
    assert texts(made) == [b"small"]


def test_an_uplink_that_comes_again_does_not_send_the_next_confirmed_frame() -> None:
    made = a_device()
    made.cell.command(frame(b"first", confirmed=True))
    made.cell.command(frame(b"second", confirmed=True))
    made.deaf = True
    made.again(made.up(b"x"))
    made.deaf = False
    for _ in range(4):
        made.up(b"y")
    assert texts(made) == [b"first", b"second"]
    ends = [each["state"] for each in made.told("operator_frame") if each["state"] not in ("queued", "sent")]
    assert ends == ["acknowledged", "acknowledged"]


def test_what_a_gateway_refuses_of_others_leaves_a_confirmed_frame_its_tries() -> None:
    made = a_device()
    made.cell.command(frame(b"first", confirmed=True))
    made.cell.command(frame(b"second"))
    made.deaf = True
    uplink = made.up(b"x")
    made.cell.verdict = lambda transmit: "TOO_LATE"
    made.again(uplink)
    made.cell.verdict = lambda transmit: None
    made.deaf = False
    for _ in range(4):
        made.up(b"y")
    assert sorted(texts(made)) == [b"first", b"second"]


def test_what_the_gateway_refuses_is_no_try() -> None:
    """Goal: `tries` counts frames on the air, before a restart and behind it.  Method: two refusals each."""
    for confirmed in (False, True):
        made = a_device()
        made.cell.command(frame(b"late", confirmed=confirmed))
        made.cell.verdict = lambda transmit: "TOO_LATE"
        made.up()
        made.up()
        (row,) = made.cell.rows["operator_frame"].values()
        assert row["tries"] == 0
        made.cell.restart()
        made.cell.keep_alive()
        made.cell.verdict = lambda transmit: None
        made.up()
        made.up()
        assert texts(made) == [b"late"]
        said = [(each["state"], each["tries"]) for each in made.told("operator_frame")]
        assert said[0] == said[2] == said[4] == ("queued", 0)
        assert said[5:] == [("sent", 1), ("acknowledged", 1)][: 1 + confirmed]


def test_a_frame_is_taken_back_wherever_it_is() -> None:
    """Goal: nothing of it is sent after that.  Method: it waits; it is in flight; it waits for its word."""
    for at in ("waiting", "in flight", "unacknowledged"):
        made = a_device()
        made.cell.command(frame(b"first", confirmed=True))
        made.deaf = True
        if at == "in flight":
            cell = made.cell

            def verdict(transmit: Transmit, cell: Cell = cell) -> str:
                assert cell.command(CancelFrame(1)) is None
                return "TOO_LATE"

            cell.verdict = verdict
        if at != "waiting":
            made.up()
        made.cell.verdict = lambda transmit: None
        if at != "in flight":
            assert made.cell.command(CancelFrame(1)) is None
        made.deaf = False
        for _ in range(3):
            made.up(b"y")
        assert texts(made) == [] and made.cell.rows["operator_frame"] == {}, at
        assert made.told("operator_frame")[-1]["state"] == "cancelled"
        refused = made.cell.command(CancelFrame(1))
        assert isinstance(refused, Refused) and "no frame 1 waits" in refused.reason


def test_numbers_of_frames_go_on_after_a_restart() -> None:
    made = a_device()
    made.cell.command(frame(b"first"))
    made.up()
    assert texts(made) == [b"first"] and made.cell.rows["operator_frame"] == {}
    made.cell.restart()
    made.cell.keep_alive()
    made.cell.command(frame(b"second"))
    assert [each["number"] for each in made.told("operator_frame")] == [1, 1, 2]


def test_a_frame_on_its_way_has_a_place_among_those_that_wait() -> None:
    """Goal: a restart forgets none.  Method: one of eight waits for its word; a ninth is refused."""
    made = a_device()
    made.cell.command(frame(b"0", confirmed=True))
    made.deaf = True
    made.up()
    for number in range(1, 8):
        assert made.cell.command(frame(b"%d" % number)) is None
    refused = made.cell.command(frame(b"8"))
    assert refused is not None and "too many frames" in refused.reason
    made.cell.restart()
    made.cell.keep_alive()
    made.deaf = False
    for _ in range(12):
        made.up()
    assert sorted(set(texts(made))) == [b"%d" % number for number in range(8)]
    assert made.cell.rows["operator_frame"] == {}


def test_a_refusal_that_comes_behind_the_end_of_a_frame_brings_it_not_back() -> None:
    """Method: the gateway's word comes when it was given up; it is not listed, stored or sent again."""
    cell = Cell(config=settings(mode="none"), nodes=0)
    assert cell.command(replace(add_node(0), device_class="c")) is None
    cell.devices, cell.nodes = [device_of(0, cell.region, None)], 1
    cell.uplink(0, 12, status())
    cell.run_for(20)
    held: list[Transmit] = []
    perform = cell.perform

    def hold(effects: list[Effect]) -> None:
        held.extend(each for each in effects if isinstance(each, Transmit))
        perform([each for each in effects if not isinstance(each, Transmit)])

    cell.perform = hold  # type: ignore[method-assign,assignment]
    cell.command(frame(b"sure", confirmed=True))
    cell.run_for(60)
    assert [event.data["state"] for event in cell.told("operator_frame")][-1] == "given_up"
    sent = list(held)
    for each in sent:
        cell.perform(cell.core.on_tx_ack(cell.now_us, TxAck(each.transmit_id, "TOO_LATE")))
    cell.run_for(600)
    assert held == sent and len(sent) == 4
    assert cell.rows["operator_frame"] == {} and cell.core.operator_frames.listing() == []

"""Nodes behind a network server: each frame once, late ones by their time, rounds frame by frame."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.commands import AddNode, OpenRound, RemoveNode
from swarm.effects import ApplicationDownlink, ApplicationUplink, Effect
from swarm.registry import Refused
from swarm.server_nodes import WINDOW, Fresh
from swarm.wire import app
from tests.swarm.cell import Cell, answer, dev_eui, means, settings, status

NODE = dev_eui(1)


def node(index: int) -> AddNode:
    return AddNode(dev_eui(index), f"node-{index}", index % 4, "network", f"plot-{index}", node_index=index)


def uplink(cell: Cell, f_cnt: int, f_port: int = 12, payload: bytes | None = None) -> ApplicationUplink:
    return ApplicationUplink(
        dev_eui=NODE,
        device="west-1",
        session="one",
        f_cnt=f_cnt,
        f_port=f_port,
        payload=status() if payload is None else payload,
        confirmed=False,
        at_us=cell.now_us,
        frequency_hz=868_100_000,
        data_rate=5,
        gateway_id="0016c001f153a14c",
        rssi_dbm=-97.0,
        snr_db=7.5,
    )


@dataclass
class Behind(Cell):
    """A cell without a gateway, a group or a session: all of its nodes are behind a network server."""

    def __post_init__(self) -> None:
        self.gateways = ()
        self.devices = []
        self._build()
        for index in (1, 2):
            assert self.command(node(index)) is None
        self.poll()

    def hand(self, given: ApplicationUplink) -> list[Effect]:
        """The server hands a frame on; what it led to."""
        before = len(self.effects)
        self.perform(self.core.on_application_uplink(self.now_us, given))
        return self.effects[before:]

    def down(self) -> list[ApplicationDownlink]:
        return [effect for effect in self.effects if isinstance(effect, ApplicationDownlink)]


@pytest.fixture
def cell() -> Behind:
    return Behind(settings())


def test_a_frame_counts_once_whatever_the_broker_repeats_and_after_a_restart(cell: Behind) -> None:
    first = uplink(cell, 0)
    cell.hand(first)
    cell.hand(first)
    cell.restart()
    cell.hand(first)
    assert len(cell.told("uplink")) == len(cell.told("status")) == 1
    assert cell.dropped() == ["replay", "replay"]
    entry = cell.core.registry.get(NODE)
    assert entry is not None and entry.session is None
    assert (entry.status.uplinks, entry.status.lost, entry.status.battery) == (1, 0, 200)
    cell.hand(uplink(cell, 3))
    assert entry.status.lost == 2


def test_frames_that_come_late_are_taken_by_their_time_and_change_nothing_newer(cell: Behind) -> None:
    old = uplink(cell, 4, payload=app.encode(app.Status(0, 1, 10, 3, 0, 1520, 160, 0, 0, 0)))
    cell.run_for(7200)
    cell.hand(uplink(cell, 6))
    cell.hand(old)
    entry = cell.core.registry.get(NODE)
    assert entry is not None
    assert (entry.status.uplinks, entry.status.battery) == (2, 200)
    assert entry.status.last_seen_us == entry.status.reported_us == cell.now_us
    assert [event.data["received_us"] for event in cell.told("uplink")] == [cell.now_us, old.at_us]
    cell.hand(replace(old, f_cnt=5))
    cell.hand(replace(old, f_cnt=5))
    assert cell.dropped() == ["replay"]
    # In order but hours late, as after an outage of the broker: it was heard then.
    cell.hand(replace(old, f_cnt=7))
    assert entry.status.last_seen_us == old.at_us


def test_a_new_session_begins_anew_and_the_one_before_is_over(cell: Behind) -> None:
    cell.hand(uplink(cell, 900))
    joined = replace(uplink(cell, 0), session="two")
    cell.hand(joined)
    cell.hand(replace(joined, f_cnt=1))
    assert cell.dropped() == []
    cell.hand(uplink(cell, 901))
    cell.restart()
    cell.hand(uplink(cell, 902))
    assert cell.dropped() == ["replay", "replay"] and len(cell.told("uplink")) == 3


def test_a_message_of_an_old_session_brings_it_not_back(cell: Behind) -> None:
    """As a retained one, or one that a broker kept: the session of today goes on."""
    for session in ("one", "two", "three"):
        cell.hand(replace(uplink(cell, 0), session=session))
    cell.hand(replace(uplink(cell, 0), session="one"))
    cell.restart()
    cell.hand(replace(uplink(cell, 5), session="two"))
    cell.hand(replace(uplink(cell, 1), session="three"))
    assert cell.dropped() == ["replay", "replay"] and len(cell.told("uplink")) == 4


def test_a_counter_that_no_radio_can_reach_locks_nobody_out(cell: Behind) -> None:
    cell.hand(uplink(cell, 0))
    cell.hand(uplink(cell, 0xFFFFFFFF))
    cell.hand(uplink(cell, 1))
    assert cell.dropped() == ["counter_jump"] and len(cell.told("uplink")) == 2


def test_others_nodes_and_nodes_with_a_session_of_their_own_are_refused(cell: Behind) -> None:
    cell.hand(replace(uplink(cell, 0), dev_eui="ff" * 8))
    ours = AddNode(dev_eui(9), "abp", 0, "abp", dev_addr=9, nwk_s_key=b"n" * 16, app_s_key=b"a" * 16)
    assert cell.command(ours) is None
    cell.hand(replace(uplink(cell, 0), dev_eui=dev_eui(9)))
    assert cell.dropped() == ["unknown_device", "unknown_device"]
    assert isinstance(cell.command(replace(ours, activation="network")), Refused)


def test_a_question_goes_down_with_the_next_uplink_and_its_answer_counts(cell: Behind) -> None:
    cell.hand(uplink(cell, 0))
    query = cell.core.asking.question(near=NODE, k=1, deadline_s=600)
    cell.perform(cell.core.on_query(cell.now_us, query))
    assert cell.down() == []
    cell.run_for(60)
    cell.hand(uplink(cell, 1))
    (sent,) = cell.down()
    assert (sent.dev_eui, sent.device, sent.f_port) == (NODE, "west-1", 11)
    asked = app.decode_downlink(sent.f_port, sent.payload)
    assert isinstance(asked, app.Query)
    cell.hand(uplink(cell, 2, 11, answer(asked.query_id, 1)))
    cell.poll()
    (told,) = cell.told("query_answered")
    assert told.data["nodes"] == (NODE,) and told.data["airtime_us"]


def test_what_the_server_could_not_send_goes_down_again_under_another_reference(cell: Behind) -> None:
    cell.hand(uplink(cell, 0))
    cell.perform(cell.core.on_query(cell.now_us, cell.core.asking.question(near=NODE, k=1)))
    cell.hand(uplink(cell, 1))
    (first,) = cell.down()
    cell.perform(cell.core.on_application_fate(cell.now_us, first.reference, "PAYLOAD_SIZE"))
    assert cell.told("tx_failed")[-1].data["error"] == "PAYLOAD_SIZE"
    cell.restart()  # references do not come again
    cell.hand(uplink(cell, 2))
    cell.perform(cell.core.on_application_fate(cell.now_us, first.reference, "PAYLOAD_SIZE"))
    cell.run_for(1)
    cell.hand(uplink(cell, 3))
    references = [each.reference for each in cell.down()]
    assert len(references) == len(set(references))


def test_a_round_is_told_frame_by_frame_and_its_updates_close_it(cell: Behind) -> None:
    cell.hand(uplink(cell, 0))
    assert cell.command(OpenRound()) is None
    cell.hand(uplink(cell, 1))
    (announced,) = cell.down()
    message = app.decode_downlink(announced.f_port, announced.payload)
    assert isinstance(message, app.RoundAnnounce) and message.round == 1
    cell.hand(uplink(cell, 2))  # it was told, and version 0 needs no block
    assert len(cell.down()) == 1
    for index in (1, 2):
        given = replace(uplink(cell, 5, 10, means(index, 1)), dev_eui=dev_eui(index))
        cell.hand(given)
    (closed,) = cell.told("round_closed")
    assert closed.data["updates"] == 2
    cell.run_for(3600)
    assert cell.core.rounds.current is not None and cell.core.rounds.version == 1
    kinds = []
    for f_cnt in range(6, 60):
        before = len(cell.down())
        cell.hand(uplink(cell, f_cnt))
        kinds += [type(app.decode_downlink(each.f_port, each.payload)) for each in cell.down()[before:]]
    assert kinds[:2] == [app.RoundAck, app.RoundAnnounce]
    assert set(kinds[2:]) == {app.BlockPiece}


def test_an_uplink_of_long_ago_is_not_answered(cell: Behind) -> None:
    cell.hand(uplink(cell, 0))
    old = uplink(cell, 1)
    cell.run_for(120)
    cell.perform(cell.core.on_query(cell.now_us, cell.core.asking.question(near=NODE, k=1)))
    cell.hand(old)
    assert cell.down() == []
    cell.hand(uplink(cell, 2))
    assert len(cell.down()) == 1


def test_a_node_that_was_removed_leaves_nothing(cell: Behind) -> None:
    cell.hand(uplink(cell, 0))
    assert cell.command(RemoveNode(NODE)) is None
    assert cell.rows["server_node"] == {} and cell.core.registry.behind_server == 1
    assert cell.command(node(1)) is None
    cell.hand(uplink(cell, 0))
    assert cell.dropped() == []


CELL = Behind(settings())


@given(st.lists(st.integers(0, 3 * WINDOW), min_size=1, max_size=80))
def test_no_counter_is_taken_twice_and_none_in_the_window_is_lost(counters: list[int]) -> None:
    nodes, given = CELL.core.server_nodes, uplink(CELL, 0)
    nodes.forget(NODE)
    highest, taken = -1, set()
    for f_cnt in counters:
        judged = nodes.accept(replace(given, f_cnt=f_cnt))
        assert isinstance(judged, Fresh) == (f_cnt not in taken and f_cnt > highest - WINDOW)
        assert not isinstance(judged, Fresh) or judged.late == (f_cnt < highest)
        taken.add(f_cnt)
        highest = max(highest, f_cnt)

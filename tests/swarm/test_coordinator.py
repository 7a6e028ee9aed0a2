"""The coordinator between its inputs and its effects: answers, joins, rounds and questions."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from swarm.commands import OpenRound, RemoveNode
from swarm.effects import Purpose
from swarm.inference.plan import Query
from swarm.mac.device import Joined
from swarm.model.layout import WEATHER
from swarm.registry import Refused
from swarm.wire import app
from tests.swarm import cell as farm
from tests.swarm.cell import (
    GATEWAY,
    GATEWAY_2,
    SECOND_US,
    Cell,
    add_node,
    air_is_legal,
    answer,
    ask,
    counters_never_repeat,
    dev_eui,
    heard_from_all,
    means,
    messages,
    open_round,
    signs,
    status,
    stored_before_sent,
)

WANTS_SCHEDULE = 1 << 2


# -- single frames -----------------------------------------------------------------------------------


def test_a_confirmed_uplink_is_acknowledged_in_its_first_window() -> None:
    cell = Cell()
    sent = cell.uplink(1, 12, status(), confirmed=True)
    (transmit,) = cell.on_air
    window, _ = cell.devices[1].rx_windows(sent)
    assert (transmit.at_us, transmit.frequency_hz, transmit.data_rate) == (
        window.open_us,
        window.frequency_hz,
        window.data_rate,
    )
    assert transmit.tmst_us == window.open_us % (1 << 32)
    (delivered,) = cell.receive()[1]
    assert delivered.ack and delivered.f_port is None
    assert transmit.purpose is Purpose.ACK
    stored_before_sent(cell.effects)


def test_an_unconfirmed_uplink_gets_no_answer_and_is_told_once() -> None:
    cell = Cell()
    cell.uplink(1, 12, status())
    assert cell.on_air == []
    (told,) = cell.told("uplink")
    assert (told.data["dev_eui"], told.data["f_cnt"], told.data["f_port"]) == (dev_eui(1), 0, 12)
    assert cell.rows["status"][dev_eui(1)]["temperature_centi"] == 1520
    assert cell.rows["session"][dev_eui(1)]["f_cnt_up"] == 0


def test_a_status_that_wants_the_schedule_gets_it_in_the_first_window() -> None:
    cell = Cell()
    sent = cell.uplink(2, 12, status(WANTS_SCHEDULE))
    (transmit,) = cell.on_air
    assert transmit.at_us == cell.devices[2].rx_windows(sent)[0].open_us
    (schedule,) = messages(cell.receive()[2])
    assert isinstance(schedule, app.Schedule)
    assert schedule.status_period_min == cell.config.status_period_min
    next_open_us = cell.core.rounds.next_open_us
    assert next_open_us is not None
    assert 0 <= next_open_us - (transmit.at_us + schedule.next_window_s * SECOND_US) < SECOND_US


def test_a_retransmission_is_acknowledged_again_but_counts_once() -> None:
    cell = Cell()
    sent = cell.uplink(0, 12, status(), confirmed=True)
    cell.run_for(5)
    cell.hear(sent.payload, sent)
    cell.run_for(1)
    assert len(cell.on_air) == 2
    assert [delivered.ack for delivered in cell.receive()[0]] == [True, True]
    assert cell.rows["status"][dev_eui(0)]["uplinks"] == 1
    assert len(cell.told("status")) == 1


def test_link_check_and_time_are_answered_and_counted_lost_frames_too() -> None:
    cell = Cell(gateways=(GATEWAY, GATEWAY_2))
    cell.devices[3].uplink(cell.now_us, 12, status())
    cell.uplink(3, 12, status(), f_opts=b"\x02\x0d")
    (delivered,) = cell.receive()[3]
    link, clock = delivered.commands
    assert (link.cid, link.payload[1]) == (0x02, 2), "both gateways heard it"
    assert clock.cid == 0x0D
    assert cell.rows["status"][dev_eui(3)]["lost"] == 0, "nothing is known before the first frame"
    cell.devices[3].uplink(cell.now_us, 12, status())
    cell.run_for(10)
    cell.uplink(3, 12, status())
    assert cell.rows["status"][dev_eui(3)]["lost"] == 1


def test_two_gateways_hear_one_frame_and_the_better_one_answers() -> None:
    cell = Cell(gateways=(GATEWAY_2, GATEWAY))
    cell.uplink(0, 12, status(), confirmed=True)
    (told,) = cell.told("uplink")
    (transmit,) = cell.on_air
    assert told.data["gateway_id"] == transmit.gateway_id == GATEWAY_2


def test_a_removed_node_is_a_stranger_and_its_rows_are_gone() -> None:
    cell = Cell()
    assert cell.command(RemoveNode(dev_eui(1))) is None
    assert isinstance(cell.command(RemoveNode(dev_eui(1))), Refused)
    cell.uplink(1, 12, status())
    assert cell.dropped() == ["unknown_device"]
    assert all(dev_eui(1) not in cell.rows[table] for table in ("node", "session"))


def test_provisioned_indices_and_given_ones_do_not_meet() -> None:
    """Method: nodes without an index, then those provisioned from 0; one leaves, its index is free again."""
    cell = Cell(nodes=0)
    registry = cell.core.registry
    for index in range(3):
        assert cell.command(replace(add_node(100 + index), node_index=None)) is None
    for index in range(3):
        assert cell.command(add_node(index)) is None
    assert [entry.record.node_index for entry in registry] == [0, 1, 2, 65_532, 65_533, 65_534]
    cell.command(RemoveNode(dev_eui(101)))
    assert cell.command(replace(add_node(103), node_index=None)) is None
    assert [entry.record.dev_eui for entry in registry][3:] == [dev_eui(102), dev_eui(103), dev_eui(100)]


def test_a_node_added_again_without_a_change_is_no_event() -> None:
    cell = Cell(nodes=0)
    for node in (add_node(0), add_node(0), replace(add_node(0), node_index=None)):
        assert cell.command(node) is None
    assert len(cell.told("node_added")) == 1
    assert cell.command(replace(add_node(0), plot="west")) is None
    assert len(cell.told("node_added")) == 2


def test_adding_the_same_node_again_keeps_its_counters() -> None:
    cell = Cell()
    sent = cell.uplink(0, 12, status(), confirmed=True)
    assert cell.command(add_node(0)) is None
    cell.run_for(5)
    cell.uplink(0, 12, status(), confirmed=True)
    cell.hear(sent.payload, sent)
    cell.run_for(1)
    assert cell.dropped() == ["replay"]
    counters_never_repeat(cell.on_air)
    assert cell.rows["session"][dev_eui(0)]["f_cnt_down"] == 2


# -- joining -----------------------------------------------------------------------------------------


def test_a_device_joins_and_goes_on_and_a_replayed_request_is_worthless() -> None:
    cell = Cell(activation="otaa", nodes=1)
    request = cell.devices[0].join(cell.now_us)
    cell.run_until(request.end_us)
    cell.hear(request.payload, request)
    cell.run_for(1)
    (joined,) = cell.joins()
    assert isinstance(joined, Joined)
    window, _ = cell.devices[0].rx_windows(request)
    assert cell.on_air[0].at_us == window.open_us
    assert cell.rows["node"][dev_eui(0)]["dev_nonce"] == 0
    cell.run_for(10)
    cell.restart()
    cell.uplink(0, 12, status(), confirmed=True)
    (delivered,) = cell.receive()[0]
    assert delivered.ack
    cell.hear(request.payload, request)
    cell.run_for(1)
    assert cell.dropped() == ["dev_nonce"]
    assert len(cell.on_air) == 2
    again = cell.devices[0].join(cell.now_us)
    cell.run_until(again.end_us)
    cell.hear(again.payload, again)
    cell.run_for(1)
    (rejoined,) = cell.joins()
    assert isinstance(rejoined, Joined)
    cell.run_for(10)
    cell.uplink(0, 12, status())
    assert cell.rows["session"][dev_eui(0)]["f_cnt_up"] == 0, "a new session, counted anew"


# -- rounds ------------------------------------------------------------------------------------------


def test_no_round_without_group_nodes_or_gateway() -> None:
    cell = Cell()
    cell.now_us += 200 * SECOND_US
    refusal = cell.command(OpenRound())
    assert isinstance(refusal, Refused) and "no gateway" in refusal.reason
    cell.keep_alive()
    assert cell.command(OpenRound()) is None
    again = cell.command(OpenRound())
    assert isinstance(again, Refused) and "round 1 is open" in again.reason


def test_a_round_opens_at_its_time_and_names_the_next_window() -> None:
    cell = Cell()
    cell.run_for(3600 + 30)
    (opened,) = cell.told("round_opened")
    assert opened.data["expected"] == 4
    first, second = messages(cell.receive()[0])
    assert isinstance(first, app.RoundAnnounce) and isinstance(second, app.RoundAnnounce)
    assert first.round == second.round == 1
    last = cell.on_air[-1]
    following_us = last.at_us + second.next_window_s * SECOND_US
    assert 0 <= opened.at_us + 3600 * SECOND_US - following_us < SECOND_US
    assert first.mode == app.RoundMode.PROTOTYPES and first.model_version == 0


def test_quorum_closes_at_once_and_the_next_window_acknowledges_then_sends_then_announces() -> None:
    cell = Cell()
    number = open_round(cell)
    for node in range(3):
        cell.uplink(node, 10, means(node, number))
    assert cell.told("round_closed") == []
    cell.uplink(3, 10, means(3, number))
    (closed,) = cell.told("round_closed")
    assert closed.at_us == cell.now_us
    assert closed.data["updates"] == 4 and closed.data["model_version"] == 1
    assert closed.data["digest"] == cell.core.rounds.digest()
    cell.receive()
    open_round(cell)
    programme = messages(cell.receive()[0])
    kinds = [type(message) for message in programme]
    pieces = kinds.count(app.BlockPiece)
    assert pieces >= 2 and pieces % 2 == 0, "everything twice"
    once = [app.RoundAck, *[app.BlockPiece] * (pieces // 2)]
    assert kinds == [*once, *once, app.RoundAnnounce, app.RoundAnnounce]
    acknowledged, announced = programme[0], programme[-1]
    assert isinstance(acknowledged, app.RoundAck) and isinstance(announced, app.RoundAnnounce)
    assert (acknowledged.round, acknowledged.first_index, acknowledged.bitmap) == (1, 0, b"\x0f")
    assert (announced.round, announced.model_version) == (2, 1)
    block = {message.index: message.piece for message in programme if isinstance(message, app.BlockPiece)}
    assert b"".join(block[index] for index in sorted(block)) == cell.rows["model"]["1"]["block"]
    air_is_legal(cell)
    counters_never_repeat(cell.on_air)
    stored_before_sent(cell.effects)


def test_the_deadline_closes_with_those_who_came() -> None:
    cell = Cell()
    number = open_round(cell)
    cell.uplink(2, 10, means(2, number))
    opened_us = cell.told("round_opened")[0].at_us
    cell.run_until(opened_us + 1200 * SECOND_US - 1)
    assert cell.told("round_closed") == []
    cell.run_for(1)
    (closed,) = cell.told("round_closed")
    assert (closed.data["updates"], closed.at_us) == (1, opened_us + 1200 * SECOND_US)


def test_a_round_without_updates_keeps_the_model_and_the_next_one_opens() -> None:
    cell = Cell()
    before = cell.core.rounds.digest()
    cell.run_for(2 * 3600 + 60)
    assert len(cell.told("round_opened")) == 2
    (closed,) = cell.told("round_closed")
    assert closed.data["failure"] == "no replies"
    assert cell.core.rounds.digest() == before and cell.core.rounds.version == 0
    kinds = {type(message) for message in messages(cell.receive()[0])}
    assert kinds == {app.RoundAnnounce}, "the nodes have what was shipped: no block"


def test_updates_are_refused_with_reasons() -> None:
    cell = Cell()
    cell.uplink(0, 10, means(0, 1))
    number = open_round(cell)
    cell.uplink(0, 10, means(0, number))
    cell.uplink(0, 10, means(0, number))
    cell.uplink(1, 10, signs(1, number))
    cell.uplink(1, 10, means(2, number))
    cell.uplink(2, 10, means(2, number + 1))
    reasons = [event.data["reason"] for event in cell.told("update_refused")]
    assert reasons == ["closed", "duplicate", "wrong_mode", "wrong_context", "wrong_round"]
    assert list(cell.rows["update"]) == [f"{number}/{dev_eui(0)}"]


def test_a_late_update_counts_in_the_next_round_and_is_acknowledged_for_its_own() -> None:
    cell = Cell(config=farm.settings(quorum=0.5))
    first = open_round(cell)
    for node in (0, 1):
        cell.uplink(node, 10, means(node, first))
    assert len(cell.told("round_closed")) == 1
    second = open_round(cell)
    cell.uplink(2, 10, means(2, first, version=0))
    assert cell.told("update")[-1].data["late"] is True
    for node in (0, 1):
        cell.uplink(node, 10, means(node, second, version=1))
    assert [event.data["late"] for event in cell.told("round_closed")] == [0, 1]
    cell.receive()
    open_round(cell)
    bitmaps = {
        message.round: (message.first_index, message.bitmap)
        for message in messages(cell.receive()[0])
        if isinstance(message, app.RoundAck)
    }
    assert bitmaps == {first: (2, b"\x01"), second: (0, b"\x03")}


def test_the_mode_top_k_sign_sends_deltas_and_every_fourth_version_whole() -> None:
    cell = Cell(config=farm.settings("top_k_sign"))
    for _ in range(5):
        version = cell.core.rounds.version
        number = open_round(cell)
        for node in range(4):
            cell.uplink(node, 10, signs(node, number, version))
        cell.receive()
        assert cell.core.rounds.version == version + 1
    open_round(cell)
    kinds = {
        (message.version, message.base_version, message.kind)
        for message in messages(cell.receive()[0])
        if isinstance(message, app.BlockPiece)
    }
    assert kinds == {(5, 4, app.BlockKind.DELTA)}
    stored = {version: row["kind"] for version, row in cell.rows["model"].items()}
    assert stored == {"1": 1, "2": 1, "3": 1, "4": 2, "5": 1}
    assert cell.rows["model"]["4"]["base_version"] == app.NO_BASE


def test_prototype_rounds_come_before_signs() -> None:
    cell = Cell(config=farm.settings("top_k_sign", prototype_rounds=1))
    first = open_round(cell)
    for node in range(4):
        cell.uplink(node, 10, means(node, first))
    version = cell.core.rounds.version
    second = open_round(cell)
    for node in range(4):
        cell.uplink(node, 10, signs(node, second, version))
    assert [event.data["mode"] for event in cell.told("round_closed")] == ["prototypes", "top_k_sign"]
    assert [event.data["updates"] for event in cell.told("round_closed")] == [4, 4]


# -- questions ---------------------------------------------------------------------------------------


def test_a_question_is_put_at_the_next_uplink_and_answered_at_quorum() -> None:
    cell = Cell()
    heard_from_all(cell)
    query_id = ask(cell, Query("place", plot="plot-0"))
    targets = cell.told("query_asked")[-1].data["nodes"]
    assert isinstance(targets, list) and len(targets) == 3
    assert cell.on_air == [], "class A: nobody hears before he speaks"
    asked = [node for node in range(4) if dev_eui(node) in targets]
    for node in asked:
        cell.uplink(node, 12, status())
        (question,) = messages(cell.receive()[node])
        assert isinstance(question, app.Query) and question.query_id == query_id
    for count, node in enumerate(asked):
        assert len(cell.told("query_answered")) == 0
        cell.uplink(node, 11, answer(query_id, node))
        assert len(cell.told("answer")) == count + 1
    (answered,) = cell.told("query_answered")
    assert answered.data["label"] == "high" and answered.data["coverage"] == 1.0
    assert json.loads(str(cell.rows["query"][str(query_id)]["answer"]))["label"] == "high"
    cell.uplink(asked[0], 11, answer(query_id, asked[0]))
    assert len(cell.told("answer_late")) == 1


def test_a_place_that_nobody_knows_is_refused_with_those_there_are() -> None:
    for nodes, plots in ((8, "plot-0, plot-1"), (24, "plot-0, plot-1, plot-2, plot-3, plot-4, ...")):
        with pytest.raises(ValueError, match=f"nothing here is called 'nowhere'; plots are {plots}$"):
            Cell(nodes=nodes).core.asking.question(near="nowhere")


def test_the_deadline_gives_a_partial_answer() -> None:
    cell = Cell()
    heard_from_all(cell)
    query_id = ask(cell, Query("place", plot="plot-0", deadline_s=300))
    targets = cell.told("query_asked")[-1].data["nodes"]
    asked = next(node for node in range(4) if dev_eui(node) in targets)  # type: ignore[operator]
    cell.uplink(asked, 11, answer(query_id, asked, (200, 30, 25)))
    cell.run_for(301)
    (answered,) = cell.told("query_answered")
    assert answered.data["label"] == "low"
    assert 0 < float(str(answered.data["coverage"])) < 1
    assert answered.data["nodes"] == (dev_eui(asked),) and answered.data["asked"] == 3


def test_nobody_to_ask_is_no_answer_and_no_airtime() -> None:
    cell = Cell()
    ask(cell, Query("node", dev_eui=dev_eui(0)))
    (answered,) = cell.told("query_answered")
    assert (answered.data["label"], answered.data["value"], answered.data["reason"]) == (
        "no answer",
        None,
        "no_node",
    )
    heard_from_all(cell)
    ask(cell, Query("place", plot="plot-0", deadline_s=60))
    cell.run_for(61)
    assert cell.told("query_answered")[-1].data["label"] == "no answer"
    assert all(t.purpose is Purpose.QUERY for t in cell.on_air)


def test_features_are_judged_here_at_no_airtime() -> None:
    cell = Cell()
    ask(cell, Query("features", features=(10,) * WEATHER.features, context=1))
    (answered,) = cell.told("query_answered")
    assert answered.data["airtime_us"] == 0 and answered.data["value"] in (0, 1, 2)
    assert cell.on_air == []


def test_an_answered_question_costs_nothing_more() -> None:
    """Nodes that were not heard in time are not asked after the answer was given."""
    cell = Cell()
    heard_from_all(cell)
    query_id = ask(cell, Query("place", plot="plot-0"))
    targets = cell.told("query_asked")[-1].data["nodes"]
    asked = [node for node in range(4) if dev_eui(node) in targets]  # type: ignore[operator]
    for node in asked:
        cell.uplink(node, 11, answer(query_id, node))
    before = len(cell.on_air)
    for node in asked:
        cell.uplink(node, 12, status())
    assert len(cell.told("query_answered")) == 1
    assert len(cell.on_air) == before

"""The same question again: from the cache, with the one that is out, after a restart; what answers cost."""

from __future__ import annotations

from typing import Any

import pytest

from swarm.inference.plan import Query
from swarm.phy.energy import receive_mj, transmit_mj
from swarm.wire import app
from tests.swarm import cell as farm
from tests.swarm.cell import Cell, answer, ask, dev_eui, heard_from_all, status

PLACE = Query("place", plot="plot-0", deadline_s=300)
FRESH_S = 600


def asked_nodes(cell: Cell) -> list[int]:
    targets = cell.told("query_asked")[-1].data["nodes"]
    return [node for node in range(cell.nodes) if dev_eui(node) in targets]  # type: ignore[operator]


def answers(cell: Cell) -> dict[int, dict[str, Any]]:
    return {int(str(e.data["query_id"])): dict(e.data) for e in cell.told("query_answered")}


def asked_and_answered(cell: Cell) -> int:
    """One question, put to its nodes and answered by all."""
    query_id = ask(cell, PLACE)
    for node in asked_nodes(cell):
        cell.uplink(node, 12, status())
        cell.uplink(node, 11, answer(query_id, node))
    return query_id


def test_a_fresh_answer_is_given_again_at_no_airtime() -> None:
    cell = Cell()
    heard_from_all(cell)
    first = asked_and_answered(cell)
    sent = len(cell.on_air)
    cell.run_for(100)
    second = ask(cell, Query("place", plot="plot-0", deadline_s=60))
    told = answers(cell)
    assert told[second]["probabilities"] == told[first]["probabilities"] and len(cell.on_air) == sent
    assert (told[second]["airtime_us"], told[second]["energy_mj"], told[second]["latency_s"]) == (0, 0.0, 0)
    assert told[second]["age_s"] == pytest.approx(100, abs=10)
    assert cell.rows["query"][str(second)]["state"] == "answered"
    cell.run_for(FRESH_S)
    ask(cell, PLACE)
    assert asked_nodes(cell), "an old answer is none: nodes are asked again"


@pytest.mark.parametrize("changed", [{"context": 1}, {"k": 1}, {"plot": "plot-9"}])
def test_another_question_is_another_question(changed: dict[str, Any]) -> None:
    cell = Cell(nodes=8)
    heard_from_all(cell)
    asked_and_answered(cell)
    ask(cell, Query(**{"kind": "place", "plot": "plot-0", **changed}))
    assert asked_nodes(cell)


def test_a_question_waits_with_the_same_one_that_is_out() -> None:
    cell = Cell()
    heard_from_all(cell)
    first = ask(cell, PLACE)
    nodes = asked_nodes(cell)
    cell.run_for(50)
    second = ask(cell, PLACE)
    assert asked_nodes(cell) == []
    for node in nodes:
        cell.uplink(node, 12, status())
        cell.uplink(node, 11, answer(first, node))
    told = answers(cell)
    assert told[second]["nodes"] == told[first]["nodes"] and told[second]["airtime_us"] == 0
    assert told[first]["latency_s"] - told[second]["latency_s"] == pytest.approx(50, abs=1)


def test_who_has_more_time_than_the_first_is_put_again() -> None:
    """The first question failed at its deadline; the second has time left and is not failed with it."""
    cell = Cell()
    heard_from_all(cell)
    first = ask(cell, PLACE)
    cell.run_for(100)
    second = ask(cell, PLACE)
    cell.run_for(201)
    assert answers(cell)[first]["value"] is None and second not in answers(cell)
    for node in range(cell.nodes):
        cell.uplink(node, 12, status())
        cell.uplink(node, 11, answer(second, node))
    assert answers(cell)[second]["label"] == "high"


def test_answers_and_those_who_wait_survive_a_restart() -> None:
    cell = Cell()
    heard_from_all(cell)
    asked_and_answered(cell)
    other = Query("place", plot="plot-0", k=1, deadline_s=300)
    waiting = [ask(cell, other), ask(cell, other)]
    cell.restart()
    cell.keep_alive()
    cell.poll()
    again = ask(cell, PLACE)
    assert answers(cell)[again]["airtime_us"] == 0 and answers(cell)[again]["label"] == "high"
    (node,) = (node for node in range(4) if cell.core.downlinks.waiting(dev_eui(node)))
    cell.uplink(node, 12, status())
    cell.uplink(node, 11, answer(waiting[0], node))
    assert {answers(cell)[query_id]["label"] for query_id in waiting} == {"high"}


def test_an_answer_costs_what_was_on_the_air_for_it() -> None:
    """Goal: airtime and energy of the answer are those of its frames, the silent node's question included."""
    cell = Cell()
    heard_from_all(cell)
    query_id = ask(cell, PLACE)
    nodes = asked_nodes(cell)
    up_us = 0
    for node in nodes:
        cell.uplink(node, 12, status())
    for node in nodes[:-1]:
        up_us += cell.uplink(node, 11, answer(query_id, node)).airtime_us
    cell.run_for(301)
    told = answers(cell)[query_id]
    down_us = sum(transmit.airtime_us for transmit in cell.on_air if transmit.purpose == "query")
    assert len(nodes) == 3 and told["airtime_us"] == up_us + down_us
    assert told["energy_mj"] == pytest.approx(transmit_mj(up_us) + receive_mj(down_us), abs=1e-3)
    assert [source["dev_eui"] for source in told["sources"]] == list(told["nodes"])
    assert told["experts"] == tuple(sorted({f"head-{node % farm.CONTEXTS}" for node in nodes[:-1]}))


def test_a_full_queue_is_no_place_for_a_question() -> None:
    """Nodes whose queue is full are not asked; others are."""
    cell = Cell(nodes=8)
    heard_from_all(cell)
    before = [ask(cell, Query("node", dev_eui=dev_eui(0), k=k)) for k in range(1, 8)]
    assert len(before) == 7 and cell.core.downlinks.waiting(dev_eui(0)) == 6
    ask(cell, Query("place", plot="plot-0", k=3))
    assert 0 not in asked_nodes(cell)
    assert isinstance(app.decode_uplink(11, answer(1, 0)), app.Answer)

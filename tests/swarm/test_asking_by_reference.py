"""Questions that carry their asker's own name: one at a time, and the answer has it, restarts included."""

from __future__ import annotations

from dataclasses import replace

from swarm.inference.plan import REFERENCE_MAX, Query
from tests.swarm.cell import Cell, dev_eui, heard_from_all

QUESTION = Query("node", dev_eui=dev_eui(1), deadline_s=600, reference="mqtt:7")


def put(cell: Cell, query: Query) -> None:
    cell.perform(cell.core.on_query(cell.now_us, query))


def test_a_question_that_is_put_twice_is_one_question_and_the_answer_has_its_name() -> None:
    cell = Cell()
    heard_from_all(cell)
    put(cell, QUESTION)
    put(cell, QUESTION)
    put(cell, replace(QUESTION, deadline_s=900))
    (asked,), (repeated,) = cell.told("query_asked"), cell.told("query_repeated")
    assert repeated.data == {"query_id": asked.data["query_id"], "reference": "mqtt:7"}
    (refused,) = cell.told("query_refused")
    assert refused.data["reference"] == "mqtt:7" and "take a new one" in str(refused.data["reason"])
    assert len(cell.core.asking) == 1
    cell.run_for(601)
    (answered,) = cell.told("query_answered")
    assert answered.data["reference"] == "mqtt:7"
    put(cell, QUESTION)
    assert len(cell.told("query_asked")) == 2, "a name is free again when its answer was given"


def test_a_restart_forgets_neither_the_name_nor_that_the_question_waits() -> None:
    cell = Cell()
    heard_from_all(cell)
    put(cell, QUESTION)
    cell.restart()
    put(cell, QUESTION)  # delivered again, before the first turn of the restarted core
    assert len(cell.told("query_repeated")) == 1
    cell.run_for(601)
    (answered,) = cell.told("query_answered")
    assert answered.data["reference"] == "mqtt:7"


def test_a_name_is_bounded_and_a_question_without_one_has_none_in_its_answer() -> None:
    cell = Cell()
    put(cell, replace(QUESTION, reference="x" * (REFERENCE_MAX + 1)))
    (refused,) = cell.told("query_refused")
    assert "80 characters" in str(refused.data["reason"])
    put(cell, replace(QUESTION, reference=None))
    put(cell, replace(QUESTION, reference=None))
    assert all("reference" not in event.data for event in cell.told("query_asked"))
    assert len(cell.told("query_asked")) == 2

"""`LoRaGrid`: unmodified ServerApps over the simulated cell, and everything that would abort or hang them."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.serverapp import ServerApp, strategy
from flwr.supercore.task_identity import TaskIdentity

from gateway.cli import run
from gateway.upstream.apps import AppError, load_server_app, run_server_app
from gateway.upstream.driver import CellStopped
from gateway.upstream.grid import ASKED_MAX, TTL_S, LoRaGrid
from gateway.upstream.records import flat_record, vector_of
from simulations.scenario import load
from simulations.virtual_cell import VirtualCell
from simulations.world import World
from swarm.federation.outside import CLOSE_MIN_S, Change, Gathered
from swarm.federation.reply import Reply
from swarm.federation.strategy import FlowerStrategy
from swarm.model.layout import WEATHER
from swarm.model.vector import Float64

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = str(ROOT / "examples" / "flower_app")
SIZE = 12


def world(nodes: int = 12, days: int = 3) -> World:
    scenario = load("smoke").override(nodes=nodes, days=days)
    scenario = replace(scenario, queries=replace(scenario.queries, per_day=0.0))
    return World(scenario, history_days=10)


@dataclass
class Scripted:
    """A cell that answers with what a test says; `opened` notes what was handed in."""

    changes: list[Change] = field(default_factory=list)
    nodes: list[int] = field(default_factory=lambda: [1, 2, 3])
    advances: int = 2
    opened: list[tuple[Float64, bool, int | None]] = field(default_factory=list)
    time: int = 0

    def node_ids(self) -> list[int]:
        return self.nodes

    def vector(self) -> Float64:
        return np.zeros(SIZE)

    def hand_in(self, vector: Float64, *, gather: bool, close_s: int | None) -> int:
        self.opened.append((vector, gather, close_s))
        self.time = 0
        return len(self.opened)

    def gathered(self, number: int) -> Gathered | None:
        return Gathered(number, tuple(self.changes)) if self.time >= self.advances else None

    def advance(self) -> None:
        self.time += 1


def change(node: int, value: float = 1.0, examples: int = 4, size: int = SIZE) -> Change:
    return Change(f"{node:016x}", examples, np.full(size, value))


def messages(grid: LoRaGrid, record: ArrayRecord | None = None, kind: str = "train") -> list[Message]:
    """One per node, with one content for all, as Flower's strategies make them."""
    nodes = list(grid.get_node_ids())
    content = RecordDict({"arrays": flat_record(np.arange(float(SIZE))) if record is None else record})
    return [Message(content, dst_node_id=node, message_type=kind) for node in nodes]


def by_node(replies: Any) -> dict[int, Message]:
    return {reply.metadata.src_node_id: reply for reply in replies}


# -- over the simulated cell --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["FedAvg", "FedAdam", "FedMedian", "Krum"])
def test_an_unmodified_server_app_runs_over_the_simulated_cell(name: str) -> None:
    """Firmware, air, LoRaWAN and coordinator under Flower's own loop; the result goes back to the nodes."""
    app, config = load_server_app(EXAMPLE)
    made = world()
    cell = VirtualCell(made, stopped=CellStopped)
    seen: list[tuple[int, int]] = []
    grid = LoRaGrid(cell, on_round=lambda number, replies: seen.append((number, replies)))
    before = cell.vector()
    final = run_server_app(app, grid, before, config | {"strategy": name})
    assert [number for number, _ in seen] == [1, 2, 3]
    assert all(replies >= 10 for _, replies in seen), "twelve nodes with ten labelled days, two percent loss"
    assert final is not None and np.isfinite(final).all() and not np.array_equal(final, before)
    made.finish()
    assert made.checkers.violations.explained == []


def test_fed_avg_over_the_grid_is_fed_avg_behind_the_door() -> None:
    """The same changes aggregated by `FlowerStrategy`, which the coordinator uses: the same vector."""
    made = world()
    cell = VirtualCell(made, stopped=CellStopped)
    vector = cell.vector()
    result = strategy.FedAvg(fraction_evaluate=0.0).start(LoRaGrid(cell), flat_record(vector), num_rounds=1)
    found = made.coordinator.rounds.gathered(1)
    assert found is not None
    replies = [
        Reply(index, vector + each.delta, each.num_examples) for index, each in enumerate(found.changes)
    ]
    door = FlowerStrategy("FedAvg", WEATHER).aggregate(1, vector, replies).vector
    assert door is not None
    np.testing.assert_allclose(vector_of(result.arrays), door, rtol=0, atol=1e-12)


def test_the_timeout_of_the_app_is_the_deadline_on_the_air() -> None:
    """Flower's default of an hour, in virtual time, counted from the opening of the round."""
    made = world(days=1)
    cell = VirtualCell(made, stopped=CellStopped)
    strategy.FedAvg(fraction_evaluate=0.0).start(LoRaGrid(cell), flat_record(cell.vector()), num_rounds=1)
    (row,) = made.rounds
    assert row["closed_s"] - row["opened_s"] <= 3600


def test_an_app_that_wants_more_rounds_than_the_scenario_has_days_is_told() -> None:
    cell = VirtualCell(world(days=1), stopped=CellStopped)
    with pytest.raises(CellStopped, match="ends after 1 day;"):
        strategy.FedAvg().start(LoRaGrid(cell), flat_record(cell.vector()), num_rounds=9)


# -- replies ------------------------------------------------------------------------------------------


def test_bad_replies_become_errors_and_silent_nodes_are_absent() -> None:
    changes = [change(1), change(2, np.nan), change(3, size=5), change(4, examples=0), change(9)]
    cell = Scripted(changes, nodes=[1, 2, 3, 4, 5])
    grid = LoRaGrid(cell)
    replies = by_node(grid.send_and_receive(messages(grid)))
    assert set(replies) == {1, 2, 3, 4}, "5 was silent, 9 was not asked"
    assert {node: reply.error.reason for node, reply in replies.items() if reply.has_error()} == {
        2: "not finite",
        3: "shape (5,) instead of (12,)",
        4: "no examples",
    }
    good = replies[1].content
    assert vector_of(good["arrays"]).tolist() == (np.arange(SIZE) + 1.0).tolist()
    assert dict(good["metrics"]) == {"num-examples": 4}


def test_strategies_go_on_when_replies_are_bad() -> None:
    changes = [change(1), change(2, np.inf), change(3, 3.0)]
    result = strategy.FedAvg(fraction_evaluate=0.0).start(
        LoRaGrid(Scripted(changes)), flat_record(np.zeros(SIZE)), num_rounds=2
    )
    assert vector_of(result.arrays).tolist() == [4.0] * SIZE, "two rounds of the mean of 1 and 3"


def test_a_record_of_many_arrays_comes_back_in_its_own_shape() -> None:
    record = ArrayRecord({"w": Array(np.ones((3, 2), np.float32)), "b": Array(np.arange(6.0))})
    grid = LoRaGrid(Scripted([change(2, 0.5)]))
    (reply,) = grid.send_and_receive(messages(grid, record))
    back = reply.content["arrays"]
    assert list(back) == ["w", "b"]
    assert back["w"].numpy().dtype == np.float32 and back["w"].numpy().tolist() == [[1.5] * 2] * 3
    assert back["b"].numpy().tolist() == (np.arange(6.0) + 0.5).tolist()


def test_an_array_can_be_written_into_and_has_the_bytes_of_flowers_own() -> None:
    values = np.arange(4.0)
    array = flat_record(values)["vector"]
    array.numpy()[0] = 9.0
    assert array.numpy()[0] == 0.0
    assert array.data == Array(values).data and (array.dtype, array.shape) == ("float64", (4,))


def test_one_content_for_all_and_one_message_for_each() -> None:
    cell = Scripted([change(node) for node in (1, 2, 3)])
    grid = LoRaGrid(cell)
    listed = messages(grid)
    listed[1].content = RecordDict({"arrays": flat_record(np.zeros(SIZE))})
    listed[2].content = RecordDict({"arrays": flat_record(np.arange(float(SIZE)))})
    again = Message(listed[0].content, dst_node_id=1, message_type="train")
    replies = list(grid.send_and_receive([*listed, again]))
    reasons = {reply.metadata.src_node_id: reply.error.reason for reply in replies if reply.has_error()}
    assert reasons == {
        2: "a cell multicasts one model; this message has another",
        1: "this node has a message in this round already",
    }
    assert sorted(reply.metadata.src_node_id for reply in replies if not reply.has_error()) == [1, 3]
    assert len(cell.opened) == 1


# -- what is sent -------------------------------------------------------------------------------------


def test_what_is_no_model_of_the_cell_is_said_in_one_line() -> None:
    grid = LoRaGrid(Scripted())
    with pytest.raises(CellStopped, match="has 12 parameters, the app sends 5"):
        grid.send_and_receive(messages(grid, flat_record(np.zeros(5))))
    with pytest.raises(CellStopped, match="one ArrayRecord"):
        grid.send_and_receive([Message(RecordDict(), dst_node_id=1, message_type="train")])


@pytest.mark.parametrize(("timeout", "close_s"), [(None, None), (3600, 3600), (0.5, CLOSE_MIN_S), (90.2, 91)])
def test_timeouts_are_handed_in_with_the_model(timeout: float | None, close_s: int | None) -> None:
    cell = Scripted()
    grid = LoRaGrid(cell)
    assert list(grid.send_and_receive(messages(grid), timeout=timeout)) == []
    ((vector, gather, given),) = cell.opened
    assert vector.tolist() == np.arange(SIZE).tolist() and gather and given == close_s


def test_evaluate_is_not_answered_query_is_an_error_and_neither_goes_on_the_air() -> None:
    cell = Scripted([change(1)])
    grid = LoRaGrid(cell)
    assert list(grid.send_and_receive(messages(grid, kind="evaluate"))) == []
    replies = by_node(grid.send_and_receive(messages(grid, kind="query.model")))
    assert set(replies) == {1, 2, 3} and "train messages only" in replies[1].error.reason
    assert list(grid.send_and_receive([])) == []
    assert cell.opened == []


def test_messages_are_pushed_and_pulled_as_the_cells_time_goes_on() -> None:
    cell = Scripted([change(1), change(3)], advances=3)
    grid = LoRaGrid(cell)
    ids = list(grid.push_messages(messages(grid)))
    assert len(set(ids)) == 3
    pulls = [list(grid.pull_messages(ids)) for _ in range(4)]
    assert [len(each) for each in pulls] == [0, 0, 2, 0]
    assert {reply.metadata.reply_to_message_id for reply in pulls[2]} == {ids[0], ids[2]}


def test_an_app_that_waits_for_nodes_that_never_come_is_stopped() -> None:
    """Flower's `sample_nodes` would ask once a second for ever."""
    grid = LoRaGrid(Scripted([change(1)]))
    for _ in range(3):
        for _ in range(ASKED_MAX - 1):
            assert list(grid.get_node_ids()) == [1, 2, 3]
        grid.send_and_receive(messages(grid))
    for _ in range(ASKED_MAX):
        grid.get_node_ids()
    with pytest.raises(CellStopped, match="more nodes than the cell's 3"):
        grid.get_node_ids()


# -- several in one process ---------------------------------------------------------------------------


def test_two_grids_live_in_one_process() -> None:
    """Two apps at once, in threads: each message carries its own grid's run, each result is its own."""
    results: dict[float, list[float]] = {}
    runs: dict[float, set[int]] = {}

    def work(value: float) -> None:
        grid = LoRaGrid(Scripted([change(node, value) for node in (1, 2, 3)]))
        runs[value] = {reply.metadata.run_id for reply in grid.send_and_receive(messages(grid))} | {
            grid.run.run_id
        }
        done = strategy.FedAvg(fraction_evaluate=0.0).start(grid, flat_record(np.zeros(SIZE)), num_rounds=5)
        results[value] = vector_of(done.arrays).tolist()

    threads = [threading.Thread(target=work, args=(value,)) for value in (1.0, -2.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == {1.0: [5.0] * SIZE, -2.0: [-10.0] * SIZE}
    assert len(runs[1.0]) == len(runs[-2.0]) == 1 and runs[1.0] != runs[-2.0]


def test_an_identity_that_flower_has_set_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TaskIdentity, "_run_id", 77)
    monkeypatch.setattr(TaskIdentity, "_node_id", 88)
    monkeypatch.setattr(TaskIdentity, "_task_id", 99)
    grid = LoRaGrid(Scripted([change(1)]))
    (reply,) = grid.send_and_receive(messages(grid))
    assert (TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id) == (77, 88, 99)
    assert reply.metadata.run_id == grid.run.run_id != 77
    assert reply.metadata.ttl == TTL_S and reply.metadata.dst_node_id == 88


def test_the_old_way_to_make_a_message_works_too() -> None:
    grid = LoRaGrid(Scripted([change(2)]))
    content = RecordDict({"arrays": flat_record(np.zeros(SIZE))})
    made = grid.create_message(content, "train", 2, "7")
    (reply,) = grid.send_and_receive([made])
    assert (reply.metadata.src_node_id, reply.metadata.group_id, made.metadata.ttl) == (2, "7", TTL_S)


# -- apps ---------------------------------------------------------------------------------------------


def test_apps_are_found_by_directory_and_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_app.py").write_text(
        "from flwr.serverapp import ServerApp\napp = ServerApp()\nother = 3\n", encoding="utf-8"
    )
    assert isinstance(load_server_app("own_app:app")[0], ServerApp)
    assert load_server_app(EXAMPLE)[1] == {"strategy": "FedAdam", "rounds": 3}
    for where, what in (
        ("own_app:other", "is a int, not a ServerApp"),
        ("own_app:missing", "cannot be loaded"),
        ("no_such_module_here:app", "cannot be loaded"),
        ("own_app", "neither a directory nor module:object"),
        (str(tmp_path), "a Flower app has one"),
    ):
        with pytest.raises(AppError, match=what):
            load_server_app(where)
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n", encoding="utf-8")
    with pytest.raises(AppError, match="has no serverapp"):
        load_server_app(str(tmp_path))


def test_an_app_that_leaves_its_context_alone_leaves_no_model() -> None:
    app = ServerApp()

    @app.main()
    def main(grid: Any, context: Any) -> None:
        assert context.run_config == {"a": 1}

    assert run_server_app(app, LoRaGrid(Scripted()), np.zeros(SIZE), {"a": 1}) is None


# -- the command --------------------------------------------------------------------------------------


def test_the_command_runs_an_app_and_shows_the_same_twice(capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["flower", "run", EXAMPLE, "--scenario", "smoke", "--days", "3", "--seed", "5", "--json"]
    shown = []
    for _ in range(2):
        assert run([*arguments, "--run-config", 'strategy="FedMedian"', "--run-config", "rounds=2"]) == 0
        shown.append(json.loads(capfd.readouterr().out))
        del shown[-1]["wall_s"]
    assert shown[0] == shown[1]
    assert [each["round"] for each in shown[0]["rounds"]] == [1, 2]
    assert shown[0]["handed_in"] is True and shown[0]["violations"] == 0
    assert 0.0 < shown[0]["macro_f1"]["end"] <= 1.0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([EXAMPLE], "give either --scenario NAME or --live"),
        ([EXAMPLE, "--scenario", "smoke", "--live"], "give either --scenario NAME or --live"),
        (["no_such:app", "--scenario", "smoke"], "cannot be loaded"),
        ([EXAMPLE, "--scenario", "nowhere"], "no such scenario"),
        ([EXAMPLE, "--scenario", "smoke", "--run-config", "rounds"], "is not KEY=VALUE"),
        (
            [EXAMPLE, "--scenario", "smoke", "--days", "1", "--run-config", "rounds=9"],
            "ends after 1 day; give",
        ),
        ([EXAMPLE, "--scenario", "smoke", "--nodes", "1"], "more nodes than the cell's 1"),
    ],
)
def test_mistakes_of_the_command_are_one_line(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.setattr("flwr.serverapp.strategy.strategy_utils.sleep", lambda _: None)
    assert run(["flower", "run", *arguments]) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("swarm: ")]
    assert len(lines) == 1 and said in lines[0]

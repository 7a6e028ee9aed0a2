"""A coordinator made from the rows of another goes on where that one stopped, whenever it stopped."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.commands import OpenRound
from swarm.inference.plan import Query
from swarm.wire import app, lorawan
from tests.swarm import cell as farm
from tests.swarm.cell import (
    GATEWAY,
    SECOND_US,
    Cell,
    air_is_legal,
    answer,
    ask,
    counters_never_repeat,
    dense,
    dev_addr,
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


Step = Callable[[Cell], None]


def _script(mode: str) -> list[Step]:
    """Two rounds, a question, confirmed frames and a replay, as single inputs."""
    steps: list[Step] = [lambda cell: None]

    def send(node: int, f_port: int, payload: Callable[[Cell], bytes], confirmed: bool = False) -> None:
        steps.append(lambda cell: _send(cell, node, f_port, payload(cell), confirmed))

    for number in (1, 2, 3):
        steps.append(lambda cell: cell.run_until(farm.START_US + 3600 * SECOND_US * _rounds_due(cell)))
        steps.extend([lambda cell: cell.run_for(2)] * 15)
        for node in range(4):
            send(node, 12, lambda cell: status(WANTS_SCHEDULE), confirmed=True)
            if (number, node) != (2, 3):
                version = number - 1
                for frame in _update(mode, node, number, version):
                    send(node, 10, lambda cell, frame=frame: frame)
        send(2, 10, lambda cell, number=number: _update(mode, 2, number, number - 1)[-1])
        steps.append(lambda cell: cell.run_for(1300))
    return steps


def _update(mode: str, node: int, number: int, version: int) -> list[bytes]:
    """The frames of one update."""
    if mode == "dense_int8":
        return dense(node, number, version)
    return [means(node, number, version) if mode == "prototypes" else signs(node, number, version)]


def _rounds_due(cell: Cell) -> int:
    return len(cell.told("round_opened")) + 1


def _send(cell: Cell, node: int, f_port: int, payload: bytes, confirmed: bool) -> None:
    cell.run_for(10)
    cell.uplink(node, f_port, payload, confirmed=confirmed)


def _play(mode: str, restart_before: Callable[[int], bool]) -> Cell:
    cell = Cell(config=farm.settings(mode, dedup_us=0))  # type: ignore[arg-type]
    for number, step in enumerate(_script(mode)):
        if restart_before(number):
            cell.restart()
        step(cell)
    return cell


def _outcome(cell: Cell) -> list[tuple[object, ...]]:
    """What must not depend on restarts: which rounds closed with what, and the weights to the last bit."""
    closed = [
        (event.data["round"], event.data["updates"], event.data["model_version"], event.data["digest"])
        for event in cell.told("round_closed")
    ]
    counters = [(address, row["f_cnt_up"]) for address, row in sorted(cell.rows["session"].items())]
    return [*closed, *counters, (cell.core.rounds.mirror().to_bytes(),)]


@pytest.mark.parametrize("mode", ["prototypes", "top_k_sign", "dense_int8"])
def test_a_restart_between_any_two_inputs_changes_nothing(mode: str) -> None:
    reference = _play(mode, lambda number: False)
    assert [row[1] for row in _outcome(reference)[:3]] == [4, 3, 4]
    for place in range(len(_script(mode))):
        cell = _play(mode, lambda number, place=place: number == place)
        assert _outcome(cell) == _outcome(reference), f"restart before step {place}"
        counters_never_repeat([*cell.on_air, *cell.refused])
        stored_before_sent(cell.effects)
        announced = {
            message.round for message in messages(cell.receive()[0]) if isinstance(message, app.RoundAnnounce)
        }
        assert announced == {1, 2, 3}, f"restart before step {place}: every round was announced"


@settings(max_examples=15, deadline=None)
@given(st.sets(st.integers(0, len(_script("prototypes")) - 1)))
def test_any_number_of_restarts_changes_nothing(places: set[int]) -> None:
    reference = _play("prototypes", lambda number: False)
    cell = _play("prototypes", lambda number: number in places)
    assert _outcome(cell) == _outcome(reference)
    counters_never_repeat([*cell.on_air, *cell.refused])
    air_is_legal(cell)


def test_airtime_of_the_last_hour_survives_a_restart() -> None:
    cell = Cell()
    open_round(cell)
    spent = cell.core.downlinks.ledger(GATEWAY).spent_us(cell.now_us)
    assert sum(spent.values()) == sum(t.airtime_us for t in cell.on_air)
    cell.restart()
    assert cell.core.downlinks.ledger(GATEWAY).spent_us(cell.now_us) == spent
    ids = [t.transmit_id for t in cell.on_air]
    cell.uplink(0, 12, status(), confirmed=True)
    assert cell.on_air[-1].transmit_id not in ids


def test_a_round_interrupted_in_its_programme_is_announced_without_waiting_for_an_uplink() -> None:
    cell = Cell()
    assert cell.command(OpenRound()) is None
    cell.restart()
    cell.keep_alive()
    cell.run_for(30)
    announced = [message for message in messages(cell.receive()[0]) if isinstance(message, app.RoundAnnounce)]
    assert len(announced) == 2


def test_an_announcement_that_nobody_can_hear_any_more_is_not_made() -> None:
    """The nodes' window is over long before this gateway comes back."""
    cell = Cell()
    assert cell.command(OpenRound()) is None
    cell.now_us += 1000 * SECOND_US
    cell.restart()
    cell.keep_alive()
    cell.run_for(60)
    assert cell.on_air == []


def test_small_changes_of_the_master_survive_a_restart() -> None:
    """A step below one bit of the integers makes no new version, but the next step starts from it."""
    options = {"eta": 2e-6, "tau": 1e-3}
    outcomes = []
    for restart in (False, True):
        cell = Cell(config=farm.settings("top_k_sign", options=options))
        for _ in range(3):
            number = open_round(cell)
            for node in range(4):
                cell.uplink(node, 10, signs(node, number, cell.core.rounds.version))
            if restart:
                cell.restart()
                cell.keep_alive()
        outcomes.append(cell.core.rounds._versions.master.tobytes())
    assert outcomes[0] == outcomes[1]


def test_downlink_counters_go_on_after_a_restart() -> None:
    cell = Cell()
    for _ in range(4):
        cell.uplink(0, 12, status(), confirmed=True)
        cell.run_for(5)
        cell.restart()
        cell.keep_alive()
    frames = [lorawan.parse_downlink(t.payload) for t in cell.on_air]
    assert [f.f_cnt for f in frames if isinstance(f, lorawan.DataFrame) and f.dev_addr == dev_addr(0)] == [
        0,
        1,
        2,
        3,
    ]


def test_open_questions_survive_a_restart() -> None:
    cell = Cell()
    heard_from_all(cell)
    query_id = ask(cell, Query("place", plot="plot-0"))
    cell.restart()
    cell.keep_alive()
    cell.poll()
    for node in range(4):
        cell.uplink(node, 12, status())
        cell.uplink(node, 11, answer(query_id, node))
    answered = cell.told("query_answered")
    assert [event.data["query_id"] for event in answered] == [query_id]
    assert ask(cell, Query("node", dev_eui=dev_eui(0))) == query_id + 1


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        *(
            ("round", column, None)
            for column in ("round", "cohort", "opened_us", "close_us", "mode", "state")
        ),
        ("round", "metrics", 4_294_967_296),
        ("round", "metrics", "[]"),
        *(("node", column, None) for column in ("node_index", "context", "join_nonce", "created_us")),
        ("node", "context", "x"),
        ("status", "uplinks", None),
        ("status", "lost", None),
        ("session", "f_cnt_down", None),
        ("gateway", "last_seen_us", "x"),
    ],
)
def test_a_damaged_row_is_refused_at_the_start_and_not_later(table: str, column: str, value: object) -> None:
    """A restart with an open round; what is wrong is said before anything is done."""
    cell = Cell()
    heard_from_all(cell)
    open_round(cell)
    row = next(iter(cell.rows[table].values()))
    row[column] = value  # type: ignore[assignment]
    with pytest.raises((ValueError, LookupError, TypeError, AttributeError)):
        cell.restart()

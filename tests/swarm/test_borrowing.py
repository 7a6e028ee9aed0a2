"""Orders and loans at the core's door: sent until confirmed, bounded, refused, forgotten, kept in rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.store.sqlite import SqliteStore
from swarm.borrowing import KEPT_DAYS
from swarm.commands import RemoveNode
from swarm.config import Borrowing
from swarm.coordinator import Coordinator
from swarm.effects import Store
from swarm.wire import app
from swarm.wire.readings import AGE_STEP_US, ALL_HOURS, HUMIDITY, RAIN, TEMPERATURE, series
from tests.swarm.cell import MODEL, Cell, dev_eui, messages, settings, status

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
BORROWER = 0
NO_HUMIDITY, NO_RAIN = 1, 2
SURVEY = 3
PORT = app.F_PORT_STATUS


def cell(**changes: object) -> Cell:
    """Four nodes; surveys of three days."""
    chosen = Borrowing(enabled=True, survey_days=SURVEY, **changes)  # type: ignore[arg-type]
    made = Cell(config=replace(settings(mode="none", dedup_us=0), borrowing=chosen))
    made.run_until((made.now_us // DAY_US + 1) * DAY_US + 3 * HOUR_US)
    return made


def report(made: Cell, node: int, share_id: int = 0, lacks: int = NO_HUMIDITY) -> list[app.Share]:
    """A STATUS of a node that follows this order, the borrower without the sensors that it `lacks`; the
    orders that come down on it."""
    made.uplink(node, PORT, status((lacks if node == BORROWER else 0) | share_id << 4))
    found = messages(made.receive()[node])
    return [message for message in found if isinstance(message, app.Share)]


def day_of(node: int, number: int, age: int = 18) -> bytes:
    """A day of common weather; the borrower has only a temperature."""
    weather = [60 + 25 * ((hour * (number + 3) // 5) % 3 - 1) for hour in range(24)]
    warm = series([90 + value // 5 + node % 2 for value in weather], 0)
    humid = None if node == BORROWER else series([value + node for value in weather], 0)
    rainy = None if node == BORROWER else 0b1000
    return app.encode(app.Readings(age, ALL_HOURS, rainy, None if rainy is None else 4, humid, warm))


def request(made: Cell, age: int = 18, told: tuple[int, int, int] = (0, 0, 0)) -> list[app.Readings]:
    made.uplink(BORROWER, PORT, app.encode(app.ReadingsRequest(age, *told)))
    return [message for message in messages(made.receive()[BORROWER]) if isinstance(message, app.Readings)]


def surveyed(made: Cell, lacks: int = NO_HUMIDITY) -> dict[int, int]:
    """The survey, as nodes answer it; the order that each follows at its end."""
    follows = dict.fromkeys(range(4), 0)
    for number in range(SURVEY + 3):
        for node in range(4):
            for order in report(made, node, follows[node], lacks):
                follows[node] = order.share_id if order.days else 0
            if number > 0 and (number <= SURVEY or node != BORROWER):
                made.uplink(node, PORT, day_of(node, number))
        made.run_until((made.now_us // DAY_US + 1) * DAY_US + 3 * HOUR_US)
    return follows


def test_an_order_goes_down_with_each_status_until_it_is_confirmed() -> None:
    made = cell()
    (order,) = report(made, 1)
    assert order.send == HUMIDITY | RAIN | TEMPERATURE and order.use == 0
    assert order.days == made.config.borrowing.lease_days
    (again,) = report(made, 1)
    assert (again.share_id, again.send) == (order.share_id, order.send)
    assert report(made, 1, order.share_id) == []
    (asked,) = report(made, BORROWER)
    assert asked.send == TEMPERATURE, "nobody asks for what a node has no sensor for, nor what says nothing"
    airtime = [each for each in made.on_air if each.purpose == "lending"]
    assert airtime and all(not each.multicast for each in airtime)


def test_survey_pairing_and_the_lent_day() -> None:
    made = cell()
    follows = surveyed(made)
    (paired,) = made.told("borrowing_paired")
    assert paired.data["quantity"] == "humidity" and paired.data["node"] == "node-0"
    borrowers, lenders = made.core.borrowing.parties()
    assert borrowers == {dev_eui(BORROWER)} and len(lenders) == 2
    assert follows[BORROWER] > 0
    (lent,) = request(made, age=18 + 144)
    assert lent.humidity is not None and lent.temperature is not None and lent.rainy is None
    assert lent.hours == ALL_HOURS
    assert 18 + 144 <= lent.age <= 18 + 145, "counted to the start of the frame that goes down"
    assert made.told("readings_lent")
    assert request(made, age=0) == [], "today's is not there yet"
    assert made.told("readings_not_there")
    # The order is renewed before it ends, and the lenders' too.
    made.run_until(made.now_us + (made.config.borrowing.lease_days - 6) * DAY_US)
    (renewed,) = report(made, BORROWER, follows[BORROWER])
    assert renewed.use == 1 and renewed.share_id != follows[BORROWER]
    assert renewed.days == made.config.borrowing.lease_days


def compared(
    made: Cell, days: int, flatters: int, restart_on: tuple[int, ...] = (), lost_on: tuple[int, ...] = ()
) -> list[dict[int, int]]:
    """Days on which nodes do as they are ordered; what each sends, day by day.

    Node 1 has the borrower's temperatures for the first `flatters` days and then others, node 2 nearly those
    all the time, node 3 others.  Node 1's frames are lost on some days.
    """
    off = {0: 0, 1: 1, 2: 2, 3: 9}
    follows, sends, told = dict.fromkeys(range(4), 0), dict.fromkeys(range(4), 0), []
    for number in range(days):
        for node in range(4):
            for order in report(made, node, follows[node]):
                follows[node] = order.share_id if order.days else 0
                sends[node] = order.send if order.days else 0
            if sends[node] & TEMPERATURE and not (node == 1 and number in lost_on):
                rough = 12 if node == 1 and number > flatters else off[node]
                weather = [90 + 6 * (hour * (number + 3) // 5 % 5) for hour in range(24)]
                warm = [value + rough * (hour // 3 % 2) for hour, value in enumerate(weather)]
                humid = series([60 + hour for hour in range(24)], 0) if sends[node] & HUMIDITY else None
                day = app.Readings(18, ALL_HOURS, None, None, humid, series(warm, 0))
                made.uplink(node, PORT, app.encode(day))
        told.append(dict(sends))
        if number in restart_on:
            made.restart()
        made.run_until((made.now_us // DAY_US + 1) * DAY_US + 3 * HOUR_US)
    return told


@pytest.mark.parametrize("restart_on", [(), (5, 9)])
def test_a_neighbour_that_a_week_flattered_is_left_for_the_better_one(restart_on: tuple[int, ...]) -> None:
    """Goal: lenders are chosen again, for temperatures alone.  Method: one that is like it at first only."""
    made = cell(lenders=1, compare_days=10)
    told = compared(made, 14, SURVEY + 1, restart_on)
    chosen = [str(event.data["lender"]) for event in made.told("borrowing_paired")]
    assert chosen == [dev_eui(1), dev_eui(2)]
    assert told[SURVEY + 4] == {0: TEMPERATURE, 1: HUMIDITY | TEMPERATURE, 2: TEMPERATURE, 3: TEMPERATURE}
    assert told[-1] == {0: 0, 1: 0, 2: HUMIDITY | TEMPERATURE, 3: 0}, "it ends"
    assert made.core.borrowing.parties()[1] == {dev_eui(2)}


def test_one_more_lends_where_frames_get_lost() -> None:
    """Goal: few days without a loan.  Method: its lender loses none, one of ten, every other; restarts."""
    for lost_on, sends in (((), 0), ((9, 19), 0), (tuple(range(6, 24, 2)), HUMIDITY | TEMPERATURE)):
        made = cell(lenders=1, compare_days=0)
        told = compared(made, 24, 99, (22,), lost_on)
        assert told[-1] == {0: 0, 1: HUMIDITY | TEMPERATURE, 2: sends, 3: 0}
        lenders = {dev_eui(1), dev_eui(2)} if sends else {dev_eui(1)}
        assert made.core.borrowing.parties()[1] == lenders


def test_without_a_comparison_the_survey_decides() -> None:
    made = cell(lenders=1, compare_days=0)
    told = compared(made, 14, SURVEY + 1)
    assert [event.data["lender"] for event in made.told("borrowing_paired")] == [dev_eui(1)]
    assert told[-1] == {0: 0, 1: HUMIDITY | TEMPERATURE, 2: 0, 3: 0}


def test_a_loan_that_runs_is_not_judged_by_a_later_survey_before_its_comparison() -> None:
    """Goal: 3 days do not undo what 10 chose.  Method: node 1 is alike again as the second survey begins."""
    made = cell(lenders=1, compare_days=10, survey_every_days=20)
    compared(made, 20, SURVEY + 1)
    compared(made, SURVEY + 4, 99)
    assert [event.data["lender"] for event in made.told("borrowing_paired")] == [dev_eui(1), dev_eui(2)]


def test_where_a_lenders_frame_was_lost_the_next_one_that_lends_steps_in() -> None:
    """Goal: a lost frame costs no day.  Method: nothing of its lender, but of another node."""
    made = cell(lenders=1)
    surveyed(made)
    lender = next(iter(made.core.borrowing.parties()[1]))
    other = next(node for node in (1, 2, 3) if dev_eui(node) != lender)
    made.run_until(made.now_us + DAY_US)
    made.uplink(other, PORT, app.encode(app.Readings(18, ALL_HOURS, None, None, None, series([95] * 24, 0))))
    assert request(made) == [], "temperatures alone are no loan"
    made.uplink(other, PORT, day_of(other, 9))
    (lent,) = request(made)
    assert lent.humidity is not None and lent.hours == ALL_HOURS


def test_a_restart_keeps_orders_days_and_pairs() -> None:
    made = cell()
    follows = surveyed(made)
    before = request(made, age=18 + 144)
    made.restart()
    assert made.core.borrowing.parties()[0] == {dev_eui(BORROWER)}
    assert request(made, age=18 + 144) == before
    assert report(made, BORROWER, follows[BORROWER]) == [], "nothing is ordered twice"


def test_labels_end_a_loan() -> None:
    made = cell()
    surveyed(made)
    assert request(made, 18 + 144, told=(9, 6, 5)) != [], "one day is chance"
    assert request(made, 18 + 144, told=(9, 7, 5)) == []
    (refused,) = made.told("borrowing_refused")
    assert "right on 7, with the neighbour's on 5" in str(refused.data["reason"])
    assert made.core.borrowing.parties()[0] == frozenset()
    (order,) = report(made, BORROWER, 1)
    assert order.days == 0


def test_readings_that_nobody_asked_for_change_nothing_and_a_flood_is_bounded() -> None:
    made = cell()
    made.uplink(2, PORT, day_of(2, 1))
    assert [event.data["dev_eui"] for event in made.told("readings_unasked")] == [dev_eui(2)]
    assert "reading" not in made.rows
    report(made, 2)
    for number in range(3 * KEPT_DAYS):
        made.uplink(2, PORT, day_of(2, number, age=(37 * number) % 256))
        made.run_until(made.now_us + DAY_US)
    assert len(made.rows["reading"]) <= KEPT_DAYS
    made.restart()
    report(made, 2)


def test_a_removed_node_leaves_nothing() -> None:
    made = cell()
    surveyed(made)
    lender = sorted(made.core.borrowing.parties()[1])[0]
    assert made.command(RemoveNode(lender)) is None
    assert lender not in made.rows["sharing"]
    assert not any(row["dev_eui"] == lender for row in made.rows["reading"].values())
    assert request(made, age=18 + 144) != [], "the other lender still lends"


@pytest.mark.parametrize("left_by", ["", "an earlier daemon"])
def test_a_lender_of_rain_is_removed(left_by: str) -> None:
    """Goal: its borrower reports and is served as before, whoever removed the node."""
    made = cell()
    follows = surveyed(made, NO_HUMIDITY | NO_RAIN)
    lenders = str(made.rows["sharing"][dev_eui(BORROWER)]["rain_from"]).split()
    assert len(lenders) > 1
    before = dict(made.rows["sharing"][dev_eui(BORROWER)])
    for lender in lenders:
        assert made.command(RemoveNode(lender)) is None
        assert lender not in str(made.rows["sharing"][dev_eui(BORROWER)])
    if left_by:
        made.rows["sharing"][dev_eui(BORROWER)] = before
        made.restart()
    assert request(made, age=18 + 144) == []
    report(made, BORROWER, follows[BORROWER], NO_HUMIDITY | NO_RAIN)
    assert made.core.borrowing.parties() == (frozenset(), frozenset())


def test_nothing_happens_while_it_is_off() -> None:
    made = Cell(config=settings(mode="none", dedup_us=0))
    assert report(made, BORROWER) == [] and request(made) == []
    made.uplink(1, PORT, day_of(1, 1))
    assert "sharing" not in made.rows and "reading" not in made.rows
    assert not [each for each in made.on_air if each.purpose == "lending"]


def test_the_database_gives_back_what_the_core_stored(tmp_path: Path) -> None:
    made = cell()
    surveyed(made)
    store = SqliteStore(tmp_path)
    tables = ("sharing", "reading")
    store.commit([Store(name, key, row) for name in tables for key, row in made.rows[name].items()])
    store.close()
    kept = SqliteStore(tmp_path).load()
    rows = {**made.rows, **{name: kept[name] for name in tables}}
    again = Coordinator(made.config, rows, MODEL)
    assert again.borrowing.parties() == made.core.borrowing.parties()
    damaged = {**rows, "sharing": {"x": {**next(iter(kept["sharing"].values())), "until_us": "soon"}}}
    with pytest.raises(ValueError, match="until_us"):
        Coordinator(made.config, damaged, MODEL)


def test_a_noon_is_a_day_whatever_the_minute() -> None:
    """Goal: days of nodes whose clocks differ by minutes are one day.  Method: noon at midnight UTC."""
    made = cell()
    for node in (1, 2, 3):
        report(made, node)
    noon_us = (made.now_us // DAY_US) * DAY_US
    for node, at_us in ((1, noon_us + HOUR_US * 5), (2, noon_us + HOUR_US * 6 + 599_000_000)):
        made.run_until(at_us)
        made.uplink(node, PORT, day_of(node, 1, age=(made.now_us - noon_us) // AGE_STEP_US))
    assert len({row["day"] for row in made.rows["reading"].values()}) == 1

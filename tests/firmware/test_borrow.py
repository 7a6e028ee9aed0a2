"""Lending between two C nodes: what is sent, where it is put, and that a lent day judges like an own one."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from swarm.effects import Malformed
from swarm.model.container import random_model
from swarm.node import HUMIDITY_MISSING, NO_HUMIDITY_SENSOR, NO_RAIN_SENSOR, NodeConfig, Nodes
from swarm.prng import Prng
from swarm.wire import app
from swarm.wire import readings as wire
from swarm.wire.readings import HUMIDITY, RAIN, TEMPERATURE, USE_HUMIDITY, USE_RAIN

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
IMAGE = random_model(1, contexts=range(4))
LENDER, BORROWER = 0, 1
PORT = app.F_PORT_STATUS


def pair(context: int, flags: int = NO_HUMIDITY_SENSOR) -> Nodes:
    """A sound node and one that lacks something, of one crop."""
    return Nodes(
        2,
        [NodeConfig(0, context, seed=1), NodeConfig(1, context, flags=flags, seed=2)],
        IMAGE,
    )


def weather(days: int, seed: int = 3) -> tuple[NDArray[np.int16], NDArray[np.uint8], NDArray[np.uint16]]:
    """Humid and dry spells whose values a frame carries without loss: whole degrees, steps of 2 %."""
    rng = Prng(seed).child("borrow").numpy()
    hours = 24 * days
    humid = np.cumsum(rng.normal(0, 5, hours)) + 15 * np.sin(np.arange(hours) / 24 * 2 * np.pi)
    humidity = np.clip(88 + humid - np.linspace(0, humid[-1], hours), 20, 100) // 2 * 4
    temperature = (17 + rng.integers(-4, 5, hours)) * 100
    rain = np.where(rng.random(hours) < 0.06, 5, 0)
    return temperature.astype(np.int16), humidity.astype(np.uint8), rain.astype(np.uint16)


def share(**fields: int) -> bytes:
    rest = {"share_id": 1, "send": 0, "use": 0, "offset_half": 0, "days": 30}
    return app.encode(app.Share(**{**rest, **fields}))


def sense(nodes: Nodes, series: tuple[NDArray[np.generic], ...], hour: int) -> None:
    both = [np.repeat(values[hour], 2) for values in series]
    nodes.sense((hour + 1) * HOUR_US, *both, (hour + 13) % 24)


def sent_until(nodes: Nodes, now_us: int, until_us: int) -> list[tuple[int, int, app.UplinkMessage]]:
    """(node, when, message) of all that both send in that time but for STATUS."""
    found = []
    following = nodes.poll(now_us)
    while following.min() <= until_us:
        at_us, index = int(following.min()), int(following.argmin())
        following[index] = nodes.poll_one(index, at_us)
        for sender, f_port, payload in nodes.outbox():
            message = app.decode_uplink(f_port, payload)
            assert not isinstance(message, Malformed)
            if not isinstance(message, app.Status):
                found.append((sender, at_us, message))
    return found


def aged(message: app.Readings, noon_us: int, now_us: int) -> bytes:
    """What a gateway makes of a lender's day for a borrower."""
    rest = (message.hours, message.rainy, message.rain_tenth, message.humidity, message.temperature)
    return app.encode(app.Readings((now_us - noon_us) // wire.AGE_STEP_US, *rest))


@pytest.mark.parametrize("context", range(4))
def test_a_day_that_comes_late_judges_like_one_that_was_sensed(context: int) -> None:
    """Goal: hours find their place, spells run again.  Method: equal weather, lent hours after noon."""
    days = 12
    series = weather(days)
    nodes = pair(context)
    nodes.rx(LENDER, 0, PORT, share(send=HUMIDITY | TEMPERATURE))
    nodes.rx(BORROWER, 0, PORT, share(use=USE_HUMIDITY))
    differed = 0
    for hour in range(24 * days):
        sense(nodes, series, hour)
        now_us = (hour + 1) * HOUR_US
        if (hour + 1) % 24:
            continue
        differed += int(nodes.verdicts()[0][BORROWER] != nodes.verdicts()[0][LENDER])
        sent = sent_until(nodes, now_us, now_us + 3 * HOUR_US - 1)
        (lent,) = [message for node, _, message in sent if node == LENDER]
        assert isinstance(lent, app.Readings)
        assert len(app.encode(lent)) <= wire.READINGS_SIZE_MAX
        assert [type(message) for node, _, message in sent if node == BORROWER] == [app.ReadingsRequest]
        nodes.rx(BORROWER, now_us + 3 * HOUR_US - 1, PORT, aged(lent, now_us, now_us + 3 * HOUR_US - 1))
        x = nodes.day_features()[1]
        assert nodes.verdicts()[1][BORROWER] == nodes.verdicts()[0][LENDER]
        assert (x[BORROWER] == x[LENDER]).all()
    assert differed > 0 or context == 3, "without the loan the rule would have judged otherwise"


def test_hours_of_the_night_before_last_go_where_they_belong() -> None:
    """Goal: a frame a day late still counts.  Method: lend yesterday's day only after today's noon."""
    series = weather(6)
    nodes = pair(0)
    nodes.rx(BORROWER, 0, PORT, share(use=USE_HUMIDITY))
    nodes.rx(LENDER, 0, PORT, share(send=HUMIDITY))
    kept: list[app.Readings] = []
    for hour in range(24 * 6):
        sense(nodes, series, hour)
        if (hour + 1) % 24 == 0:
            now_us = (hour + 1) * HOUR_US
            sent = sent_until(nodes, now_us, now_us + 2 * HOUR_US)
            kept += [message for node, _, message in sent if isinstance(message, app.Readings)]
    now_us = 24 * 6 * HOUR_US + HOUR_US // 2
    nodes.rx(BORROWER, now_us, PORT, aged(kept[-2], now_us - DAY_US - HOUR_US // 2, now_us))
    after = nodes.day_features()[1]
    assert (after[BORROWER][16:24] == after[LENDER][16:24]).all(), "humidity of the older day"
    assert (after[BORROWER][24:32] == after[BORROWER][23]).all(), "the day itself is still without"
    nodes.rx(BORROWER, now_us, PORT, aged(kept[-3], now_us - 255 * wire.AGE_STEP_US, now_us))
    assert (nodes.day_features()[1][BORROWER] == after[BORROWER]).all(), "too old: nothing is moved"


def test_missing_hours_stay_missing_and_own_readings_stay_own() -> None:
    """Goal: a loan fills holes only.  Method: the borrower's sensor is dead in half of the hours."""
    series = weather(4)
    nodes = pair(1, flags=0)
    nodes.rx(BORROWER, 0, PORT, share(use=USE_HUMIDITY))
    nodes.rx(LENDER, 0, PORT, share(send=HUMIDITY))
    temperature, humidity, rain = series
    for hour in range(24 * 4):
        own = 40 if hour % 2 else HUMIDITY_MISSING
        lenders = HUMIDITY_MISSING if hour % 24 < 6 else int(humidity[hour])
        nodes.sense(
            (hour + 1) * HOUR_US,
            np.repeat(temperature[hour], 2),
            np.array([lenders, own], np.uint8),
            np.repeat(rain[hour], 2),
            (hour + 13) % 24,
        )
    now_us = 24 * 4 * HOUR_US
    (lent,) = [
        m for _, _, m in sent_until(nodes, now_us, now_us + 2 * HOUR_US) if isinstance(m, app.Readings)
    ]
    assert lent.hours == 0xFFFFC0, "the lender's dead hours are not sent"
    nodes.rx(BORROWER, now_us + HOUR_US, PORT, aged(lent, now_us, now_us + HOUR_US))
    x = nodes.day_features()[1][BORROWER][24:32].astype(int)
    # Three hours a block, own ones 20 %: of hours 0..5 nothing is lent, later every other hour.
    own_blocks = [-60, -60]
    assert x[:2].tolist() == own_blocks
    for block in range(2, 8):
        hours = range(72 + 3 * block, 72 + 3 * block + 3)
        mean = sum(40 if hour % 2 else int(humidity[hour]) for hour in hours) / 3 - 100
        assert abs(x[block] - mean) <= 3


def test_rain_is_lent_and_an_offset_corrects_only_what_is_judged() -> None:
    """Goal: rain fills in; a correction changes the judged day, not what the node reports or lends."""
    series = weather(3)
    nodes = pair(1, flags=NO_RAIN_SENSOR)
    nodes.rx(LENDER, 0, PORT, share(send=HUMIDITY | RAIN, use=0, offset_half=-20))
    nodes.rx(BORROWER, 0, PORT, share(use=USE_RAIN))
    for hour in range(72):
        sense(nodes, series, hour)
    now_us = 72 * HOUR_US
    (lent,) = [
        m for _, _, m in sent_until(nodes, now_us, now_us + 2 * HOUR_US) if isinstance(m, app.Readings)
    ]
    assert lent.rainy == sum(1 << hour for hour in range(24) if series[2][48 + hour])
    assert lent.humidity is not None
    first = min(lent.humidity.values[0] << lent.humidity.step, 100)
    assert abs(first - int(series[1][48]) / 2) <= 1, "raw, not corrected"
    nodes.rx(BORROWER, now_us + HOUR_US, PORT, aged(lent, now_us, now_us + HOUR_US))
    x = nodes.day_features()[1]
    assert x[BORROWER][55] == 0, "a lent day is half of the window: no longer missing"
    wet = x[BORROWER][53] // 5
    humid_or_rain = (series[1][48:] >= 180) | (series[2][48:] > 0)
    assert wet == humid_or_rain.sum()
    assert x[LENDER][53] // 5 == ((series[1][48:] >= 200) | (series[2][48:] > 0)).sum()


def test_orders_end_by_themselves_and_the_status_names_the_one_in_force() -> None:
    """Goal: nothing goes on when the gateway is gone.  Method: a lease of three noons, six days."""
    series = weather(6)
    nodes = pair(0)
    nodes.rx(LENDER, 0, PORT, share(share_id=9, send=HUMIDITY, days=3))
    assert nodes.sharing.tolist() == [9, 0]
    days = []
    ids = []
    following = nodes.poll(0)
    for hour in range(24 * 6):
        sense(nodes, series, hour)
        now_us = (hour + 1) * HOUR_US
        following = nodes.poll(now_us)
        while following.min() < now_us + HOUR_US:
            index = int(following.argmin())
            following[index] = nodes.poll_one(index, int(following[index]))
        for node, f_port, payload in nodes.outbox():
            message = app.decode_uplink(f_port, payload)
            if isinstance(message, app.Readings):
                days.append((hour - 2) // 24)
            elif node == LENDER and isinstance(message, app.Status):
                ids.append(message.flags >> 4)
    assert days == [0, 1, 2]
    assert ids[0] == 9 and ids[-1] == 0
    nodes.rx(LENDER, 24 * 6 * HOUR_US, PORT, share(share_id=10, send=HUMIDITY))
    nodes.rx(LENDER, 24 * 6 * HOUR_US, PORT, share(share_id=11, days=0))
    assert nodes.sharing.tolist() == [0, 0]


def test_a_borrower_asks_again_a_bounded_number_of_times_and_stops_when_served() -> None:
    series = weather(3)
    nodes = pair(2)
    nodes.rx(BORROWER, 0, PORT, share(use=USE_HUMIDITY))
    nodes.rx(LENDER, 0, PORT, share(send=HUMIDITY))
    for hour in range(48):
        sense(nodes, series, hour)
    now_us = 48 * HOUR_US
    sent = sent_until(nodes, now_us, now_us + 23 * HOUR_US)
    asked = [at_us for _, at_us, message in sent if isinstance(message, app.ReadingsRequest)]
    assert len(asked) == 6
    assert all(b - a >= 2 * HOUR_US for a, b in pairwise(asked))
    sense(nodes, series, 48)
    for hour in range(49, 72):
        sense(nodes, series, hour)
    now_us = 72 * HOUR_US
    sent = sent_until(nodes, now_us, now_us + 2 * HOUR_US - 1)
    (lent,) = [message for _, _, message in sent if isinstance(message, app.Readings)]
    nodes.rx(BORROWER, now_us + 2 * HOUR_US - 1, PORT, aged(lent, now_us, now_us + 2 * HOUR_US - 1))
    assert sent_until(nodes, now_us + 2 * HOUR_US, now_us + 20 * HOUR_US) == []


def test_labels_bring_the_node_back_to_its_own_readings() -> None:
    """Goal: refusal where it does not help.  Method: a wrong correction, labels that say so."""
    days = 24
    temperature, humidity, rain = weather(days, seed=8)
    nodes = pair(1, flags=0)
    nodes.rx(BORROWER, 0, PORT, share(offset_half=127))  # hardly an hour stays dry
    told = 0
    for hour in range(24 * days):
        sense(nodes, (temperature, humidity // 2, rain), hour)
        if (hour + 1) % 24 == 0 and hour > 48:
            own, judged = nodes.verdicts()
            told += int(own[BORROWER] != judged[BORROWER])
            nodes.label(hour // 24, own)
    assert told >= 2, "the correction was wrong on these days"
    own, judged = nodes.verdicts()
    assert own[BORROWER] == judged[BORROWER]
    assert (nodes.day_features()[1][BORROWER] == nodes.day_features()[1][LENDER]).all()

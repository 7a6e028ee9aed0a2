"""A whole fleet is switched on within minutes, or at once: back-off spreads its join requests, and everybody
joins."""

from __future__ import annotations

import heapq
from bisect import bisect_left

from swarm.config import SwarmConfig
from swarm.mac.device import EndDevice, Joined, OtaaIdentity, UplinkFrame
from swarm.prng import Prng
from tests.swarm.cell import SECOND_US, START_US, Cell, add_node, air_is_legal, dev_eui, key

SPREAD_US = 300 * SECOND_US


def storm(nodes: int, spread_us: int, data_rate: int = 5) -> tuple[list[float], list[float], Cell]:
    """When (s) each node asked and when each had joined.  Frames on one channel at one time destroy each
    other."""
    cell = Cell(SwarmConfig(dedup_us=0), nodes=0)
    waiting: list[tuple[int, int]] = []
    devices = []
    for index in range(nodes):
        assert cell.command(add_node(index, "otaa")) is None
        who = OtaaIdentity(dev_eui(index), "70b3d57ed0ffffff", key(5, index))
        devices.append(EndDevice(cell.region, who, Prng(11).child(f"{index}"), data_rate=data_rate))
        waiting.append((START_US + (devices[-1]._draw(spread_us) if spread_us else 0), index))
    asked: list[UplinkFrame] = []
    asks, joined = [], []
    on_air: list[tuple[int, int, UplinkFrame]] = []
    heapq.heapify(waiting)
    while waiting or on_air:
        if waiting and (not on_air or waiting[0][0] <= on_air[0][0]):
            now_us, index = heapq.heappop(waiting)
            frame = devices[index].join(now_us)
            asked.append(frame)
            asks.append((frame.at_us - START_US) / SECOND_US)
            heapq.heappush(on_air, (frame.end_us, index, frame))
            continue
        end_us, index, frame = heapq.heappop(on_air)
        cell.run_until(end_us)
        clear = not any(
            other is not frame
            and other.frequency_hz == frame.frequency_hz
            and other.at_us < frame.end_us
            and frame.at_us < other.end_us
            for other in asked[-400:]
        )
        before = len(cell.on_air)
        if clear:
            cell.hear(frame.payload, frame)
        result = None
        for transmit in cell.on_air[before:]:
            result = devices[index].receive(transmit.at_us + transmit.airtime_us, transmit.payload)
        if isinstance(result, Joined):
            joined.append((end_us - START_US) / SECOND_US)
        else:
            heapq.heappush(waiting, (devices[index].rx_windows(frame)[1].open_us + SECOND_US, index))
    return sorted(asks), sorted(joined), cell


def busiest(times: list[float], width_s: float) -> int:
    """The most of these times in any stretch of that length."""
    return max(bisect_left(times, start + width_s) - place for place, start in enumerate(times))


def test_three_hundred_nodes_that_wake_together_all_join() -> None:
    """Goal: a power cut is over in minutes, without a storm.  Method: 300 devices wake within five."""
    asks, joined, cell = storm(300, SPREAD_US)
    assert len(joined) == 300
    assert busiest(asks, 1.0) <= 8 and busiest(joined, 1.0) <= 8
    assert joined[269] < 600 and joined[-1] < 1200 and len(asks) < 2 * 300
    air_is_legal(cell)


def test_without_a_spread_the_first_second_is_lost() -> None:
    asks, joined, _ = storm(100, 0)
    assert busiest(asks, 1.0) == 100 and len(joined) == 100 and joined[0] > 5


def test_a_thousand_nodes_join_within_the_law() -> None:
    """Goal: what holds a large fleet up is the gateway's duty cycle (500 accepts an hour in RX1, 197 in RX2).

    Method: the same with 1000 devices; requests without an answer back off, so they do not pile up.
    """
    asks, joined, cell = storm(1000, SPREAD_US)
    assert len(joined) == 1000 and joined[499] < 600 and joined[-1] < 7200
    assert busiest(asks, 1.0) <= 40 and len(asks) < 8 * 1000
    late = [at_s for at_s in asks if at_s > 1200]
    assert busiest(late, 60.0) <= 300
    air_is_legal(cell)

"""Whoever reaches the UDP port may call himself any number of gateways; what that does not bring him."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swarm import gateways
from swarm.config import Multicast
from swarm.effects import Store
from swarm.mac.device import UplinkFrame
from tests.swarm.cell import (
    GATEWAY,
    GATEWAY_2,
    SECOND_US,
    Cell,
    air_is_legal,
    counters_never_repeat,
    dev_eui,
    open_round,
    settings,
    status,
)

WEEK_S = 7 * 86_400


def stranger(number: int) -> str:
    return f"bb{number:014x}"


def replay(cell: Cell, frame: UplinkFrame, times: int, gateways: int = 16) -> None:
    """The bytes of `frame` again, each time under as many names that nobody has heard of."""
    for turn in range(times):
        names = [stranger(turn * gateways + number) for number in range(gateways)]
        cell.hear(frame.payload, frame, gateways=names)
        cell.run_for(3)


def test_a_recorded_frame_makes_nobody_a_gateway() -> None:
    """The last frame of a node is taken as its retransmission, but proves nothing about who brings it."""
    cell = Cell()
    frame = cell.uplink(0, 12, status(), confirmed=True)
    cell.run_for(10)
    seen = dict(cell.rows["status"][dev_eui(0)])
    sent = len(cell.on_air)
    replay(cell, frame, times=6)
    assert list(cell.rows["gateway"]) == [GATEWAY]
    assert cell.rows["status"][dev_eui(0)] == seen, "nor does it make a silent node look alive"
    assert len(cell.on_air) == sent, "nor is it answered through strangers"
    open_round(cell)
    assert {t.gateway_id for t in cell.on_air} == {GATEWAY}
    cell.gateways = (GATEWAY_2,)
    cell.uplink(1, 12, status(), confirmed=True)
    assert cell.on_air[-1].gateway_id == GATEWAY_2, "a real second gateway finds its place"
    assert set(cell.rows["gateway"]) == {GATEWAY, GATEWAY_2}


def test_copies_of_a_new_frame_prove_nothing_either() -> None:
    """Fifteen strangers repeat at once what the gateway brings, with a better signal."""
    cell = Cell()
    cell.uplink(0, 12, status())
    names = [stranger(number) for number in range(15)]
    frame = cell.devices[1].uplink(cell.now_us, 12, status(), True)
    cell.run_until(frame.end_us)
    cell.hear(frame.payload, frame)
    for _ in range(2):
        cell.hear(frame.payload, replace(frame), gateways=names)
    cell.run_for(5)
    assert list(cell.rows["gateway"]) == [GATEWAY]
    assert {t.gateway_id for t in cell.on_air} == {GATEWAY}


def test_one_new_frame_proves_one_gateway_at_most() -> None:
    """A frame that only strangers heard: the first of them counts as a gateway from now on."""
    cell = Cell()
    cell.uplink(0, 12, status())
    frame = cell.devices[1].uplink(cell.now_us, 12, status())
    cell.run_until(frame.end_us)
    cell.hear(frame.payload, frame, gateways=[stranger(number) for number in range(16)])
    cell.run_for(5)
    assert set(cell.rows["gateway"]) == {GATEWAY, stranger(0)}


def test_a_proof_lasts_a_week_of_the_cell() -> None:
    """A table full of names that once brought a frame each gives way to a real gateway after a week; a winter
    in which nobody is heard ages none."""
    cell = Cell(config=settings("none"), nodes=1)
    for number in range(64):
        cell.gateways = (stranger(number),)
        cell.uplink(0, 12, status())
        cell.run_for(60)
    cell.perform(cell.core.on_gateway(cell.now_us, GATEWAY))
    assert GATEWAY not in cell.core.downlinks.gateways() and cell.dropped()[-1] == "too_many_gateways"
    cell.now_us += 10 * WEEK_S * SECOND_US
    assert cell.core.downlinks.genuine(stranger(0))
    cell.gateways = (stranger(63),)
    cell.uplink(0, 12, status())
    assert not cell.core.downlinks.genuine(stranger(0))
    cell.perform(cell.core.on_gateway(cell.now_us, GATEWAY))
    assert GATEWAY in cell.core.downlinks.gateways()
    assert len(cell.rows["gateway"]) == 63, "the row of the one that gave way is gone"
    cell.gateways = (GATEWAY,)
    cell.uplink(0, 12, status())
    cell.restart()
    assert [g for g in cell.rows["gateway"] if cell.core.downlinks.genuine(g)] == [stranger(63), GATEWAY]


@pytest.mark.parametrize("evicted", [False, True])
def test_a_forgotten_gateway_still_owes_its_airtime(evicted: bool) -> None:
    """A gateway that never brought a frame loses its place to strangers twice, and takes it again."""
    config = settings(period_s=120, close_s=100, spread_s=20, window_s=100)
    cell = Cell(config=replace(config, multicast=Multicast(data_rate=0, repeats=10)))
    start_us = cell.now_us
    for turn in range(350):
        cell.run_for(10)
        cell.keep_alive()
        if evicted and turn in (180, 260):
            for number in range(64):
                cell.perform(cell.core.on_gateway(cell.now_us + number, stranger(turn * 64 + number)))
            assert GATEWAY not in cell.core.downlinks.gateways()
            if turn == 260:
                cell.restart()
            cell.now_us += SECOND_US
            cell.keep_alive()
    spent_us = sum(t.airtime_us for t in cell.on_air if t.gateway_id == GATEWAY and t.at_us >= start_us)
    assert spent_us > 300_000_000, "the law is what holds it back"
    air_is_legal(cell)
    counters_never_repeat(cell.on_air)


def test_what_forgotten_gateways_owe_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where neither table has room, newcomers are refused for as long as an hour is remembered."""
    monkeypatch.setattr(gateways, "ASIDE_MAX", 2)
    monkeypatch.setattr(gateways, "GATEWAYS_MAX", 2)
    cell = Cell(config=settings("none"), gateways=())
    for number in range(6):
        frame = cell.devices[0].uplink(cell.now_us, 12, status(), True)
        cell.run_until(frame.end_us)
        cell.core.downlinks._newest_proof_us += 2 * WEEK_S * SECOND_US
        cell.hear(frame.payload, frame, gateways=[stranger(number)])
        cell.core.downlinks._newest_proof_us += 2 * WEEK_S * SECOND_US
        cell.run_for(5)
    assert len(cell.core.downlinks.gateways()) == 2
    assert len({t.gateway_id for t in cell.on_air}) == 4
    assert "too_many_gateways" in cell.dropped()
    cell.run_for(3_700)
    cell.perform(cell.core.on_gateway(cell.now_us, GATEWAY))
    assert GATEWAY in cell.core.downlinks.gateways()


def test_frames_beyond_the_windows_are_counted() -> None:
    """A flood of junk within one window is in the counters to the last, and an honest frame survives it."""
    cell = Cell()
    cell.uplink(0, 12, status())
    honest = cell.devices[1].uplink(cell.now_us, 12, status())
    cell.run_until(honest.end_us)
    before = cell.core.counters["dropped"]
    junk = 5_000
    for number in range(junk):
        cell.hear(b"\x40" + number.to_bytes(12, "little"), honest, gateways=[stranger(number % 50)])
    cell.hear(honest.payload, honest)
    cell.run_for(1)
    assert cell.told("uplink")[-1].data["dev_eui"] == dev_eui(1)
    dropped = cell.core.counters["dropped"] - before
    assert dropped == junk
    assert cell.core.counters["dropped:overflow"] == junk - 4_096 + 1
    cell.run_for(0.1)
    cell.hear(honest.payload, honest, gateways=[GATEWAY_2])
    assert cell.core.counters["late_copies"] == 0, "so long after the window it is a retransmission"
    assert not [e for e in cell.effects if isinstance(e, Store) and e.key == GATEWAY_2]

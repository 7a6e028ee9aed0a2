"""What goes on the air: refusals, several gateways, strangers, and a duty cycle that is never exceeded."""

from __future__ import annotations

from itertools import pairwise

import pytest

from swarm.commands import OpenRound
from swarm.effects import Purpose, Transmit
from swarm.wire import app
from tests.swarm import cell as farm
from tests.swarm.cell import (
    GATEWAY,
    GATEWAY_2,
    SECOND_US,
    Cell,
    air_is_legal,
    counters_never_repeat,
    messages,
    open_round,
    signs,
    status,
)

# -- what radios refuse ------------------------------------------------------------------------------


def test_a_refused_answer_gives_its_airtime_back() -> None:
    cell = Cell(verdict=lambda transmit: "TX_FREQ")
    cell.uplink(0, 12, status(), confirmed=True)
    (failed,) = cell.told("tx_failed")
    assert failed.data["error"] == "TX_FREQ"
    assert cell.on_air == [] and len(cell.refused) == 1
    assert cell.core.downlinks.ledger(GATEWAY).spent_us(cell.now_us + 10 * SECOND_US) == {}
    assert cell.rows["airtime"] == {}


def test_silence_of_a_gateway_is_no_proof_that_it_did_not_send() -> None:
    cell = Cell(verdict=lambda transmit: "NO_TX_ACK")
    cell.uplink(0, 12, status(), confirmed=True)
    spent = cell.core.downlinks.ledger(GATEWAY).spent_us(cell.now_us + 10 * SECOND_US)
    assert sum(spent.values()) == cell.refused[0].airtime_us
    assert len(cell.rows["airtime"]) == 1


def test_refused_multicast_frames_are_sent_again_with_new_counters() -> None:
    tries: list[Transmit] = []

    def moody(transmit: Transmit) -> str | None:
        if transmit.multicast:
            tries.append(transmit)
        return "COLLISION_PACKET" if transmit.multicast and len(tries) in (1, 2, 4) else None

    cell = Cell(verdict=moody)
    open_round(cell)
    announced = [message for message in messages(cell.receive()[0]) if isinstance(message, app.RoundAnnounce)]
    assert len(announced) == 2, "both repeats arrived"
    assert len(tries) == 5
    counters_never_repeat([*cell.on_air, *cell.refused])
    air_is_legal(cell)


def test_a_gateway_that_refuses_everything_is_not_asked_for_ever() -> None:
    cell = Cell(verdict=lambda transmit: "TX_POWER")
    open_round(cell)
    assert 2 <= len(cell.refused) <= 8
    assert cell.core.downlinks.ledger(GATEWAY).spent_us(cell.now_us) == {}


# -- several gateways --------------------------------------------------------------------------------


def test_both_gateways_send_the_programme_one_after_the_other() -> None:
    cell = Cell(gateways=(GATEWAY, GATEWAY_2))
    open_round(cell)
    by_gateway = {gateway: [t for t in cell.on_air if t.gateway_id == gateway] for gateway in cell.gateways}
    assert [t.payload for t in by_gateway[GATEWAY]] == [t.payload for t in by_gateway[GATEWAY_2]]
    everything = sorted(cell.on_air, key=lambda t: t.at_us)
    for first, second in pairwise(everything):
        assert first.at_us + first.airtime_us <= second.at_us
    air_is_legal(cell)
    counters_never_repeat(cell.on_air)


def test_one_gateway_that_refuses_does_not_make_the_other_send_twice() -> None:
    cell = Cell(
        gateways=(GATEWAY, GATEWAY_2),
        verdict=lambda transmit: "TX_FREQ" if transmit.gateway_id == GATEWAY else None,
    )
    open_round(cell)
    assert len(cell.on_air) == 2 and all(t.gateway_id == GATEWAY_2 for t in cell.on_air)


@pytest.mark.parametrize("tired", [GATEWAY, GATEWAY_2])
def test_a_gateway_without_airtime_does_not_hold_up_the_other(tired: str) -> None:
    cell = Cell(gateways=(GATEWAY, GATEWAY_2))
    ledger = cell.core.downlinks.ledger(tired)
    ledger.grant(cell.now_us, 869_525_000, 125_000, 359_950_000, Purpose.MODEL)
    cell.run_for(400)
    open_round(cell)
    assert len(cell.on_air) == 2
    assert {t.gateway_id for t in cell.on_air} == {GATEWAY, GATEWAY_2} - {tired}


def test_strangers_cannot_take_the_place_of_a_gateway() -> None:
    """Anybody who reaches the port may call himself a gateway; only genuine frames prove one."""
    cell = Cell()
    cell.uplink(0, 12, status())
    for number in range(1000):
        cell.perform(cell.core.on_gateway(cell.now_us, f"{number:016x}"))
    assert len(cell.core.downlinks.gateways()) <= 64
    assert GATEWAY in cell.core.downlinks.gateways()
    open_round(cell)
    assert {t.gateway_id for t in cell.on_air} == {GATEWAY}


def test_a_new_gateway_finds_a_place_in_a_table_full_of_strangers() -> None:
    cell = Cell()
    for number in range(1000):
        cell.perform(cell.core.on_gateway(cell.now_us, f"{number:016x}"))
    cell.run_for(1)
    cell.gateways = (GATEWAY_2,)
    cell.uplink(0, 12, status(), confirmed=True)
    assert [t.gateway_id for t in cell.on_air] == [GATEWAY_2]
    open_round(cell)
    assert {t.gateway_id for t in cell.on_air} == {GATEWAY_2}


# -- duty cycle --------------------------------------------------------------------------------------


def test_an_exhausted_duty_cycle_makes_the_programme_wait_and_is_never_exceeded() -> None:
    """Somebody else's ballast leaves room for two frames in the hour; the rest waits until it is over."""
    cell = Cell(config=farm.settings("top_k_sign"))
    number = open_round(cell)
    for node in range(4):
        cell.uplink(node, 10, signs(node, number))
    budget_us = 360_000_000
    spent_us = sum(t.airtime_us for t in cell.on_air if t.multicast)
    ballast_us = budget_us - spent_us - 1_500_000
    ledger = cell.core.downlinks.ledger(GATEWAY)
    ballast = ledger.grant(cell.now_us, 869_525_000, 125_000, ballast_us, Purpose.TELEMETRY)
    cell.run_until(ballast.at_us + ballast_us)
    before = len(cell.on_air)
    assert cell.command(OpenRound()) is None
    cell.run_until(ballast.at_us + farm.HOUR_US - 300 * SECOND_US)
    at_once = len(cell.on_air) - before
    assert 1 <= at_once <= 3
    cell.run_for(900)
    programme = cell.on_air[before:]
    assert len(programme) > at_once + 4, "the programme went on"
    assert programme[at_once].at_us >= ballast.at_us + farm.HOUR_US - 300 * SECOND_US
    cell.on_air.append(
        Transmit(0, GATEWAY, b"", ballast.at_us, None, 869_525_000, 3, 14.0, ballast_us, Purpose.TELEMETRY)
    )
    air_is_legal(cell)


def test_confirmed_traffic_beyond_the_budget_is_refused_not_sent() -> None:
    """An hour of acknowledgements at SF12: the 1 % of the first window's band runs dry, then RX2's 10 %."""
    cell = Cell(nodes=40, config=farm.settings("none"))
    for device in cell.devices:
        device.data_rate = 0
    for turn in range(1000):
        node = turn % cell.nodes
        frame = cell.devices[node].uplink(cell.now_us, 12, status(), True)
        if frame.at_us > cell.now_us + 3 * SECOND_US:
            continue  # its own duty cycle makes it wait; another node may send
        cell.run_until(frame.end_us)
        cell.hear(frame.payload, frame)
        cell.run_for(1)
    bands = {cell.region.sub_band(t.frequency_hz).name for t in cell.on_air}
    assert len(bands) >= 3, "both bands of the uplink channels, and RX2's"
    refusals = [str(event.data["error"]) for event in cell.told("tx_failed")]
    assert "rx1 duty_cycle, rx2 duty_cycle" in refusals
    air_is_legal(cell)

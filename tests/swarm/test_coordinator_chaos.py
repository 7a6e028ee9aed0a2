"""Random days of a cell: moody radios, gateways that come and go, restarts, questions, rounds, slow rates.

Whatever happens, the air stays legal by an independent count (frames of unknown fate included), frames of one
gateway never overlap, no counter comes twice, and everything is stored before it is sent.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from swarm.commands import OpenRound
from swarm.config import Multicast
from swarm.effects import Transmit
from swarm.inference.plan import Query
from swarm.mac.device import UplinkFrame
from tests.swarm import cell as farm
from tests.swarm.cell import (
    GATEWAY,
    GATEWAY_2,
    SECOND_US,
    Cell,
    air_is_legal,
    answer,
    counters_never_repeat,
    means,
    status,
    stored_before_sent,
)

STEPS = 250
NODES = 6
GATEWAY_3 = "aa555a0000000003"


def chaotic(seed: int) -> Cell:
    """A cell whose group and whose nodes use slow data rates, so that airtime is short."""
    draw = random.Random(seed)
    config = farm.settings(period_s=1800, close_s=1200, spread_s=300, dedup_us=draw.choice((0, 200_000)))
    config = replace(config, multicast=Multicast(data_rate=draw.choice((0, 2, 5)), repeats=2))
    unknown_fate: list[Transmit] = []

    def moody(transmit: Transmit) -> str | None:
        mood = draw.random()
        if mood < 0.75:
            return None
        if mood < 0.85:
            unknown_fate.append(transmit)
            return "NO_TX_ACK"
        return draw.choice(("TOO_LATE", "COLLISION_PACKET", "TX_FREQ"))

    cell = Cell(config=config, nodes=NODES, gateways=(GATEWAY, GATEWAY_2, GATEWAY_3), verdict=moody)
    for device in cell.devices:
        device.data_rate = draw.choice((0, 3, 5))
    for number in range(STEPS):
        _step(cell, draw, number)
    # A frame whose fate is not known may have been on the air: it counts.
    cell.on_air += unknown_fate
    return cell


def _step(cell: Cell, draw: random.Random, number: int) -> None:
    match draw.randrange(12):
        case 0:
            cell.restart()
        case 1:
            cell.command(OpenRound())
        case 2:
            kind = draw.choice((Query("place", plot="plot-0"), Query("node", dev_eui=farm.dev_eui(1))))
            cell.perform(cell.core.on_query(cell.now_us, kind))
        case 3:
            cell.gateways = draw.sample((GATEWAY, GATEWAY_2, GATEWAY_3), draw.randrange(1, 4))
        case 4 | 5:
            cell.run_for(draw.choice((0, 1, 10, 60, 400)))
        case _:
            _speak(cell, draw, number)


def _speak(cell: Cell, draw: random.Random, number: int) -> None:
    node = draw.randrange(cell.nodes)
    round_number = cell.core.rounds.last_round or 1
    f_port, payload = draw.choice(
        (
            (12, status(draw.choice((0, 4)))),
            (10, means(node, round_number, cell.core.rounds.version)),
            (11, answer(draw.randrange(1, number + 2), node)),
        )
    )
    device = cell.devices[node]
    if f_port == 10 and device.data_rate == 0:
        f_port, payload = 12, status()
    frame: UplinkFrame = device.uplink(cell.now_us, f_port, payload, draw.random() < 0.6)
    if frame.at_us > cell.now_us + 20 * SECOND_US:
        return  # its own duty cycle makes it wait: this one is lost
    cell.run_until(frame.end_us)
    cell.hear(frame.payload, frame)
    if draw.random() < 0.8:
        cell.run_for(cell.config.dedup_us / SECOND_US)


@pytest.mark.parametrize("seed", range(12))
def test_a_random_day(seed: int) -> None:
    cell = chaotic(seed)
    assert cell.restarts > 5 and len(cell.on_air) > 20
    air_is_legal(cell)
    counters_never_repeat([*cell.on_air, *cell.refused])
    stored_before_sent(cell.effects)
    alive = set(cell.core.downlinks.gateways())
    assert alive <= {GATEWAY, GATEWAY_2, GATEWAY_3}

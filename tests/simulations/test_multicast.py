"""A large block through the whole stack: the gateway's core, the air, the firmware's own receivers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simulations.scenario import Scenario, load
from simulations.world import World, run
from swarm.commands import SendBlock
from swarm.node import Nodes
from swarm.prng import Prng
from swarm.receiver import BlockState, Receivers
from swarm.registry import Refused
from swarm.wire import fragmentation as ts004

SECOND_US = 1_000_000
HOUR_US = 3600 * SECOND_US


def small(nodes: int = 50) -> Scenario:
    return load("multicast_1000").override(nodes=nodes)


def firmware(world: World) -> Nodes:
    return world.cell.nodes.firmware


def told(world: World) -> dict[str, Any]:
    delivered = world.delivered()
    assert delivered is not None
    return delivered


def test_fifty_nodes() -> None:
    """Goal: all have the block, each checked its signature, the gateway knows it, twice the same."""
    report = run(small())
    block = report.multicast
    assert block is not None
    assert (block["complete"], block["verified"], report.violations) == (50, 50, 0)
    assert 1 < block["airtime_ratio"] <= 1.5
    assert block["frames"]["piece"] == 423 and block["frames"]["offer"] >= 8
    assert run(small()).digest == report.digest


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_thousand_nodes(seed: int) -> None:
    """Goal: a fifth lost at a thousand nodes costs less than half of the block again; nobody is left out."""
    report = run("multicast_1000", seed=seed)
    block = report.multicast
    assert block is not None
    assert (block["complete"], block["verified"], report.violations) == (1000, 1000, 0)
    assert block["airtime_ratio"] <= 1.5
    assert report.cpu_s < 120


def test_the_gateway_restarts_in_the_middle() -> None:
    """Goal: pieces that were sent stay sent.  Method: the core is built again from its rows six times."""
    world = World(small(20))
    for minute in (121, 130, 150, 170, 200, 230):
        world.run_until(world.start_us + minute * 60 * SECOND_US)
        world.restart_gateway()
    world.run_until(world.end_us)
    world.finish()
    assert (told(world)["complete"], told(world)["verified"]) == (20, 20)
    assert told(world)["airtime_ratio"] < 1.5
    assert world.checkers.violations.explained == []


class Traitor:
    """Somebody who took a node apart and has the group's keys: what it says passes every node's MIC.

    It spares the group's counter; with that it could make nodes deaf, which is no matter of blocks.
    """

    def __init__(self, world: World) -> None:
        self.world = world

    def say(self, f_port: int, payload: bytes) -> None:
        nodes, now_us = self.world.cell.nodes, self.world.cell.now_us
        for node in range(self.world.scenario.nodes):
            local_us = nodes.local_us(node, now_us)
            nodes.firmware.rx(node, local_us, f_port, payload, multicast=True, snr_db=5)


def test_who_has_the_groups_key_installs_nothing() -> None:
    """Goal: a forged fragment costs a delivery, and nothing but what the gateway signed is ever taken.

    Method: one piece of the running session is replaced at all nodes; a whole block of the traitor's own is
    offered and sent; then the gateway sends its block again.
    """
    world = World(small(12))
    traitor = Traitor(world)
    receivers = Receivers(firmware(world))
    start_us = world.start_us + 2 * HOUR_US
    world.run_until(start_us + 200 * SECOND_US)
    job = world.coordinator.blocks.listing()[-1]
    assert job["state"] == "sends"
    for index in range(4):
        traitor.say(201, ts004.encode(ts004.DataFragment(index, 400, bytes(range(48))), 2))
    world.run_until(start_us + 4 * HOUR_US)
    (ended,) = (each for each in world.coordinator.blocks.listing() if each["state"] == "ended")
    assert ended["whole"] == 0
    assert set(receivers.states().tolist()) == {BlockState.FORGED}
    assert receivers.sizes().max() == 0
    refused = firmware(world).refused.copy()
    assert refused.min() >= 1

    block = Prng(1).child("evil").numpy().bytes(1000)
    pieces = -(-len(block) // 48)
    offer = (
        bytes((5, 3 | 1 << 5, pieces, 0, 48, pieces * 48 - len(block))) + b"evil" + bytes((0, 0, 99, 0, 0))
    )
    traitor.say(10, offer)
    assert set(receivers.states().tolist()) == {BlockState.RECEIVING}
    for n in range(1, pieces + 1):
        piece = block[48 * (n - 1) : 48 * n].ljust(48, b"\0")
        traitor.say(201, ts004.encode(ts004.DataFragment(3, n, piece), 2))
    assert set(receivers.states().tolist()) == {BlockState.FORGED}
    assert np.array_equal(firmware(world).refused, refused + 1)

    assert world.watch is not None
    again = SendBlock(world.coordinator.blocks.signed(world.watch.body))
    assert not isinstance(world.command(again), Refused)
    world.run_until(world.end_us)
    assert world.watch.check(world.cell.now_us, receivers) == 12
    assert receivers.block(0) == world.watch.body
    assert world.checkers.violations.explained == []

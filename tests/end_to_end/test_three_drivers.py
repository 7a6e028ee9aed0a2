"""One core, three drivers: virtual time, virtual time with restarts, asyncio over UDP - one model.

The rounds of the same scenario and seed are closed by the simulator's clock, by the simulator with its
gateway stopped and rebuilt from its rows in the middle of every round, and by the real daemon (SQLite,
UDP, a clock that runs faster) with the same nodes behind a simulated packet forwarder.  Every node's
update enters every round, so the aggregated models have to be equal to the bit.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path

from gateway.config import GatewayConfig
from gateway.daemon import Daemon
from simulations import live, provisioning
from simulations.scenario import Scenario, parse
from simulations.world import World
from swarm.commands import SetSigningKey
from swarm.security.signatures import SigningKey

ROUNDS = 2
SPEED = 12.0
SECOND_US = 1_000_000
SCENARIO = """
title = "eight nodes with a past, rounds of five minutes"
seed = 12
nodes = 8
days = 1
test_days = 1
radius_m = 800.0
first_listen_s = 900
[learning]
mode = "top_k_sign"
strategy = "FedAvg"
period_s = 300
spread_s = 180
close_s = 240
window_s = 120
[multicast]
data_rate = 5
repeats = 4
[queries]
per_day = 0.0
[hardship]
loss_probability = 0.0
shadowing_db = 0.0
channel_fading_db = 0.0
fading_db = 0.0
outages_per_day = 0.0
gateway_restarts = 0
[live]
history_days = 12
"""


def scenario() -> Scenario:
    return parse(SCENARIO, "three_drivers.toml", "three_drivers")


def closed(world: World) -> list[tuple[int, int, str]]:
    return [(row["round"], row["updates"], row["digest"]) for row in world.rounds]


def in_virtual_time(*, restarts: bool) -> list[tuple[int, int, str]]:
    world = World(scenario(), history_days=scenario().live.history_days)
    learning = scenario().learning
    for number in range(1, ROUNDS + 1):
        opened_us = world.start_us + number * learning.period_s * SECOND_US
        world.run_until(opened_us + learning.spread_s * SECOND_US // 2)
        if restarts:
            assert world.coordinator.rounds.current is not None, "the restart has to come in mid-round"
            world.restart_gateway()
        world.run_until(opened_us + (learning.close_s + 10) * SECOND_US)
    return closed(world)


async def over_udp(data_dir: Path) -> list[tuple[int, int, str]]:
    chosen = scenario()
    config = GatewayConfig.model_validate(
        {
            "gateway": {"data_dir": str(data_dir)},
            "udp": {"host": "127.0.0.1", "port": 0},
            "http": {"enabled": False},
            "learning": asdict(chosen.learning),
            "multicast": asdict(chosen.multicast),
            "lab": {"clock_speed": SPEED},
        }
    )
    daemon = Daemon(config)
    serving = asyncio.create_task(daemon.run())
    await daemon.started.wait()
    await daemon.command(SetSigningKey(SigningKey(provisioning.signing_seed(chosen))))
    await daemon.command(provisioning.group(chosen))
    for identity in provisioning.identities(chosen):
        await daemon.command(identity.add_node())
    assert daemon.udp_address is not None
    stop = asyncio.Event()
    with daemon.subscribe() as events:
        playing = asyncio.create_task(
            live.run(chosen, daemon.udp_address, speed=SPEED, say=lambda _: None, stop=stop)
        )
        rounds: list[tuple[int, int, str]] = []
        async with asyncio.timeout(200):
            while len(rounds) < ROUNDS:
                event = await events.get()
                if event.kind == "round_closed":
                    data = dict(event.data)
                    rounds.append((data["round"], data["updates"], str(data["digest"])))
    stop.set()
    await playing
    daemon.stop()
    await serving
    return rounds


async def test_three_drivers_make_the_same_model(tmp_path: Path) -> None:
    steady = in_virtual_time(restarts=False)
    assert [updates for _, updates, _ in steady] == [8] * ROUNDS
    assert len({digest for _, _, digest in steady}) == ROUNDS, "each round has to change the model"
    assert in_virtual_time(restarts=True) == steady
    assert await over_udp(tmp_path / "data") == steady

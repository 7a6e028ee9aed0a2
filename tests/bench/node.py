"""The C node as the simulator runs it: a poll, an hour's reading, an inference, on this machine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from swarm._node import ffi, lib

from swarm.node import NodeConfig, Nodes
from swarm.security.signatures import SigningKey, sign_block
from tests.bench.measure import Measured, cpu_s
from tests.swarm.cell import MODEL

__all__ = ["measure"]

COUNT = 1000
HOUR_US = 3_600_000_000
TURNS = 200


def _nodes() -> tuple[Nodes, Callable[[int], None]]:
    nodes = Nodes(COUNT, [NodeConfig(node_index=i, context=i % 4, seed=i) for i in range(COUNT)], MODEL)
    draw = np.random.default_rng(1)
    hours = 240
    temperature = draw.integers(500, 2500, (hours, COUNT)).astype(np.int16)
    humidity = draw.integers(80, 201, (hours, COUNT)).astype(np.uint8)
    rain = draw.integers(0, 5, (hours, COUNT)).astype(np.uint16)

    def sense(hour: int) -> None:
        row = hour % hours
        nodes.sense((hour + 1) * HOUR_US, temperature[row], humidity[row], rain[row], hour % 24)

    for hour in range(96):
        sense(hour)
    return nodes, sense


def measure() -> list[Measured]:
    """Microseconds of CPU per node."""
    nodes, sense = _nodes()
    clock = iter(range(96, 1_000_000))
    now_us = 97 * HOUR_US
    nodes.poll(now_us)
    nodes.outbox()
    x = nodes.own_features()

    def day() -> None:
        for _ in range(24):
            sense(next(clock))

    def polls() -> None:
        for _ in range(TURNS):
            nodes.poll(now_us)

    def single_polls() -> None:
        for index in range(COUNT):
            nodes.poll_one(index, now_us)

    def inferences() -> None:
        for _ in range(20):
            nodes.infer(x)

    key = SigningKey(bytes(32))
    signed = sign_block(key, body=bytes(200))
    message = b"SWNB\xff" + signed[:-64]
    check = ffi.new("swn_ed25519_t *")

    def checks() -> None:
        for _ in range(20):
            lib.swn_ed25519_init(check, signed[-64:], key.public_key)
            lib.swn_ed25519_update(check, message, len(message))
            assert lib.swn_ed25519_final(check)

    rows = (
        ("poll of a node that has nothing to send, all in one call", polls, TURNS * COUNT),
        ("the same, a call from Python each", single_polls, COUNT),
        ("hourly reading of a node (mean of a day, its closing included)", day, 24 * COUNT),
        ("inference", inferences, 20 * COUNT),
        ("check of the signature of a block of 200 B", checks, 20),
    )
    made = []
    for name, run, count in rows:
        seconds, spread = cpu_s(run, repeats=9)
        made.append(Measured(name, seconds / count * 1e6, "us", spread))
    reading_us = made[2].value
    made.append(Measured("hourly reading of 1000 nodes", reading_us * COUNT / 1e3, "ms"))
    return made

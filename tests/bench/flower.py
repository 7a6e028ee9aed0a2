"""The Flower strategy door and `LoRaGrid`: CPU per message of a round of 1000, beside Flower's own engine.

The engine's number is not taken here (Ray is half a gigabyte): `tools/measure_flower_engine.py` took it once,
with the same strategy, the same number of clients and the same vector.
"""

from __future__ import annotations

import numpy as np
from flwr.serverapp import strategy as flower

from swarm.federation import prototypes
from swarm.federation.reply import PROTOTYPES, Reply
from swarm.federation.strategy import FlowerStrategy
from swarm.model.layout import WEATHER
from swarm.wire import app
from tests.bench.echo_cell import measure_grid
from tests.bench.measure import Measured, cpu_s
from tests.swarm.cell import CONTEXTS, means

__all__ = ["ENGINE_CPU_US", "measure"]

REPLIES = 1000
GRID_RUNS = 5
ENGINE_CPU_US = 11_042
"""CPU us per message of flwr[simulation] 1.41.0, Ray 2.55.1: 1000 clients, 5 rounds, 908 float64, FedAdam,
on 2 cores of an AMD EPYC; docs/benchmarks.md has the command and the other runs."""


def measure() -> list[Measured]:
    """CPU us per message, and how many times that the engine takes."""
    vector = np.random.default_rng(2).normal(0.0, 0.05, WEATHER.vector_size(CONTEXTS))
    made = []
    for name, replies in (("FedAdam", _vectors(vector)), (PROTOTYPES, _means())):
        strategy = FlowerStrategy(name, WEATHER)

        def run(strategy: FlowerStrategy = strategy, replies: list[Reply] = replies) -> None:
            done = strategy.aggregate(strategy.rounds + 1, vector, replies)
            assert done.vector is not None and not done.errors, done.failure

        seconds, spread = cpu_s(run)
        each_us = seconds / REPLIES * 1e6
        made.append(Measured(f"{name}, {REPLIES} replies: per message", each_us, "CPU us", spread))
        made.append(Measured(f"Flower's engine / {name}", ENGINE_CPU_US / each_us, "times"))
    taken_us = sorted(
        measure_grid(flower.FedAdam(fraction_evaluate=0.0), REPLIES, 2, len(vector)) for _ in range(GRID_RUNS)
    )
    each_us = taken_us[GRID_RUNS // 2]
    made.append(
        Measured(
            f"LoRaGrid, unmodified FedAdam, {REPLIES} nodes: per message",
            each_us,
            "CPU us",
            (taken_us[-1] - taken_us[0]) / each_us,
        )
    )
    made.append(Measured("Flower's engine / LoRaGrid", ENGINE_CPU_US / each_us, "times"))
    made.append(Measured("Flower's own simulation engine (recorded)", ENGINE_CPU_US, "CPU us"))
    return made


def _vectors(vector: np.ndarray) -> list[Reply]:
    draw = np.random.default_rng(3)
    return [Reply(node, vector + draw.normal(0.0, 1e-3, len(vector)), 10) for node in range(REPLIES)]


def _means() -> list[Reply]:
    replies = []
    for node in range(REPLIES):
        message = app.decode_uplink(app.F_PORT_LEARNING, means(node, 1))
        assert isinstance(message, app.Prototypes)
        replies.append(Reply(node, prototypes.flatten(message, WEATHER), message.num_examples))
    return replies

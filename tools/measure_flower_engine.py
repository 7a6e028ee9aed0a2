"""What one message costs in Flower's own simulation engine (Ray) and over `LoRaGrid`, in one run.

For docs/benchmarks.md.  Run it in a virtual environment of its own; nothing else of this project needs Ray:

    python3 -m venv build/flower-engine
    build/flower-engine/bin/pip install 'flwr[simulation]==1.41.*'
    FLWR_TELEMETRY_ENABLED=0 PYTHONPATH=. build/flower-engine/bin/python tools/measure_flower_engine.py

1000 clients answer each round at once with the vector they were sent (908 float64, as long as ours), so what
is measured is the engine: messages, their transport, the strategy.  CPU is that of the whole process tree,
Ray's workers included, from the first round's start to the last one's end; starting Ray is not in it, but
its workers import Flower in the first round: more rounds make the figure smaller and fairer.  Before
that, the same strategy runs for as many rounds over `LoRaGrid`, on a cell that answers at once
(`tests.bench.echo_cell`): again messages, their transport and the strategy, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import threading
import time
from pathlib import Path
from typing import Any

import flwr
import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAdam
from flwr.simulation import run_simulation

from tests.bench.echo_cell import measure_grid

VECTOR_SIZE = 908
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def tree_cpu_s() -> float:
    """CPU seconds of this process and of all its living and collected descendants."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended while we looked
        parents[int(entry.name)] = int(fields[1])
        ticks[int(entry.name)] = sum(int(value) for value in fields[11:15])
    mine = {os.getpid()}
    while True:
        children = {pid for pid, parent in parents.items() if parent in mine} - mine
        if not children:
            return sum(ticks.get(pid, 0) for pid in mine) / TICKS_PER_S
        mine |= children


def measure(clients: int, rounds: int, backend: dict[str, Any]) -> dict[str, Any]:
    """Run the rounds; seconds from the start of the first to the end of the last."""
    client_app = ClientApp()

    @client_app.train()
    def train(message: Message, context: Context) -> Message:
        arrays = message.content.array_records["arrays"]
        content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 10})})
        return Message(content, reply_to=message)

    server_app = ServerApp()
    result: dict[str, Any] = {}

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        while len(list(grid.get_node_ids())) < clients:  # else the first round samples those that are there
            threading.Event().wait(0.2)
        strategy = FedAdam(fraction_evaluate=0.0, min_available_nodes=clients)
        initial = ArrayRecord([np.zeros(VECTOR_SIZE)])
        cpu_s, wall_s = tree_cpu_s(), time.perf_counter()
        strategy.start(grid, initial, num_rounds=rounds, timeout=600)
        result["wall_s"] = time.perf_counter() - wall_s
        result["cpu_s"] = tree_cpu_s() - cpu_s

    run_simulation(server_app, client_app, num_supernodes=clients, backend_config=backend)
    messages = clients * rounds
    return {
        "flwr": flwr.__version__,
        "python": platform.python_version(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "clients": clients,
        "rounds": rounds,
        "vector_size": VECTOR_SIZE,
        **result,
        "cpu_us_per_message": round(result["cpu_s"] / messages * 1e6),
        "wall_us_per_message": round(result["wall_s"] / messages * 1e6),
        "load_average": os.getloadavg()[0],
    }


def compare(clients: int, rounds: int, backend: dict[str, Any]) -> dict[str, Any]:
    """Both, and how many times the engine's cost is the grid's."""
    grid_us = measure_grid(FedAdam(fraction_evaluate=0.0), clients, rounds, VECTOR_SIZE)
    engine = measure(clients, rounds, backend)
    return {
        **engine,
        "lora_grid_cpu_us_per_message": round(grid_us, 1),
        "engine_over_lora_grid": round(engine["cpu_us_per_message"] / grid_us, 1),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    backend: dict[str, Any] = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    print(json.dumps(compare(arguments.clients, arguments.rounds, backend), indent=1))


if __name__ == "__main__":
    main()

"""A cell that answers at once: what is left of a round over `LoRaGrid` is the grid and the strategy."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from gateway.upstream.grid import LoRaGrid
from gateway.upstream.records import flat_record
from swarm.federation.outside import Change, Gathered
from swarm.model.vector import Float64

__all__ = ["EchoCell", "measure_grid"]


class EchoCell:
    """`gateway.upstream.driver.CellDriver` without a radio."""

    def __init__(self, nodes: int, size: int) -> None:
        self._nodes = range(1, nodes + 1)
        self._vector = np.zeros(size)
        self._number = 0
        deltas = np.random.default_rng(1).normal(0.0, 1e-3, (nodes, size))
        self._changes = tuple(
            Change(f"{node:016x}", 10, delta) for node, delta in zip(self._nodes, deltas, strict=True)
        )

    def node_ids(self) -> list[int]:
        return list(self._nodes)

    def vector(self) -> Float64:
        return self._vector

    def hand_in(self, vector: Float64, *, gather: bool, close_s: int | None) -> int:
        del vector, gather, close_s
        self._number += 1
        return self._number

    def gathered(self, number: int) -> Gathered | None:
        return Gathered(number, self._changes)

    def advance(self) -> None:
        """Nothing to wait for."""


def measure_grid(strategy: Any, nodes: int, rounds: int, size: int) -> float:
    """CPU us per message and reply of `strategy.start` over `rounds` rounds of `nodes` nodes."""
    cell = EchoCell(nodes, size)
    grid = LoRaGrid(cell)
    strategy.start(grid, flat_record(cell.vector()), num_rounds=1)
    cpu_s = time.process_time()
    result = strategy.start(grid, flat_record(cell.vector()), num_rounds=rounds)
    spent_s = time.process_time() - cpu_s
    assert len(result.arrays) == 1
    return spent_s / (nodes * rounds) * 1e6

"""What `LoRaGrid` needs of a cell; the simulator and a running daemon both have it.

number = cell.hand_in(vector, gather=True, close_s=3600)
while (gathered := cell.gathered(number)) is None:
    cell.advance()
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from swarm.federation.outside import Gathered
from swarm.model.vector import Float64

__all__ = ["CellDriver", "CellStopped"]


class CellStopped(Exception):
    """The cell cannot go on; one line that says why and what to do."""


class CellDriver(Protocol):
    """One cell.  Each method may raise `CellStopped`."""

    def node_ids(self) -> Sequence[int]:
        """The registered nodes: their DevEUIs as numbers."""

    def vector(self) -> Float64:
        """The vector behind the nodes' parameters, float64[d] in real units."""

    def hand_in(self, vector: Float64, *, gather: bool, close_s: int | None) -> int:
        """Let the next window take up this vector; the number of its round, claimed if `gather`."""

    def gathered(self, number: int) -> Gathered | None:
        """The updates of a claimed round; None until it is closed."""

    def advance(self) -> None:
        """Let the cell's time go on a little."""

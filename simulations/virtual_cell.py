"""A simulated cell as something that is handed models and gives updates back, in virtual time.

It has the methods of `gateway.upstream.driver.CellDriver`, so that a Flower ServerApp runs over the firmware,
the air and the coordinator of a scenario (`swarm flower run`).
"""

from __future__ import annotations

from collections.abc import Callable

from simulations.world import World
from swarm.commands import SetModel
from swarm.effects import Event
from swarm.federation.outside import Gathered
from swarm.model.vector import Float64
from swarm.registry import Refused
from swarm.words import counted

__all__ = ["VirtualCell", "WorldOver"]

STEP_US = 60_000_000


class WorldOver(Exception):
    """The scenario's days are over, or the cell refused; one line that says what to do."""


class VirtualCell:
    """The cell of one world; `world` may be looked at, its time goes on by `advance` only."""

    def __init__(self, world: World, *, stopped: Callable[[str], Exception] = WorldOver) -> None:
        """`stopped` makes the exception by which this cell says that it cannot go on."""
        self.world = world
        self._stopped = stopped

    def node_ids(self) -> list[int]:
        """DevEUIs as numbers, in the order of node indices."""
        return [int(entry.record.dev_eui, 16) for entry in self.world.coordinator.registry]

    def vector(self) -> Float64:
        """The vector behind the nodes' parameters, float64[d]."""
        return self.world.coordinator.rounds.master()

    def hand_in(self, vector: Float64, *, gather: bool, close_s: int | None) -> int:
        """The next window takes this vector up; the number of its round."""
        effects = self.world.command(SetModel(vector.astype("<f8").tobytes(), gather, close_s))
        if isinstance(effects, Refused):
            raise self._stopped(effects.reason)
        events = [effect for effect in effects if isinstance(effect, Event)]
        return int(str(events[-1].data["round"]))

    def gathered(self, number: int) -> Gathered | None:
        """The updates of a claimed round; None until it is closed."""
        return self.world.coordinator.rounds.gathered(number)

    def advance(self) -> None:
        """A minute goes by."""
        world = self.world
        if world.cell.now_us >= world.end_us:
            raise self._stopped(
                f"the scenario ends after {counted(world.scenario.days, 'day')}; give it more (--days)"
            )
        world.run_until(min(world.cell.now_us + STEP_US, world.end_us))

"""Whether the newest version is worse than the one before it, by what nodes say they answer with.

Each node compares the fleet's newest head with the head of the fleet that it served before, on its own last
labels, and leaves the newest only when chance alone would seldom make it look so bad (1.4 standard deviations
of a sign test, `swn_serve.h`); its STATUS names the choice.  So where two heads are equally good, about one
node in twelve goes back to the older one, and where the newest is better, fewer.  The verdict is "worse" when
more nodes did than that explains by three standard deviations, and a quarter of them at least: what is bad
for a few, those few do not serve anyway.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Verdict", "verdict"]

NEWEST, BEFORE = 0, 1
"""Choices of a STATUS (`swarm.wire.messages.SERVES`)."""
BY_CHANCE = 0.08
"""Nodes that go back although nothing is worse: beyond 1.4 sd on one side."""
DEVIATIONS = 3.0
SHARE_MIN = 0.25
BEFORE_MIN = 4
SPOKEN_MIN = 0.2
"""Of the nodes that the version was made for: where fewer have said what they serve, a few could decide."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Nodes that hold the newest version and serve it, nodes that hold it and serve the one before, and all
    that it was made for."""

    newest: int
    before: int
    invited: int

    @property
    def worse(self) -> bool:
        """More than noise, and enough nodes."""
        nodes = self.newest + self.before
        noise = DEVIATIONS * math.sqrt(nodes * BY_CHANCE * (1.0 - BY_CHANCE))
        least = max(BEFORE_MIN, nodes * BY_CHANCE + noise, nodes * SHARE_MIN)
        return nodes >= self.invited * SPOKEN_MIN and self.before >= least


def verdict(choices: Iterable[int], invited: int) -> Verdict:
    """Of the choices of nodes that hold the newest version, of `invited` whose head it changed."""
    said = [choice for choice in choices if choice in (NEWEST, BEFORE)]
    return Verdict(said.count(NEWEST), said.count(BEFORE), invited)

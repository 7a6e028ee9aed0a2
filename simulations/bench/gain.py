"""Is a difference between two sets of answers more than luck?  Bootstrap over nodes, any metric."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulations.tasks.task import Samples, Task
from swarm.prng import Prng

__all__ = ["Gain", "gain"]

RESAMPLES = 200
NODES_MIN = 5
"""Below, single rows are drawn again instead of nodes."""


@dataclass(frozen=True, slots=True)
class Gain:
    """How much better `new` scored than `old`, and the standard deviation of that over resampled nodes."""

    mean: float
    sd: float

    def beyond(self, deviations: float, least: float) -> bool:
        """Whether the gain exceeds both so many standard deviations and `least`."""
        return self.mean > max(deviations * self.sd, least)


def gain(task: Task, part: Samples, old: NDArray[np.uint8], new: NDArray[np.uint8], prng: Prng) -> Gain:
    """The gain of `new` over `old`, class predictions [n] for the rows of `part`."""
    few = task.nodes - len(task.silent) < NODES_MIN or len(np.unique(part.node)) < NODES_MIN
    unit = np.arange(len(part)) if few else part.node.astype(np.int64)
    starts = np.argsort(unit, kind="stable")
    edges = np.searchsorted(unit[starts], np.unique(unit))
    groups = np.split(starts, edges[1:])
    rng = prng.numpy()
    differences = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([groups[i] for i in rng.integers(0, len(groups), len(groups))])
        drawn = part.where(rows)
        differences.append(task.score(new[rows], drawn) - task.score(old[rows], drawn))
    return Gain(task.score(new, part) - task.score(old, part), float(np.std(differences)))

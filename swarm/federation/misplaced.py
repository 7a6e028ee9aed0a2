"""Which nodes stand in the wrong context: whose labels fit another context's head much better than their own.

A slip in the nodes' CSV gives a node another crop's head and other inputs, and its labels teach the wrong
crop.

Theory of operation.  After each round the class means of the nodes that reported, all that they reported so
far, are judged by the heads of all contexts.  A node's gap is the cross-entropy of its own head less that of
the best other one.  It is evidence when another head saves more than knowing nothing costs (ln classes), and
when it is `DEVIATIONS` robust standard deviations above the median of the nodes in the same context: where
two contexts are alike, or a head is poor for all, nobody stands out.  A node is suspected after evidence for
the same other context in `REPORTS` of its reports running; one report without it, and the count begins anew.
Smaller gaps than that nodes have whose sensors are off (simulated farms: up to .9 nats over three reports).

    misplaced = Misplaced()
    misplaced.look(statistics, heads, reported, options)      # those newly suspected
    misplaced.load(misplaced.array())                         # the counts survive a restart
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from swarm.federation.discriminant import MAD_TO_SD, losses
from swarm.federation.prototypes import Int64, Options, Statistics
from swarm.federation.reported import MAJORITY_NODES_MIN
from swarm.model.vector import Float64

__all__ = ["Misplaced", "Suspect"]

DEVIATIONS = 4.0
REPORTS = 3
LABELS_MIN = 14
"""Labels of a node before its gap says anything."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A node, the context that its labels fit better, by how many nats a label, and how many labels."""

    node_index: int
    context: int
    likely: int
    gap: float
    labels: int


class Misplaced:
    """Counts of evidence: (context, node) -> (likely context, reports running)."""

    def __init__(self) -> None:
        self._running: dict[tuple[int, int], tuple[int, int]] = {}

    def look(
        self,
        statistics: Statistics,
        heads: Float64,
        reported: Collection[tuple[int, int]],
        options: Options,
    ) -> list[Suspect]:
        """Judge the nodes (context, node) that `reported` in this round; those newly suspected."""
        found: list[Suspect] = []
        place_of = {node: context for context, node in reported}
        # Who reports from elsewhere now has been put right.
        self._running = {
            key: run for key, run in self._running.items() if place_of.get(key[1], key[0]) == key[0]
        }
        for context in sorted({context for context, _ in reported}) if len(heads) > 1 else ():
            rows, nodes = statistics.context(context), statistics.nodes(context)
            if len(nodes) < MAJORITY_NODES_MIN:
                continue
            gap, likely = _gaps(rows, heads, context, options)
            usual = float(np.median(gap))
            scatter = MAD_TO_SD * float(np.median(np.abs(gap - usual)))
            labels = rows[:, 0, :, 0].sum(axis=1)
            least = max(math.log(rows.shape[2]), usual + DEVIATIONS * scatter)
            speaks = (gap > least) & (labels >= LABELS_MIN)
            for place, node in enumerate(nodes):
                if (context, node) not in reported:
                    continue
                if self._count(context, node, int(likely[place]) if speaks[place] else None) == REPORTS:
                    suspect = (node, context, int(likely[place]), float(gap[place]), round(labels[place]))
                    found.append(Suspect(*suspect))
        return found

    def suspects(self) -> dict[int, int]:
        """Node index -> likely context, of all nodes that are suspected now."""
        return {node: likely for (_, node), (likely, run) in self._running.items() if run >= REPORTS}

    def _count(self, context: int, node: int, likely: int | None) -> int:
        """Reports running, this one included."""
        before, run = self._running.pop((context, node), (likely, 0))
        if likely is None:
            return 0
        run = run + 1 if before == likely else 1
        self._running[context, node] = (likely, run)
        return run

    def array(self) -> Int64:
        """The counts, int64[n, 4]: context, node, likely context, reports running."""
        rows = [(*key, *value) for key, value in sorted(self._running.items())]
        return np.array(rows, np.int64).reshape(len(rows), 4)

    def load(self, array: Int64) -> None:
        """What `array` returned."""
        self._running = {(int(c), int(n)): (int(likely), int(run)) for c, n, likely, run in array}


def _gaps(rows: Float64, heads: Float64, context: int, options: Options) -> tuple[Float64, Int64]:
    """Per node the loss under the own head less the least one of another context, and which that is."""
    loss = np.stack([losses(rows, head, options) for head in heads])
    own = loss[context].copy()
    loss[context] = np.inf
    likely = loss.argmin(axis=0)
    return own - loss.min(axis=0), likely

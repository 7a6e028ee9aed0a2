"""Which node should hold which experts: those that its own gate chooses, and so that every expert has
holders.

Theory of operation.  Two rules, in this order:

1. *Replicas.*  Every expert is held by at least `replicas` nodes (as far as memory allows), so that nobody's
silence
   takes it away: scarce experts first, each by the nodes to which it is worth most.
2. *What a node sees.*  The memory that is left goes to the experts that the node's own gate has chosen most:
each of
   them saves questions.

Worth of an expert to a node: its share of the node's choices, and, for serving others, how good a holder the
node is (link, battery, receiver always on, answers when asked).  What a node holds already is kept when the
worth is nearly equal: moving an expert is kilobytes over the air, or somebody with a cable.  A node that was
asked and stayed silent too often, that was not heard for long, whose report is old or whose battery is nearly
empty holds nothing as far as the plan is concerned: others take over (handover).

A pure function: same nodes, same plan; ties go to the lower node index.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["SILENT_MAX", "Assignment", "Place", "coverage", "place"]

SILENT_MAX = 3
"""Questions in a row without answer after which a holder counts as gone."""
BATTERY_LOW = 0.1
"""Below that a node is about to go."""
KEEP = 0.05
"""How much more another expert must be worth before a held one gives way to it."""
SERVING = 0.25
"""What serving others counts for against a node's own questions."""


@dataclass(frozen=True, slots=True)
class Place:
    """A node as placement sees it.

    `room` experts fit in its flash; `seen` is each expert's share of its gate's choices (any scale); `held`
    are those it holds now; `link`, `battery` 0..1 (1: best).
    """

    dev_eui: str
    node_index: int
    room: int
    seen: tuple[float, ...]
    held: frozenset[int] = frozenset()
    link: float = 1.0
    battery: float = 1.0
    always_on: bool = False
    silent: int = 0
    gone: bool = False
    """It was not heard for long, or its report is old."""

    @property
    def present(self) -> bool:
        """Whether the plan can count on it."""
        return not self.gone and self.silent < SILENT_MAX and self.battery >= BATTERY_LOW

    def serves(self) -> float:
        """How good a holder the node is for others, 0..1."""
        return self.link * self.battery * (1.0 if self.always_on else 0.5)


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one node should hold, and what that changes."""

    dev_eui: str
    experts: tuple[int, ...]
    load: tuple[int, ...]
    """Experts to bring to the node."""
    drop: tuple[int, ...]
    """Experts to take from it."""
    needed: tuple[int, ...] = ()
    """Those of `experts` that it holds so that there are replicas enough (rule 1)."""
    present: bool = True
    """False: it counts as gone, and what it holds is what it said last."""


def place(nodes: Iterable[Place], experts: int, *, replicas: int = 2) -> list[Assignment]:
    """The plan, in the order of node indices; nodes that count as gone keep what they have."""
    everyone = sorted(nodes, key=lambda node: node.node_index)
    present = [node for node in everyone if node.present]
    chosen: dict[str, set[int]] = {node.dev_eui: set() for node in present}
    _replicate(present, chosen, experts, replicas)
    needed = {dev_eui: frozenset(mine) for dev_eui, mine in chosen.items()}
    for node in present:
        mine = chosen[node.dev_eui]
        wanted = sorted(range(experts), key=lambda expert: (-_own_worth(node, expert), expert))
        for expert in wanted:
            if len(mine) >= min(node.room, experts):
                break
            mine.add(expert)
    return [
        _assignment(node, chosen.get(node.dev_eui, set(node.held)), needed.get(node.dev_eui, frozenset()))
        for node in everyone
    ]


def coverage(assignments: Sequence[Assignment], experts: int) -> list[int]:
    """How many nodes of the plan hold each expert, without those that are gone."""
    present = [each for each in assignments if each.present]
    return [sum(expert in each.experts for each in present) for expert in range(experts)]


def _own_worth(node: Place, expert: int) -> float:
    total = sum(node.seen)
    share = node.seen[expert] / total if total and expert < len(node.seen) else 0.0
    return share + (KEEP if expert in node.held else 0.0)


def _replicate(present: list[Place], chosen: dict[str, set[int]], experts: int, replicas: int) -> None:
    """Give every expert its holders, the one that fewest nodes choose by themselves first."""
    demand = [sum(_own_worth(node, expert) for node in present) for expert in range(experts)]
    for _ in range(replicas):
        for expert in sorted(range(experts), key=lambda expert: (demand[expert], expert)):
            free = [
                node
                for node in present
                if len(chosen[node.dev_eui]) < node.room and expert not in chosen[node.dev_eui]
            ]
            if free:
                best = max(
                    free,
                    key=lambda node: (
                        _own_worth(node, expert) + SERVING * node.serves(),
                        -node.node_index,
                    ),
                )
                chosen[best.dev_eui].add(expert)


def _assignment(node: Place, experts: set[int], needed: frozenset[int]) -> Assignment:
    return Assignment(
        dev_eui=node.dev_eui,
        experts=tuple(sorted(experts)),
        load=tuple(sorted(experts - node.held)),
        drop=tuple(sorted(node.held - experts)),
        needed=tuple(sorted(needed)),
        present=node.present,
    )

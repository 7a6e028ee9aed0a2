"""From the plan of placement to what each node is brought; no expert loses its last holder on the way.

A node gets one container with all that it should hold, so what it gives up goes at the same moment.  That
must not leave an expert without a holder: it stays where it is as long as nobody else who is there holds it
and keeps it, and where it does not fit beside the new ones the node waits until somebody does.  Who is being
brought other experts by an earlier plan keeps what that one leaves it.

A container is kilobytes on air, so only what is *scarce* is brought, unless the whole plan is wanted: experts
that fewer nodes hold than should, to as many as are lacking.  Then a node gives up no more than it has to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from swarm.inference.placement import Assignment

__all__ = ["Move", "moves"]


@dataclass(frozen=True, slots=True)
class Move:
    """What one node would hold (`experts`), what that brings and takes.  With `blocked_by` it has to wait:
    only this node holds those, and there is no room for them beside the new ones."""

    dev_eui: str
    experts: tuple[int, ...]
    load: tuple[int, ...]
    drop: tuple[int, ...]
    blocked_by: tuple[int, ...] = ()


def moves(
    plan: Sequence[Assignment],
    room: int,
    scarce_below: int | None = None,
    coming: Mapping[str, Collection[int]] | None = None,
) -> list[Move]:
    """Of each node that is to be brought something; those that bring what fewest nodes hold come first.

    Scarce is what fewer than `scarce_below` nodes hold; None: the whole plan.  `coming`: DevEUI -> what nodes
    will hold when that which is on its way to them has arrived.
    """
    present = [each for each in plan if each.present]
    held = {each.dev_eui: (set(each.experts) - set(each.load)) | set(each.drop) for each in present}
    left = {dev_eui: mine & set((coming or {}).get(dev_eui, mine)) for dev_eui, mine in held.items()}
    kept = set[int]().union(*(left[each.dev_eui] & set(each.experts) for each in present))
    counts = Counter(expert for mine in held.values() for expert in mine)
    holders = counts.__getitem__

    lacking = {e: (scarce_below or 0) - holders(e) for each in present for e in each.load}
    made = []
    for each in present:
        mine, load = held[each.dev_eui], set(each.load)
        if scarce_below is not None:
            load = {expert for expert in load & set(each.needed) if lacking[expert] > 0}
        if not load:
            continue
        last = set(each.drop) - kept
        free = sorted(set(each.drop) - last, key=lambda expert: (-holders(expert), expert))
        if scarce_below is not None:
            free = free[: max(0, len(mine | load) - room)]
        space = room - len(mine - set(free))
        if space > 0:  # what has to stay may leave room for some of them
            load = set(sorted(load, key=lambda expert: (holders(expert), expert))[:space])
            lacking = {expert: count - (expert in load) for expert, count in lacking.items()}
        experts = tuple(sorted((mine | load) - set(free)))
        drop, blocked = tuple(sorted(free)), () if space > 0 else tuple(sorted(last))
        made.append(Move(each.dev_eui, experts, tuple(sorted(load)), drop, blocked))
    return sorted(made, key=lambda move: min(map(holders, move.load)))

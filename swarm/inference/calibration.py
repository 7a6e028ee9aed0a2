"""How far the probabilities that nodes state can be believed, by what became of their answers.

A node says of itself how often it was right, on samples whose label came after its answer (STATUS `serves`),
and how sure it is of its newest one (`risk`).  Where the nodes of a context are right less often than they
are sure, each stated probability p of K classes becomes 1/K + belief * (p - 1/K), with the belief that makes
the two means equal: the order of the classes stays, and what is said of even odds is true.  Nodes that are
right more often than they are sure are believed as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from swarm.wire.messages import right_share

__all__ = ["NODES_MIN", "belief_of", "believed"]

NODES_MIN = 5
"""Fewer nodes with known answers say nothing of their context."""
RISK_MASK, RISK_STEP = 63, 4.0 / 255.0
"""The probability in a `risk` byte: its low six bits, in steps of 4/255."""


def belief_of(said: Iterable[tuple[int | None, int | None]], classes: int) -> float | None:
    """The belief (0..1) in one context, from its nodes' (`serves`, `risk`); None: too few are known."""
    right = sure = 0.0
    nodes = 0
    for serves, risk in said:
        share = None if serves is None else right_share(serves)
        if share is None or risk is None:
            continue
        nodes += 1
        right += share
        sure += (risk & RISK_MASK) * RISK_STEP
    if nodes < NODES_MIN:
        return None
    even = 1.0 / classes
    above = sure / nodes - even
    return 1.0 if above <= 0.0 else min(max((right / nodes - even) / above, 0.0), 1.0)


def believed(shares: Sequence[float], belief: float | None) -> tuple[float, ...]:
    """Probabilities as they are to be believed; None: as they were stated."""
    if belief is None:
        return tuple(shares)
    even = 1.0 / len(shares)
    return tuple(even + belief * (share - even) for share in shares)

"""How far the probabilities that nodes state can be believed, by what became of their answers.

A node says of itself how often it was right, on samples whose label came after its answer (STATUS `serves`),
and how sure it is of its newest one (`risk`).  Where the nodes of a context are right less often than they
are sure, each stated probability p of K classes becomes 1/K + belief * (p - 1/K), with the belief that makes
the two means equal: the order of the classes stays, and what is said of even odds is true.  Nodes that are
right more often than they are sure are believed as they are.  Means leave the lowest and the highest quarter
out, and a tenth of a context's nodes has to be known: a few that lie say nothing for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from swarm.wire.messages import right_share

__all__ = ["NODES_MIN", "belief_of", "believed"]

NODES_MIN = 5
NODES_SHARE_MIN = 0.1
"""Fewer nodes with known answers say nothing of their context."""
RISK_MASK, RISK_STEP = 63, 4.0 / 255.0
"""The probability in a `risk` byte: its low six bits, in steps of 4/255."""


def belief_of(said: Iterable[tuple[int | None, int | None]], classes: int) -> float | None:
    """The belief (0..1) in one context, from its nodes' (`serves`, `risk`); None: too few are known."""
    right, sure, nodes = [], [], 0
    for serves, risk in said:
        nodes += 1
        share = None if serves is None else right_share(serves)
        if share is not None and risk is not None:
            right.append(share)
            sure.append((risk & RISK_MASK) * RISK_STEP)
    if len(right) < max(NODES_MIN, nodes * NODES_SHARE_MIN):
        return None
    even = 1.0 / classes
    above = _middle(sure) - even
    return 1.0 if above <= 0.0 else min(max((_middle(right) - even) / above, 0.0), 1.0)


def _middle(values: Sequence[float]) -> float:
    """The mean of the values between the quarters."""
    cut = len(values) // 4
    kept = sorted(values)[cut : len(values) - cut]
    return sum(kept) / len(kept)


def believed(shares: Sequence[float], belief: float | None) -> tuple[float, ...]:
    """Probabilities as they are to be believed; None: as they were stated."""
    if belief is None:
        return tuple(shares)
    even = 1.0 / len(shares)
    return tuple(even + belief * (share - even) for share in shares)

"""Who takes part in a round: a byte in the announcement and a hash that node and gateway share."""

from __future__ import annotations

from collections.abc import Iterable

from swarm.wire.app import hash8

__all__ = ["COHORT_ALL", "cohort_byte", "expected_replies", "in_cohort"]


COHORT_ALL = 255
"""The announced cohort in which all nodes are."""


def cohort_byte(fraction: float) -> int:
    """The announced cohort 0..255 for a share of the fleet 0..1: nodes with hash8 <= it take part.

    The smallest cohort that can be announced is 1/256 of the fleet; a round for nobody is not opened.
    """
    if not 0.0 < fraction <= 1.0:
        raise ValueError(f"cohort {fraction}: must be above 0 and at most 1")
    return min(max(round(fraction * 256) - 1, 0), 255)


def in_cohort(node_index: int, round_number: int, cohort: int) -> bool:
    """Whether this node takes part in this round."""
    return hash8(node_index, round_number) <= cohort


def expected_replies(node_indices: Iterable[int], round_number: int, cohort: int) -> int:
    """How many of these nodes take part in this round."""
    return sum(in_cohort(index, round_number, cohort) for index in node_indices)

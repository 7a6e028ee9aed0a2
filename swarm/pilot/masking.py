"""Masking groups as they are made: who masks with whom, and the key of a pair.

For whoever builds nodes (`gateway.pilot`, the simulator); a gateway has no use for these, and no secret.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

from swarm.wire.messages import GROUP_MAX, GROUP_MIN

__all__ = ["divided", "pair_key"]

_LABEL = b"swarm mask pair"
_T = TypeVar("_T")


def pair_key(secret: bytes, first: int, second: int) -> bytes:
    """The 16-byte key of two positions of a group, in any order, from the group's secret."""
    low, high = sorted((first, second))
    return hmac.new(secret, _LABEL + bytes((low, high)), hashlib.sha256).digest()[:16]


def divided(members: Sequence[_T], size: int) -> list[list[_T]]:
    """Even groups, in order, of at least `size` (4..16) where there are so many, and of at most 16.

    None where there are fewer than 4.
    """
    if len(members) < GROUP_MIN:
        return []
    count = max(len(members) // size, -(-len(members) // GROUP_MAX))
    cuts = [index * len(members) // count for index in range(count + 1)]
    return [list(members[begin:end]) for begin, end in pairwise(cuts)]

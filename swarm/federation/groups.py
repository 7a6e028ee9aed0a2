"""Masking groups at the gateway: who of a group was heard, what seeds are owed, and the sum without masks.

Theory of operation.  Members add masks that cancel over their whole group
(`node_firmware/core/swn_mask.h`).  When all were heard, their sum is the clear sum.  When some were not,
the masks that they share with the others stay in it:

    gather --deadline--> repair: those heard send the seeds they share with those not heard
           --all seeds, or the next window--> sum, take the masks of the seeds off

A group of which fewer than three were heard, or whose seeds did not all come, or whose sum cannot be one,
is left out whole: its members are not acknowledged and send their samples again.  The gateway never holds
a member's clear values: seeds are only taken for members whose vector it does not have, and a vector that
comes once repair began is refused.  What a lying gateway could do is in docs/PRIVACY.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from swarm.federation.reply import Reply
from swarm.federation.sums_plan import NOISE_DEVIATIONS, SURVIVORS_MIN, Z_LIMIT
from swarm.security.masks import mask_stream
from swarm.wire.app import SUMS_DIMS, SUMS_SQUARES, MaskedSums, Repair, Seeds, SumsPlan

__all__ = ["Groups", "Sums", "sums_of"]

Int64 = NDArray[np.int64]
_DIAGONAL = np.cumsum([0, *range(SUMS_DIMS, 1, -1)])
"""Where z[i] z[i] lies among the squares."""


@dataclass(slots=True)
class _Member:
    node_index: int
    message: MaskedSums
    seeds: dict[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """Sums over some nodes: counts int64[classes], z int64[classes, 20] (32 = 1.0), squares int64[210]."""

    counts: Int64
    z: Int64
    squares: Int64


class Groups:
    """The groups of one round; members are found by their position."""

    def __init__(self) -> None:
        self._groups: dict[int, dict[int, _Member]] = {}

    def clashes(self, message: MaskedSums) -> bool:
        """Whether a vector cannot be of the group that it names: its place is taken, or its form another."""
        members = self._groups.get(message.group, {})
        if message.position in members:
            return True
        other = next(iter(members.values()), None)
        return other is not None and _form(other.message) != _form(message)

    def add(self, node_index: int, message: MaskedSums) -> None:
        """A vector that does not clash."""
        self._groups.setdefault(message.group, {})[message.position] = _Member(node_index, message)

    def repair_of(self, message: MaskedSums) -> Repair | None:
        """What the sender of this vector has to be asked; None: nothing, or its group is past repair."""
        members = self._groups[message.group]
        owed = _missing(members) - members[message.position].seeds.keys()
        if not owed or len(members) < SURVIVORS_MIN:
            return None
        return Repair(message.round, message.group, sum(1 << position for position in members))

    def owing(self) -> int:
        """Members from whom seeds are still awaited."""
        members = [member for group in self._groups.values() for member in group.values()]
        return sum(self.repair_of(member.message) is not None for member in members)

    def take_seeds(self, node_index: int, message: Seeds) -> bool:
        """Keep what a survivor sent; False: another member, seeds of none that is missing, or told before.

        What is told twice is refused whole: which of two seeds counts must not depend on a restart.
        """
        members = self._groups.get(message.group, {})
        sender = members.get(message.position)
        seeds = message.by_peer()
        if sender is None or sender.node_index != node_index or not seeds.keys() <= _missing(members):
            return False
        if not sender.seeds.keys().isdisjoint(seeds):
            return False
        sender.seeds.update(seeds)
        return True

    def replies(self, plan: SumsPlan) -> list[Reply]:
        """One for each group whose sum is known and can be one, by the smallest node index in it."""
        made = []
        for members in self._groups.values():
            message = next(iter(members.values())).message
            values = _unmasked(members)
            if values is None:
                continue
            sums = _scaled(values, message.classes, plan)
            if not _is_possible(sums, len(members), plan):
                continue
            indices = tuple(sorted(member.node_index for member in members.values()))
            head = np.array([message.context, len(members)])
            flat = np.concatenate([head, sums.counts, sums.z.ravel(), sums.squares]).astype(np.float64)
            made.append(Reply(indices[0], flat, 1, float(len(indices)), indices))
        return sorted(made, key=lambda reply: reply.node_index)


def sums_of(reply: NDArray[np.float64], classes: int) -> tuple[int, int, Sums]:
    """Context, members and sums in a flat reply."""
    numbers = reply.astype(np.int64)
    counts, z, squares = np.split(numbers[2:], [classes, classes * (1 + SUMS_DIMS)])
    return int(numbers[0]), int(numbers[1]), Sums(counts, z.reshape(classes, SUMS_DIMS), squares)


def _form(message: MaskedSums) -> tuple[int, ...]:
    return (message.context, message.size, message.classes, message.bits)


def _missing(members: Mapping[int, _Member]) -> set[int]:
    size = next(iter(members.values())).message.size
    return set(range(size)) - members.keys()


def _unmasked(members: Mapping[int, _Member]) -> Int64 | None:
    """The sum over the members heard, each value in its two's complement; None: some masks are unknown."""
    missing = _missing(members)
    if len(members) < SURVIVORS_MIN or any(missing - member.seeds.keys() for member in members.values()):
        return None
    bits = next(iter(members.values())).message.bits
    total: Int64 = np.sum([np.array(member.message.values, np.int64) for member in members.values()], axis=0)
    for position, member in members.items():
        for peer in missing:
            stream = mask_stream(member.seeds[peer], len(total)).astype(np.int64)
            total += stream if peer < position else -stream
    half = 1 << (bits - 1)
    centred: Int64 = (total + half) % (1 << bits) - half
    return centred


def _scaled(values: Int64, classes: int, plan: SumsPlan) -> Sums:
    counts, z, squares = np.split(values, [classes, classes * (1 + SUMS_DIMS)])
    return Sums(counts, z.reshape(classes, SUMS_DIMS) << plan.shift_linear, squares << plan.shift_square)


def _is_possible(sums: Sums, people: int, plan: SumsPlan) -> bool:
    """Whether samples can have these sums, give or take rounding and noise; a wrong seed makes none such."""

    def slack(sigma: int, shift: int) -> float:
        return (people + NOISE_DEVIATIONS * sigma * math.sqrt(people)) * (1 << shift)

    counted, loose = sums.counts, slack(plan.sigma_count, 0) if plan.sigma_count else 0.0
    if counted.min() < -loose or counted.sum() > people * plan.samples_max + loose * len(counted):
        return False
    reach = (np.maximum(counted, 0) + loose)[:, np.newaxis] * Z_LIMIT
    reach = reach + slack(plan.sigma_linear, plan.shift_linear)
    diagonal, rough = sums.squares[_DIAGONAL], slack(plan.sigma_square, plan.shift_square)
    most = (max(int(counted.sum()), 0) + loose * len(counted)) * Z_LIMIT**2 + rough
    return bool((np.abs(sums.z) <= reach).all() and diagonal.min() >= -rough and diagonal.max() <= most)


assert len(_DIAGONAL) == SUMS_DIMS and _DIAGONAL[-1] == SUMS_SQUARES - 1

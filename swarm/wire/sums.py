"""The codecs of masked sums: what nodes send, the seeds that repair a group, the plan behind ROUND.

As in `swarm.wire.learning`: `encode_*` take what `*_ok` has passed, `decode_*` never raise.
"""

from __future__ import annotations

import struct

import numpy as np

from swarm.effects import Malformed
from swarm.wire.messages import (
    CLASSES_MAX,
    CONTEXT_MAX,
    GROUP_MAX,
    GROUP_MIN,
    SEED_SIZE,
    SHIFT_MAX,
    SIGMA_MAX,
    SUMS_BITS,
    SUMS_DIMS,
    SUMS_SQUARES,
    MaskedSums,
    Repair,
    RoundMode,
    Seeds,
    SumsPlan,
)

__all__ = [
    "SUMS_PLAN_SIZE",
    "decode_masked_sums",
    "decode_repair",
    "decode_seeds",
    "encode_masked_sums",
    "encode_repair",
    "encode_seeds",
    "masked_sums_ok",
    "pack_plan",
    "plan_ok",
    "seeds_ok",
    "unpack_plan",
    "values_of",
]

SEEDS_TYPE = 9
REPAIR_TYPE = 4

_MASKED = struct.Struct("<BHHBHBBBB")
_SEEDS = struct.Struct("<BHHBH")
_REPAIR = struct.Struct("<BHHH")
_PLAN = struct.Struct("<BBBBHHHHB")
SUMS_PLAN_SIZE = _PLAN.size
_SIZE = Malformed("size")
_VALUE = Malformed("value")


def values_of(classes: int) -> int:
    """How many values the sums of a model with this many classes have."""
    return classes * (1 + SUMS_DIMS) + SUMS_SQUARES


def masked_sums_ok(message: MaskedSums) -> bool:
    """Whether the protocol can say this."""
    return (
        message.context < CONTEXT_MAX
        and GROUP_MIN <= message.size <= GROUP_MAX
        and message.position < message.size
        and 2 <= message.classes <= CLASSES_MAX
        and SUMS_BITS[0] <= message.bits <= SUMS_BITS[1]
        and len(message.values) == values_of(message.classes)
        and all(0 <= value < 1 << message.bits for value in message.values)
    )


def seeds_ok(message: Seeds) -> bool:
    """Whether the protocol can say this."""
    missing = message.missing
    return (
        message.position < GROUP_MAX
        and not missing >> message.position & 1
        and len(message.seeds) == missing.bit_count() > 0
        and all(len(seed) == SEED_SIZE for seed in message.seeds)
    )


def plan_ok(plan: SumsPlan) -> bool:
    """Whether the protocol can say this."""
    return (
        plan.samples_max > 0
        and SUMS_BITS[0] <= plan.bits <= SUMS_BITS[1]
        and max(plan.shift_linear, plan.shift_square) <= SHIFT_MAX
        and max(plan.sigma_count, plan.sigma_linear, plan.sigma_square) <= SIGMA_MAX
    )


def encode_masked_sums(message: MaskedSums) -> bytes:
    """Type 08: the values lowest bit first."""
    head = (message.round, message.model_version, message.context, message.group, message.position)
    packed = _MASKED.pack(RoundMode.MASKED_SUMS, *head, message.size, message.classes, message.bits)
    values = np.array(message.values, np.uint32)[:, np.newaxis] >> np.arange(message.bits, dtype=np.uint32)
    return packed + np.packbits((values & 1).astype(np.uint8).ravel(), bitorder="little").tobytes()


def decode_masked_sums(payload: bytes) -> MaskedSums | Malformed:
    """Type 08."""
    if len(payload) <= _MASKED.size:
        return _SIZE
    head = _MASKED.unpack_from(payload)[1:]
    classes, bits = head[-2:]
    if not (2 <= classes <= CLASSES_MAX and SUMS_BITS[0] <= bits <= SUMS_BITS[1]):
        return _VALUE
    count = values_of(classes)
    body = np.frombuffer(payload, np.uint8, offset=_MASKED.size)
    if len(body) != (count * bits + 7) // 8:
        return _SIZE
    unpacked = np.unpackbits(body, bitorder="little")
    if unpacked[count * bits :].any():
        return _VALUE
    rows = unpacked[: count * bits].reshape(count, bits)
    values = rows @ (1 << np.arange(bits, dtype=np.int64))
    message = MaskedSums(*(*head, tuple(values.tolist())))
    return message if masked_sums_ok(message) else _VALUE


def encode_seeds(message: Seeds) -> bytes:
    """Type 09."""
    head = (message.round, message.group, message.position, message.missing)
    return _SEEDS.pack(SEEDS_TYPE, *head) + b"".join(message.seeds)


def decode_seeds(payload: bytes) -> Seeds | Malformed:
    """Type 09."""
    if len(payload) <= _SEEDS.size or (len(payload) - _SEEDS.size) % SEED_SIZE:
        return _SIZE
    seeds = tuple(payload[at : at + SEED_SIZE] for at in range(_SEEDS.size, len(payload), SEED_SIZE))
    message = Seeds(*(*_SEEDS.unpack_from(payload)[1:], seeds))
    return message if seeds_ok(message) else _VALUE


def encode_repair(message: Repair) -> bytes:
    """Down, type 04."""
    return _REPAIR.pack(REPAIR_TYPE, message.round, message.group, message.received)


def decode_repair(payload: bytes) -> Repair | Malformed:
    """Down, type 04."""
    return Repair(*_REPAIR.unpack(payload)[1:]) if len(payload) == _REPAIR.size else _SIZE


def pack_plan(plan: SumsPlan) -> bytes:
    """What follows ROUND in mode masked_sums."""
    widths = (plan.samples_max, plan.bits, plan.shift_linear, plan.shift_square, plan.clip)
    return _PLAN.pack(*widths, plan.sigma_count, plan.sigma_linear, plan.sigma_square, plan.releases_max)


def unpack_plan(data: bytes) -> SumsPlan:
    """The plan in its SUMS_PLAN_SIZE bytes, whatever they say."""
    return SumsPlan(*_PLAN.unpack(data))

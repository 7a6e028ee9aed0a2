"""The frames of expert questions: a node lacks an expert, somebody else holds it.

All numbers are little endian, the first byte is the type (docs/SPEC.md 2.16 to 2.21).  `swarm.wire.app` reads
and writes these together with all other frames; its rules hold here: `encode` refuses what the protocol
cannot say, decoders return `Malformed`.

==========  ====  ==================================================================================
FPort, way  type  layout (sizes in bytes)
==========  ====  ==================================================================================
11 up       02    ASK: type 1, ask_id 2, generation 2, picks 2x1, weight 1, missing 1, label 1,
                  probability 1, input 34
11 up       03    OUTPUT: type 1, query_id 2, generation 2, done 1, contribution 34
12 up       04    EXPERTS: type 1, generation 2, flags 1, held 2, count 1, seen count x1
11 down     02    REPLY: type 1, ask_id 2, flags 1, contribution 34
11 down     03    EXPERT_QUERY: type 1, query_id 2, generation 2, picks 2x1, weight 1, wanted 1,
                  reply_in_s 1, input 34
==========  ====  ==================================================================================

A *coarse* vector stands for 64 int8 in 34 bytes: floor i8, step u8, 64 nibbles (low nibble first); value i is
min(127, floor + step * nibble i).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from swarm.effects import Malformed

__all__ = [
    "ALWAYS_ON",
    "COARSE_SIZE",
    "EXPERTS_MAX",
    "HIDDEN",
    "Ask",
    "ExpertQuery",
    "Experts",
    "Output",
    "Reply",
    "coarse",
    "decode_ask",
    "decode_experts",
    "decode_output",
    "decode_query",
    "decode_reply",
    "encode",
    "fine",
]

HIDDEN = 64
COARSE_SIZE = 34
EXPERTS_MAX = 16
"""Experts of a model that can be asked for: a 16-bit mask says which a node holds."""
BOTH = 3
"""Both picks, as bits."""
WEIGHT_ONE = 256
ALWAYS_ON = 1
"""Flag of EXPERTS: the node's receiver is on whenever it does not send (class C)."""
REPLY_FROM_REPLICA = 4

_ASK = struct.Struct(f"<BHHBBBBBB{COARSE_SIZE}s")
_OUTPUT = struct.Struct(f"<BHHB{COARSE_SIZE}s")
_EXPERTS = struct.Struct("<BHBHB")
_REPLY = struct.Struct(f"<BHB{COARSE_SIZE}s")
_QUERY = struct.Struct(f"<BHHBBBBB{COARSE_SIZE}s")


@dataclass(frozen=True, slots=True)
class Ask:
    """Uplink 11/02: what the experts `picks` make of `input`, as far as bit s of `missing` names pick s.

    `weight` (0..128) is the second pick's of 256, the first has the rest.  `label` and `probability` (1/255)
    are what the node thinks without them; `generation` is its model's.
    """

    ask_id: int
    generation: int
    picks: tuple[int, int]
    weight: int
    missing: int
    label: int
    probability: int
    input: bytes

    def experts(self, slots: int) -> tuple[int, ...]:
        """The experts of the picks named in `slots` (bits 0, 1)."""
        return tuple(expert for slot, expert in enumerate(self.picks) if slots >> slot & 1)

    def weights(self, slots: int) -> tuple[int, ...]:
        """Their weights, in 1/256."""
        both = (WEIGHT_ONE - self.weight, self.weight)
        return tuple(weight for slot, weight in enumerate(both) if slots >> slot & 1)


@dataclass(frozen=True, slots=True)
class Output:
    """Uplink 11/03: what the picks named in `done` (bits 0, 1) add to the hidden vector of query
    `query_id`."""

    query_id: int
    generation: int
    done: int
    contribution: bytes


@dataclass(frozen=True, slots=True)
class Experts:
    """Uplink 12/04: the experts a node holds (bit e of `held`) and its gate's choices so far, in 1/255
    each."""

    generation: int
    flags: int
    held: int
    seen: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """Downlink 11/02: what the missing picks named in `flags` (bits 0, 1) add to the hidden vector, weighted.

    Bit 2 of `flags`: the gateway computed it itself.
    """

    ask_id: int
    flags: int
    contribution: bytes


@dataclass(frozen=True, slots=True)
class ExpertQuery:
    """Downlink 11/03: what do the picks named in `wanted` add, for this input?  Answer within
    `reply_in_s`."""

    query_id: int
    generation: int
    picks: tuple[int, int]
    weight: int
    wanted: int
    reply_in_s: int
    input: bytes


Uplink = Ask | Output | Experts
Downlink = Reply | ExpertQuery


def coarse(values: Sequence[int]) -> bytes:
    """64 int8 as a coarse vector, to the nearest step; the step is the smallest that spans them."""
    low, high = min(values), max(values)
    step = max(1, -(-(high - low) // 15))
    nibbles = [(value - low + step // 2) // step for value in values]
    pairs = zip(nibbles[::2], nibbles[1::2], strict=True)
    return struct.pack("<bB", low, step) + bytes(even | odd << 4 for even, odd in pairs)


def fine(packed: bytes) -> tuple[int, ...]:
    """The 64 values of a coarse vector."""
    low, step = struct.unpack_from("<bB", packed)
    return tuple(min(127, low + step * nibble) for byte in packed[2:] for nibble in (byte & 15, byte >> 4))


def _choice_ok(picks: tuple[int, int], weight: int, slots: int, vector: bytes) -> bool:
    return (
        max(picks) < EXPERTS_MAX
        and picks[0] != picks[1]
        and weight <= WEIGHT_ONE // 2
        and 1 <= slots <= BOTH
        and len(vector) == COARSE_SIZE
    )


def _ask_ok(message: Ask) -> bool:
    return _choice_ok(message.picks, message.weight, message.missing, message.input)


def _output_ok(message: Output) -> bool:
    return 1 <= message.done <= BOTH and len(message.contribution) == COARSE_SIZE


def _query_ok(message: ExpertQuery) -> bool:
    return _choice_ok(message.picks, message.weight, message.wanted, message.input)


def _experts_ok(message: Experts) -> bool:
    count = len(message.seen)
    return 1 <= count <= EXPERTS_MAX and message.held < 1 << count


def encode(message: Uplink | Downlink) -> bytes | None:
    """The payload, or None when a field is out of range; struct.error when one does not even fit."""
    match message:
        case Ask(ask_id, generation, picks, weight, missing, label, probability, vector):
            raw = _ASK.pack(2, ask_id, generation, *picks, weight, missing, label, probability, vector)
            return raw if _ask_ok(message) else None
        case Output(query_id, generation, done, vector):
            raw = _OUTPUT.pack(3, query_id, generation, done, vector)
            return raw if _output_ok(message) else None
        case Experts(generation, flags, held, seen):
            raw = _EXPERTS.pack(4, generation, flags, held, len(seen)) + bytes(seen)
            return raw if _experts_ok(message) else None
        case Reply(ask_id, flags, vector):
            raw = _REPLY.pack(2, ask_id, flags, vector)
            return raw if len(vector) == COARSE_SIZE else None
        case ExpertQuery(query_id, generation, picks, weight, wanted, reply_in_s, vector):
            raw = _QUERY.pack(3, query_id, generation, *picks, weight, wanted, reply_in_s, vector)
            return raw if _query_ok(message) else None


_SIZE = Malformed("size")
_VALUE = Malformed("value")


def decode_ask(payload: bytes) -> Ask | Malformed:
    if len(payload) != _ASK.size:
        return _SIZE
    _, ask_id, generation, first, second, *rest = _ASK.unpack(payload)
    message = Ask(ask_id, generation, (first, second), *rest)
    return message if _ask_ok(message) else _VALUE


def decode_output(payload: bytes) -> Output | Malformed:
    if len(payload) != _OUTPUT.size:
        return _SIZE
    message = Output(*_OUTPUT.unpack(payload)[1:])
    return message if _output_ok(message) else _VALUE


def decode_experts(payload: bytes) -> Experts | Malformed:
    if len(payload) < _EXPERTS.size or len(payload) != _EXPERTS.size + payload[_EXPERTS.size - 1]:
        return _SIZE
    _, generation, flags, held, _ = _EXPERTS.unpack_from(payload)
    message = Experts(generation, flags, held, tuple(payload[_EXPERTS.size :]))
    return message if _experts_ok(message) else _VALUE


def decode_reply(payload: bytes) -> Reply | Malformed:
    return Reply(*_REPLY.unpack(payload)[1:]) if len(payload) == _REPLY.size else _SIZE


def decode_query(payload: bytes) -> ExpertQuery | Malformed:
    if len(payload) != _QUERY.size:
        return _SIZE
    _, query_id, generation, first, second, *rest = _QUERY.unpack(payload)
    message = ExpertQuery(query_id, generation, (first, second), *rest)
    return message if _query_ok(message) else _VALUE

"""The application frames: what nodes and the gateway say to each other inside LoRaWAN payloads.

All numbers are little endian, the first byte is the type, and the type's meaning depends on FPort and
direction.  `encode` refuses (ValueError) what the protocol cannot say; `decode_uplink` and
`decode_downlink` never raise: bytes that are no frame become `Malformed` with one of `REASONS`.

==========  ====  ==================================================================================
FPort, way  type  layout (sizes in bytes)
==========  ====  ==================================================================================
10 up       01    type 1, round 2, model_version 2, context 1, num_examples 1, dims 1, class_mask 1,
                  per class in the mask, ascending: count 1, scale 1, dims/2 of int4 (low nibble: even)
10 up       02    type 1, round 2, model_version 2, context 1, num_examples 1, magnitude 2, rice_k 1,
                  count 1, bits, MSB first: per coordinate Rice(gap), sign; zero bits up to the byte
11 up       01    type 1, query_id 2, context 1, probability 3x1 (sum 255), head_version 2, age 1, flags 1
12 up       01    type 1, protocol 1, model_version 2, model_id 2, battery 1, labelled 1, flags 1,
                  temperature i2, humidity 1, rain 2, risk 1, multicast_received 1
10 down     01    type 1, round 2, model_version 2, mode 1, cohort 1, spread_s 2, close_in_s 4,
                  next_window_s 4, window_s 2
10 down     02    type 1, round 2, first_index 2, bitmap 1..
10 down     03    type 1, version 2, base_version 2, kind 1, length 2, crc32 4, index 1, count 1, piece 1..
11 down     01    type 1, query_id 2, flags 1, context 1, reply_in_s 1, [features 56 x i1: flag bit 1]
12 down     01    type 1, next_window_s 4, window_s 2, status_period_min 2
==========  ====  ==================================================================================

Reserved flag bits are sent as zero and kept, not refused, by the receiver.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from itertools import pairwise
from typing import Any, TypeVar

from swarm.effects import Malformed

__all__ = [
    "BLOCK_HEADER_SIZE",
    "BLOCK_SIZE_MAX",
    "CLASSES",
    "CONTEXT_MAX",
    "CONTEXT_OWN",
    "FEATURES",
    "F_PORT_ASKING",
    "F_PORT_LEARNING",
    "F_PORT_STATUS",
    "LOCAL_SIZE",
    "NO_BASE",
    "PROTOCOL",
    "QUERY_FEATURES_FOLLOW",
    "QUERY_OWN_READINGS",
    "REASONS",
    "ROUND_NEW_CONTEXTS",
    "Z_SIZE",
    "Answer",
    "BlockKind",
    "BlockPiece",
    "ClassMean",
    "DownlinkMessage",
    "Message",
    "Prototypes",
    "Query",
    "RoundAck",
    "RoundAnnounce",
    "RoundMode",
    "Schedule",
    "Status",
    "TopKSign",
    "UplinkMessage",
    "block_pieces",
    "decode_downlink",
    "decode_uplink",
    "encode",
    "f_port_of",
    "hash8",
    "rice_bits",
    "rice_k_for",
]

F_PORT_LEARNING = 10
F_PORT_ASKING = 11
F_PORT_STATUS = 12

PROTOCOL = 1
CLASSES = 3
FEATURES = 56
Z_SIZE = 32
CONTEXT_MAX = 8
CONTEXT_OWN = 255
LOCAL_SIZE = 611
RICE_K_MAX = 9
BLOCK_SIZE_MAX = 2048
BLOCK_HEADER_SIZE = 14
NO_BASE = 0xFFFF
ROUND_NEW_CONTEXTS = 0x80
"""Flag in a round's mode: only nodes whose context the model was shipped without take part."""
QUERY_OWN_READINGS = 1
QUERY_FEATURES_FOLLOW = 2

REASONS = ("f_port", "type", "size", "value")
"""Why bytes are refused: a port without frames, an unknown type, too short or long, a field out of range."""

_PROTOTYPES = struct.Struct("<BHHBBBB")
_TOP_K_SIGN = struct.Struct("<BHHBBHBB")
_ANSWER = struct.Struct("<BHBBBBHBB")
_STATUS = struct.Struct("<BBHHBBBhBHBB")
_ROUND = struct.Struct("<BHHBBHIIH")
_ACK = struct.Struct("<BHH")
_BLOCK = struct.Struct("<BHHBHIBB")
_QUERY = struct.Struct("<BHBBB")
_QUERY_FEATURES = struct.Struct(f"<{FEATURES}b")
_SCHEDULE = struct.Struct("<BIHH")
_INT4_LOW = tuple((byte & 15) - ((byte & 8) << 1) for byte in range(256))
_INT4_HIGH = tuple((byte >> 4) - ((byte & 128) >> 3) for byte in range(256))


class RoundMode(IntEnum):
    """What a round asks of its cohort."""

    NONE = 0
    PROTOTYPES = 1
    TOP_K_SIGN = 2


class BlockKind(IntEnum):
    """What a model block holds."""

    HEADS = 0
    DELTA = 1
    FULL = 2


@dataclass(frozen=True, slots=True)
class ClassMean:
    """The mean of one class's z over `count` samples: z[i] = q[i] * scale / 8, q -8..7, even length."""

    label: int
    count: int
    scale: int
    q: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Prototypes:
    """Uplink 10/01: class means of the labelled samples that were not reported yet."""

    round: int
    model_version: int
    context: int
    num_examples: int
    classes: tuple[ClassMean, ...]


@dataclass(frozen=True, slots=True)
class TopKSign:
    """Uplink 10/02: signs of the largest coordinates of the node's change, all of one magnitude.

    `indices` ascend in 0..610 (adapter A, adapter B, head); `magnitude` is in LSB of the parameters.
    """

    round: int
    model_version: int
    context: int
    num_examples: int
    magnitude: int
    rice_k: int
    indices: tuple[int, ...]
    negative: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """Uplink 11/01: class probabilities (sum 255); `age` of the freshest reading in 10 min, 255 unknown."""

    query_id: int
    context: int
    probabilities: tuple[int, int, int]
    head_version: int
    age: int
    flags: int


@dataclass(frozen=True, slots=True)
class Status:
    """Uplink 12/01: health and last readings.

    `battery` as LoRaWAN DevStatus (0 external, 255 unknown), `humidity_half` in 0.5 % (255 missing),
    `rain_tenth` in 0.1 mm since the last status (65535 missing), `risk` class << 6 | probability >> 2.
    """

    model_version: int
    model_id: int
    battery: int
    labelled: int
    flags: int
    temperature_centi: int
    humidity_half: int
    rain_tenth: int
    risk: int
    multicast_received: int


@dataclass(frozen=True, slots=True)
class RoundAnnounce:
    """Downlink 10/01: a round is open for the nodes with hash8(node_index, round) <= cohort.

    `mode` is a `RoundMode`, with the flag `ROUND_NEW_CONTEXTS` when nodes of a shipped context stay out.
    """

    round: int
    model_version: int
    mode: int
    cohort: int
    spread_s: int
    close_in_s: int
    next_window_s: int
    window_s: int


@dataclass(frozen=True, slots=True)
class RoundAck:
    """Downlink 10/02: bit j of bitmap byte b tells that node first_index + 8 b + j was counted."""

    round: int
    first_index: int
    bitmap: bytes


@dataclass(frozen=True, slots=True)
class BlockPiece:
    """Downlink 10/03: one piece of a model block of `length` bytes; each piece carries the whole header."""

    version: int
    base_version: int
    kind: int
    length: int
    crc32: int
    index: int
    count: int
    piece: bytes


@dataclass(frozen=True, slots=True)
class Query:
    """Downlink 11/01: judge your own readings (flag bit 0) or these features (bit 1, set by `encode`)."""

    query_id: int
    flags: int
    context: int
    reply_in_s: int
    features: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """Downlink 12/01: when the next multicast window opens, how long it is, how often to send status."""

    next_window_s: int
    window_s: int
    status_period_min: int


UplinkMessage = Prototypes | TopKSign | Answer | Status
DownlinkMessage = RoundAnnounce | RoundAck | BlockPiece | Query | Schedule
Message = UplinkMessage | DownlinkMessage


def f_port_of(message: Message) -> int:
    """The FPort on which this kind of message travels."""
    if isinstance(message, (Answer, Query)):
        return F_PORT_ASKING
    return F_PORT_STATUS if isinstance(message, (Status, Schedule)) else F_PORT_LEARNING


def hash8(node_index: int, round_number: int) -> int:
    """The node's lot 0..255 in a round: it takes part when this is <= the announced cohort."""
    mixed = (node_index * 2654435761 + round_number * 40503 + 0x9E3779B9) & 0xFFFFFFFF
    mixed ^= mixed >> 15
    mixed = (mixed * 2246822519) & 0xFFFFFFFF
    mixed ^= mixed >> 13
    return mixed >> 24


def rice_bits(indices: Sequence[int], rice_k: int) -> int:
    """Bits that the coordinates (signs included) take with this Rice parameter."""
    bits = 0
    previous = -1
    for index in indices:
        bits += ((index - previous - 1) >> rice_k) + rice_k + 2
        previous = index
    return bits


def rice_k_for(indices: Sequence[int]) -> int:
    """The Rice parameter 0..9 with the fewest bits for these ascending indices (the smaller one on a tie)."""
    return min(range(RICE_K_MAX + 1), key=lambda rice_k: rice_bits(indices, rice_k))


def block_pieces(
    version: int, base_version: int, kind: int, block: bytes, *, crc32: int, count: int
) -> list[BlockPiece]:
    """A block cut into `count` pieces; ValueError when that leaves the last piece empty."""
    size = _piece_size(len(block), count)
    head = (version, base_version, kind, len(block), crc32)
    made = [BlockPiece(*head, i, count, block[i * size : (i + 1) * size]) for i in range(count)]
    if not all(_block_ok(piece) for piece in made):
        raise ValueError(f"a block of {len(block)} B does not divide into {count} pieces")
    return made


# Validity: one rule per kind, used by both directions. -----------------------------------------------


def _prototypes_ok(message: Prototypes) -> bool:
    labels = [mean.label for mean in message.classes]
    dims = len(message.classes[0].q) if message.classes else 0
    return (
        message.context < CONTEXT_MAX
        and message.num_examples > 0
        and 2 <= dims <= Z_SIZE
        and dims % 2 == 0
        and labels == sorted(set(labels))
        and labels[-1] < CLASSES
        and all(len(mean.q) == dims and mean.count > 0 for mean in message.classes)
        and all(-8 <= value <= 7 for mean in message.classes for value in mean.q)
    )


def _top_k_ok(message: TopKSign) -> bool:
    indices = message.indices
    return (
        message.context < CONTEXT_MAX
        and message.num_examples > 0
        and message.rice_k <= RICE_K_MAX
        and 0 < len(indices) <= 255
        and len(indices) == len(message.negative)
        and indices[0] >= 0
        and indices[-1] < LOCAL_SIZE
        and all(a < b for a, b in pairwise(indices))
    )


def _answer_ok(message: Answer) -> bool:
    return message.context < CONTEXT_MAX and sum(message.probabilities) == 255


def _status_ok(message: Status) -> bool:
    humidity = message.humidity_half
    return humidity <= 200 or humidity == 255


def _round_ok(message: RoundAnnounce) -> bool:
    return message.mode & ~ROUND_NEW_CONTEXTS <= max(RoundMode)


def _piece_size(length: int, count: int) -> int:
    return -(-length // count) if count else 0


def _block_ok(message: BlockPiece) -> bool:
    size = _piece_size(message.length, message.count)
    last = message.length - size * (message.count - 1)
    expected = last if message.index == message.count - 1 else size
    return (
        0 < message.length <= BLOCK_SIZE_MAX
        and message.kind <= max(BlockKind)
        and message.index < message.count
        and last > 0
        and len(message.piece) == expected
    )


def _query_ok(message: Query) -> bool:
    follows = bool(message.flags & QUERY_FEATURES_FOLLOW)
    return (message.context < CONTEXT_MAX or message.context == CONTEXT_OWN) and follows == (
        message.features is not None
    )


# Encoders. -------------------------------------------------------------------------------------------


def encode(message: Message) -> bytes:
    """The payload of one message (its size is the caller's care); ValueError: a field is out of range."""
    try:
        payload = _encode(message)
    except struct.error as error:
        raise ValueError(f"{type(message).__name__}: {error}") from error
    if payload is None:
        raise ValueError(f"{message} is not a valid frame")
    return payload


def _encode(message: Message) -> bytes | None:
    match message:
        case Prototypes():
            return _encode_prototypes(message) if _prototypes_ok(message) else None
        case TopKSign():
            return _encode_top_k(message) if _top_k_ok(message) else None
        case Answer(query_id, context, probabilities, head_version, age, flags):
            raw = _ANSWER.pack(1, query_id, context, *probabilities, head_version, age, flags)
            return raw if _answer_ok(message) else None
        case Status():
            return _STATUS.pack(1, PROTOCOL, *_fields(message)) if _status_ok(message) else None
        case RoundAnnounce():
            return _ROUND.pack(1, *_fields(message)) if _round_ok(message) else None
        case RoundAck(number, first, bitmap):
            return _ACK.pack(2, number, first) + bitmap if bitmap else None
        case BlockPiece():
            *head, piece = _fields(message)
            return _BLOCK.pack(3, *head) + piece if _block_ok(message) else None
        case Query(query_id, flags, context, reply_in_s, features):
            tail = b"" if features is None else _QUERY_FEATURES.pack(*features)
            return _QUERY.pack(1, query_id, flags, context, reply_in_s) + tail if _query_ok(message) else None
        case Schedule():
            return _SCHEDULE.pack(1, *_fields(message))


def _fields(message: Message) -> list[Any]:
    """The fields in their order on the air, which is the order in which each dataclass declares them."""
    return [getattr(message, field.name) for field in fields(message)]


def _encode_prototypes(message: Prototypes) -> bytes:
    mask = sum(1 << mean.label for mean in message.classes)
    dims = len(message.classes[0].q)
    head = (message.round, message.model_version, message.context, message.num_examples, dims, mask)
    parts = [_PROTOTYPES.pack(1, *head)]
    for mean in message.classes:
        parts.append(struct.pack("<BB", mean.count, mean.scale))
        pairs = zip(mean.q[::2], mean.q[1::2], strict=True)
        parts.append(bytes((low & 15) | (high & 15) << 4 for low, high in pairs))
    return b"".join(parts)


def _encode_top_k(message: TopKSign) -> bytes:
    rice_k = message.rice_k
    bits = []
    previous = -1
    for index, negative in zip(message.indices, message.negative, strict=True):
        gap = index - previous - 1
        low = format(gap & ((1 << rice_k) - 1), f"0{rice_k}b") if rice_k else ""
        bits.append("1" * (gap >> rice_k) + "0" + low + ("1" if negative else "0"))
        previous = index
    text = "".join(bits)
    size = (len(text) + 7) // 8
    head = (message.round, message.model_version, message.context, message.num_examples, message.magnitude)
    packed = int(text.ljust(8 * size, "0"), 2).to_bytes(size, "big")
    return _TOP_K_SIGN.pack(2, *head, rice_k, len(message.indices)) + packed


# Decoders. -------------------------------------------------------------------------------------------

_SIZE = Malformed("size")
_VALUE = Malformed("value")


def _decode_prototypes(payload: bytes) -> Prototypes | Malformed:
    if len(payload) < _PROTOTYPES.size:
        return _SIZE
    _, number, version, context, examples, dims, mask = _PROTOTYPES.unpack_from(payload)
    if mask == 0 or mask >= 1 << CLASSES or dims % 2 or not 2 <= dims <= Z_SIZE:
        return _VALUE
    step = 2 + dims // 2
    if len(payload) != _PROTOTYPES.size + step * mask.bit_count():
        return _SIZE
    classes = []
    at = _PROTOTYPES.size
    for label in range(CLASSES):
        if mask >> label & 1:
            packed = payload[at + 2 : at + step]
            q = tuple(value for byte in packed for value in (_INT4_LOW[byte], _INT4_HIGH[byte]))
            classes.append(ClassMean(label, payload[at], payload[at + 1], q))
            at += step
    message = Prototypes(number, version, context, examples, tuple(classes))
    return message if _prototypes_ok(message) else _VALUE


def _decode_top_k(payload: bytes) -> TopKSign | Malformed:
    if len(payload) <= _TOP_K_SIGN.size:
        return _SIZE
    _, number, version, context, examples, magnitude, rice_k, count = _TOP_K_SIGN.unpack_from(payload)
    if rice_k > RICE_K_MAX or count == 0:
        return _VALUE
    packed = payload[_TOP_K_SIGN.size :]
    bits = format(int.from_bytes(packed, "big"), f"0{8 * len(packed)}b")
    indices: list[int] = []
    negative: list[bool] = []
    at = 0
    index = -1
    for _ in range(count):
        stop = bits.find("0", at)
        sign_at = stop + 1 + rice_k
        if stop < 0 or sign_at >= len(bits):
            return _SIZE
        index += 1 + ((stop - at) << rice_k | int("0" + bits[stop + 1 : sign_at], 2))
        indices.append(index)
        negative.append(bits[sign_at] == "1")
        at = sign_at + 1
    if len(bits) - at >= 8:
        return _SIZE
    head = (number, version, context, examples, magnitude, rice_k)
    message = TopKSign(*head, tuple(indices), tuple(negative))
    return message if "1" not in bits[at:] and _top_k_ok(message) else _VALUE


def _decode_answer(payload: bytes) -> Answer | Malformed:
    if len(payload) != _ANSWER.size:
        return _SIZE
    _, query_id, context, low, medium, high, head_version, age, flags = _ANSWER.unpack(payload)
    message = Answer(query_id, context, (low, medium, high), head_version, age, flags)
    return message if _answer_ok(message) else _VALUE


def _decode_status(payload: bytes) -> Status | Malformed:
    if len(payload) != _STATUS.size:
        return _SIZE
    _, protocol, *rest = _STATUS.unpack(payload)
    message = Status(*rest)
    return message if protocol == PROTOCOL and _status_ok(message) else _VALUE


def _decode_round(payload: bytes) -> RoundAnnounce | Malformed:
    if len(payload) != _ROUND.size:
        return _SIZE
    message = RoundAnnounce(*_ROUND.unpack(payload)[1:])
    return message if _round_ok(message) else _VALUE


def _decode_ack(payload: bytes) -> RoundAck | Malformed:
    if len(payload) <= _ACK.size:
        return _SIZE
    _, number, first = _ACK.unpack_from(payload)
    return RoundAck(number, first, payload[_ACK.size :])


def _decode_block(payload: bytes) -> BlockPiece | Malformed:
    if len(payload) <= _BLOCK.size:
        return _SIZE
    _, version, base, kind, length, crc32, index, count = _BLOCK.unpack_from(payload)
    message = BlockPiece(version, base, kind, length, crc32, index, count, payload[_BLOCK.size :])
    return message if _block_ok(message) else _VALUE


def _decode_query(payload: bytes) -> Query | Malformed:
    if len(payload) < _QUERY.size:
        return _SIZE
    _, query_id, flags, context, reply_in_s = _QUERY.unpack_from(payload)
    tail = payload[_QUERY.size :]
    if len(tail) != (FEATURES if flags & QUERY_FEATURES_FOLLOW else 0):
        return _SIZE
    message = Query(query_id, flags, context, reply_in_s, _QUERY_FEATURES.unpack(tail) if tail else None)
    return message if _query_ok(message) else _VALUE


def _decode_schedule(payload: bytes) -> Schedule | Malformed:
    return Schedule(*_SCHEDULE.unpack(payload)[1:]) if len(payload) == _SCHEDULE.size else _SIZE


_UPLINK: dict[int, dict[int, Callable[[bytes], UplinkMessage | Malformed]]] = {
    F_PORT_LEARNING: {1: _decode_prototypes, 2: _decode_top_k},
    F_PORT_ASKING: {1: _decode_answer},
    F_PORT_STATUS: {1: _decode_status},
}
_DOWNLINK: dict[int, dict[int, Callable[[bytes], DownlinkMessage | Malformed]]] = {
    F_PORT_LEARNING: {1: _decode_round, 2: _decode_ack, 3: _decode_block},
    F_PORT_ASKING: {1: _decode_query},
    F_PORT_STATUS: {1: _decode_schedule},
}


def decode_uplink(f_port: int, payload: bytes) -> UplinkMessage | Malformed:
    """The message that a node sent on this port."""
    return _decode(_UPLINK, f_port, payload)


def decode_downlink(f_port: int, payload: bytes) -> DownlinkMessage | Malformed:
    """The message that a node would read on this port."""
    return _decode(_DOWNLINK, f_port, payload)


_Kind = TypeVar("_Kind")


def _decode(
    table: dict[int, dict[int, Callable[[bytes], _Kind | Malformed]]], f_port: int, payload: bytes
) -> _Kind | Malformed:
    ports = table.get(f_port)
    if ports is None:
        return Malformed("f_port", str(f_port))
    if not payload:
        return _SIZE
    decoder = ports.get(payload[0])
    if decoder is None:
        return Malformed("type", f"{payload[0]:#04x} on port {f_port}")
    return decoder(payload)

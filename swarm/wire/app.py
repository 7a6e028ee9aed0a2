"""The application frames: what nodes and the gateway say to each other inside LoRaWAN payloads.

All numbers are little endian, the first byte is the type, and the type's meaning depends on FPort and
direction.  `encode` refuses (ValueError) what the protocol cannot say; `decode_uplink` and
`decode_downlink` never raise: bytes that are no frame become `Malformed` with one of `REASONS`.

==========  ====  ==================================================================================
FPort, way  type  layout (sizes in bytes)
==========  ====  ==================================================================================
10 up       01    type 1, round 2, model_version 2, context 1, num_examples 1, dims 1, class_mask 1,
                  [class_mask of classes 7.. 1: mask bit 7], per class in the mask, ascending: count 1,
                  scale 1, dims/2 of int4 (low nibble: even)
10 up       02    type 1, round 2, model_version 2, context 1, num_examples 1, magnitude 2,
                  rice_k 1 (bit 7: of the head alone), count 1, bits, MSB first: per coordinate
                  Rice(gap), sign; zero bits up to the byte
10 up       03    type 1, round 2, mode 1, index 1, count 1, slice 1..: a fragment of an update
10 up       04    type 1, round 2, model_version 2, context 1, num_examples 1, scale 2,
                  rice_k 1 (bit 7: of the head alone), count 1, bits as in 02, the sign followed by
                  3 bits |level| - 1
10 up       05    type 1, round 2, model_version 2, context 1, num_examples 1, scale_adapter 2,
                  scale_head 2, [512 x i1: scale_adapter not 0], 33 x i1 per class
10 up       06    type 1, round 2, model_version 2, context 1, num_examples 1, scale 1, labels as nibbles
                  (low: even), 16 of int4 per sample
10 up       07    type 1, round 2, model_version 2, context 1, num_examples 1, scale_adapter 2,
                  scale_head 2, first 1, 32 of int4 per chunk
10 up       08    type 1, round 2, model_version 2, context 1, group 2, position 1, size 1, classes 1,
                  bits 1, values, lowest bit first; zero bits up to the byte: masked sums
10 up       09    type 1, round 2, group 2, position 1, missing 2, seed 16 per bit of missing
11 up       01    type 1, query_id 2, context 1, probability 1 per class (sum 255), head_version 2,
                  age 1, flags 1
12 up       01    type 1, protocol 1, model_version 2, model_id 2, battery 1, labelled 1, flags 1,
                  temperature i2, humidity 1, rain 2, risk 1, multicast_received 1, [serves 1, if not 0]
10 down     01    type 1, round 2, model_version 2, mode 1, cohort 1, spread_s 2, close_in_s 4,
                  next_window_s 4, window_s 2, [mode 8: samples_max 1, bits 1, shift_linear 1,
                  shift_square 1, clip 2, sigma_count 2, sigma_linear 2, sigma_square 2, releases_max 1]
10 down     02    type 1, round 2, first_index 2, bitmap 1..
10 down     03    type 1, version 2, base_version 2, kind 1, length 2, crc32 4, index 1, count 1, piece 1..
10 down     04    type 1, round 2, group 2, received 2
10 down     05    a session for a large block: `swarm.wire.offer`
11 down     01    type 1, query_id 2, flags 1, context 1, reply_in_s 1, [features i1 each: flag bit 1]
12 down     01    type 1, next_window_s 4, window_s 2, status_period_min 2
12 down     04    type 1, label 1, by_id 1, value 2
11, 12            expert questions: `swarm.wire.expert`
12 both     02    and 12/03: days of readings, see `swarm.wire.readings`
==========  ====  ==================================================================================

Reserved flag bits are sent as zero and kept, not refused, by the receiver.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

from swarm.effects import Malformed
from swarm.wire import expert, learning, offer, readings, sums
from swarm.wire.learning import rice_bits, rice_k_for
from swarm.wire.messages import (
    BLOCK_HEADER_SIZE,
    BLOCK_SIZE_MAX,
    CLASSES_MAX,
    CONTEXT_MAX,
    CONTEXT_OWN,
    F_PORT_ASKING,
    F_PORT_LEARNING,
    F_PORT_STATUS,
    FRAGMENTS_MAX,
    GROUP_MAX,
    GROUP_MIN,
    LEVEL_MAX,
    LOCAL_SIZE_MAX,
    MODES,
    NO_BASE,
    PROTOCOL,
    QUERY_FEATURES_FOLLOW,
    QUERY_FEATURES_MAX,
    QUERY_OWN_READINGS,
    RICE_K_MAX,
    ROUND_NEW_CONTEXTS,
    SEED_SIZE,
    SHIFT_MAX,
    SIGMA_MAX,
    SUMS_BITS,
    SUMS_DIMS,
    SUMS_SQUARES,
    Z_SIZE,
    Answer,
    BlockKind,
    BlockPiece,
    Blocks,
    ClassMean,
    DenseInt8,
    DownlinkMessage,
    Features,
    Fragment,
    Label,
    LearningMessage,
    MaskedSums,
    Message,
    PlainMessage,
    Prototypes,
    Query,
    Repair,
    RoundAck,
    RoundAnnounce,
    RoundMode,
    Schedule,
    Seeds,
    Status,
    SumsPlan,
    TopKInt4,
    TopKSign,
    UplinkMessage,
    f_port_of,
)
from swarm.wire.offer import Offer
from swarm.wire.readings import Readings, ReadingsRequest, Share

__all__ = [
    "BLOCK_HEADER_SIZE",
    "BLOCK_SIZE_MAX",
    "CLASSES_MAX",
    "CONTEXT_MAX",
    "CONTEXT_OWN",
    "FRAGMENTS_MAX",
    "F_PORT_ASKING",
    "F_PORT_LEARNING",
    "F_PORT_STATUS",
    "GROUP_MAX",
    "GROUP_MIN",
    "LEVEL_MAX",
    "LOCAL_SIZE_MAX",
    "MODES",
    "NO_BASE",
    "PROTOCOL",
    "QUERY_FEATURES_FOLLOW",
    "QUERY_FEATURES_MAX",
    "QUERY_OWN_READINGS",
    "REASONS",
    "RICE_K_MAX",
    "ROUND_NEW_CONTEXTS",
    "SEED_SIZE",
    "SHIFT_MAX",
    "SIGMA_MAX",
    "SUMS_BITS",
    "SUMS_DIMS",
    "SUMS_SQUARES",
    "Z_SIZE",
    "Answer",
    "BlockKind",
    "BlockPiece",
    "Blocks",
    "ClassMean",
    "DenseInt8",
    "DownlinkMessage",
    "Features",
    "Fragment",
    "Label",
    "LearningMessage",
    "MaskedSums",
    "Message",
    "Offer",
    "Prototypes",
    "Query",
    "Readings",
    "ReadingsRequest",
    "Repair",
    "RoundAck",
    "RoundAnnounce",
    "RoundMode",
    "Schedule",
    "Seeds",
    "Share",
    "Status",
    "SumsPlan",
    "TopKInt4",
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

REASONS = ("f_port", "type", "size", "value")
"""Why bytes are refused: a port without frames, an unknown type, too short or long, a field out of range."""

_ANSWER = struct.Struct("<BHB")
_ANSWER_TAIL = struct.Struct("<HBB")
_STATUS = struct.Struct("<BBHHBBBhBHBB")
_ROUND = struct.Struct("<BHHBBHIIH")
_ACK = struct.Struct("<BHH")
_BLOCK = struct.Struct("<BHHBHIBB")
_QUERY = struct.Struct("<BHBBB")
_SCHEDULE = struct.Struct("<BIHH")
_ROUND_NUMBER = struct.Struct("<H")
_LABEL = struct.Struct("<BBBH")


def hash8(node_index: int, round_number: int) -> int:
    """The node's lot 0..255 in a round: it takes part when this is <= the announced cohort."""
    mixed = (node_index * 2654435761 + round_number * 40503 + 0x9E3779B9) & 0xFFFFFFFF
    mixed ^= mixed >> 15
    mixed = (mixed * 2246822519) & 0xFFFFFFFF
    mixed ^= mixed >> 13
    return mixed >> 24


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


def _answer_ok(message: Answer) -> bool:
    classes = len(message.probabilities)
    return message.context < CONTEXT_MAX and 2 <= classes <= CLASSES_MAX and sum(message.probabilities) == 255


def _status_ok(message: Status) -> bool:
    humidity = message.humidity_half
    return humidity <= 200 or humidity == 255


def _round_ok(message: RoundAnnounce) -> bool:
    mode = message.mode & ~ROUND_NEW_CONTEXTS
    if message.sums is None:
        return mode in MODES and mode != RoundMode.MASKED_SUMS
    return mode == RoundMode.MASKED_SUMS and sums.plan_ok(message.sums)


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
    known = message.context < CONTEXT_MAX or message.context == CONTEXT_OWN
    if message.features is None:
        return known and not follows
    return known and follows and 1 <= len(message.features) <= QUERY_FEATURES_MAX


# Encoders. -------------------------------------------------------------------------------------------


_LEARNING: dict[type, tuple[Callable[[Any], bool], Callable[[Any], bytes]]] = {
    Prototypes: (learning.prototypes_ok, learning.encode_prototypes),
    TopKSign: (learning.top_k_sign_ok, learning.encode_top_k_sign),
    TopKInt4: (learning.top_k_int4_ok, learning.encode_top_k_int4),
    DenseInt8: (learning.dense_int8_ok, learning.encode_dense_int8),
    Features: (learning.features_ok, learning.encode_features),
    Blocks: (learning.blocks_ok, learning.encode_blocks),
    MaskedSums: (sums.masked_sums_ok, sums.encode_masked_sums),
    Fragment: (learning.fragment_ok, learning.encode_fragment),
    Seeds: (sums.seeds_ok, sums.encode_seeds),
}


def encode(message: Message) -> bytes:
    """The payload of one message (its size is the caller's care); ValueError: a field is out of range."""
    try:
        if isinstance(message, expert.Uplink | expert.Downlink):
            payload = expert.encode(message)
        else:
            payload = _encode(message)
    except struct.error as error:
        raise ValueError(f"{type(message).__name__}: {error}") from error
    if payload is None:
        raise ValueError(f"{message} is not a valid frame")
    return payload


def _encode(message: PlainMessage) -> bytes | None:
    if isinstance(message, LearningMessage | Fragment | Seeds):
        is_valid, encoder = _LEARNING[type(message)]
        return encoder(message) if is_valid(message) else None
    match message:
        case Answer(query_id, context, probabilities, head_version, age, flags):
            tail = bytes(probabilities) + _ANSWER_TAIL.pack(head_version, age, flags)
            return _ANSWER.pack(1, query_id, context) + tail if _answer_ok(message) else None
        case Status():
            return _encode_status(message) if _status_ok(message) else None
        case RoundAnnounce():
            tail = b"" if message.sums is None else sums.pack_plan(message.sums)
            return _ROUND.pack(1, *_fields(message)[:-1]) + tail if _round_ok(message) else None
        case RoundAck(number, first, bitmap):
            return _ACK.pack(2, number, first) + bitmap if bitmap else None
        case BlockPiece():
            *head, piece = _fields(message)
            return _BLOCK.pack(3, *head) + piece if _block_ok(message) else None
        case Repair():
            return sums.encode_repair(message)
        case Offer():
            return offer.encode(message)
        case Query(query_id, flags, context, reply_in_s, features):
            tail = b"" if features is None else struct.pack(f"<{len(features)}b", *features)
            return _QUERY.pack(1, query_id, flags, context, reply_in_s) + tail if _query_ok(message) else None
        case Schedule(next_window_s, window_s, status_period_min, number):
            tail = b"" if number is None else _ROUND_NUMBER.pack(number)
            return _SCHEDULE.pack(1, next_window_s, window_s, status_period_min) + tail
        case Label(label, by_id, value):
            return _LABEL.pack(4, label, by_id, value) if label < CLASSES_MAX else None
        case _:
            return readings.encode(message)


def _fields(message: Message) -> list[Any]:
    """The fields in their order on the air, which is the order in which each dataclass declares them."""
    return [getattr(message, field.name) for field in fields(message)]


# Decoders. -------------------------------------------------------------------------------------------

_SIZE = Malformed("size")
_VALUE = Malformed("value")


def _decode_answer(payload: bytes) -> Answer | Malformed:
    classes = len(payload) - _ANSWER.size - _ANSWER_TAIL.size
    if not 2 <= classes <= CLASSES_MAX:
        return _SIZE
    _, query_id, context = _ANSWER.unpack_from(payload)
    shares = tuple(payload[_ANSWER.size : _ANSWER.size + classes])
    message = Answer(query_id, context, shares, *_ANSWER_TAIL.unpack_from(payload, _ANSWER.size + classes))
    return message if _answer_ok(message) else _VALUE


def _encode_status(message: Status) -> bytes:
    *head, serves = _fields(message)
    return _STATUS.pack(1, PROTOCOL, *head) + (bytes((serves,)) if serves else b"")


def _decode_status(payload: bytes) -> Status | Malformed:
    if len(payload) not in (_STATUS.size, _STATUS.size + 1):
        return _SIZE
    _, protocol, *rest = _STATUS.unpack_from(payload)
    message = Status(*rest, *payload[_STATUS.size :])
    if len(payload) > _STATUS.size and message.serves == 0:
        return _VALUE  # it would take no byte
    return message if protocol == PROTOCOL and _status_ok(message) else _VALUE


def _decode_round(payload: bytes) -> RoundAnnounce | Malformed:
    if len(payload) not in (_ROUND.size, _ROUND.size + sums.SUMS_PLAN_SIZE):
        return _SIZE
    tail = payload[_ROUND.size :]
    plan = sums.unpack_plan(tail) if tail else None
    message = RoundAnnounce(*(*_ROUND.unpack_from(payload)[1:], plan))
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
    if bool(tail) != bool(flags & QUERY_FEATURES_FOLLOW) or len(tail) > QUERY_FEATURES_MAX:
        return _SIZE
    features = struct.unpack(f"<{len(tail)}b", tail) if tail else None
    message = Query(query_id, flags, context, reply_in_s, features)
    return message if _query_ok(message) else _VALUE


def _decode_schedule(payload: bytes) -> Schedule | Malformed:
    if len(payload) not in (_SCHEDULE.size, _SCHEDULE.size + _ROUND_NUMBER.size):
        return _SIZE
    _, next_window_s, window_s, status_period_min = _SCHEDULE.unpack_from(payload)
    number = None if len(payload) == _SCHEDULE.size else _ROUND_NUMBER.unpack_from(payload, _SCHEDULE.size)[0]
    return Schedule(next_window_s, window_s, status_period_min, number)


def _decode_label(payload: bytes) -> Label | Malformed:
    if len(payload) != _LABEL.size:
        return _SIZE
    _, label, by_id, value = _LABEL.unpack(payload)
    return Label(label, bool(by_id), value) if label < CLASSES_MAX and by_id <= 1 else _VALUE


_UPLINK: dict[int, dict[int, Callable[[bytes], UplinkMessage | Malformed]]] = {
    F_PORT_LEARNING: {
        RoundMode.PROTOTYPES: learning.decode_prototypes,
        RoundMode.TOP_K_SIGN: learning.decode_top_k_sign,
        3: learning.decode_fragment,
        RoundMode.TOP_K_INT4: learning.decode_top_k_int4,
        RoundMode.DENSE_INT8: learning.decode_dense_int8,
        RoundMode.FEATURES: learning.decode_features,
        RoundMode.BLOCKS: learning.decode_blocks,
        RoundMode.MASKED_SUMS: sums.decode_masked_sums,
        9: sums.decode_seeds,
    },
    F_PORT_ASKING: {1: _decode_answer, 2: expert.decode_ask, 3: expert.decode_output},
    F_PORT_STATUS: {
        1: _decode_status,
        2: readings.decode_readings,
        3: readings.decode_request,
        4: expert.decode_experts,
    },
}
_DOWNLINK: dict[int, dict[int, Callable[[bytes], DownlinkMessage | Malformed]]] = {
    F_PORT_LEARNING: {
        1: _decode_round,
        2: _decode_ack,
        3: _decode_block,
        4: sums.decode_repair,
        offer.OFFER_TYPE: offer.decode,
    },
    F_PORT_ASKING: {1: _decode_query, 2: expert.decode_reply, 3: expert.decode_query},
    F_PORT_STATUS: {
        1: _decode_schedule,
        2: readings.decode_readings,
        3: readings.decode_share,
        4: _decode_label,
    },
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

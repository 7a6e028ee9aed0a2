"""The codecs of what nodes send to learn, FPort 10 up: class means, changes, and fragments of both.

`encode_*` take messages that `*_ok` has passed; `decode_*` never raise.  The layouts are in `swarm.wire.app`.
An update larger than a frame travels as fragments; joined, they are the same bytes that one frame would hold.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise

from swarm.effects import Malformed
from swarm.wire.messages import (
    CHUNK,
    CLASSES_MAX,
    CONTEXT_MAX,
    FRAGMENTS_MAX,
    LEVEL_MAX,
    LOCAL_SIZE_MAX,
    MODES,
    RICE_K_MAX,
    Z_SIZE,
    Blocks,
    ClassMean,
    DenseInt8,
    Features,
    Fragment,
    Prototypes,
    RoundMode,
    TopKInt4,
    TopKSign,
)

__all__ = [
    "blocks_ok",
    "decode_blocks",
    "decode_dense_int8",
    "decode_features",
    "decode_fragment",
    "decode_prototypes",
    "decode_top_k_int4",
    "decode_top_k_sign",
    "dense_int8_ok",
    "encode_blocks",
    "encode_dense_int8",
    "encode_features",
    "encode_fragment",
    "encode_prototypes",
    "encode_top_k_int4",
    "encode_top_k_sign",
    "features_ok",
    "fragment_ok",
    "prototypes_ok",
    "rice_bits",
    "rice_k_for",
    "top_k_int4_ok",
    "top_k_sign_ok",
]

MASK_CLASSES = 7
"""Classes in the first byte of a class mask; its eighth bit says that a second one follows."""

_PROTOTYPES = struct.Struct("<BHHBBBB")
_TOP_K = struct.Struct("<BHHBBHBB")
_DENSE = struct.Struct("<BHHBBHH")
_FEATURES = struct.Struct("<BHHBBB")
_BLOCKS = struct.Struct("<BHHBBHHB")
_FRAGMENT = struct.Struct("<BHBBB")
SIGN_BITS = 1
INT4_BITS = 4
"""Bits of a coordinate's value: the sign, and in three bits |level| - 1."""
ADAPTER_SIZE = 512
HEADS_ONLY = 0x80
"""In the byte of the Rice parameter: the first gap counts from the head's first coordinate."""
HEAD_ROW = 33
HEAD_SIZES = frozenset(HEAD_ROW * classes for classes in range(2, CLASSES_MAX + 1))
_INT4_LOW = tuple((byte & 15) - ((byte & 8) << 1) for byte in range(256))
_INT4_HIGH = tuple((byte >> 4) - ((byte & 128) >> 3) for byte in range(256))
_SIZE = Malformed("size")
_VALUE = Malformed("value")


def rice_bits(
    indices: Sequence[int], rice_k: int, value_bits: int = SIGN_BITS, *, heads_only: bool = False
) -> int:
    """Bits that the coordinates (values included) take with this Rice parameter."""
    bits = 0
    previous = _before_first(heads_only)
    for index in indices:
        bits += ((index - previous - 1) >> rice_k) + rice_k + 1 + value_bits
        previous = index
    return bits


def rice_k_for(indices: Sequence[int], *, heads_only: bool = False) -> int:
    """The Rice parameter 0..9 with the fewest bits for these ascending indices (the smaller one on a tie)."""
    return min(range(RICE_K_MAX + 1), key=lambda rice_k: rice_bits(indices, rice_k, heads_only=heads_only))


def _before_first(heads_only: bool) -> int:
    return ADAPTER_SIZE - 1 if heads_only else -1


def prototypes_ok(message: Prototypes) -> bool:
    """Whether the protocol can say this."""
    labels = [mean.label for mean in message.classes]
    dims = len(message.classes[0].q) if message.classes else 0
    return (
        message.context < CONTEXT_MAX
        and message.num_examples > 0
        and 2 <= dims <= Z_SIZE
        and dims % 2 == 0
        and labels == sorted(set(labels))
        and labels[-1] < CLASSES_MAX
        and all(len(mean.q) == dims and mean.count > 0 for mean in message.classes)
        and all(-8 <= value <= 7 for mean in message.classes for value in mean.q)
    )


def _coordinates_ok(message: TopKSign | TopKInt4, values: int) -> bool:
    indices = message.indices
    return (
        message.context < CONTEXT_MAX
        and message.num_examples > 0
        and message.rice_k <= RICE_K_MAX
        and 0 < len(indices) <= 255
        and len(indices) == values
        and indices[0] > _before_first(message.heads_only)
        and indices[-1] < LOCAL_SIZE_MAX
        and all(a < b for a, b in pairwise(indices))
    )


def top_k_sign_ok(message: TopKSign) -> bool:
    """Whether the protocol can say this."""
    return _coordinates_ok(message, len(message.negative))


def top_k_int4_ok(message: TopKInt4) -> bool:
    """Whether the protocol can say this."""
    levels_ok = all(0 < abs(level) <= LEVEL_MAX for level in message.levels)
    return _coordinates_ok(message, len(message.levels)) and levels_ok


def dense_int8_ok(message: DenseInt8) -> bool:
    """Whether the protocol can say this."""
    head = len(message.steps) - (ADAPTER_SIZE if message.scale_adapter else 0)
    some = message.scale_adapter > 0 or message.scale_head > 0
    return message.context < CONTEXT_MAX and message.num_examples > 0 and some and head in HEAD_SIZES


def features_ok(message: Features) -> bool:
    """Whether the protocol can say this."""
    return (
        message.context < CONTEXT_MAX
        and 0 < message.num_examples == len(message.labels)
        and len(message.q) == Z_SIZE * message.num_examples
        and all(0 <= label < CLASSES_MAX for label in message.labels)
        and all(-8 <= value <= 7 for value in message.q)
    )


def blocks_ok(message: Blocks) -> bool:
    """Whether the protocol can say this."""
    begin, end = message.first * CHUNK, message.first * CHUNK + len(message.steps)
    adapter = message.steps[: max(ADAPTER_SIZE - begin, 0)]
    head, beyond = message.steps[len(adapter) :], message.steps[max(LOCAL_SIZE_MAX - begin, 0) :]
    return (
        message.context < CONTEXT_MAX
        and message.num_examples > 0
        and message.steps != ()
        and len(message.steps) % CHUNK == 0
        and end < LOCAL_SIZE_MAX + CHUNK
        and (message.scale_adapter > 0 or message.scale_head > 0)
        and (message.scale_adapter > 0 or not any(adapter))
        and (message.scale_head > 0 or not any(head))
        and not any(beyond)
        and all(-8 <= step <= 7 for step in message.steps)
    )


def fragment_ok(message: Fragment) -> bool:
    """Whether the protocol can say this."""
    known = message.mode in MODES and message.mode != RoundMode.NONE
    return (
        known
        and 2 <= message.count <= FRAGMENTS_MAX
        and message.index < message.count
        and message.slice != b""
    )


def encode_prototypes(message: Prototypes) -> bytes:
    """Type 01."""
    mask = sum(1 << mean.label for mean in message.classes)
    dims = len(message.classes[0].q)
    low, high = mask & (1 << MASK_CLASSES) - 1, mask >> MASK_CLASSES
    first = low | (1 << MASK_CLASSES if high else 0)
    head = (message.round, message.model_version, message.context, message.num_examples, dims, first)
    parts = [_PROTOTYPES.pack(1, *head), bytes([high]) if high else b""]
    for mean in message.classes:
        parts.append(struct.pack("<BB", mean.count, mean.scale))
        parts.append(_nibbles(mean.q))
    return b"".join(parts)


def _encode_top_k(kind: int, message: TopKSign | TopKInt4, scale: int, values: Sequence[str]) -> bytes:
    """Header and bitstream; `values` is what follows each gap, as 0 and 1."""
    rice_k = message.rice_k
    bits = []
    previous = _before_first(message.heads_only)
    for index, value in zip(message.indices, values, strict=True):
        gap = index - previous - 1
        low = format(gap & ((1 << rice_k) - 1), f"0{rice_k}b") if rice_k else ""
        bits.append("1" * (gap >> rice_k) + "0" + low + value)
        previous = index
    text = "".join(bits)
    size = (len(text) + 7) // 8
    head = (message.round, message.model_version, message.context, message.num_examples, scale)
    packed = int(text.ljust(8 * size, "0"), 2).to_bytes(size, "big")
    rice = rice_k | (HEADS_ONLY if message.heads_only else 0)
    return _TOP_K.pack(kind, *head, rice, len(message.indices)) + packed


def encode_top_k_sign(message: TopKSign) -> bytes:
    """Type 02."""
    signs = ["1" if negative else "0" for negative in message.negative]
    return _encode_top_k(RoundMode.TOP_K_SIGN, message, message.magnitude, signs)


def encode_top_k_int4(message: TopKInt4) -> bytes:
    """Type 04."""
    values = [f"{int(level < 0)}{abs(level) - 1:03b}" for level in message.levels]
    return _encode_top_k(RoundMode.TOP_K_INT4, message, message.scale, values)


def encode_dense_int8(message: DenseInt8) -> bytes:
    """Type 05."""
    head = (message.round, message.model_version, message.context, message.num_examples)
    scales = (message.scale_adapter, message.scale_head)
    steps = struct.pack(f"<{len(message.steps)}b", *message.steps)
    return _DENSE.pack(RoundMode.DENSE_INT8, *head, *scales) + steps


def _nibbles(values: Sequence[int]) -> bytes:
    """Two in a byte, the first one low; a last half byte is 0."""
    low, high = values[::2], [*values[1::2], *[0] * (len(values) % 2)]
    return bytes(a & 15 | (b & 15) << 4 for a, b in zip(low, high, strict=True))


def encode_features(message: Features) -> bytes:
    """Type 06."""
    head = (message.round, message.model_version, message.context, message.num_examples, message.scale)
    return _FEATURES.pack(RoundMode.FEATURES, *head) + _nibbles(message.labels) + _nibbles(message.q)


def encode_blocks(message: Blocks) -> bytes:
    """Type 07."""
    head = (message.round, message.model_version, message.context, message.num_examples)
    scales = (message.scale_adapter, message.scale_head, message.first)
    return _BLOCKS.pack(RoundMode.BLOCKS, *head, *scales) + _nibbles(message.steps)


def encode_fragment(message: Fragment) -> bytes:
    """Type 03."""
    return _FRAGMENT.pack(3, message.round, message.mode, message.index, message.count) + message.slice


def _int4(packed: bytes) -> tuple[int, ...]:
    """Both nibbles of each byte, -8..7."""
    return tuple(value for byte in packed for value in (_INT4_LOW[byte], _INT4_HIGH[byte]))


def decode_prototypes(payload: bytes) -> Prototypes | Malformed:
    """Type 01."""
    if len(payload) < _PROTOTYPES.size:
        return _SIZE
    _, number, version, context, examples, dims, mask = _PROTOTYPES.unpack_from(payload)
    at = _PROTOTYPES.size
    if mask >> MASK_CLASSES:
        if len(payload) == at:
            return _SIZE
        mask = mask & (1 << MASK_CLASSES) - 1 | payload[at] << MASK_CLASSES
        at += 1
        if mask >> MASK_CLASSES == 0:
            return _VALUE
    if mask == 0 or mask >= 1 << CLASSES_MAX or dims % 2 or not 2 <= dims <= Z_SIZE:
        return _VALUE
    step = 2 + dims // 2
    if len(payload) != at + step * mask.bit_count():
        return _SIZE
    classes = []
    for label in range(CLASSES_MAX):
        if mask >> label & 1:
            packed = payload[at + 2 : at + step]
            classes.append(ClassMean(label, payload[at], payload[at + 1], _int4(packed)))
            at += step
    message = Prototypes(number, version, context, examples, tuple(classes))
    return message if prototypes_ok(message) else _VALUE


_Head = tuple[int, int, int, int, int, int]
"""round, model_version, context, num_examples, scale, rice_k."""


def _decode_top_k(
    payload: bytes, value_bits: int
) -> tuple[_Head, tuple[int, ...], list[int], bool] | Malformed:
    """Head, indices, the raw values of a top-k frame, and whether it is of heads only."""
    if len(payload) <= _TOP_K.size:
        return _SIZE
    _, number, version, context, examples, scale, rice, count = _TOP_K.unpack_from(payload)
    rice_k, heads_only = rice & ~HEADS_ONLY, bool(rice & HEADS_ONLY)
    if rice_k > RICE_K_MAX or count == 0:
        return _VALUE
    packed = payload[_TOP_K.size :]
    bits = format(int.from_bytes(packed, "big"), f"0{8 * len(packed)}b")
    indices: list[int] = []
    values: list[int] = []
    at = 0
    index = _before_first(heads_only)
    for _ in range(count):
        stop = bits.find("0", at)
        value_at = stop + 1 + rice_k
        end = value_at + value_bits
        if stop < 0 or end > len(bits):
            return _SIZE
        index += 1 + ((stop - at) << rice_k | int("0" + bits[stop + 1 : value_at], 2))
        indices.append(index)
        values.append(int(bits[value_at:end], 2))
        at = end
    if len(bits) - at >= 8:
        return _SIZE
    if "1" in bits[at:]:
        return _VALUE
    return (number, version, context, examples, scale, rice_k), tuple(indices), values, heads_only


def decode_top_k_sign(payload: bytes) -> TopKSign | Malformed:
    """Type 02."""
    read = _decode_top_k(payload, SIGN_BITS)
    if isinstance(read, Malformed):
        return read
    head, indices, values, heads_only = read
    message = TopKSign(*head, indices, tuple(map(bool, values)), heads_only)
    return message if top_k_sign_ok(message) else _VALUE


def decode_top_k_int4(payload: bytes) -> TopKInt4 | Malformed:
    """Type 04."""
    read = _decode_top_k(payload, INT4_BITS)
    if isinstance(read, Malformed):
        return read
    head, indices, values, heads_only = read
    levels = tuple(-(value & 7) - 1 if value >> 3 else (value & 7) + 1 for value in values)
    message = TopKInt4(*head, indices, levels, heads_only)
    return message if top_k_int4_ok(message) else _VALUE


def decode_dense_int8(payload: bytes) -> DenseInt8 | Malformed:
    """Type 05."""
    if len(payload) <= _DENSE.size:
        return _SIZE
    _, number, version, context, examples, scale_adapter, scale_head = _DENSE.unpack_from(payload)
    steps = struct.unpack_from(f"<{len(payload) - _DENSE.size}b", payload, _DENSE.size)
    if len(steps) - (ADAPTER_SIZE if scale_adapter else 0) not in HEAD_SIZES:
        return _SIZE
    message = DenseInt8(number, version, context, examples, scale_adapter, scale_head, steps)
    return message if dense_int8_ok(message) else _VALUE


def decode_features(payload: bytes) -> Features | Malformed:
    """Type 06."""
    if len(payload) < _FEATURES.size:
        return _SIZE
    _, number, version, context, examples, scale = _FEATURES.unpack_from(payload)
    at = _FEATURES.size + (examples + 1) // 2
    if len(payload) != at + examples * (Z_SIZE // 2):
        return _SIZE
    labels = [value for byte in payload[_FEATURES.size : at] for value in (byte & 15, byte >> 4)]
    if any(labels[examples:]):
        return _VALUE
    message = Features(
        number, version, context, examples, scale, tuple(labels[:examples]), _int4(payload[at:])
    )
    return message if features_ok(message) else _VALUE


def decode_blocks(payload: bytes) -> Blocks | Malformed:
    """Type 07."""
    if len(payload) <= _BLOCKS.size or (len(payload) - _BLOCKS.size) % (CHUNK // 2):
        return _SIZE
    _, number, version, context, examples, adapter, head, first = _BLOCKS.unpack_from(payload)
    steps = _int4(payload[_BLOCKS.size :])
    message = Blocks(number, version, context, examples, adapter, head, first, steps)
    return message if blocks_ok(message) else _VALUE


def decode_fragment(payload: bytes) -> Fragment | Malformed:
    """Type 03."""
    if len(payload) <= _FRAGMENT.size:
        return _SIZE
    _, number, mode, index, count = _FRAGMENT.unpack_from(payload)
    message = Fragment(number, mode, index, count, payload[_FRAGMENT.size :])
    return message if fragment_ok(message) else _VALUE

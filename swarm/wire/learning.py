"""The codecs of what nodes send to learn, FPort 10 up: class means, and the largest coordinates of a change.

`encode_*` take messages that `*_ok` has passed; `decode_*` never raise.  The layouts are in `swarm.wire.app`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise

from swarm.effects import Malformed
from swarm.wire.messages import (
    CLASSES_MAX,
    CONTEXT_MAX,
    LOCAL_SIZE_MAX,
    RICE_K_MAX,
    Z_SIZE,
    ClassMean,
    Prototypes,
    TopKSign,
)

__all__ = [
    "decode_prototypes",
    "decode_top_k_sign",
    "encode_prototypes",
    "encode_top_k_sign",
    "prototypes_ok",
    "rice_bits",
    "rice_k_for",
    "top_k_sign_ok",
]

MASK_CLASSES = 7
"""Classes in the first byte of a class mask; its eighth bit says that a second one follows."""

_PROTOTYPES = struct.Struct("<BHHBBBB")
_TOP_K_SIGN = struct.Struct("<BHHBBHBB")
_INT4_LOW = tuple((byte & 15) - ((byte & 8) << 1) for byte in range(256))
_INT4_HIGH = tuple((byte >> 4) - ((byte & 128) >> 3) for byte in range(256))
_SIZE = Malformed("size")
_VALUE = Malformed("value")


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


def prototypes_ok(message: Prototypes) -> bool:
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


def top_k_sign_ok(message: TopKSign) -> bool:
    indices = message.indices
    return (
        message.context < CONTEXT_MAX
        and message.num_examples > 0
        and message.rice_k <= RICE_K_MAX
        and 0 < len(indices) <= 255
        and len(indices) == len(message.negative)
        and indices[0] >= 0
        and indices[-1] < LOCAL_SIZE_MAX
        and all(a < b for a, b in pairwise(indices))
    )


def encode_prototypes(message: Prototypes) -> bytes:
    mask = sum(1 << mean.label for mean in message.classes)
    dims = len(message.classes[0].q)
    low, high = mask & (1 << MASK_CLASSES) - 1, mask >> MASK_CLASSES
    first = low | (1 << MASK_CLASSES if high else 0)
    head = (message.round, message.model_version, message.context, message.num_examples, dims, first)
    parts = [_PROTOTYPES.pack(1, *head), bytes([high]) if high else b""]
    for mean in message.classes:
        parts.append(struct.pack("<BB", mean.count, mean.scale))
        pairs = zip(mean.q[::2], mean.q[1::2], strict=True)
        parts.append(bytes((low & 15) | (high & 15) << 4 for low, high in pairs))
    return b"".join(parts)


def encode_top_k_sign(message: TopKSign) -> bytes:
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


def decode_prototypes(payload: bytes) -> Prototypes | Malformed:
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
            q = tuple(value for byte in packed for value in (_INT4_LOW[byte], _INT4_HIGH[byte]))
            classes.append(ClassMean(label, payload[at], payload[at + 1], q))
            at += step
    message = Prototypes(number, version, context, examples, tuple(classes))
    return message if prototypes_ok(message) else _VALUE


def decode_top_k_sign(payload: bytes) -> TopKSign | Malformed:
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
    return message if "1" not in bits[at:] and top_k_sign_ok(message) else _VALUE

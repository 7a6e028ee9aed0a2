"""How large an update of each mode is on the air: closed forms of docs/SPEC.md, for plans.

Sizes are the largest that a node sends: it has samples of every class, as many as a frame holds, and its
changes lie as badly as they can for the coding of the gaps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from swarm.federation.features import PER_UPDATE
from swarm.model.layout import ADAPTER_SIZE, Shape, Z
from swarm.wire.app import FRAGMENTS_MAX, RICE_K_MAX, RoundMode
from swarm.wire.messages import CHUNK
from swarm.wire.sums import values_of

__all__ = ["Asked", "frame_sizes", "update_size"]

PROTOTYPES_HEADER = 9
TOP_K_HEADER = 11
DENSE_HEADER = 11
FEATURES_HEADER = 8
BLOCKS_HEADER = 12
MASKED_HEADER = 12
FRAGMENT_HEADER = 6
MASK_CLASSES = 7
"""Classes in the first byte of a class mask."""
DIMS_USUAL, DIMS_MIN = 20, 16
"""Dimensions of a class mean: 32 where all classes fit with them, else 20, and not below 16."""
COORDINATES_MAX = 255
SIGN_BITS, INT4_BITS = 1, 4


@dataclass(frozen=True, slots=True)
class Asked:
    """What a round asks for, as far as sizes go.

    `heads_only`: nodes leave the adapter as it is (a round for new contexts); `bits` of a masked sum's value.
    """

    shape: Shape
    heads_only: bool = False
    bits: int = 12


def update_size(mode: RoundMode, payload_max: int, asked: Asked) -> int:
    """Bytes of a whole update, where a frame carries `payload_max`; 0: this mode needs a faster data rate."""
    return 0 if mode is RoundMode.NONE else _SIZES[mode](payload_max, asked)


def frame_sizes(mode: RoundMode, payload_max: int, asked: Asked) -> tuple[int, ...]:
    """The application payloads of an update's frames, in bytes; none where the data rate carries none."""
    size = update_size(mode, payload_max, asked)
    if size <= payload_max:
        return (size,) if size else ()
    full, rest = divmod(size, payload_max - FRAGMENT_HEADER)
    sizes = (payload_max,) * full + ((rest + FRAGMENT_HEADER,) if rest else ())
    return sizes if len(sizes) <= FRAGMENTS_MAX else ()


def _prototypes(payload_max: int, asked: Asked) -> int:
    classes = asked.shape.classes
    header = PROTOTYPES_HEADER + (classes > MASK_CLASSES)
    room = payload_max - header
    if _dims(room, classes) < DIMS_MIN:
        classes = max(1, room // (2 + DIMS_MIN // 2))
    dims = _dims(room, classes)
    return header + classes * (2 + dims // 2) if dims else 0


def _dims(room: int, classes: int) -> int:
    each = room // classes - 2
    if each >= Z // 2:
        return Z
    return DIMS_USUAL if each >= DIMS_USUAL // 2 else max(0, 2 * each)


def _top_k(value_bits: int) -> Callable[[int, Asked], int]:
    def size(payload_max: int, asked: Asked) -> int:
        room = payload_max - TOP_K_HEADER
        count = min(COORDINATES_MAX, _coordinates(asked))
        left_out = _coordinates(asked) - count
        most = min((left_out >> k) + count * (k + 1 + value_bits) for k in range(RICE_K_MAX + 1))
        return TOP_K_HEADER + min(room, (most + 7) // 8) if room > 0 else 0

    return size


def _coordinates(asked: Asked) -> int:
    """Parameters that training changes."""
    return asked.shape.head_size + (0 if asked.heads_only else ADAPTER_SIZE)


def _dense(payload_max: int, asked: Asked) -> int:
    return DENSE_HEADER + _coordinates(asked)


def _features(payload_max: int, asked: Asked) -> int:
    fits = (n for n in range(PER_UPDATE, 0, -1) if FEATURES_HEADER + _samples(n) <= payload_max)
    count = next(fits, 0)
    return FEATURES_HEADER + _samples(count) if count else 0


def _samples(count: int) -> int:
    return (count + 1) // 2 + count * Z // 2


def _blocks(payload_max: int, asked: Asked) -> int:
    chunks = -(-asked.shape.local_size // CHUNK) - (ADAPTER_SIZE // CHUNK if asked.heads_only else 0)
    count = min((payload_max - BLOCKS_HEADER) // (CHUNK // 2), chunks)
    return BLOCKS_HEADER + count * CHUNK // 2 if count > 0 else 0


def _masked_sums(payload_max: int, asked: Asked) -> int:
    return MASKED_HEADER + (values_of(asked.shape.classes) * asked.bits + 7) // 8


_SIZES: Mapping[RoundMode, Callable[[int, Asked], int]] = {
    RoundMode.PROTOTYPES: _prototypes,
    RoundMode.TOP_K_SIGN: _top_k(SIGN_BITS),
    RoundMode.TOP_K_INT4: _top_k(INT4_BITS),
    RoundMode.DENSE_INT8: _dense,
    RoundMode.FEATURES: _features,
    RoundMode.BLOCKS: _blocks,
    RoundMode.MASKED_SUMS: _masked_sums,
}

"""Model blocks: the quantised difference between what nodes have and what they should have.

Three kinds (docs/SPEC.md): HEADS (int8 heads, needs no base), DELTA (int4 steps of everything, only for
nodes at the base version), FULL (int8 adapter and heads, needs no base).  `encode` makes a block and the
mirror that results from it, so that gateway and nodes never differ by a rounding; `apply` does what
the node's C code does with the same bytes.  Each value travels as q << shift; the shift is the one with
the least squared error over the values it serves, the smaller one on a tie.

    made = encode(mirror, master, BlockKind.DELTA)      # made.mirror is what nodes have afterwards
    frames = made.frames(payload_max=115, signer=signer) # FPort 10 payloads, any of them opens the block

The signature is made here and nowhere else, when the block is cut: what is stored is the block without it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swarm.effects import Malformed
from swarm.model.layout import ADAPTER_SIZE, CONTEXT_MAX
from swarm.model.vector import Float64, Int16, Mirror, next_version, quantise
from swarm.security.signatures import SIGNATURE_SIZE, Signer
from swarm.wire import app
from swarm.wire.app import BLOCK_HEADER_SIZE, BLOCK_SIZE_MAX, NO_BASE, BlockKind

__all__ = ["SHIFT_MAX_INT4", "SHIFT_MAX_INT8", "Encoded", "apply", "changed_contexts", "choose", "encode"]

SHIFT_MAX_INT8 = 8
"""127 << 8 is the largest int8 value that fits int16."""
SHIFT_MAX_INT4 = 12
"""-8 << 12 = -32768."""

Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """A block, and `mirror`: the parameters of a node that applied it."""

    kind: BlockKind
    version: int
    base_version: int
    data: bytes
    mirror: Mirror

    def signed(self, signer: Signer) -> bytes:
        """The block as it travels, with its signature if the signer has a key."""
        header = struct.pack("<HH", self.version, self.base_version)
        return signer.block(self.data, kind=int(self.kind), header=header)

    def frames(self, payload_max: int, signer: Signer | None = None) -> list[bytes]:
        """The block as FPort 10 payloads of at most `payload_max` B; None: for nodes that want no signature.

        ValueError below 15 B or above 255 pieces.  All pieces but the last have the size
        ceil(length / count), as the node expects.
        """
        room = payload_max - BLOCK_HEADER_SIZE
        if room < 1:
            raise ValueError(
                f"a BLOCK frame needs {BLOCK_HEADER_SIZE + 1} B, there is room for {payload_max}"
            )
        data = self.data if signer is None else self.signed(signer)
        length = len(data)
        count = -(-length // room)
        # Rounding the piece size up may leave no byte for the last piece: then fewer pieces do.
        while (fewer := -(-length // -(-length // count))) < count:
            count = fewer
        head = (self.version, self.base_version, self.kind)
        pieces = app.block_pieces(*head, data, crc32=zlib.crc32(data), count=count)
        return [app.encode(piece) for piece in pieces]


def changed_contexts(mirror: Mirror, master: Float64) -> list[int]:
    """The contexts whose int16 head would differ from the mirror's, ascending."""
    heads = _heads(mirror, _goal(mirror, master))
    return [c for c in range(mirror.contexts) if not np.array_equal(heads[c], mirror.heads[c])]


def choose(mirror: Mirror, master: Float64) -> BlockKind | None:
    """The block that serves this change: None when nothing changed, HEADS when only heads did, else DELTA.

    FULL is never chosen here: it is the repair for nodes that missed a DELTA's base.
    """
    goal = _goal(mirror, master)
    if not np.array_equal(goal[:ADAPTER_SIZE], mirror.adapter):
        return BlockKind.DELTA
    return BlockKind.HEADS if changed_contexts(mirror, master) else None


def encode(
    mirror: Mirror,
    master: Float64,
    kind: BlockKind,
    contexts: Sequence[int] | None = None,
) -> Encoded:
    """The block of this kind that takes `mirror` (int16) towards `master` (float64[d], real units).

    `contexts`: whose heads travel (None: HEADS and DELTA those that changed, FULL all).  Each block is a
    new version, a FULL repair too: its integers differ from those that DELTAs summed up to, so that nodes
    which took the one and nodes which took the other must not both claim the same version.
    """
    chosen = sorted(set(contexts)) if contexts is not None else _default_contexts(mirror, master, kind)
    if kind is BlockKind.HEADS and not chosen:
        raise ValueError("a HEADS block needs at least one context")
    version = next_version(mirror.version)
    goal = _goal(mirror, master)
    heads = _heads(mirror, goal)
    match kind:
        case BlockKind.HEADS:
            data = b"".join(bytes([c]) + _int8_plane(heads[c]) for c in chosen)
        case BlockKind.FULL:
            planes = b"".join(_int8_plane(heads[c]) for c in chosen)
            data = bytes([_mask(chosen)]) + _int8_plane(goal[:ADAPTER_SIZE]) + planes
        case BlockKind.DELTA:
            data = _encode_delta(mirror, goal, chosen)
    assert len(data) <= BLOCK_SIZE_MAX - SIGNATURE_SIZE
    base = mirror.version if kind is BlockKind.DELTA else NO_BASE
    after = apply(mirror, version, base, kind, data)
    assert isinstance(after, Mirror), after
    return Encoded(kind, version, base, data, after)


def apply(mirror: Mirror, version: int, base_version: int, kind: int, data: bytes) -> Mirror | Malformed:
    """What a node with `mirror` holds after this block; `Malformed` when it would refuse the block.

    Sums saturate at int16.  A context that the mirror does not have is skipped, as a node of another
    context does.
    """
    if kind == BlockKind.DELTA and base_version != mirror.version:
        return Malformed("base_version", f"{base_version}, have {mirror.version}")
    adapter, heads = mirror.adapter.copy(), mirror.heads.copy()
    match kind:
        case BlockKind.HEADS:
            fault = _apply_heads(heads, data)
        case BlockKind.FULL:
            fault = _apply_full(adapter, heads, data)
        case BlockKind.DELTA:
            fault = _apply_delta(adapter, heads, data)
        case _:
            fault = Malformed("kind", str(kind))
    return fault if fault is not None else Mirror(version, adapter, heads)


def _default_contexts(mirror: Mirror, master: Float64, kind: BlockKind) -> list[int]:
    return list(range(mirror.contexts)) if kind is BlockKind.FULL else changed_contexts(mirror, master)


def _goal(mirror: Mirror, master: Float64) -> Int64:
    """What the mirror should become, int64[d] (wide, so that differences do not overflow)."""
    assert master.shape == (ADAPTER_SIZE + mirror.heads.size,)
    return quantise(master).astype(np.int64)


def _heads(mirror: Mirror, goal: Int64) -> Int64:
    """The heads in a goal, int64[contexts, head_size]."""
    return goal[ADAPTER_SIZE:].reshape(mirror.heads.shape)


def _mask(contexts: Sequence[int]) -> int:
    return sum(1 << context for context in contexts)


def _fit(values: Int64, shift_max: int, low: int, high: int) -> tuple[int, Int64]:
    """The shift and the q in low..high with the least squared error of q << shift."""
    best: tuple[int, int, Int64] | None = None
    for shift in range(shift_max + 1):
        # Round half up: exact in integers, so that every machine chooses alike.
        q = np.clip((values + ((1 << shift) >> 1)) >> shift, low, high)
        error = int(np.square(values - (q << shift)).sum())
        if best is None or error < best[0]:
            best = (error, shift, q)
    assert best is not None
    return best[1], best[2]


def _int8_plane(values: Int64) -> bytes:
    shift, q = _fit(values, SHIFT_MAX_INT8, -128, 127)
    return bytes([shift]) + q.astype(np.int8).tobytes()


def _encode_delta(mirror: Mirror, goal: Int64, contexts: Sequence[int]) -> bytes:
    adapter_shift, adapter_q = _fit(goal[:ADAPTER_SIZE] - mirror.adapter, SHIFT_MAX_INT4, -8, 7)
    heads = _heads(mirror, goal)
    steps = [heads[c] - mirror.heads[c] for c in contexts]
    none: Int64 = np.empty(0, np.int64)
    head_shift, head_q = _fit(np.concatenate([none, *steps]), SHIFT_MAX_INT4, -8, 7)
    q = np.concatenate([adapter_q, head_q])
    if len(q) % 2:
        q = np.append(q, 0)
    nibbles = (q & 15).astype(np.uint8)
    packed = nibbles[::2] | nibbles[1::2] << 4
    return bytes([_mask(contexts), adapter_shift, head_shift]) + packed.tobytes()


def _apply_heads(heads: Int16, data: bytes) -> Malformed | None:
    head_size = heads.shape[1]
    if not data or len(data) % (2 + head_size):
        return Malformed("size", str(len(data)))
    for at in range(0, len(data), 2 + head_size):
        context, shift = data[at], data[at + 1]
        if shift > SHIFT_MAX_INT8:
            return Malformed("shift", str(shift))
        if context < len(heads):
            heads[context] = _int8_values(data, at + 2, head_size, shift)
    return None


def _apply_full(adapter: Int16, heads: Int16, data: bytes) -> Malformed | None:
    start, head_size = 2 + ADAPTER_SIZE, heads.shape[1]
    if len(data) < start or len(data) != start + data[0].bit_count() * (1 + head_size):
        return Malformed("size", str(len(data)))
    if data[1] > SHIFT_MAX_INT8:
        return Malformed("shift", str(data[1]))
    adapter[:] = _int8_values(data, 2, ADAPTER_SIZE, data[1])
    for at, context in zip(range(start, len(data), 1 + head_size), _contexts_of(data[0]), strict=True):
        if data[at] > SHIFT_MAX_INT8:
            return Malformed("shift", str(data[at]))
        if context < len(heads):
            heads[context] = _int8_values(data, at + 1, head_size, data[at])
    return None


def _apply_delta(adapter: Int16, heads: Int16, data: bytes) -> Malformed | None:
    if len(data) < 3:
        return Malformed("size", str(len(data)))
    contexts, head_size = _contexts_of(data[0]), heads.shape[1]
    values = ADAPTER_SIZE + head_size * len(contexts)
    if len(data) != 3 + (values + 1) // 2:
        return Malformed("size", str(len(data)))
    if max(data[1], data[2]) > SHIFT_MAX_INT4:
        return Malformed("shift", f"{data[1]}, {data[2]}")
    packed = np.frombuffer(data, np.uint8, offset=3).astype(np.int64)
    q = np.stack([packed & 15, packed >> 4], axis=1).ravel()[:values]
    q -= (q & 8) << 1
    adapter[:] = _saturated(adapter + (q[:ADAPTER_SIZE] << data[1]))
    for at, context in enumerate(contexts):
        if context < len(heads):
            start = ADAPTER_SIZE + head_size * at
            heads[context] = _saturated(heads[context] + (q[start : start + head_size] << data[2]))
    return None


def _contexts_of(mask: int) -> list[int]:
    return [context for context in range(CONTEXT_MAX) if mask >> context & 1]


def _int8_values(data: bytes, at: int, count: int, shift: int) -> Int16:
    return (np.frombuffer(data, np.int8, count, at).astype(np.int64) << shift).astype(np.int16)


def _saturated(values: Int64) -> Int16:
    return np.clip(values, -32768, 32767).astype(np.int16)

"""The same model with fewer experts: a container for nodes that have room for some of them only.

What is left out becomes *remote*: its length and CRC stay in the directory, so that a node can tell that both
are one model, and its bytes go.  The result is what `container.write` makes of the same model with `remote`.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Collection
from dataclasses import replace

from swarm.effects import Malformed
from swarm.model import container
from swarm.model.container_format import (
    FRAGMENT,
    HEADER,
    KINDS,
    OP,
    STATE_PRESENT,
    STATE_REMOTE,
    TENSOR,
    Fragment,
)

__all__ = ["with_experts"]

HASH_AT, HASH_SIZE = 16, 8
SIZE_AT = 8
CRC_AT = 60


def with_experts(image: bytes, experts: Collection[int]) -> bytes:
    """The container that holds these experts alone.

    ValueError when `image` is no container, or lacks one of them itself.
    """
    read = container.read(image)
    if isinstance(read, Malformed):
        raise ValueError(f"this is no model container ({read.reason}: {read.detail})")
    here = {f.index for f in read.fragments if _is_expert(f) and f.state == STATE_PRESENT}
    if lacking := sorted(set(experts) - here):
        raise ValueError(f"the model has no bytes of the experts {', '.join(map(str, lacking))}")
    tensors_at = HEADER.size + OP.size * len(read.ops)
    fragments_at = tensors_at + TENSOR.size * len(read.tensors)
    end = fragments_at + FRAGMENT.size * len(read.fragments)
    data_at = -(-end // 16) * 16
    moved, data = _kept(read, set(experts), data_at)
    tables = image[HEADER.size : tensors_at]
    for tensor in read.tensors:
        before, after = read.fragments[tensor.fragment], moved[tensor.fragment]
        there = after.state == STATE_PRESENT
        by = after.offset - before.offset
        plane = tensor.plane + by if there else 0
        scale = tensor.scale + by if there and tensor.scale else 0
        tables += replace(tensor, plane=plane, scale=scale).pack()
    tables += b"".join(fragment.pack() for fragment in moved) + bytes(data_at - end)
    head = bytearray(image[: HEADER.size])
    struct.pack_into("<I", head, SIZE_AT, data_at + len(data))
    head[HASH_AT : HASH_AT + HASH_SIZE] = hashlib.sha256(tables + data).digest()[:HASH_SIZE]
    struct.pack_into("<I", head, CRC_AT, zlib.crc32(tables, zlib.crc32(head[:CRC_AT])))
    return bytes(head) + tables + data


def _is_expert(fragment: Fragment) -> bool:
    return KINDS[fragment.kind] == "expert"


def _kept(read: container.Container, experts: set[int], data_at: int) -> tuple[list[Fragment], bytes]:
    """The fragment directory with what stays moved together behind `data_at`, and those bytes."""
    moved: list[Fragment] = []
    data = bytearray()
    for fragment in read.fragments:
        if fragment.state == STATE_REMOTE or (_is_expert(fragment) and fragment.index not in experts):
            moved.append(replace(fragment, state=STATE_REMOTE, offset=0))
            continue
        moved.append(replace(fragment, offset=data_at + len(data)))
        data += read.image[fragment.offset : fragment.offset + fragment.length]
    return moved, bytes(data)

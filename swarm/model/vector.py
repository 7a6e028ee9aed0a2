"""The gateway's exact mirror of the parameters that nodes hold, and the float master behind it.

Two views of the same parameters:

- `Mirror`: what every node has after the last block, bit for bit: adapter int16[512] (1.0 = 4096) and one
  head int16[33 * classes] per context (1.0 = 256; per class 32 weights then the bias).  A node holds the
  adapter and the head of its own context only; the mirror holds all contexts of the cell.
- the master: float64[d], d = 512 + 33 * classes * contexts, the same order, in real units (not LSB).
  Federation works on the master; what the coarse blocks cannot say stays there and travels with a later
  block, so the quantiser's error is fed back instead of lost.

A node's local vector (adapter A, adapter B, own head) lies in the master at
`Shape.local_slices(context)`.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swarm.effects import Malformed
from swarm.model.layout import (
    ADAPTER_ONE,
    ADAPTER_SIZE,
    CLASSES_MAX,
    CLASSES_MIN,
    CONTEXT_MAX,
    HEAD_ONE,
    HEAD_ROW,
)

__all__ = [
    "VERSIONS",
    "Float64",
    "Int16",
    "Mirror",
    "lsb",
    "next_version",
    "quantise",
    "version_age",
]

Float64 = NDArray[np.float64]
Int16 = NDArray[np.int16]

VERSIONS = 0xFFFF
"""Model versions count modulo this; 0xFFFF itself means "no base" in a block."""

_BLOB = struct.Struct("<4sHBB")
_MAGIC = b"SWV1"
_CLASSES_UNSAID = 3
"""Blobs of before there was a choice hold a zero where the number of classes stands now."""


def lsb(size: int) -> Float64:
    """The value of one integer step at each coordinate of a master of `size` coordinates, float64[size]."""
    step = np.full(size, 1.0 / HEAD_ONE)
    step[:ADAPTER_SIZE] = 1.0 / ADAPTER_ONE
    return step


def quantise(master: Float64) -> Int16:
    """The master (float64[d], real units) in LSB: nearest integer, ties to even, saturating; int16[d]."""
    scaled = master * HEAD_ONE
    scaled[:ADAPTER_SIZE] = master[:ADAPTER_SIZE] * ADAPTER_ONE
    return np.clip(np.rint(scaled), -32768, 32767).astype(np.int16)


def next_version(version: int) -> int:
    """The version after this one (65534 is followed by 0)."""
    return (version + 1) % VERSIONS


def version_age(version: int, current: int) -> int:
    """How many versions `version` is behind `current` (0..65534, modulo the wrap)."""
    return (current - version) % VERSIONS


@dataclass(frozen=True, slots=True, eq=False)
class Mirror:
    """One version of the parameters as nodes hold them; immutable (arrays are never written in place).

    `adapter` int16[512] is A[4][64] then B[64][4]; `heads` int16[contexts, 33 * classes].
    """

    version: int
    adapter: Int16
    heads: Int16

    def __post_init__(self) -> None:
        assert self.adapter.shape == (ADAPTER_SIZE,) and self.adapter.dtype == np.int16
        assert self.heads.ndim == 2 and self.heads.dtype == np.int16
        assert self.head_size % HEAD_ROW == 0 and CLASSES_MIN <= self.classes <= CLASSES_MAX
        assert 1 <= len(self.heads) <= CONTEXT_MAX and 0 <= self.version < VERSIONS

    @property
    def contexts(self) -> int:
        """How many contexts (crops) this cell knows."""
        return len(self.heads)

    @property
    def head_size(self) -> int:
        """Parameters of one head."""
        return int(self.heads.shape[1])

    @property
    def classes(self) -> int:
        """How many classes the model tells apart."""
        return self.head_size // HEAD_ROW

    def master(self) -> Float64:
        """The float64[d] vector that these integers stand for."""
        return np.concatenate([self.adapter / ADAPTER_ONE, self.heads.ravel() / HEAD_ONE])

    def digest(self) -> str:
        """SHA-256 (hex) of the weights, little endian, adapter then heads; the version is not part of it."""
        return hashlib.sha256(self._weights()).hexdigest()

    def to_bytes(self, master: Float64 | None = None) -> bytes:
        """One blob for the `model` table: header, int16 weights, float64 master (None: its own)."""
        values = self.master() if master is None else master
        assert values.shape == (ADAPTER_SIZE + self.heads.size,)
        head = _BLOB.pack(_MAGIC, self.version, self.contexts, self.classes)
        return head + self._weights() + values.astype("<f8").tobytes()

    def _weights(self) -> bytes:
        return self.adapter.astype("<i2").tobytes() + self.heads.astype("<i2").tobytes()

    @staticmethod
    def from_bytes(blob: bytes) -> tuple[Mirror, Float64] | Malformed:
        """The mirror and the master that `to_bytes` wrote."""
        if len(blob) < _BLOB.size:
            return Malformed("model_blob", "too short")
        magic, version, contexts, stored = _BLOB.unpack_from(blob)
        classes = stored or _CLASSES_UNSAID
        size = ADAPTER_SIZE + HEAD_ROW * classes * contexts
        if not CLASSES_MIN <= classes <= CLASSES_MAX:
            return Malformed("model_blob", f"{classes} classes")
        if magic != _MAGIC or not 1 <= contexts <= CONTEXT_MAX or version >= VERSIONS:
            return Malformed("model_blob", "not a model of this program")
        if len(blob) != _BLOB.size + 10 * size:
            return Malformed("model_blob", f"{len(blob)} B for {contexts} contexts of {classes} classes")
        weights = np.frombuffer(blob, "<i2", size, _BLOB.size).astype(np.int16)
        master = np.frombuffer(blob, "<f8", size, _BLOB.size + 2 * size).astype(np.float64)
        heads = weights[ADAPTER_SIZE:].reshape(contexts, HEAD_ROW * classes)
        return Mirror(version, weights[:ADAPTER_SIZE], heads), master

"""The records of the model container and the packing of its weights (docs/SPEC.md)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FRAGMENT",
    "HEADER",
    "OP",
    "OPS",
    "TENSOR",
    "FloatArray",
    "Fragment",
    "IntArray",
    "Op",
    "Tensor",
    "pack_int4",
    "quantise_rows",
    "unpack_int4",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

VERSION: Final = 1
HEADER = struct.Struct("<4sHHII8sHHHHIIIIHHIII")
OP = struct.Struct("<BBHHHHHBBH")
TENSOR = struct.Struct("<BBHHHIIBBH")
FRAGMENT = struct.Struct("<BBHIIIHH")
TABLE_MAX: Final = 64
IMAGE_SIZE_MAX: Final = 1 << 20
ARENA_SIZE_MAX: Final = 512
ROWS_MAX: Final = 64
COLS_MAX: Final = 256
MULT_MAX: Final = 2047
BIAS_MAX: Final = 16_777_215
CONTEXT_SHARED: Final = 255

OPS = {
    1: "INPUT",
    2: "DENSE4",
    3: "MATVEC8",
    4: "RELU",
    5: "COPY",
    6: "TOPK_GATE",
    7: "EXPERT",
    8: "ADAPTER",
    9: "PROJECT",
    10: "HEAD",
    11: "END",
}
OP_CODES = {name: code for code, name in OPS.items()}
ENGINE_ISA: Final = sum(1 << code for code in OPS)
FLAG_RELU: Final = 1
FLAG_ADD: Final = 2
FLAG_WIDE: Final = 4
TYPES = {1: "int4", 2: "int8", 3: "int16"}
ROLES = {1: "weight", 2: "adapter", 3: "head", 4: "prior"}
KINDS = {1: "trunk", 2: "gate", 3: "shared_expert", 4: "expert", 5: "adapter", 6: "head", 7: "prior"}
STATES = {1: "present", 2: "remote"}
KIND_CODES = {name: code for code, name in KINDS.items()}
TYPE_INT4: Final = 1
TYPE_INT8: Final = 2
TYPE_INT16: Final = 3
ROLE_WEIGHT: Final = 1
ROLE_ADAPTER: Final = 2
ROLE_HEAD: Final = 3
ROLE_PRIOR: Final = 4
STATE_PRESENT: Final = 1
STATE_REMOTE: Final = 2
BITS = {"int4": 4, "int8": 8, "int16": 16}


@dataclass(frozen=True, slots=True)
class Op:
    """One record of the program; arena offsets in bytes."""

    code: int
    flags: int = 0
    dst: int = 0
    src: int = 0
    src2: int = 0
    tensor: int = 0
    count: int = 0
    aux: int = 0

    def pack(self) -> bytes:
        return OP.pack(
            self.code, self.flags, self.dst, self.src, self.src2, self.tensor, self.count, self.aux, 0, 0
        )


@dataclass(frozen=True, slots=True)
class Tensor:
    """One entry of the tensor directory; plane and scale count from the start of the image, 0 if remote."""

    type: int
    role: int
    rows: int
    cols: int
    fragment: int
    plane: int
    scale: int
    context: int = 0
    shift: int = 0

    def pack(self) -> bytes:
        return TENSOR.pack(
            self.type, self.role, self.rows, self.cols, self.fragment, self.plane, self.scale, self.context,
            self.shift, 0,
        )  # fmt: skip

    def plane_size(self) -> int:
        """Bytes of the weights alone."""
        return self.rows * self.cols * BITS[TYPES[self.type]] // 8

    def scale_size(self) -> int:
        """Bytes beside the plane: int32 bias and uint16 mult per row, or the uint32 counts of a prior."""
        return {"weight": 6, "prior": 4}.get(ROLES[self.role], 0) * self.rows


@dataclass(frozen=True, slots=True)
class Fragment:
    """One unit of storage and exchange: hashed, versioned, present or remote."""

    kind: int
    state: int
    index: int
    offset: int
    length: int
    crc32: int
    generation: int

    def pack(self) -> bytes:
        return FRAGMENT.pack(
            self.kind, self.state, self.index, self.offset, self.length, self.crc32, self.generation, 0
        )


def quantise_rows(weight: FloatArray, bits: int) -> tuple[IntArray, FloatArray]:
    """Symmetric per-row quantisation: integers [rows, cols] and the real value of one step of each row.

    The largest weight of a row becomes 7 (int4) or 127 (int8). Training uses this very rule, so that what it
    has learned to live with is what is written.
    """
    top = (1 << (bits - 1)) - 1
    scale = np.abs(weight).max(axis=1) / top
    scale = np.where(scale > 0, scale, 1.0)
    quantised = np.clip(np.rint(weight / scale[:, None]), -top - 1, top)
    return quantised.astype(np.int64), scale


def pack_int4(weight: IntArray) -> bytes:
    """Offset-binary row pairs: 32-bit words of four columns; row r at bits 4j, row r + 1 at bits 16 + 4j."""
    rows, cols = weight.shape
    nibbles = (weight + 8).astype(np.uint32).reshape(rows // 2, 2, cols // 4, 4)
    shifts = (4 * np.arange(4) + 16 * np.arange(2)[:, None]).astype(np.uint32)
    words = np.bitwise_or.reduce(
        np.bitwise_or.reduce(nibbles.transpose(0, 2, 1, 3) << shifts, axis=3), axis=2
    )
    return bytes(words.astype("<u4").tobytes())


def unpack_int4(plane: bytes, rows: int, cols: int) -> IntArray:
    """The inverse of `pack_int4`."""
    words = np.frombuffer(plane, "<u4").reshape(rows // 2, cols // 4, 1, 1)
    shifts = (4 * np.arange(4) + 16 * np.arange(2)[:, None]).astype(np.uint32)
    nibbles = (words >> shifts) & np.uint32(15)
    return nibbles.transpose(0, 2, 1, 3).reshape(rows, cols).astype(np.int64) - 8
